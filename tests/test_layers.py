"""Layers and parameters: each number against retain_grad and .grad, each gap with its reason, and norms at the edge of a dtype."""

import copy
import inspect
import math

import pytest
import torch
from residual_nets import SEED, float64, inner_product
from torch import nn
from torch.nn import functional

import gradflow
from gradflow import errors, zoo
from gradflow.judge.signal import shattered_correlation
from gradflow.records import Location


def oracle(model, x, targets):
    """Layer -> the gradients at the outputs of its calls, by retain_grad; and each parameter's gradient. Runs a copy."""
    model = copy.deepcopy(model)
    outputs = {}

    def keep(name):
        def hook(module, args, output):
            outputs.setdefault(name, []).append(output)
            output.retain_grad()

        return hook

    for name, module in model.named_modules():
        if name and (not list(module.children()) or module._parameters):
            module.register_forward_hook(keep(name))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        final = model(x.clone().requires_grad_())
    final.retain_grad()
    inner_product(final, targets).backward()
    return {n: [o.grad for o in found] for n, found in outputs.items()}, {n: p.grad for n, p in model.named_parameters()}, final.grad


class Reused(nn.Module):
    """One linear layer called three times, one activation called twice."""

    def __init__(self):
        super().__init__()
        self.first, self.shared, self.act, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 4)

    def forward(self, x):
        return self.last(self.shared(self.act(self.shared(self.act(self.shared(self.first(x)))))))


MODELS = {
    "mlp": (lambda: zoo.mlp(3, 8, activation="relu", outputs=4), (4, 8)),
    "mlp with batch norm": (lambda: zoo.mlp(3, 8, norm="batch", outputs=4), (4, 8)),
    "convolutional": (lambda: zoo.preact_resnet(10, stages=(4, 6), classes=4), (2, 3, 8, 8)),
    "dropout": (lambda: nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 4)), (4, 8)),
    "transformer": (lambda: zoo.pre_ln_transformer(2, 8, heads=2), (2, 5, 8)),
    "a module called three times": (Reused, (4, 8)),
}


@pytest.mark.parametrize(("make", "shape"), MODELS.values(), ids=MODELS)
def test_every_number_of_a_layer(make, shape):
    """grad_norm, grad_rms, gain, zero_fraction, calls and shape of every layer, and ‖∇W‖, ‖W‖ and their ratio of every parameter."""
    with float64():
        model, x = make(), torch.randn(shape)
        targets = torch.randn_like(copy.deepcopy(model)(x)).detach()
    layers, parameters, top = oracle(model, x, targets)
    report = gradflow.profile(model, x, targets, inner_product, seed=SEED)
    assert {layer.name for layer in report.layers} == set(layers)
    for layer in report.layers:
        if layer.grad_norm is None:
            assert layer.type == "Identity" and "no parameter lies before it" in layer.undefined["grad_norm"]
            continue
        every = torch.cat([g.flatten() for g in layers[layer.name]])
        assert layer.calls == len(layers[layer.name])
        assert layer.output_shape == tuple(layers[layer.name][-1].shape)
        assert layer.grad_norm == pytest.approx(every.norm().item(), rel=1e-12)
        assert layer.grad_rms == pytest.approx(every.square().mean().sqrt().item(), rel=1e-12)
        assert layer.gain == pytest.approx((every.norm() / top.norm()).item(), rel=1e-12)
        assert layer.zero_fraction == pytest.approx((every == 0).double().mean().item(), abs=1e-15)
        assert (layer.nonfinite, layer.fp16_underflow) == (0, pytest.approx(((every.abs() <= 2.0**-25) & (every != 0)).sum() / (every != 0).sum()))
    measured = {p.name: p for layer in report.layers for p in layer.parameters}
    assert set(measured) == set(parameters)
    for name, weight in model.named_parameters():
        assert measured[name].status == "measured"
        assert measured[name].weight_norm == pytest.approx(weight.norm().item(), rel=1e-12)
        assert measured[name].grad_norm == pytest.approx(parameters[name].norm().item(), rel=1e-12)
        if weight.norm() > 0:
            assert measured[name].update_ratio == pytest.approx((parameters[name].norm() / weight.norm()).item(), rel=1e-12)
        else:
            assert measured[name].update_ratio is None and measured[name].undefined["update_ratio"]


