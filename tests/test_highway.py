"""The highway is measured by replay: it is the gradient of the same network with its branches detached, to the last digit."""

import pytest
import torch
from residual_nets import NETS, built, inner_product, profiled, subject, trunk_gradients

from gradflow import zoo

EVERY = pytest.mark.parametrize("net", NETS)


@EVERY
def test_replay_equals_the_network_with_detached_branches(net):
    """One highway through every unit; its gain at each fork is that of plain autograd with the branches cut, to 1e-12."""
    model, report, cut = subject(net).model, subject(net).report, subject(net).cut
    (highway,) = report.highways
    top = cut.joins[-1].norm()
    expected = [(h.norm() / top).item() for h in cut.forks]
    assert highway.skips == tuple(skip.id for skip in report.skips)
    assert len(highway.skips) == len(model.blocks)
    assert highway.fork_gains == pytest.approx(expected, rel=1e-12, abs=0)
    assert highway.gain == highway.fork_gains[0]


@EVERY
def test_share_of_the_highway(net):
    """highway_share is ⟨h, t⟩/‖t‖² with h from the cut network and t from the whole one, and highway_gain is the fork's own."""
    report, cut, whole = subject(net).report, subject(net).cut, subject(net).whole
    for skip, gain, h, t in zip(report.skips, report.highways[0].fork_gains, cut.forks, whole.forks, strict=True):
        assert skip.highway_gain == pytest.approx(gain, rel=1e-14)
        assert skip.highway_share == pytest.approx(((h * t).sum() / t.square().sum()).item(), rel=1e-10, abs=1e-12)


@EVERY
def test_total_gradient_beside_the_highway(net):
    """The highway's total_gain is the whole gradient at the first fork over that at the last join."""
    whole = subject(net).whole
    expected = (whole.forks[0].norm() / whole.joins[-1].norm()).item()
    assert subject(net).report.highways[0].total_gain == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_trunk_of_a_postact_net(norm):
    """The ReLU after each sum lies on the trunk and is named; the convolutions of the branches are not."""
    model, x, cotangent = built(lambda: zoo.postact_resnet(10, stages=(4,), norm=norm == "batch"), (2, 3, 8, 8))
    assert profiled(model, x, cotangent).highways[0].trunk_ops == ("relu",)


def test_trunk_of_a_preact_net():
    """Nothing lies between two sums."""
    model, x, cotangent = built(lambda: zoo.preact_resnet(10, stages=(4,)), (2, 3, 8, 8))
    assert profiled(model, x, cotangent).highways[0].trunk_ops == ()


def test_trunk_of_a_post_ln_net():
    """The LayerNorm after each sum lies on the trunk."""
    model, x, cotangent = built(lambda: zoo.post_ln_transformer(2, 8, heads=2), (2, 5, 8))
    assert profiled(model, x, cotangent).highways[0].trunk_ops == ("layer_norm",)


def test_a_strided_convolution_between_two_stages():
    """A weighted layer between two residual stages is trunk: one highway through both, equal to the detached network."""

    class Stages(torch.nn.Module):
        def __init__(self):
            super().__init__()
            early, late = (zoo.preact_resnet(6, stages=(4,)).blocks for _ in range(2))
            self.first, self.down, self.last = early, torch.nn.Conv2d(4, 4, 3, 2, 1), late

        def forward(self, x):
            return self.last(self.down(self.first(x)))

    model, x, cotangent = built(Stages, (2, 4, 8, 8))
    (highway,) = profiled(model, x, cotangent).highways
    with zoo.cut_branches(model):
        given = x.clone().requires_grad_()
        (h,) = torch.autograd.grad(inner_product(model(given), cotangent), given)
    assert len(highway.skips) == len(model.first) + len(model.last)
    assert highway.trunk_ops == ("convolution",)
    assert highway.gain == pytest.approx((h.norm() / cotangent.norm()).item(), rel=1e-12)


def test_a_gate_frozen_and_differentiated():
    """On a highway net λ̂ is along the carry with the gate frozen, and lam_full takes the carry's own derivative in: both by plain autograd."""
    model, x, cotangent = built(lambda: zoo.highway_net(1, 8, transfer_bias=-1.0, outputs=None), (4, 8))
    (skip,) = profiled(model, x, cotangent).skips
    given = x.clone().requires_grad_()
    carry = 1 - torch.sigmoid(model.blocks[0].gate(given))
    (frozen,) = torch.autograd.grad(carry.detach() * given, given, cotangent)
    (full,) = torch.autograd.grad(carry * given, given, cotangent)
    gg = cotangent.square().sum()
    assert skip.kind == "gated"
    assert skip.lam == pytest.approx(((frozen * cotangent).sum() / gg).item(), rel=1e-12)
    assert skip.lam_full == pytest.approx(((full * cotangent).sum() / gg).item(), rel=1e-12)
    assert skip.lam_full != pytest.approx(skip.lam, rel=1e-3)


def test_hyper_connections():
    """Streams mixed by a matrix: the replay follows the mixing matrix, and equals the network with its branches detached."""
    model, x, cotangent = built(lambda: zoo.hyper_connection_net(3, 8, mixing="random"), (2, 8))
    with zoo.cut_branches(model):
        cut = trunk_gradients(model, x, cotangent)
    (highway,) = profiled(model, x, cotangent).highways
    assert highway.fork_gains == pytest.approx([(h.norm() / cut.joins[-1].norm()).item() for h in cut.forks], rel=1e-12)
