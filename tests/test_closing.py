"""What closes a branch at initialisation, and who is blamed: against closed forms, and gradients of autograd with the factor opened."""

import pytest
import torch
from torch import nn

import gradflow

WIDTH = 8


def layers_of(report):
    return {layer.name: layer for layer in report.layers}


def profiled(model, *, seed=0):
    torch.manual_seed(seed)
    return gradflow.profile(model.double(), torch.randn(6, WIDTH, dtype=torch.float64))


class Branches(nn.Module):
    """`stem`, then x + outer·(inner·a(x) + b(x)) with or without b, then `head`."""

    def __init__(self, outer, inner, *, beside=False, skip=True):
        super().__init__()
        torch.manual_seed(1)
        self.stem, self.a, self.head = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.outer, self.inner = nn.Parameter(torch.full((WIDTH,), outer)), nn.Parameter(torch.full((WIDTH,), inner))
        self.b, self.skip = nn.Linear(WIDTH, WIDTH) if beside else None, skip

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        branch = self.inner * self.a(x)
        if self.b is not None:
            branch = branch + self.b(x)
        return self.head(x + self.outer * branch if self.skip else self.outer * branch)


@pytest.mark.parametrize(
    ("outer", "inner", "closing"),
    [
        (1e-6, 1.0, ("outer",)),
        (1.0, 1e-6, ("inner",)),
        (1e-3, 1e-3, ("inner", "outer")),
        (1e-6, 1e-6, ("inner", "outer")),
        (0.0, 1e-4, ("outer",)),
        (1e-4, 0.0, ("inner",)),
        (1.0, 1.0, ()),
    ],
)
def test_nested_scales(outer, inner, closing):
    """The small factors on the way multiply and all are named, the nearest first; of a 0 and a small one the 0, which alone explains a gradient of 0."""
    report = profiled(Branches(outer, inner))
    layer = layers_of(report)["a"]
    assert layer.closing == closing
    assert (layer.gain == 0) == (0.0 in (outer, inner))
    assert report.verdict == "healthy" and {f.rule for f in report.findings} <= {"GF105"}
    opened = layers_of(profiled(Branches(1.0, 1.0)))["a"]
    assert layer.gain == pytest.approx(opened.gain * outer * inner, rel=1e-6)


def test_the_more_open_of_two_ways():
    """`stem` and b are reached past the inner scale: of what closes b only the outer is named, and the stem has a way around both."""
    layers = layers_of(profiled(Branches(1e-4, 1e-4, beside=True)))
    assert (layers["a"].closing, layers["b"].closing, layers["stem"].closing) == (("inner", "outer"), ("outer",), ())


def test_a_small_scale_that_nothing_leads_around():
    """Without the skip the scale stands on the trunk: the layers before it starve, and the place is told."""
    report = profiled(Branches(1e-6, 1.0, skip=False))
    found = next(f for f in report.findings if f.rule == "GF101")
    assert layers_of(report)["stem"].closing == () and "GF105" not in {f.rule for f in report.findings}
    assert "between a (Linear) and head (Linear)" in found.message and report.verdict != "healthy"


def test_a_small_norm_on_the_trunk():
    """The same of a norm's weight between two residual blocks; within the branch of one it is expected."""

    class Net(nn.Module):
        def __init__(self, where):
            super().__init__()
            torch.manual_seed(2)
            self.stem, self.trunk, self.within = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.branches, self.head = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2)), nn.Linear(WIDTH, WIDTH)
            nn.init.constant_(getattr(self, where).weight, 1e-6)

        def forward(self, x):
            x = self.stem(x)
            x = x + self.branches[0](x)
            x = self.trunk(x)
            return self.head(x + self.within(self.branches[1](x)))

    trunk, within = (profiled(Net(where)) for where in ("trunk", "within"))
    assert [layers_of(report)["branches.0"].closing for report in (trunk, within)] == [(), ()]
    assert layers_of(within)["branches.1"].closing == ("within.weight",) and within.verdict == "healthy"
    (lost,) = (f for f in trunk.findings if f.rule == "GF101")
    assert lost.where == "stem" and "GF206" in lost.message and trunk.verdict != "healthy"
    (starved,) = (f for f in trunk.findings if f.rule == "GF206")
    assert "layer_norm" in starved.message + starved.fix


def test_a_zero_head_behind_small_scales():
    """Every layer is closed by the head, which is 0, and not by the LayerScale on its way; the finding stands at the head's own line."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(3)
            self.stem, self.branch, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)
            self.scale = nn.Parameter(torch.full((WIDTH,), 1e-4))
            nn.init.zeros_(self.head.weight)

        def forward(self, x):
            x = self.stem(x)
            x = x + self.scale * self.branch(x)
            return self.head(x)

    report = profiled(Net())
    layers = layers_of(report)
    assert {layers[name].closing for name in ("stem", "branch")} == {("head.weight",)}
    (finding,) = (f for f in report.findings if f.rule == "GF106")
    assert finding.where == "head.weight" and finding.location == layers["head"].location != layers["stem"].location


def test_a_fused_sum_passes_what_it_adds():
    """torch.addmm(x, h, W) with W = 0 closes h and not x."""

    class Fused(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(4)
            self.stem, self.a, self.head = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
            self.weight = nn.Parameter(torch.zeros(WIDTH, WIDTH))

        def forward(self, x):
            x = self.stem(x)
            return self.head(torch.addmm(x, self.a(x), self.weight))

    layers = layers_of(profiled(Fused()))
    assert (layers["a"].closing, layers["stem"].closing) == (("weight",), ())