def test_layers_in_the_order_of_the_forward():
    """depth counts from the input, whatever the order of registration."""

    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            return self.last(self.first(x))

    report = gradflow.profile(Backwards(), torch.randn(2, 8))
    assert [(layer.name, layer.depth) for layer in report.layers] == [("first", 0), ("last", 1)]
    source, start = inspect.getsourcelines(Backwards.forward)
    assert {(layer.location.file, layer.location.line) for layer in report.layers} == {(__file__, start + len(source) - 1)}


def test_in_place_activations():
    """ReLU(inplace=True) changes no number of a layer that holds parameters."""
    with float64():
        plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())
        x = torch.randn(2, 3, 8, 8)
    in_place = copy.deepcopy(plain)
    in_place[2], in_place[4] = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
    one, two = (gradflow.profile(model, x) for model in (plain, in_place))
    for a, b in zip(one.layers, two.layers, strict=True):
        if a.parameters:
            assert (a.name, a.grad_norm, a.gain, a.parameters) == (b.name, b.grad_norm, b.gain, b.parameters)


def test_a_module_that_returns_a_dict():
    """Outputs in dicts and tuples are measured as well."""

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.f, self.g = nn.Linear(8, 8), nn.Linear(8, 8)
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return {"a": self.f(x) * self.scale, "b": (self.g(x),)}

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair = Pair()

        def forward(self, x):
            found = self.pair(x)
            return found["a"] + found["b"][0]

    report = gradflow.profile(Outer(), torch.randn(2, 8))
    assert all(layer.grad_norm > 0 for layer in report.layers)
    assert next(layer for layer in report.layers if layer.name == "pair").gain == pytest.approx(math.sqrt(2), rel=1e-6)


def test_attention_out_proj():
    """MultiheadAttention uses out_proj without calling it: it is measured where its weight is used, like any linear layer's output."""

    class Attend(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=False)[0]

    report = gradflow.profile(Attend(), torch.randn(2, 5, 8))
    layers = {layer.name: layer for layer in report.layers}
    assert set(layers) == {"attention", "attention.out_proj"}
    assert layers["attention.out_proj"].gain == pytest.approx(1, rel=1e-6)
    assert all(p.status == "measured" and p.grad_norm is not None for layer in report.layers for p in layer.parameters)


def test_a_bare_parameter():
    """A parameter of a module with children belongs to a layer, and so does one of the model itself."""

    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.f, self.shift = nn.Linear(8, 8), nn.Parameter(torch.randn(8))

        def forward(self, x):
            return self.f(x) + self.shift

    report = gradflow.profile(Bare(), torch.randn(2, 8))
    assert {p.name: p.status for layer in report.layers for p in layer.parameters} == {"f.weight": "measured", "f.bias": "measured", "shift": "measured"}


def parameters_of(report):
    return {p.name: p for layer in report.layers for p in layer.parameters}


