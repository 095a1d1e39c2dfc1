"""Verdicts on planted faults: the right rule, at the right place, with advice that fits."""

import pytest
import torch
from torch import nn

import gradflow
from gradflow import zoo


class Blocks(nn.Module):
    """`depth` pre-norm MLP blocks joined by `join(x, h, i)`."""

    def __init__(self, join, depth=16, width=16):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)) for _ in range(depth))
        self.join = join

    def forward(self, x):
        for i, (norm, layer) in enumerate(zip(self.norms, self.layers, strict=True)):
            x = self.join(x, layer(norm(x)), i)
        return x


def profile(join, depth=16):
    torch.manual_seed(0)
    return gradflow.profile(Blocks(join, depth).double(), torch.randn(4, 16, dtype=torch.float64))


def rules(report, severity):
    return {f.rule for f in report.findings if f.severity == severity}


def test_a_shortcut_added_twice():
    """`x + x + F(x)` passes the gradient on twice: the highway grows as 2^n, and the finding adds the two λ up."""
    report = profile(lambda x, h, i: x + (x + h))
    assert report.highways[0].gain == pytest.approx(2.0**16, rel=1e-12)
    assert report.highways[0].product_of_lambdas == pytest.approx(2.0**16, rel=1e-12)
    assert len(report.highways) == 1
    assert "GF207" in {f.rule for f in report.findings}
    assert {f.value for f in report.findings if f.rule == "GF202"} == {2.0}


@pytest.mark.parametrize("cut", [lambda x: x.detach(), lambda x: x.data], ids=["detach", "data"])
def test_a_detached_shortcut_is_the_first_finding(cut):
    """It is an error of its own at the line that cuts, whatever else is wrong."""
    report = profile(lambda x, h, i: (cut(x) if i == 5 else x) + h)
    assert report.verdict == "sick"
    assert report.findings[0].rule == "GF208"
    assert "test_verdicts.py" in report.findings[0].location.file


def test_a_detached_shortcut_ends_the_highway():
    """Beyond it the skips carry nothing, so two highways remain, and the branch's norm excuses no factor elsewhere."""
    report = profile(lambda x, h, i: (x.detach() if i == 8 else 0.9 * x if i == 3 else x) + h)
    assert sorted(len(h.skips) for h in report.highways) == [7, 8]
    assert [f.severity for f in report.findings if f.rule == "GF201"] == ["warning"]


def test_a_detached_concatenation():
    """A U-Net's severed skip is found in a concatenation as well."""

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.deep, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(16, 4)

        def forward(self, x):
            x = torch.relu(self.stem(x))
            return self.head(torch.cat([x.detach(), torch.relu(self.deep(x))], dim=1))

    report = gradflow.profile(UNet(), torch.randn(4, 8))
    assert rules(report, "error") == {"GF208"}


def test_a_factor_after_the_sum_is_blamed_on_the_trunk():
    """λ is 1 on every skip, so the advice is about what lies between the sums."""
    report = profile(lambda x, h, i: (x + h) / 2)
    finding = next(f for f in report.findings if f.rule == "GF206")
    assert "trunk" in finding.message and "div" in finding.fix and "λ = 1" not in finding.fix


def test_one_regressed_shortcut():
    """0.9·x in one block of sixteen is a warning at its line, and no error."""
    report = profile(lambda x, h, i: (0.9 * x if i == 7 else x) + h)
    assert report.verdict == "warnings"
    assert [(f.rule, f.value) for f in report.findings] == [("GF201", pytest.approx(0.9))]


def test_deepnorm_is_not_called_exploding():
    """α = 2.8 on every skip is made up for by the norm after it: a note, not a warning."""
    torch.manual_seed(0)
    report = gradflow.profile(zoo.deepnorm_transformer(32, 64), torch.randn(2, 16, 64))
    assert report.verdict == "healthy"
    assert report.highways[0].gain == pytest.approx(64**0.25, rel=0.1) and report.highways[0].product_of_lambdas > 1e14
    assert rules(report, "info") == {"GF202", "GF205"}


