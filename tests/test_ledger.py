"""The ledger: what arrives at a fork is what the skip and the branch send back, and every ratio follows from s, f, t and g."""

import math

import pytest
import torch
from residual_nets import NETS, built, profiled, subject, trunk_gradients

import gradflow
from gradflow import zoo

EVERY = pytest.mark.parametrize("net", NETS)
MEASURES = ("lam", "lam_full", "misfit", "gain", "branch_gain", "total_gain", "cos_skip_branch", "highway_gain", "highway_share", "n_eff")


def measures(skip):
    return {name: getattr(skip, name) for name in MEASURES}


@EVERY
def test_the_ledger_closes(net):
    """t = s + f on every skip, to 1e-12: every unit's input has the skip and the branch for its only consumers."""
    report = subject(net).report
    assert report.skips
    assert max(skip.ledger_error for skip in report.skips) < 1e-12


@EVERY
def test_triangle_bounds(net):
    """|‖s‖ − ‖f‖| ≤ ‖t‖ ≤ ‖s‖ + ‖f‖, and bound_holds says whether ‖t‖ ≥ ‖s‖."""
    for skip in subject(net).report.skips:
        slack = 1e-12 * (skip.gain + skip.branch_gain)
        assert abs(skip.gain - skip.branch_gain) - slack <= skip.total_gain <= skip.gain + skip.branch_gain + slack
        assert skip.bound_holds is (skip.total_gain >= skip.gain * (1 - 1e-12))


@EVERY
def test_the_cosine_rule(net):
    """‖t‖² = ‖s‖² + ‖f‖² + 2‖s‖‖f‖cos(s, f): the four numbers are of one triangle."""
    for skip in subject(net).report.skips:
        if skip.cos_skip_branch is None:
            assert skip.branch_gain == 0 or skip.gain == 0
            continue
        square = skip.gain**2 + skip.branch_gain**2 + 2 * skip.gain * skip.branch_gain * skip.cos_skip_branch
        assert skip.total_gain**2 == pytest.approx(square, rel=1e-10, abs=1e-12)


@EVERY
def test_lambda_is_the_gain_times_the_cosine(net):
    """λ̂ = γ·cos(s, g) and misfit = √(1 − cos²), wherever λ̂ is defined."""
    for skip in subject(net).report.skips:
        if skip.lam is None:
            assert skip.undefined["lam"] and skip.gain > 0
            assert skip.misfit is None
        else:
            assert abs(skip.lam) == pytest.approx(skip.gain * math.sqrt(1 - skip.misfit**2), rel=1e-10, abs=1e-7)


@EVERY
@pytest.mark.parametrize("scale", [2.0**-40])
def test_a_loss_times_a_power_of_two(net, scale):
    """No ratio depends on the loss's scale: under a power of two, not in one bit."""
    plain, scaled = subject(net).report, profiled(subject(net).model, subject(net).x, subject(net).cotangent * scale)
    assert [measures(skip) for skip in scaled.skips] == [measures(skip) for skip in plain.skips]
    assert [h.fork_gains for h in scaled.highways] == [h.fork_gains for h in plain.highways]
    assert [layer.gain for layer in scaled.layers] == [layer.gain for layer in plain.layers]
    assert [layer.grad_norm for layer in scaled.layers] == [None if layer.grad_norm is None else layer.grad_norm * scale for layer in plain.layers]


def expect(skip, s, f, t, g):
    assert skip.gain == pytest.approx((s.norm() / g.norm()).item(), rel=1e-12)
    assert skip.branch_gain == pytest.approx((f.norm() / g.norm()).item(), rel=1e-12)
    assert skip.total_gain == pytest.approx((t.norm() / g.norm()).item(), rel=1e-12)
    assert skip.cos_skip_branch == pytest.approx(((s * f).sum() / (s.norm() * f.norm())).item(), rel=1e-10)
    lam = ((s * g).sum() / g.square().sum()).item()
    assert skip.lam == pytest.approx(lam, rel=1e-12)
    assert skip.misfit == pytest.approx(((s - lam * g).norm() / s.norm()).item(), rel=1e-9, abs=1e-9)


