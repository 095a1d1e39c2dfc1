"""What the judge makes of records: where a finding is an error, where the gradient gets past, and what a rule of parameters sees."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import gradflow
from gradflow import judge, zoo
from gradflow.judge.highways import judge_highways
from gradflow.judge.layers import passed
from gradflow.records import Layer
from gradflow.rules import EVERY, RULES


def layer(name, gain, depth=0):
    undefined = {"dead_units": "no units", "fluctuation": "one batch"}
    return Layer(
        name=name, type="Linear", calls=1, depth=depth, location=None, output_shape=(4, 8), grad_norm=gain, grad_rms=gain, gain=gain, zero_fraction=0.0,
        nonfinite=0, fp16_underflow=0.0, dead_units=None, fluctuation=None, undefined=undefined,
    )  # fmt: skip


def profiled(model, *shape, **options):
    torch.manual_seed(0)
    return gradflow.profile(model, torch.randn(*shape), **options)


@pytest.mark.parametrize(
    ("gains", "relieved", "code", "past"),
    [
        ([1e-9, 1e-6, 1.0], [0, 0, 0], "GF101", [False, False, False]),
        ([1.0, 1e-9, 1.0], [0, 0, 0], "GF101", [False, True, True]),
        ([1e-9, 1e-9, 1.0], [5, 5, 0], "GF101", [True, True, False]),
        ([1e-9, 1e-9, 1.0], [0, 5, 0], "GF101", [False, False, False]),
        ([1e9, 1e9, 1.0], [5, 5, 0], "GF102", [False, False, False]),
        ([1.0, 1e12, 1.0], [5, 5, 0], "GF102", [False, True, True]),
    ],
    ids=["a chain", "behind a live layer", "branches alone", "a trunk that vanished before the skip", "a trunk that explodes", "a branch that explodes"],
)
def test_whether_the_gradient_gets_past_a_layer(gains, relieved, code, past):
    """A live layer nearer the input proves it; a live skip does for what vanishes, unless a layer before it starves as well."""
    layers = [layer(str(i), gain, i) for i, gain in enumerate(gains)]
    assert list(passed(layers, [0.0] * 3, [float(r) for r in relieved], RULES[code])) == past


def test_a_branch_that_starves_beside_a_live_trunk():
    """It is a warning that counts one decade, and the chain of the same layers is an error."""
    layers = [layer("stem", 1.0), layer("side", 1e-12, 1), layer("head", 1.0, 2)]
    (finding,) = judge.judge(layers, (), ())
    assert (finding.rule, finding.severity, finding.where, finding.decades) == ("GF101", "warning", "side", 1.0)
    chain = judge.judge([layer("stem", 1e-12), *layers[1:]], (), ())
    assert [(f.where, f.severity, f.decades) for f in chain] == [("stem", "error", pytest.approx(9 + math.log10(30))), ("side", "error", pytest.approx(9.0))]


class Towers(nn.Module):
    """Text and image; the image's tower is larger and only used where there is an image."""

    def __init__(self, cut):
        super().__init__()
        self.image, self.text, self.head, self.cut = nn.Linear(64, 64), nn.Linear(8, 8), nn.Linear(8, 2), cut

    def forward(self, x, image=None):
        x = self.text(x)
        if self.cut:
            x = x + self.image(torch.ones(1, 64)).detach().mean()
        return self.head(x)


def test_a_tower_that_was_not_called():
    """Most parameters are unreached, but nothing of what ran is cut: a warning that says to give the model all its inputs."""
    report = profiled(Towers(cut=False), 4, 8)
    assert report.verdict == "warnings"
    (finding,) = report.findings
    assert (finding.rule, finding.where) == ("GF104", "image") and "all inputs" in finding.fix
    assert finding.message == "weight and bias of image can be trained but receive no gradient: its module was not called in the forward pass."


def test_a_tower_that_ran_and_is_cut():
    """The same tower, called and detached, is an error: most of what ran does not train."""
    report = profiled(Towers(cut=True), 4, 8)
    assert [(f.rule, f.where, f.severity) for f in report.findings] == [("GF104", "image", "error")]


@pytest.mark.parametrize(("names", "severity"), [(("0", "2", "4", "6"), "info"), (("2", "4", "6"), "warning"), (("0",), "info"), (("8",), "info")])
def test_frozen_parameters(names, severity):
    """A prefix or a minority is a note, most of the model among what trains a warning; the value is the share of numbers that are frozen."""
    model = zoo.mlp(4, 16)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.split(".")[0] not in names)
    (finding,) = [f for f in profiled(model, 8, 16).findings if f.rule == "GF113"]
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    assert finding.severity == severity
    assert finding.value == pytest.approx(sum(n for n, trains in sizes if not trains) / sum(n for n, _ in sizes))


