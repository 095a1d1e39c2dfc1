"""Numbers that the report must hit: the exact anchors of the literature, and closed forms worked out by hand."""

import math

import pytest
import torch
from residual_nets import built, float64, inner_product, profiled
from torch import nn
from torch.nn import functional

import gradflow
from gradflow import zoo
from gradflow.observe import Settings, observe
from gradflow.subject import choose_loss, given_batch

IMAGE = (2, 3, 4, 4)


def sigmoid(b):
    return 1 / (1 + math.exp(-b))


@pytest.mark.parametrize(("lam", "published"), [(0.9, 3.381e-3), (0.5, 5.551e-17)])
def test_a_constant_shortcut_in_54_blocks(lam, published):
    """He et al. 2016, Table 1, constant scaling: every λ̂ is λ, misfit 0, and the highway is λ^54, to 1e-12 in float64."""
    report = profiled(*built(lambda: zoo.preact_resnet(110, shortcut="scaled", scale=lam, stages=(4,)), IMAGE))
    (highway,) = report.highways
    assert len(highway.skips) == 54
    assert [skip.lam for skip in report.skips] == pytest.approx([lam] * 54, rel=1e-15)
    assert max(skip.misfit for skip in report.skips) < 1e-15
    assert highway.gain == pytest.approx(lam**54, rel=1e-12, abs=0)
    assert highway.gain == pytest.approx(published, rel=2e-4)
    assert highway.product_of_lambdas == pytest.approx(lam**54, rel=1e-12, abs=0)


def test_resnet_110_with_half_a_shortcut():
    """54 skips at exactly 0.5; the first finding is about the highway, 5.55e-17, and tells the total gradient beside it."""
    report = profiled(*built(lambda: zoo.preact_resnet(110, shortcut="scaled", scale=0.5), IMAGE))
    assert [skip.lam for skip in report.skips] == [0.5] * 54
    assert {skip.kind for skip in report.skips} == {"scaled"}
    (highway,) = report.highways
    assert highway.gain == pytest.approx(2.0**-54, rel=1e-12, abs=0)
    first = report.findings[0]
    assert (first.rule, first.severity, first.where) == ("GF206", "error", highway.name)
    assert first.value == highway.gain
    assert "5.55e-17" in first.message
    assert f"{highway.total_gain:.3g}" in first.message
    assert report.verdict == "sick"


def test_a_deep_sigmoid_net():
    """30 sigmoid layers: a vanishing gradient, and the worst layer is the first."""
    with float64():
        model, x = zoo.mlp(30, 16, activation="sigmoid"), torch.randn(8, 16)
    report = gradflow.profile(model, x)
    first = report.findings[0]
    assert (first.rule, first.severity, first.where) == ("GF101", "error", "0")
    assert report.verdict == "sick"
    assert report.layers[0].gain == min(layer.gain for layer in report.layers)


@pytest.mark.parametrize(("bias", "published"), [(0, 5.55e-17), (-1, 4.502e-8), (-3, 0.07253), (-5, 0.6958), (-6, 0.8749), (-7, 0.9520)])
def test_exclusive_gates_with_zero_weights(bias, published):
    """He et al. 2016, Table 1, exclusive gating: with zero gate weights the highway of 54 blocks is (1 − σ(b))^54."""
    shortcut = {"shortcut": "exclusive_gating", "gate_bias": float(bias), "gate_weights": "zero"}
    report = profiled(*built(lambda: zoo.preact_resnet(110, stages=(4,), **shortcut), IMAGE))
    (highway,) = report.highways
    assert {skip.kind for skip in report.skips} == {"gated"}
    assert [skip.lam for skip in report.skips] == pytest.approx([1 - sigmoid(bias)] * 54, rel=1e-12)
    assert highway.gain == pytest.approx((1 - sigmoid(bias)) ** 54, rel=1e-12, abs=0)
    assert highway.gain == pytest.approx(published, rel=1e-3)


def test_alternating_diagonal_skips():
    """diag(2, ½, …) and diag(½, 2, …) in turn: the highway is 1, and the product of λ̂ is wrong by orders of magnitude."""
    report = profiled(*built(lambda: zoo.matrix_skip_net("alternating", 54, 64), (4, 64)))
    (highway,) = report.highways
    assert highway.gain == pytest.approx(1, rel=1e-12)
    assert abs(math.log10(highway.product_of_lambdas)) > 3
    assert min(skip.misfit for skip in report.skips) > 0.3