class Headed(nn.Module):
    """A trunk, a head, and something that gets no gradient, as `how` says."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.trunk, self.head, self.other = nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(8, 8)

    def forward(self, x):
        hidden = torch.relu(self.trunk(x))
        if self.how == "computed":
            self.other(hidden)
        if self.how == "detached":
            hidden = hidden + self.other(hidden).detach()  # the cut
        if self.how == "no_grad":
            with torch.no_grad():
                hidden = hidden + self.other(hidden)  # the other cut
        return self.head(hidden)


def test_a_head_that_is_never_called():
    """Unreached, with the reason, and a warning; not a silent gap."""
    report = gradflow.profile(Headed("unused"), torch.randn(2, 8))
    for name in ("other.weight", "other.bias"):
        parameter = parameters_of(report)[name]
        assert (parameter.status, parameter.grad_norm) == ("unreached", None)
        assert "not called" in parameter.undefined["grad_norm"]
    (finding,) = (f for f in report.findings if f.rule == "GF104")
    assert (finding.where, finding.severity) == ("other", "warning")


def test_a_head_whose_output_is_dropped():
    """Called, but its output does not lead to the loss."""
    parameter = parameters_of(gradflow.profile(Headed("computed"), torch.randn(2, 8)))["other.weight"]
    assert parameter.status == "unreached"
    assert "does not lead to the loss" in parameter.undefined["grad_norm"]


def test_a_detached_branch():
    """The reason names detach() and the line that cuts."""
    source, start = inspect.getsourcelines(Headed)
    line = start + next(i for i, text in enumerate(source) if "# the cut" in text)
    parameter = parameters_of(gradflow.profile(Headed("detached"), torch.randn(2, 8)))["other.weight"]
    assert parameter.status == "unreached"
    assert parameter.undefined["grad_norm"] == f"cut by detach() at {Location(file=__file__, line=line)}"


def test_a_branch_under_no_grad():
    """The reason names no_grad()."""
    report = gradflow.profile(Headed("no_grad"), torch.randn(2, 8))
    parameter = parameters_of(report)["other.weight"]
    assert parameter.status == "unreached"
    assert "no_grad" in parameter.undefined["grad_norm"]
    layer = next(layer for layer in report.layers if layer.name == "other")
    assert layer.grad_norm is None and "no_grad" in layer.undefined["grad_norm"]


def test_a_frozen_backbone():
    """Frozen parameters are named so and warn of nothing; the rest is measured."""
    model = Headed("unused")
    model.trunk.requires_grad_(False)
    model.other.requires_grad_(False)
    report = gradflow.profile(model, torch.randn(2, 8))
    statuses = {name: p.status for name, p in parameters_of(report).items()}
    assert statuses == {n: "measured" if n.startswith("head") else "frozen" for n in statuses}
    assert not any(f.rule == "GF104" for f in report.findings)
    assert report.target.trainable_parameters == 36


def test_tied_weights():
    """A tied parameter is listed once, with its whole gradient, and the note says where the other name went."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(12, 8), nn.Linear(8, 12, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids):
            return self.head(torch.tanh(self.embed(ids)))

    model, ids = Tied(), torch.arange(10).reshape(2, 5)
    report = gradflow.profile(model, ids, ids, "cross_entropy")
    functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
    (parameter,) = parameters_of(report).values()
    assert parameter.grad_norm == pytest.approx(model.embed.weight.grad.norm().item(), rel=1e-5)
    assert any("head.weight" in note for note in report.run.notes)


class Rooted(nn.Module):
    """sqrt(max(·, 0)) between two layers, written as a product: an infinite slope times 0 wherever it is closed."""

    def __init__(self):
        super().__init__()
        self.early, self.a, self.b, self.late = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        hidden = torch.tanh(self.a(torch.tanh(self.early(x))))
        return self.late(torch.tanh(self.b(torch.sqrt(hidden * (hidden > 0)))))


def test_a_nan_in_the_backward():
    """0·∞ behind the square root: the one finding on it names the square root, and nothing prints nan."""
    torch.manual_seed(0)
    report = gradflow.profile(Rooted(), torch.randn(4, 8))
    first = report.findings[0]
    assert (first.rule, first.severity, first.where) == ("GF103", "error", "(Rooted)")
    assert "first made by sqrt" in first.message and [f.rule for f in report.findings].count("GF103") == 1
    counts = {layer.name: layer.nonfinite for layer in report.layers}
    assert counts["late"] == counts["b"] == 0
    assert 0 < counts["a"] < 32
    bad = next(layer for layer in report.layers if layer.name == "a")
    assert bad.grad_norm is None and "not finite" in bad.undefined["grad_norm"]
    assert report.verdict == "sick"


class Straight(nn.Module):
    """One layer whose output gradient is the target, whatever its dtype."""

    def __init__(self, width=8):
        super().__init__()
        self.first, self.f = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return self.f(self.first(x))