class Adapted(nn.Module):
    """Eight frozen layers, each with an adapter of rank 2 beside it if its number is in `adapted`."""

    def __init__(self, adapted):
        super().__init__()
        self.frozen = nn.ModuleList(nn.Linear(16, 16).requires_grad_(False) for _ in range(8))
        self.adapters = nn.ModuleDict({str(i): nn.Linear(16, 2) for i in adapted})
        self.back = nn.ModuleDict({str(i): nn.Linear(2, 16) for i in adapted})

    def forward(self, x):
        for i, layer in enumerate(self.frozen):
            y = layer(x)
            x = torch.tanh(y + self.back[str(i)](self.adapters[str(i)](x)) if str(i) in self.adapters else y)
        return x


@pytest.mark.parametrize(("adapted", "severity"), [(range(8), "info"), ((0, 3, 6), "info"), ((0, 7), "warning")])
def test_adapters_among_frozen_layers(adapted, severity):
    """What trains in every few layers is meant; what trains at both ends, with most of the model frozen between, may be an accident."""
    (finding,) = [f for f in profiled(Adapted(adapted), 8, 16).findings if f.rule == "GF113"]
    assert finding.severity == severity and ("as adapters are" in finding.message) is (severity == "info")


def test_one_frozen_parameter():
    """It is named, and not counted."""
    model = zoo.mlp(4, 16)
    model[2].bias.requires_grad_(False)
    (finding,) = [f for f in profiled(model, 8, 16).findings if f.rule == "GF113"]
    assert finding.message.startswith("2.bias, ") and finding.message.endswith(" of the weights of the model, is frozen.")


def test_nothing_frozen_and_everything_that_can_train():
    """A model without frozen parameters has no such finding."""
    assert "GF113" not in {f.rule for f in profiled(zoo.mlp(4, 16), 8, 16).findings}


@pytest.mark.parametrize("factor", [1e2, 1e4])
def test_a_matrix_that_a_norm_hides(factor):
    """Before a LayerNorm a matrix times c has a gradient divided by c, so that ‖∇W‖/‖W‖ falls by c²: a finding where that is more than 1e5."""
    torch.manual_seed(0)
    model = nn.Sequential(*(m for _ in range(6) for m in (nn.Linear(16, 16, bias=False), nn.LayerNorm(16, eps=0.0), nn.GELU())))
    plain = {p.name: p.update_ratio for row in profiled(model, 8, 16).layers for p in row.parameters}
    with torch.no_grad():
        model[6].weight.mul_(factor)
    report = profiled(model, 8, 16)
    ratio = next(p.update_ratio for row in report.layers for p in row.parameters if p.name == "6.weight")
    assert ratio == pytest.approx(plain["6.weight"] / factor**2, rel=1e-3)
    found = [(f.where, f.severity) for f in report.findings if f.rule == "GF111"]
    assert found == ([("6.weight", "warning")] if factor**2 > 1e5 else [])


def test_what_float16_loses():
    """Of a Gaussian of deviation σ float16 turns erf(2⁻²⁵/(σ√2)) into 0; outside of float16 the rule says nothing."""
    deviation = 1e-7
    row = replace(layer("a", 1.0), grad_rms=deviation, fp16_underflow=0.0)
    expected = math.erf(2**-25 / (deviation * math.sqrt(2)))
    (finding,) = [f for f in judge.judge([row], (), (), fp16_scale=1.0) if f.rule == "GF110"]
    assert finding.value == pytest.approx(expected) and finding.value == pytest.approx(0.23, abs=0.01)
    assert [f for f in judge.judge([row], (), (), fp16_scale=1024.0) if f.rule == "GF110"] == []
    assert [f for f in judge.judge([row], (), ()) if f.rule == "GF110"] == []


def test_a_count_of_lost_elements_that_is_worse():
    """Where the gradient came in a wider format, what was counted stands."""
    row = replace(layer("a", 1.0), grad_rms=1.0, fp16_underflow=0.6)
    (finding,) = [f for f in judge.judge([row], (), (), fp16_scale=1.0) if f.rule == "GF110"]
    assert finding.value == 0.6


def test_a_nan_that_reaches_no_weight():
    """A gradient that is not finite where a padding index hides it from every weight is a warning; the same where a weight receives it is an error."""

    class Padded(nn.Module):
        def __init__(self, padding):
            super().__init__()
            self.embed, self.head = nn.Embedding(8, 4, padding_idx=padding), nn.Linear(4, 2)
            with torch.no_grad():
                self.embed.weight[0] = 0.0

        def forward(self, ids):
            x = self.embed(ids)
            return self.head(x / (1 + x.pow(2).sum(-1, keepdim=True).sqrt()))

    torch.manual_seed(0)
    ids = torch.tensor([[0, 1, 2], [3, 4, 5]])
    hidden, open_ = (gradflow.profile(Padded(padding), ids) for padding in (0, None))
    assert [f.severity for f in hidden.findings if f.rule == "GF103"] == ["warning"]
    assert "error" in {f.severity for f in open_.findings if f.rule == "GF103"}