@pytest.mark.parametrize("build", [zoo.rezero_net, zoo.fixup_net], ids=["ReZero", "Fixup"])
def test_branches_closed_at_initialisation(build):
    """Zero-initialised branches are explained and healthy."""
    torch.manual_seed(0)
    model = build()
    report = gradflow.profile(model, torch.randn(4, 3, 8, 8) if build is zoo.fixup_net else torch.randn(4, 64))
    assert report.verdict == "healthy"
    assert rules(report, "info") == {"GF105"}


def test_a_dead_relu_layer():
    """A gradient of exactly 0 that nothing closes is one error, at the layer before the dead activation, and names it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        model[2].bias.fill_(-100.0)
    report = gradflow.profile(model, torch.randn(4, 8))
    assert report.verdict == "sick"
    (finding,) = (f for f in report.findings if f.severity == "error")
    assert (finding.rule, finding.where) == ("GF108", "2")
    assert "and 2 more before it" in finding.message and ": 3 receives a gradient and passes none on" in finding.message
    assert {layer.name for layer in report.layers if layer.silenced_by == "3"} == {"0", "1", "2"}


@pytest.mark.parametrize(("gain", "rule"), [(0.1, "GF101"), (8.0, "GF102")])
def test_a_bad_initialisation_gain(gain, rule):
    """Both ways: errors on the layers nearest the input."""
    torch.manual_seed(0)
    model = zoo.mlp(20, 128)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(gain)
    report = gradflow.profile(model, torch.randn(8, 128))
    assert report.verdict == "sick" and rules(report, "error") == {rule}
    assert report.severity > 3


def test_a_gru_cell_in_a_loop():
    """`(h − n)·z + n` is one gated skip from h, with the update gate as λ; its inner difference is no join of its own."""

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.GRUCell(4, 6), nn.Linear(6, 2)

        def forward(self, steps):
            h = steps.new_zeros(steps.shape[1], 6)
            for x in steps:
                h = self.cell(x, h)
            return self.head(h)

    torch.manual_seed(0)
    report = gradflow.profile(Loop(), torch.randn(20, 3, 4))
    assert [(s.kind, s.calls) for s in report.skips] == [("gated", 19)]
    assert 0.3 < report.skips[0].lam < 0.7


def test_an_lstm_cell_in_a_loop():
    """One row for the cell's carry with its calls merged and the forget gate as λ; no skip from the input of one step into another."""

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.LSTMCell(4, 6), nn.Linear(6, 2)

        def forward(self, steps):
            h = c = steps.new_zeros(steps.shape[1], 6)
            for x in steps:
                h, c = self.cell(x, (h, c))
            return self.head(h)

    torch.manual_seed(0)
    report = gradflow.profile(Loop(), torch.randn(20, 3, 4))
    assert [(s.kind, s.calls) for s in report.skips] == [("gated", 19)]
    assert 0.3 < report.skips[0].lam < 0.7 and len(report.skips[0].trend) == 19


@pytest.mark.parametrize("wrong", [nn.Linear, "model.py", lambda x: x], ids=["a class", "a path", "a function"])
def test_something_that_is_no_model(wrong):
    """The Python call says what it got."""
    with pytest.raises(gradflow.errors.NotAModel):
        gradflow.profile(wrong, torch.randn(2, 3))


def test_a_loss_class_instead_of_an_instance():
    """The error names the missing parentheses."""
    with pytest.raises(gradflow.errors.LossError, match="MSELoss\\(\\)"):
        gradflow.profile(nn.Linear(3, 3), torch.randn(2, 3), torch.randn(2, 3), nn.MSELoss)