def planted(gradient, dtype=torch.float32, **options):
    """The report of a `Straight` model whose output receives `gradient` ([batch, width])."""
    torch.manual_seed(0)
    model = Straight(gradient.shape[1]).to(dtype)
    return gradflow.profile(model, torch.randn(gradient.shape, dtype=dtype), gradient, lambda out, t: (out.float() * t).sum(), **options)


def test_share_that_float16_flushes():
    """fp16_underflow counts nonzero elements of at most 2^−25; zeros and larger ones are not in it."""
    row = [0.0, 1.0, -1.0, 2.0**-24, 2.0**-25, -(2.0**-26), 1e-30, 2.0**-24.5]
    report = planted(torch.tensor([row, row]))
    layer = next(layer for layer in report.layers if layer.name == "f")
    assert layer.zero_fraction == 1 / 8
    assert layer.fp16_underflow == 3 / 7
    assert torch.tensor(row).half().count_nonzero() == 4


@pytest.mark.parametrize("size", [1e-25, 1e-38])
def test_a_tiny_gradient_in_float32(size):
    """Its squares underflow in float32, its norm does not: nothing prints 0."""
    report = planted(torch.full((2, 8), size))
    for layer in report.layers:
        assert layer.grad_norm > 0
    layer = report.layers[1]
    assert layer.grad_norm == pytest.approx(size * 4, rel=1e-6)
    assert layer.gain == pytest.approx(1, rel=1e-6)
    assert all(p.grad_norm > 0 for p in layer.parameters)