class Dimmed(nn.Module):
    """Blocks (λx + F(x))·c, c on the trunk, with a linear map between the sums if `mapped`."""

    def __init__(self, lam, c, depth, mapped):
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.GELU()) for _ in range(depth))
        self.maps = nn.ModuleList(nn.Linear(16, 16, bias=False) for _ in range(depth if mapped else 0))
        for m in self.maps:
            nn.init.orthogonal_(m.weight)
        self.lam, self.c = lam, c

    def forward(self, x):
        for i, branch in enumerate(self.branches):
            x = (self.lam * x + 0.01 * branch(x)) * self.c
            x = self.maps[i](x) if self.maps else x
        return x


@pytest.mark.parametrize(
    ("lam", "c", "mapped", "severity"), [(0.3, 1.0, True, "error"), (0.8, 0.3, True, "warning"), (1.0, 0.3, True, "warning"), (1.0, 0.3, False, "error")]
)
def test_whether_lambda_or_the_trunk_starves_a_highway(lam, c, mapped, severity):
    """Where λ = 1 on every skip would leave the highway beyond the limit the trunk is to blame: a warning if it has weights, as an architecture may."""
    torch.manual_seed(0)
    report = gradflow.profile(Dimmed(lam, c, 24, mapped).double(), torch.randn(4, 16, dtype=torch.float64))
    (highway,) = report.highways
    assert highway.identity_gain == pytest.approx(c**23, rel=1e-6)
    (finding,) = [f for f in judge_highways(report.highways, report.skips, EVERY) if f.rule == "GF206"]
    assert finding.severity == severity


@pytest.mark.parametrize(("branch", "severity"), [(1.0, "warning"), (0.01, "error")])
def test_a_starved_highway_that_the_branches_make_up_for(branch, severity):
    """λ = 0.5 over 24 blocks: where F = x/2 makes every block the identity the highway is a warning, where hardly anything else arrives an error."""

    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.maps = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(24))
            for m in self.maps:
                nn.init.eye_(m.weight)

        def forward(self, x):
            for m in self.maps:
                x = 0.5 * x + 0.5 * branch * m(x)
            return x

    report = gradflow.profile(Halves().double(), torch.randn(4, 8, dtype=torch.float64))
    (highway,) = report.highways
    assert highway.gain == pytest.approx(0.5**24) and highway.total_gain == pytest.approx((0.5 + 0.5 * branch) ** 24)
    (finding,) = [f for f in report.findings if f.rule == "GF206"]
    assert finding.severity == severity


class Downsampled(nn.Module):
    """Two stages of pre-activation blocks with a norm, a ReLU and a strided convolution between them, once; with `after`, a ReLU after every sum."""

    def __init__(self, after):
        super().__init__()
        self.stages = nn.ModuleList(nn.ModuleList(self._branch(c, c, 1) for _ in range(3)) for c in (4, 8))
        self.down, self.after = self._branch(4, 8, 2), nn.ReLU() if after else nn.Identity()

    @staticmethod
    def _branch(inputs, outputs, stride):
        return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 3, stride, 1))

    def forward(self, x):
        for block in self.stages[0]:
            x = self.after(x + block(x))
        x = self.down(x)
        for block in self.stages[1]:
            x = self.after(x + block(x))
        return x


@pytest.mark.parametrize("after", [False, True])
def test_what_stands_once_between_two_stages(after):
    """A norm and a ReLU in the transition act once and are no finding; a ReLU after each sum is one, and named alone."""
    found = [f.message for f in profiled(Downsampled(after), 4, 4, 8, 8).findings if f.rule == "GF205"]
    assert [message.split(" on the trunk")[0] for message in found] == (["relu lies"] if after else [])


def test_weights_that_a_vanishing_gradient_leaves_behind():
    """In a deep sigmoid stack the steps differ by far more than GF111 allows, as the gradient does: that is its consequence and no finding of its own."""
    report = profiled(zoo.mlp(30, 32, activation="sigmoid"), 16, 32)
    ratios = [p.update_ratio for layer in report.layers for p in layer.parameters if p.update_ratio and len(p.shape) > 1]
    assert max(ratios) / min(ratios) > RULES["GF111"].warning
    assert {"GF101"} <= {f.rule for f in report.findings} and "GF111" not in {f.rule for f in report.findings}


@pytest.mark.parametrize("skip", [True, False])
def test_a_closed_branch_around_which_the_input_goes(skip):
    """A zero-initialised scale on the very first branch closes no trunk where the input itself goes around it; without the skip it does."""

    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.branch, self.scale, self.head = nn.Linear(8, 8), nn.Parameter(torch.zeros(1)), nn.Linear(8, 2)

        def forward(self, x):
            return self.head((x if skip else 0) + self.scale * self.branch(x))

    rules = {f.rule for f in profiled(First(), 4, 8).findings}
    assert ("GF106" in rules, "GF105" in rules) == (not skip, True)