def test_random_orthogonal_skips():
    """Rotations preserve the norm: the highway is 1, while the product of λ̂ is next to nothing and the misfit next to 1."""
    report = profiled(*built(lambda: zoo.matrix_skip_net("orthogonal", 54, 64), (4, 64)))
    (highway,) = report.highways
    assert len(highway.skips) == 54
    assert highway.gain == pytest.approx(1, rel=1e-12)
    assert abs(highway.product_of_lambdas) < 1e-50
    assert all(skip.gain == pytest.approx(1, rel=1e-12) for skip in report.skips)
    assert min(skip.misfit for skip in report.skips) > 0.9


@pytest.mark.parametrize("c", [0.5, 2.0, 3.0])
def test_a_branch_that_works_against_its_skip(c):
    """F = −cx: ‖t‖/‖g‖ = |1 − c| in every block, while λ = 1; the bound ‖t‖ ≥ ‖s‖ fails for c < 2."""
    for skip in profiled(*built(lambda: zoo.cancelling_net(c, blocks=4), (4, 8))).skips:
        assert (skip.lam, skip.gain, skip.misfit) == (1.0, 1.0, 0.0)
        assert skip.branch_gain == pytest.approx(c, rel=1e-12)
        assert skip.total_gain == pytest.approx(abs(1 - c), rel=1e-12)
        assert skip.cos_skip_branch == pytest.approx(-1, rel=1e-12)
        assert skip.bound_holds is (c >= 2)


def test_a_branch_that_cancels_its_skip():
    """F = −x: nothing arrives at the fork, and the skip is perfect all the same."""
    (skip,) = profiled(*built(lambda: zoo.cancelling_net(1.0), (4, 8))).skips
    assert (skip.lam, skip.total_gain, skip.bound_holds) == (1.0, 0.0, False)
    assert skip.highway_share is None


class Shortcut(nn.Module):
    """One unit whose sum is the output, so that g is the cotangent."""

    def __init__(self, skip, inside, outside, stride=1):
        super().__init__()
        self.skip = skip
        self.branch = nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1), nn.ReLU(), nn.Conv2d(outside, outside, 3, 1, 1))

    def forward(self, x):
        return self.skip(x) + self.branch(x)


def test_option_a():
    """Strided, zero-padded identity: s is g on the kept channels, so γ is their share of the norm, near 1/√2; λ is undefined with its reason."""
    model, x, g = built(lambda: Shortcut(zoo.OptionA(16, 32), 16, 32, 2), (4, 16, 8, 8))
    (skip,) = profiled(model, x, g).skips
    assert skip.kind == "pooled"
    assert skip.gain == pytest.approx((g[:, :16].norm() / g.norm()).item(), rel=1e-12)
    assert skip.gain == pytest.approx(0.707, abs=0.03)
    assert skip.lam is None and "shape" in skip.undefined["lam"]


@pytest.mark.parametrize(("init", "gain", "tolerance"), [("default", 0.577, 0.03), ("kaiming", 1.414, 0.05)])
def test_a_1x1_convolution(init, gain, tolerance):
    """γ = 1/√3 under torch's default init and √2 under Kaiming's; the skip is no scalar: misfit > .99."""

    def make():
        conv = nn.Conv2d(64, 64, 1, bias=False)
        if init == "kaiming":
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        return Shortcut(conv, 64, 64)

    (skip,) = profiled(*built(make, (4, 64, 4, 4))).skips
    assert skip.kind == "projection"
    assert skip.gain == pytest.approx(gain, abs=tolerance)
    assert skip.misfit > 0.99


def by_hand(model, x1, targets):
    """Every gradient of the two-block net with softmax cross-entropy, by the chain rule and ReLU masks; no autograd."""
    w1, w2, w3, w4 = (w.detach() for block in model.blocks for w in (block.first.weight, block.second.weight))
    z2 = x1 @ w1.T
    x2 = z2.clamp(min=0)
    z3 = x2 @ w2.T + x1
    x3 = z3.clamp(min=0)
    z4 = x3 @ w3.T
    x4 = z4.clamp(min=0)
    z5 = x4 @ w4.T + x3
    x5 = z5.clamp(min=0)
    d5 = (torch.softmax(x5, 1) - functional.one_hot(targets, x5.shape[1])) / len(x5)
    join5 = d5 * (z5 > 0)
    d4 = join5 @ w4
    pre4 = d4 * (z4 > 0)
    branch3 = pre4 @ w3
    d3 = join5 + branch3
    join3 = d3 * (z3 > 0)
    d2 = join3 @ w2
    pre2 = d2 * (z2 > 0)
    branch1 = pre2 @ w1
    weights = {"blocks.0.first": pre2.T @ x1, "blocks.0.second": join3.T @ x2, "blocks.1.first": pre4.T @ x3, "blocks.1.second": join5.T @ x4}
    outputs = {"blocks.0.first": pre2, "blocks.0.second": join3, "blocks.1.first": pre4, "blocks.1.second": join5}
    return {"output": d5, "joins": (join3, join5), "branches": (branch1, branch3), "forks": (join3 + branch1, d3), "weights": weights, "layers": outputs}