@pytest.mark.parametrize(("size", "dtype"), [(1e-25, torch.float32), (2000.0, torch.float16), (1e30, torch.float32), (1e30, torch.bfloat16)], ids=str)
def test_a_skip_at_the_edge_of_its_dtype(size, dtype):
    """λ is 1 and every ratio is finite where squares underflow or overflow."""

    class Unit(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.f = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            x = self.stem(x)
            return x + self.f(x)

    torch.manual_seed(0)
    targets = torch.full((2, 8), size)
    report = gradflow.profile(Unit().to(dtype), torch.randn(2, 8, dtype=dtype), targets, lambda out, t: (out.float() * t).sum())
    (skip,) = report.skips
    assert (skip.lam, skip.misfit) == (1.0, 0.0)
    assert 0 < skip.branch_gain < 10
    assert 0 < skip.highway_gain <= 1


def test_large_gradients_in_float16():
    """2000s: a square of one is beyond float16's range, the norm is not inf."""
    report = planted(torch.full((4, 8), 2000.0), torch.float16)
    layer = report.layers[1]
    assert layer.grad_norm == pytest.approx(2000 * math.sqrt(32), rel=1e-6)
    assert layer.nonfinite == 0
    assert all(math.isfinite(p.grad_norm) for p in layer.parameters if p.grad_norm is not None)
    assert layer.parameters[1].grad_norm == pytest.approx(8000 * math.sqrt(8), rel=1e-6)


@pytest.mark.parametrize("amp", ["fp16", "bf16"])
def test_mixed_precision(amp):
    """Gradients are reported without the loss scale: those of a float32 run, to the short dtype's digits."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4)), torch.randn(4, 8)
    plain, mixed = (gradflow.profile(model, x, torch.zeros(4, 4), "mse", amp=a) for a in (None, amp))
    assert mixed.environment.amp == amp
    for a, b in zip(plain.layers, mixed.layers, strict=True):
        assert b.grad_norm == pytest.approx(a.grad_norm, rel=0.05)
        for p, q in zip(a.parameters, b.parameters, strict=True):
            assert q.grad_norm == pytest.approx(p.grad_norm, rel=0.05)
    assert any("loss scale" in note for note in mixed.run.notes) is (amp == "fp16")


def test_small_gradients_under_a_loss_scale():
    """The scale lifts 1e-8 into float16's range, and the report takes it out again."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4)), torch.randn(4, 8)
    report = gradflow.profile(model, x, torch.full((4, 4), 1e-8), lambda out, t: (out.float() * t).sum(), amp="fp16")
    assert report.layers[1].grad_norm == pytest.approx(4e-8, rel=1e-2)
    assert report.layers[0].grad_norm > 0


def test_a_closed_branch_is_not_dead():
    """ReZero: α = 0 closes the branch, its layers say by which parameter, and the verdict is healthy."""
    torch.manual_seed(0)
    report = gradflow.profile(zoo.rezero_net(3, 8), torch.randn(4, 8))
    closed = [layer for layer in report.layers if layer.closed_by]
    assert {layer.name for layer in closed} >= {f"blocks.{i}.branch.{j}" for i in range(3) for j in (0, 2)}
    assert all(layer.grad_norm == 0 and layer.zero_fraction == 1 for layer in closed)
    assert {layer.closed_by for layer in closed} == {f"blocks.{i}.alpha" for i in range(3)}
    assert parameters_of(report)["blocks.0.alpha"].grad_norm > 0
    assert report.verdict == "healthy"


def test_a_dead_relu_is_not_closed():
    """A bias of −100 shuts the ReLU for good: an exact zero that nothing excuses, and the verdict is sick."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    with torch.no_grad():
        model[1].bias.fill_(-100)
    report = gradflow.profile(model, torch.randn(4, 8))
    dead = [layer for layer in report.layers if layer.name in ("0", "1")]
    assert [(layer.gain, layer.closed_by) for layer in dead] == [(0, ""), (0, "")]
    assert [f.where for f in report.findings if f.rule == "GF108" and f.severity == "error"] == ["1"]
    assert {layer.silenced_by for layer in dead} == {"2"}
    assert report.verdict == "sick"


def test_a_zero_weight_that_another_path_avoids():
    """A zero matrix on one of two paths closes nothing before the fork: the gradient comes by the other."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.a, self.b = (nn.Linear(8, 8) for _ in range(3))
            nn.init.zeros_(self.a.weight)

        def forward(self, x):
            x = torch.relu(self.stem(x))
            return self.a(x) + self.b(x)

    torch.manual_seed(0)
    report = gradflow.profile(Two(), torch.randn(4, 8))
    assert all(layer.closed_by == "" and layer.gain > 0 for layer in report.layers)


def test_an_all_frozen_tail():
    """A frozen head passes the gradient on to the trained trunk."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
    model[2].requires_grad_(False)
    report = gradflow.profile(model, torch.randn(4, 8))
    assert all(layer.grad_norm > 0 for layer in report.layers)
    assert parameters_of(report)["0.weight"].status == "measured"


def test_a_loss_without_any_gradient():
    """Every gradient is exactly 0 at the model's output already: what cannot be judged is not called healthy."""
    torch.manual_seed(0)
    report = gradflow.profile(zoo.residual_mlp(3, 8), torch.randn(4, 8), loss=lambda out: (out * 0).sum())
    assert report.verdict != "healthy"
    assert report.findings


def test_an_empty_batch():
    """No sample, no measurement: refused, or at least not called healthy."""
    torch.manual_seed(0)
    try:
        report = gradflow.profile(zoo.residual_mlp(3, 8), torch.randn(0, 8))
    except errors.GradflowError:
        return
    assert report.verdict != "healthy"


def test_a_model_that_uses_no_parameter():
    """The error says that no trainable parameter leads to the output; it does not blame the model's backward pass."""

    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Linear(8, 8)

        def forward(self, x):
            return x * 2

    with pytest.raises(errors.NoGradient):
        gradflow.profile(Idle(), torch.randn(4, 8))


def test_a_weight_decay_in_the_loss():
    """A parameter's gradient is the whole one, the loss's own use of it included."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4)), torch.randn(4, 8)

    def loss(output):
        return output.square().sum() + sum(p.square().sum() for p in model.parameters())

    report = gradflow.profile(model, x, loss=loss)
    loss(model(x)).backward()
    for name, parameter in parameters_of(report).items():
        assert parameter.grad_norm == pytest.approx(model.get_parameter(name).grad.norm().item(), rel=1e-5)


@pytest.mark.parametrize("wrap", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm, nn.utils.parametrizations.orthogonal])
def test_parametrized_weights(wrap):
    """The parameters behind a computed weight are measured, and the layer that uses it too."""
    torch.manual_seed(0)
    model, x = nn.Sequential(wrap(nn.Linear(8, 8)), nn.Tanh(), nn.Linear(8, 4)), torch.randn(4, 8)
    report = gradflow.profile(model, x)
    assert {p.status for p in parameters_of(report).values()} == {"measured"}
    assert set(parameters_of(report)) == {n for n, _ in model.named_parameters()}
    assert next(layer for layer in report.layers if layer.name == "0").grad_norm > 0


def test_a_sparse_gradient():
    """The gradient of a sparse embedding has the norm of the dense one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 8, sparse=True), nn.Linear(8, 4))
    dense, ids = copy.deepcopy(model), torch.tensor([[1, 1, 2], [2, 5, 1]])
    dense[0].sparse = False
    norms = [parameters_of(gradflow.profile(m, ids))["0.weight"].grad_norm for m in (model, dense)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)


