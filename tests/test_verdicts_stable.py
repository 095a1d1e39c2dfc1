"""A verdict is about the network: it does not change with the loss's scale, the batch's size, or the seed."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

import gradflow
from gradflow import zoo
from gradflow.bands import fluctuation
from tests.calibration.nets import Blocks, Cnn, Recurrent, filled, multiplied, units

WIDTH = 32
IMAGE, TOKENS = (3, 8, 8), (8, WIDTH)
Net = tuple[Callable[[], nn.Module], tuple[int, ...]]


class ByStep(nn.Module):
    """A recurrent network on [batch, steps, width]."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.transpose(0, 1))


HEALTHY: dict[str, Net] = {
    "ReLU MLP, He": (lambda: zoo.mlp(8, WIDTH, init="he"), (WIDTH,)),
    "tanh MLP, Xavier": (lambda: zoo.mlp(6, WIDTH, activation="tanh", init="xavier"), (WIDTH,)),
    "GELU MLP, layer norm": (lambda: zoo.mlp(12, WIDTH, activation="gelu", norm="layer"), (WIDTH,)),
    "BN MLP": (lambda: zoo.mlp(10, WIDTH, norm="batch", init="he"), (WIDTH,)),
    "CNN, He": (lambda: Cnn(6, 16), IMAGE),
    "pre-activation ResNet": (lambda: zoo.preact_resnet(18, stages=(8, 16)), IMAGE),
    "post-activation ResNet": (lambda: zoo.postact_resnet(14, stages=(8,)), IMAGE),
    "pre-LN transformer": (lambda: zoo.pre_ln_transformer(6, WIDTH), TOKENS),
    "DeepNorm transformer": (lambda: zoo.deepnorm_transformer(8, WIDTH), TOKENS),
    "ReZero": (lambda: zoo.rezero_net(8, WIDTH), (WIDTH,)),
    "Fixup": (lambda: zoo.fixup_net(6, 8), IMAGE),
    "residual MLP": (lambda: units(nn.Identity, depth=8, width=WIDTH), (WIDTH,)),
}
SICK: dict[str, tuple[str, Net]] = {
    "sigmoid MLP": ("GF101", (lambda: zoo.mlp(20, WIDTH, activation="sigmoid"), (WIDTH,))),
    "small weights": ("GF101", (lambda: zoo.mlp(20, WIDTH, init="small"), (WIDTH,))),
    "weights × 0.1": ("GF101", (lambda: multiplied(zoo.mlp(16, WIDTH, init="he"), 0.1), (WIDTH,))),
    "large weights": ("GF102", (lambda: multiplied(zoo.mlp(20, WIDTH, init="he"), 8.0), (WIDTH,))),
    "CNN of small weights": ("GF101", (lambda: Cnn(16, std=0.01), IMAGE)),
    "dead ReLU": ("GF108", (lambda: filled(zoo.mlp(6, WIDTH), "4.bias", -50.0), (WIDTH,))),
    "λ = 0.5, 54 blocks": ("GF206", (lambda: zoo.residual_mlp(54, WIDTH, scale=0.5, branch_scale=0.2), (WIDTH,))),
    "λ = 2, 54 blocks": ("GF207", (lambda: zoo.residual_mlp(54, WIDTH, scale=2.0, branch_scale=0.2), (WIDTH,))),
    "exclusive gating": ("GF206", (lambda: zoo.postact_resnet(110, shortcut="exclusive_gating", gate_bias=0.0, stages=(8,)), IMAGE)),
    "detached skip": ("GF208", (lambda: Blocks(lambda x, h: x + h, lambda x, h: x.detach() + h, at=5, width=WIDTH), (WIDTH,))),
    "detached trunk": ("GF104", (lambda: Blocks(lambda x, h: x + h, lambda x, h: (x + h).detach(), at=11, width=WIDTH), (WIDTH,))),
    "exploding recurrence": ("GF102", (lambda: ByStep(Recurrent(2.0, nn.Identity(), WIDTH)), (60, WIDTH))),
}
NETS = {**{name: ("", net) for name, net in HEALTHY.items()}, **SICK}
SITUATIONS = {
    **{f"loss × {scale:g}": {"scale": scale} for scale in (1e-6, 1e-3, 1e3, 1e6)},
    **{f"batch of {size}": {"samples": size} for size in (4, 64)},
    **{f"seed {seed}": {"seed": seed} for seed in (1, 2, 3)},
}


def profiled(net: Net, *, scale: float = 1.0, samples: int = 16, seed: int = 0) -> gradflow.Report:
    build, shape = net
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, x = build(), torch.randn(samples, *shape)
        cotangent = torch.randn_like(model(x))
    return gradflow.profile(model, x, cotangent, lambda output, target: (output * target).sum() * scale)


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("name", NETS)
def test_a_verdict_in_another_situation(name, situation):
    """A healthy network has no error, and a sick one has its own rule's, whatever the loss is multiplied by, whatever the batch and the seed."""
    rule, net = NETS[name]
    report = profiled(net, **SITUATIONS[situation])
    errors = {f.rule for f in report.findings if f.severity == "error"}
    assert (rule in errors, report.verdict == "sick") == (bool(rule), bool(rule)), [(f.rule, f.severity, f.where, f.message) for f in report.findings[:5]]


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**20])
@pytest.mark.parametrize("name", NETS)
def test_a_loss_times_a_power_of_two(name, scale):
    """The scale leaves every finding as it is, with its numbers: a power of two rounds nothing."""
    _, net = NETS[name]
    plain, scaled = (
        [(f.rule, f.severity, f.where, f.decades) for f in profiled(net, scale=s).findings if f.rule != "GF111"] for s in (1.0, scale)
    )  # fmt: skip
    assert [f[:3] for f in plain] == [f[:3] for f in scaled]
    assert [f[3] for f in scaled] == pytest.approx([f[3] for f in plain], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("width", [16, 48])
def test_a_healthy_net_that_fluctuates_within_its_band(width):
    """Gains of ReLU nets of He's initialisation wander with depth by √(5 Σ 1/n) in the log; over seeds no error is raised, and the band is that wide."""
    depth, seeds = 24, 12
    reports = [profiled((lambda: zoo.mlp(depth, width, init="he", bias=False), (width,)), seed=seed) for seed in range(seeds)]
    assert [r.verdict for r in reports if r.verdict == "sick"] == []
    band = fluctuation(reports[0].layers)[0]
    assert band == pytest.approx(min(3.0, (5 * (depth / width + 1 / 10)) ** 0.5 / math.log(10)), rel=0.1)


@pytest.mark.parametrize(("depth", "width"), [(10, 32), (24, 48)])
def test_the_band_against_networks_drawn_anew(depth, width):
    """The logarithm of the gradient's norm at the first layer has half the band as its standard deviation, over 400 draws of the weights, by torch alone."""
    torch.manual_seed(0)
    logs = []
    for _ in range(400):
        rows = torch.randn(1, width, dtype=torch.float64, requires_grad=True)
        x = rows
        for _ in range(depth):
            x = torch.relu(x @ torch.randn(width, width, dtype=torch.float64) * (2 / width) ** 0.5)
        logs.append(math.log10(torch.autograd.grad(x @ torch.randn(width, 1, dtype=torch.float64), rows)[0].norm()))
    layers = gradflow.profile(zoo.mlp(depth, width, init="he", bias=False), torch.randn(4, width)).layers
    assert torch.tensor(logs).std().item() == pytest.approx(fluctuation(layers)[0] / 2, rel=0.15)