def units(model, x, cotangent):
    """(unit, input, gradient at its join, gradient at its input) for every unit, by plain autograd."""
    states = []
    handles = [unit.register_forward_pre_hook(lambda m, args: states.append(args[0].detach())) for unit in model.blocks]
    trunk = trunk_gradients(model, x, cotangent)
    for handle in handles:
        handle.remove()
    return zip(model.blocks, states, trunk.joins, trunk.forks, strict=True)


def pull(function, x, g):
    given = x.clone().requires_grad_()
    return torch.autograd.grad(function(given), given, g)[0]


def test_pieces_of_a_scaled_mlp():
    """s = λg and f = J_Fᵀg from the unit's own branch."""
    model, x, cotangent = built(lambda: zoo.residual_mlp(3, 8, scale=0.9, branch_layers=2), (4, 8))
    for skip, (unit, state, g, t) in zip(profiled(model, x, cotangent).skips, units(model, x, cotangent), strict=True):
        expect(skip, 0.9 * g, pull(unit.branch, state, g), t, g)


def test_pieces_of_a_post_ln_transformer():
    """g is at the sum, before the norm: s = αg, f through the sublayer alone."""
    model, x, cotangent = built(lambda: zoo.deepnorm_transformer(2, 8, heads=2), (2, 5, 8))
    for skip, (unit, state, g, t) in zip(profiled(model, x, cotangent).skips, units(model, x, cotangent), strict=True):
        expect(skip, unit.scale * g, pull(unit.body, state, g), t, g)


def test_pieces_of_a_projection():
    """s through the 1×1 convolution, f through two 3×3."""
    model, x, cotangent = built(lambda: zoo.postact_resnet(8, shortcut="conv1x1", stages=(4,)), (2, 3, 6, 6))
    for skip, (unit, state, g, t) in zip(profiled(model, x, cotangent).skips, units(model, x, cotangent), strict=True):
        expect(skip, pull(unit.skip, state, g), pull(unit.branch, state, g), t, g)


def test_pieces_of_an_exclusive_gate():
    """s along the frozen carry; f is the gated branch and the gate's own derivative on both paths."""
    model, x, cotangent = built(lambda: zoo.preact_resnet(8, shortcut="exclusive_gating", gate_weights="he", gate_bias=-1.0, stages=(4,)), (2, 3, 6, 6))
    for skip, (unit, state, g, t) in zip(profiled(model, x, cotangent).skips, units(model, x, cotangent), strict=True):
        s = (1 - unit.gate(state)).detach() * g
        expect(skip, s, pull(unit, state, g) - s, t, g)


def test_a_third_consumer_of_the_fork():
    """What another consumer sends back is neither skip nor branch: the ledger still closes, while t ≠ s + f."""

    class Tapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.branch, self.tap = (torch.nn.Linear(8, 8) for _ in range(3))

        def forward(self, x):
            x = self.stem(x)
            return torch.cat([x + self.branch(x), self.tap(x)], 1)

    model, x, cotangent = built(Tapped, (4, 8))
    skip = next(s for s in profiled(model, x, cotangent).skips if s.form == "add")
    g = cotangent[:, :8]
    f = g @ model.branch.weight
    expect(skip, g, f, g + f + cotangent[:, 8:] @ model.tap.weight, g)
    assert skip.ledger_error < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_identity_in_a_short_dtype(dtype):
    """An identity skip has λ = 1 and misfit 0 exactly, in float32 and bfloat16 too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = zoo.preact_resnet(8, stages=(4,)).to(dtype)
        report = gradflow.profile(model, torch.randn(2, 3, 8, 8, dtype=dtype))
    assert [(skip.lam, skip.misfit, skip.gain) for skip in report.skips] == [(1.0, 0.0, 1.0)] * 3


def test_a_bootstrap_interval_holds_lambda():
    """lam_low ≤ λ̂ ≤ lam_high, and 1 ≤ n_eff ≤ the batch size; a constant λ has an interval of width 0."""
    model, x, cotangent = built(lambda: zoo.highway_net(3, 8, transfer_bias=-1.0), (16, 8))
    for skip in profiled(model, x, cotangent).skips:
        assert skip.lam_low < skip.lam < skip.lam_high
        assert 1 <= skip.n_eff <= 16
    model, x, cotangent = built(lambda: zoo.residual_mlp(2, 8, scale=0.5), (16, 8))
    for skip in profiled(model, x, cotangent).skips:
        assert skip.lam_low == pytest.approx(0.5, rel=1e-12) == skip.lam_high