@pytest.fixture
def two_blocks():
    model, x, _ = built(lambda: zoo.two_block_net(8), (6, 8))
    targets = torch.arange(6) % 8
    return model, x, targets, by_hand(model, x, targets)


def test_the_two_block_net_in_absolute_numbers(two_blocks):
    """‖g‖ at each join, ‖s‖, ‖f‖ and ‖t‖ at each fork: the hand-derived chain, each branch counted once, to 1e-12."""
    model, x, targets, hand = two_blocks
    objective = choose_loss(loss="cross_entropy", targets=targets, model=model, seed=0)
    read = observe(model, given_batch(x), objective, Settings()).readings.skips
    assert len(read) == 2
    for sums, g, f, t in zip(read, hand["joins"], hand["branches"], hand["forks"], strict=True):
        assert math.sqrt(sums.gg.sum()) == pytest.approx(g.norm().item(), rel=1e-12)
        assert math.sqrt(sums.ss.sum()) == pytest.approx(g.norm().item(), rel=1e-12)
        assert math.sqrt(sums.ff.sum()) == pytest.approx(f.norm().item(), rel=1e-12)
        assert math.sqrt(sums.tt.sum()) == pytest.approx(t.norm().item(), rel=1e-12)


def test_the_two_block_net_in_the_report(two_blocks):
    """Layer gradients, weight gradients, ratios and the highway through both ReLU masks: by hand, to 1e-12."""
    model, x, targets, hand = two_blocks
    report = gradflow.profile(model, x, targets, "cross_entropy")
    assert [layer.name for layer in report.layers] == list(hand["layers"])
    for layer in report.layers:
        gradient = hand["layers"][layer.name]
        assert layer.grad_norm == pytest.approx(gradient.norm().item(), rel=1e-12)
        assert layer.gain == pytest.approx((gradient.norm() / hand["output"].norm()).item(), rel=1e-12)
        assert layer.zero_fraction == (gradient == 0).double().mean().item()
        assert layer.parameters[0].grad_norm == pytest.approx(hand["weights"][layer.name].norm().item(), rel=1e-12)
    for skip, g, f, t in zip(report.skips, hand["joins"], hand["branches"], hand["forks"], strict=True):
        assert skip.lam == 1.0
        assert skip.total_gain == pytest.approx((t.norm() / g.norm()).item(), rel=1e-12)
        assert skip.branch_gain == pytest.approx((f.norm() / g.norm()).item(), rel=1e-12)
        assert skip.cos_skip_branch == pytest.approx(((g * f).sum() / (g.norm() * f.norm())).item(), rel=1e-12)
    masked = hand["joins"][1] * (hand["joins"][0] != 0)
    assert report.highways[0].gain == pytest.approx((masked.norm() / hand["joins"][1].norm()).item(), rel=1e-12)


def test_the_loss_of_the_two_block_net(two_blocks):
    """The value reported is the cross-entropy of a plain run."""
    model, x, targets, _ = two_blocks
    assert gradflow.profile(model, x, targets, "cross_entropy").run.loss.value == functional.cross_entropy(model(x), targets).item()


@pytest.mark.parametrize("build", [zoo.rezero_net, zoo.fixup_net])
def test_branches_closed_at_the_start(build):
    """ReZero and Fixup: the gradient at every fork is that at the last join, branch weights get exactly 0, and the verdict is healthy, with a note."""
    model, x, cotangent = built(lambda: build(4, 8), (4, 8) if build is zoo.rezero_net else (2, 3, 8, 8))
    report = gradflow.profile(model, x, cotangent, inner_product)
    (highway,) = report.highways
    assert highway.fork_gains == pytest.approx([1] * 4, rel=1e-12)
    assert [skip.total_gain for skip in report.skips] == pytest.approx([1] * 4, rel=1e-12)
    closed = [f for f in report.findings if f.rule == "GF105"]
    assert closed and {f.severity for f in report.findings} == {"info"}
    assert report.verdict == "healthy"
    assert report.severity == 0