def test_half_precision_amp_on_a_probe():
    """A probe of float16 outputs is scaled to what the format holds: a healthy model stays healthy."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
    assert gradflow.profile(model, torch.randn(16, 8), amp="fp16").verdict == "healthy"


def test_a_nan_that_reaches_parameters_alone():
    """Non-finite parameter gradients are an error even where the layers' output gradients are finite."""

    class Log(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.b(torch.log(torch.relu(self.a(x))))

    torch.manual_seed(0)
    report = gradflow.profile(Log(), torch.randn(8, 4))
    assert report.verdict == "sick" and "GF103" in rules(report, "error")


def test_an_output_that_does_not_feed_the_loss():
    """Logits that are returned beside the loss do not make the run silent."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return {"loss": self.a(x).pow(2).mean(), "extra": self.b(x)}

    report = gradflow.profile(Model(), torch.randn(8, 4))
    assert rules(report, "error") == set()
    assert next(layer.gain for layer in report.layers if layer.name == "a") > 0


def test_a_cut_below_most_of_the_model():
    """Where most trainable parameters get nothing it is an error; a forgotten head alone is a warning."""

    class Cut(nn.Module):
        def __init__(self, cut):
            super().__init__()
            self.layers, self.head, self.cut = nn.Sequential(*(nn.Linear(8, 8) for _ in range(5))), nn.Linear(8, 2), cut
            self.unused = nn.Linear(2, 2)

        def forward(self, x):
            x = self.layers(x)
            return self.head(x.detach() if self.cut else x)

    cut, whole = (gradflow.profile(Cut(c), torch.randn(4, 8)) for c in (True, False))
    assert (cut.verdict, whole.verdict) == ("sick", "warnings")
    assert cut.severity > 0 and whole.severity > 0


@pytest.mark.parametrize("split", ["chunk", "slices"])
def test_adaptive_norm_with_zero_gates(split):
    """adaLN-zero and tanh(0) gates close their branches and are healthy."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.mod, self.f, self.norm = nn.Linear(8, 24), nn.Linear(8, 8), nn.LayerNorm(8, elementwise_affine=False)
            nn.init.zeros_(self.mod.weight), nn.init.zeros_(self.mod.bias)
            self.stem, self.alpha, self.g = nn.Linear(8, 8), nn.Parameter(torch.zeros(1)), nn.Linear(8, 8)

        def forward(self, x, c):
            m = self.mod(torch.nn.functional.silu(c))
            a, b, g = m.chunk(3, -1) if split == "chunk" else (m[:, :8], m[:, 8:16], m[:, 16:])
            x = self.stem(x)
            x = x + g * self.f(self.norm(x) * (1 + a) + b)
            return x + torch.tanh(self.alpha) * self.g(x)

    torch.manual_seed(0)
    report = gradflow.profile(Block(), (torch.randn(4, 8), torch.randn(4, 8)))
    assert report.verdict == "healthy"


def test_frozen_residual_blocks():
    """Blocks whose parameters are frozen are skips all the same (prompt and adapter tuning)."""
    torch.manual_seed(0)
    model = Blocks(lambda x, h, i: x + h, depth=4).requires_grad_(False)
    stem = nn.Linear(16, 16)
    report = gradflow.profile(nn.Sequential(stem, model), torch.randn(4, 16))
    assert [(s.kind, s.lam) for s in report.skips] == [("identity", 1.0)] * 4


def test_recurrent_modules_have_no_skips_between_time_steps():
    """What one time step's input adds to the state of another is no shortcut."""
    torch.manual_seed(0)
    report = gradflow.profile(nn.RNN(4, 6, batch_first=True), torch.randn(3, 10, 4))
    assert report.skips == ()


def test_a_reconstruction_loss_is_no_skip():
    """`decoder(encoder(x)) − x` in the loss compares with the target; it is not in the network."""
    x = torch.randn(8, 4)
    model = nn.Sequential(nn.Linear(4, 2), nn.Tanh(), nn.Linear(2, 4))
    assert gradflow.profile(model, x, x, lambda out, target: (out - target).pow(2).mean()).skips == ()


def test_a_gradient_hook_that_scales():
    """The ledger notices, and the report says so."""

    class Hooked(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.f, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x):
            x = self.stem(x)
            x.register_hook(lambda grad: grad * 0.01)
            return self.head(x + self.f(x))

    report = gradflow.profile(Hooked(), torch.randn(4, 8))
    assert any("ledger does not close" in note for note in report.run.notes)


def test_repeated_profiles_free_their_tapes():
    """Nothing of a run stays alive until the next garbage collection."""
    import gc
    import weakref

    alive = []

    class Saved(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y = x.clone()
            alive.append(weakref.ref(y.untyped_storage()))
            ctx.save_for_backward(y)
            return y * 1

        @staticmethod
        def backward(ctx, grad):
            return grad

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.aux = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            h = self.a(x)
            Saved.apply(self.aux(h))
            return h + torch.tanh(h)

    gc.collect()
    gc.disable()
    try:
        gradflow.profile(Net(), torch.randn(4, 4))
        assert alive and not any(ref() is not None for ref in alive)
    finally:
        gc.enable()


def test_two_norm_skips_that_cancel():
    """FastViT's token mixer, x + γ(BN(x) + conv(x) − BN'(x)): inside the branch two equal norms cancel, which is no fault."""

    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.conv = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1)
            self.norm, self.other, self.scale = nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.Parameter(torch.full((8, 1, 1), 1e-5))

        def forward(self, x):
            x = self.stem(x)
            return x + self.scale * (self.norm(x) + self.conv(x) - self.other(x))

    torch.manual_seed(0)
    report = gradflow.profile(Mixer(), torch.randn(4, 3, 8, 8))
    assert sorted(s.kind for s in report.skips) == ["identity", "norm", "norm"]
    assert report.verdict == "healthy"


class LowRank(nn.Module):
    """A frozen linear layer with a trained low-rank map beside it (Hu et al. 2021)."""

    def __init__(self, width, rank=2):
        super().__init__()
        self.base, self.a, self.b = nn.Linear(width, width).requires_grad_(False), nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)

    def forward(self, x):
        return self.base(x) + self.b(self.a(x))


