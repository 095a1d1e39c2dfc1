"""The convolutional residual networks of He et al. 2015 and 2016."""

import math

import pytest
import torch

from gradflow import zoo
from gradflow.zoo.resnet import SHORTCUTS

CIFAR = (16, 32, 64)
BUILDERS = pytest.mark.parametrize("build", [zoo.preact_resnet, zoo.postact_resnet])


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def sigmoid(b):
    return 1 / (1 + math.exp(-b))


@BUILDERS
@pytest.mark.parametrize("stages", [(16,), CIFAR])
@pytest.mark.parametrize("option", ["A", "B"])
@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_every_shortcut_runs_forward_and_backward(build, shortcut, option, stages):
    """Each wiring maps [batch, 3, h, w] to [batch, classes], and every parameter gets a gradient."""
    model = build(8, shortcut=shortcut, option=option, stages=stages, scale=0.5 if shortcut == "scaled" else 1.0, classes=7)
    logits = model(torch.randn(2, 3, 8, 8))
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@BUILDERS
@pytest.mark.parametrize("stages", [(16,), CIFAR])
def test_depth_110_has_54_units(build, stages):
    """ResNet-110 is a stem, 54 two-layer units and a head."""
    model = build(110, stages=stages)
    assert len(model.blocks) == 54
    weighted = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(weighted) == 110


def test_parameter_counts_are_those_published():
    """He et al. 2015, table 6: 0.27 M parameters at depth 20, 0.46 M at 32, 0.66 M at 44, 0.85 M at 56, 1.7 M at 110 (option A)."""
    counts = {depth: parameters(zoo.postact_resnet(depth, stages=CIFAR)) for depth in (20, 32, 44, 56, 110)}
    assert counts[20] == 269_722  # the count of the usual re-implementations with option A
    assert [round(counts[depth] / 1e6, 2) for depth in (20, 32, 44, 56)] == [0.27, 0.46, 0.66, 0.85]
    assert round(counts[110] / 1e6, 1) == 1.7


@pytest.mark.parametrize("lam", [0.9, 0.5, 1.0, 2.0])
def test_constant_scale_over_54_units(gains, lam):
    """Pre-activation, constant width: the highway is λ^54 g, element by element."""
    model = zoo.preact_resnet(110, shortcut="scaled", scale=lam)
    trunk = gains(model.blocks, torch.randn(2, 16, 4, 4))
    assert torch.allclose(trunk.highway, lam**54 * trunk.g, rtol=1e-12, atol=0)


@pytest.mark.parametrize("shortcut", ["exclusive_gating", "shortcut_only_gating"])
@pytest.mark.parametrize(("bias", "power"), [(0, 5.551e-17), (-1, 4.502e-8), (-3, 0.07253), (-5, 0.6958), (-6, 0.8749), (-7, 0.9520)])
def test_gates_with_zero_weights_over_54_units(gains, shortcut, bias, power):
    """With zero gate weights the carry is 1 − σ(b) and the highway its 54th power, whatever x is."""
    model = zoo.preact_resnet(110, shortcut=shortcut, gate_bias=float(bias))
    trunk = gains(model.blocks, torch.randn(2, 16, 4, 4))
    assert torch.allclose(trunk.highway, (1 - sigmoid(bias)) ** 54 * trunk.g, rtol=1e-12, atol=0)
    assert trunk.highway_gain == pytest.approx(power, rel=1e-3)


def test_a_gate_with_drawn_weights():
    """A He-initialised gate scatters about σ(b): on unit-variance x, 1 − g averages 0.993 at b = −6 where σ(−b) is 0.9975."""
    gate = zoo.preact_resnet(8, shortcut="exclusive_gating", gate_weights="he", stages=(64,)).blocks[0].gate
    carry = 1 - gate(torch.randn(4, 64, 16, 16))
    assert carry.mean().item() == pytest.approx(0.9933, abs=0.0015)
    assert carry.std() > 1e-3


@pytest.mark.parametrize("shortcut", ["exclusive_gating", "shortcut_only_gating"])
def test_a_gated_unit_computes_its_formula(shortcut):
    """(1 − g)·x + g·F for exclusive gating, (1 − g)·x + F for shortcut-only."""
    unit = zoo.preact_resnet(8, shortcut=shortcut, gate_weights="he", gate_bias=-1.0).eval().blocks[0]
    x = torch.randn(2, 16, 4, 4)
    g, branch = torch.sigmoid(unit.gate.conv(x)), unit.branch(x)
    expected = (1 - g) * x + (g * branch if shortcut == "exclusive_gating" else branch)
    assert torch.allclose(unit(x), expected, rtol=1e-14)


def test_post_activation_carries_the_masks():
    """The highway of a post-activation unit is λ times the gradient behind the ReLU after its sum."""
    unit = zoo.postact_resnet(8, shortcut="scaled", scale=0.5, branch_scale=0.5).eval().blocks[0]
    x = torch.randn(2, 16, 4, 4, requires_grad=True)
    with zoo.cut_branches(unit):
        y = unit(x)
    g = torch.randn_like(y)
    (highway,) = torch.autograd.grad(y, x, g)
    assert torch.allclose(y, torch.relu(0.5 * x + 0.5 * unit.branch(x)))
    assert torch.equal(highway, 0.5 * g * (y > 0))