class Parallel(nn.Module):
    """A stem, branches of 1, 2 and 3 layers that are concatenated, and a head."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(8, 8), nn.Linear(24, 4)
        self.branches = nn.ModuleList(nn.Sequential(*(nn.Linear(8, 8) for _ in range(n))) for n in (1, 2, 3))

    def forward(self, x):
        x = self.stem(x)
        return self.head(torch.cat([branch(x) for branch in self.branches], dim=1))


def test_weighted_layers_on_the_longest_way_to_the_loss():
    """Of parallel branches the longest counts; activations and norms do not; a reused layer has its first call's, and what leads nowhere 0."""
    report = gradflow.profile(Parallel(), torch.randn(2, 8))
    heights = {layer.name: layer.layers_after for layer in report.layers}
    assert heights["stem"] == 4
    assert [heights[f"branches.{i}.{j}"] for i in range(3) for j in range(i + 1)] == [1, 2, 1, 3, 2, 1]
    assert heights["head"] == 0
    cell = nn.Linear(8, 8)
    chain = gradflow.profile(nn.Sequential(nn.Linear(8, 8), cell, nn.ReLU(), cell, nn.LayerNorm(8), cell), torch.randn(2, 8))
    assert [(layer.name, layer.layers_after) for layer in chain.layers] == [("0", 3), ("1", 2), ("2", 2), ("4", 1)]
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)))
    found = gradflow.profile(normed, torch.randn(2, 8))
    assert {layer.name: layer.layers_after for layer in found.layers if layer.name in ("0", "1")} == {"0": 1, "1": 0}


@pytest.mark.parametrize(("depth", "severity"), [(20, None), (40, "info"), (56, "warning")])
def test_depth_without_relief(depth, severity):
    """GF301 counts the layers that no live skip leads around, of parallel ones one, and says the cosine of Balduzzi's recursion; a residual net has none."""
    torch.manual_seed(0)
    plain = nn.Sequential(*(nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU()) for _ in range(depth)))
    found = [f for f in gradflow.profile(plain, torch.randn(32, 16)).findings if f.rule == "GF301"]
    assert [f.severity for f in found] == ([severity] if severity else [])
    assert [f.value for f in found] == [pytest.approx(shattered_correlation(depth))] * len(found)
    residual = gradflow.profile(gradflow.zoo.preact_resnet(depth=56), torch.randn(4, 3, 8, 8))
    assert not [f for f in residual.findings if f.rule == "GF301"]


def test_the_cosine_that_is_left_of_two_gradients():
    """The values that are known for wide ReLU nets: .5, .3016, .1416, .0337 and 9.1e-4 after 1, 2, 4, 10 and 50 layers."""
    assert [shattered_correlation(depth) for depth in (0, 1, 2, 4, 10, 50)] == pytest.approx([1, 0.5, 0.3016, 0.1416, 0.0337, 9.1e-4], rel=5e-3)