def test_a_frozen_matrix_beside_a_trained_one():
    """Before the first block the stream is frozen and off the tape, so that LoRA's own sum begins the highway: no shortcut that should be an identity.
    The headline's highway is the stream and none of the short ones in the branches."""

    class Tuned(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = nn.Embedding(20, 16).requires_grad_(False)
            self.blocks = nn.ModuleList(nn.Sequential(LowRank(16), nn.GELU(), LowRank(16)) for _ in range(4))

        def forward(self, ids):
            x = self.emb(ids)
            for block in self.blocks:
                x = x + block(x)
            return x

    torch.manual_seed(0)
    report = gradflow.profile(Tuned(), torch.randint(0, 20, (4, 6)))
    assert report.verdict == "healthy" and "projection" in {skip.kind for skip in report.skips}
    longest = max(report.highways, key=lambda highway: len(highway.skips))
    assert len(report.highways) > 1 and f"{longest.name}: {len(longest.skips)} skips (the longest of {len(report.highways)})" in " ".join(str(report).split())


def test_a_norm_in_one_place_is_not_in_every_block():
    """Where a skip is cut the highway goes on through one branch with its norm: GF205 speaks of norms between all sums, which these are not."""

    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.norms, self.blocks = nn.ModuleList(nn.LayerNorm(16) for _ in range(4)), nn.ModuleList(LowRank(16) for _ in range(4))

        def forward(self, x):
            for i, (norm, block) in enumerate(zip(self.norms, self.blocks, strict=True)):
                x = (x.detach() if i == 3 else x) + block(norm(x))
            return x

    torch.manual_seed(0)
    report = gradflow.profile(Cut(), torch.randn(6, 16))
    assert "layer_norm" in report.highways[0].trunk_ops and {f.rule for f in report.findings if f.severity == "error"} == {"GF208"}
    assert "GF205" not in {f.rule for f in report.findings}