def test_he_post_activation_at_depth_110(gains):
    """In He's CIFAR net the ReLU masks and two option-A shortcuts together leave about 0.16 of the gradient (0.33 at constant width)."""
    cifar = gains(zoo.postact_resnet(110, stages=CIFAR).blocks, torch.randn(4, 16, 16, 16).relu())
    even = gains(zoo.postact_resnet(110).blocks, torch.randn(4, 16, 8, 8).relu())
    assert cifar.highway_gain == pytest.approx(0.16, abs=0.03)
    assert even.highway_gain == pytest.approx(0.33, abs=0.03)


@pytest.mark.parametrize(("init", "gain", "tolerance"), [("default", 3**-0.5, 0.03), ("he", 2**0.5, 0.05)])
def test_a_convolution_on_the_shortcut(gains, init, gain, tolerance):
    """A 1×1 convolution has λ near 0 and a gain that its initialisation sets: 1/√3 by torch's default, √2 by He's."""
    unit = zoo.preact_resnet(8, shortcut="conv1x1", init=init, stages=(64,)).blocks[0]
    step = gains(unit, torch.randn(2, 64, 8, 8))
    assert step.highway_gain == pytest.approx(gain, abs=tolerance)
    lam = (step.highway * step.g).sum() / step.g.square().sum()
    assert abs(lam) < 4 / 64**0.5 * gain
    assert (step.highway - lam * step.g).norm() / step.highway.norm() > 0.99


def test_dropout_on_the_shortcut():
    """Inverted dropout: each coordinate of the shortcut is 0 or doubled, so the mean λ is 1."""
    unit = zoo.preact_resnet(8, shortcut="dropout").blocks[0]
    x = torch.randn(4, 16, 16, 16, requires_grad=True)
    with zoo.cut_branches(unit):
        y = unit(x)
    (highway,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert set(highway.unique().tolist()) == {0.0, 2.0}
    assert highway.mean().item() == pytest.approx(1, abs=0.05)


def test_a_plain_network_has_no_skip():
    """shortcut="none" is F alone: with its branches cut, nothing connects the units to their input."""
    unit = zoo.postact_resnet(8, shortcut="none").blocks[0]
    x = torch.randn(2, 16, 4, 4, requires_grad=True)
    assert torch.equal(unit(x), unit.branch(x).relu())
    with zoo.cut_branches(unit):
        assert not unit(x).requires_grad


def test_option_a_keeps_and_pads(gains):
    """Option A copies every second pixel into the first channels and zeros into the others; backwards it copies g to the kept entries, gain √½."""
    shortcut, x = zoo.OptionA(16, 32), torch.randn(4, 16, 8, 8, requires_grad=True)
    y = shortcut(x)
    assert y.shape == (4, 32, 4, 4)
    assert torch.equal(y[:, :16], x[:, :, ::2, ::2])
    assert not y[:, 16:].any()
    g = torch.randn_like(y)
    (s,) = torch.autograd.grad(y, x, g)
    assert torch.equal(s[:, :, ::2, ::2], g[:, :16])
    assert torch.count_nonzero(s) == torch.count_nonzero(g[:, :16])
    assert (s.norm() / g.norm()).item() == pytest.approx(0.5**0.5, abs=0.03)


def test_a_network_without_norm_has_biases_instead():
    """norm=False leaves no batch norm and gives each 3×3 convolution a bias."""
    model = zoo.preact_resnet(8, norm=False)
    assert not [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert all(module.bias is not None for module in model.modules() if isinstance(module, torch.nn.Conv2d))


@BUILDERS
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depth": 21}, "2n\\+2"),
        ({"depth": 2}, "2n\\+2"),
        ({"depth": 22, "stages": CIFAR}, "6n\\+2"),
        ({"depth": 20.0}, "integer of at least 2"),
        ({"stages": ()}, "stages"),
        ({"stages": "16"}, "stages"),
        ({"stages": (0,)}, "stages\\[0\\]"),
        ({"stages": (32, 16), "depth": 10}, "option A pads channels"),
        ({"shortcut": "gated"}, "'exclusive_gating'"),
        ({"gate_weights": "one"}, "'zero', 'he'"),
        ({"option": "C"}, "'A', 'B'"),
        ({"scale": 0.5}, "shortcut='scaled'"),
        ({"init": "best"}, "'orthogonal'"),
        ({"classes": 0}, "classes=0"),
    ],
)
def test_a_wrong_argument_is_refused(build, wrong, message):
    """The error names the argument and what it may be."""
    with pytest.raises(ValueError, match=message):
        build(**wrong)


def test_an_option_a_stride_of_zero_is_refused():
    """OptionA checks its own stride."""
    with pytest.raises(ValueError, match="stride=0"):
        zoo.OptionA(4, 8, 0)
