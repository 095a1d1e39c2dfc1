"""The planted faults: each a small network, the rule that must catch it, and the place. Those of skips and highways stand in faults_of_skips.py."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradflow import zoo
from tests.calibration.fault import Fault
from tests.calibration.nets import Between, Blocks, Cnn, Heads, Recurrent, chain, filled, frozen, multiplied


def rows(width: int = 16, samples: int = 8) -> Tensor:
    return torch.randn(samples, width)


def _poisoned(scale: float) -> Tensor:
    x = rows()
    x[3] *= scale
    return x


def saturating() -> Iterator[Fault]:
    """Deep stacks of sigmoid and tanh: the first layer is the one that starves."""
    for depth, init in ((10, "default"), (20, "default"), (40, "default"), (10, "xavier"), (30, "xavier"), (20, "lecun"), (12, "he")):
        yield Fault(
            group="saturating stack", name=f"sigmoid, {depth} layers, {init} initialisation", rule="GF101", where="0",
            severity="error" if depth > 12 else "warning",
            build=lambda d=depth, i=init: (zoo.mlp(d, 64, activation="sigmoid", init=i), rows(64)),
        )  # fmt: skip
    for depth in (20, 40, 60):
        yield Fault(
            group="saturating stack", name=f"tanh, {depth} layers, torch's initialisation", rule="GF101", where="0",
            severity="error" if depth > 30 else "warning",
            build=lambda d=depth: (zoo.mlp(d, 64, activation="tanh"), rows(64)),
        )  # fmt: skip
    for depth in (40, 60):
        yield Fault(
            group="saturating stack", name=f"tanh, {depth} layers, weights 4 × LeCun's: chaotic", rule="GF102", where="0", severity="warning",
            build=lambda d=depth: (zoo.mlp(d, 64, activation="tanh", init="large"), rows(64)),
        )  # fmt: skip


def initialised() -> Iterator[Fault]:
    """Weights of the wrong size, both ways."""
    for depth in (5, 10, 20):
        yield Fault(
            group="initialisation", name=f"ReLU, {depth} layers, σ = 0.01", rule="GF101", where="0", severity="warning" if depth == 5 else "error",
            build=lambda d=depth: (zoo.mlp(d, 64, init="small"), rows(64)),
        )  # fmt: skip
    for depth, init in ((10, "large"), (20, "large")):
        yield Fault(
            group="initialisation", name=f"ReLU, {depth} layers, 4 × LeCun's", rule="GF102", where="0", severity="warning" if depth == 10 else "error",
            build=lambda d=depth, i=init: (zoo.mlp(d, 64, init=i), rows(64)),
        )  # fmt: skip
    for depth, gain, rule in ((20, 0.3, "GF101"), (20, 0.1, "GF101"), (20, 3.0, "GF102"), (20, 8.0, "GF102")):
        yield Fault(
            group="initialisation", name=f"ReLU, {depth} layers, {gain:g} × He's", rule=rule, where="0",
            build=lambda d=depth, g=gain: (multiplied(zoo.mlp(d, 64, init="he"), g), rows(64)),
        )  # fmt: skip
    for depth, std, rule in ((12, 0.01, "GF101"), (12, 0.8, "GF102")):
        yield Fault(
            group="initialisation", name=f"{depth} convolutions, σ = {std:g}", rule=rule, where="convs.0", severity="error" if std < 0.1 else "warning",
            build=lambda d=depth, s=std: (Cnn(d, std=s), torch.randn(4, 3, 8, 8)),
        )  # fmt: skip
    yield Fault(
        group="initialisation", name="batch norm, 60 layers and no skip: the gradient grows by 1.21 a layer", rule="GF102", where="0", severity="warning",
        build=lambda: (zoo.mlp(60, 64, norm="batch", init="he"), rows(64, 64)),
    )  # fmt: skip
    yield Fault(
        group="initialisation", name="batch norm, 56 layers and no skip: gradients shatter", rule="GF301", where="0", severity="warning",
        build=lambda: (zoo.mlp(56, 64, norm="batch", init="he"), rows(64, 64)),
    )  # fmt: skip
    yield Fault(
        group="initialisation", name="a head of zeros", rule="GF106", where="24.weight", severity="warning",
        build=lambda: (filled(zoo.mlp(12, 16, init="he"), "24.weight", 0.0), rows()),
    )  # fmt: skip
    yield Fault(
        group="initialisation", name="one matrix 10⁴ times too large before a norm that hides it", rule="GF111", where="6.weight", severity="warning",
        build=lambda: (multiplied(chain(lambda: [nn.Linear(16, 16), nn.LayerNorm(16), nn.GELU()], 6), 1e4, "6.weight"), rows()),
    )  # fmt: skip


def one_layer() -> Iterator[Fault]:
    """One layer among sound ones: it is to be blamed, and not the depth."""
    for factor, rule in ((1e-6, "GF101"), (1e6, "GF102")):
        yield Fault(
            group="one layer", name=f"one of ten matrices times {factor:g}", rule=rule, where="*", severity="warning", told="at 10 (Linear)",
            build=lambda f=factor: (multiplied(zoo.mlp(10, 64, init="he"), f, "10.weight"), rows(64)),
        )  # fmt: skip
        yield Fault(
            group="one layer", name=f"one of eight convolutions times {factor:g}", rule=rule, where="convs.*", severity="warning", told="at convs.4 (Conv2d)",
            build=lambda f=factor: (multiplied(Cnn(8), f, "convs.4.weight"), torch.randn(4, 3, 8, 8)),
        )  # fmt: skip
    yield Fault(
        group="one layer", name="a factor of 10⁻⁵ in one place", rule="GF101", where="body*", severity="warning", told="between body",
        build=lambda: (Between(lambda h: 1e-5 * h), rows()),
    )  # fmt: skip
    yield Fault(
        group="one layer", name="the scale of one norm of six times 10⁻⁵", rule="GF101", where="*", told="at 7 (LayerNorm)", severity="warning",
        build=lambda: (multiplied(normed(6), 1e-5, "7.weight"), rows(64)),
    )  # fmt: skip


def normed(depth: int) -> nn.Module:
    """Linear layers with norms and no skip."""
    return nn.Sequential(*(module for _ in range(depth) for module in (nn.Linear(64, 64), nn.LayerNorm(64), nn.GELU())))


def zeros() -> Iterator[Fault]:
    """Gradients of exactly 0, and units that receive none."""
    for at, depth in (("0", 4), ("2", 4), ("6", 4)):
        yield Fault(
            group="zero gradient", name=f"ReLU layer {at} of {depth} dead (bias −10 everywhere)", rule="GF108", where=at,
            build=lambda a=at, d=depth: (filled(zoo.mlp(d, 16), f"{a}.bias", -10.0), rows()),
        )  # fmt: skip
    yield Fault(
        group="zero gradient", name="a dead convolution", rule="GF108", where="convs.2",
        build=lambda: (filled(Cnn(5, bias=0.1), "convs.2.bias", -50.0), torch.randn(4, 3, 8, 8)),
    )  # fmt: skip
    for name, act in (("round", torch.round), ("sign", torch.sign), ("floor", torch.floor)):
        yield Fault(
            group="zero gradient", name=f"{name}() between two layers", rule="GF108", where="body",
            build=lambda a=act: (Between(a), rows()),
        )  # fmt: skip
    yield Fault(
        group="zero gradient", name="clamp() that every value is beyond", rule="GF108", where="body",
        build=lambda: (Between(lambda h: (h + 100).clamp(0, 1)), rows()),
    )  # fmt: skip

    def half_dead() -> nn.Module:
        model = zoo.mlp(4, 16)
        with torch.no_grad():
            model[2].bias[:15] = -50.0
        return model

    yield Fault(
        group="zero gradient", name="15 of 16 ReLU units dead", rule="GF109", where="2", severity="warning",
        build=lambda: (half_dead(), rows(samples=64)),
    )  # fmt: skip
    yield Fault(
        group="zero gradient", name="a loss without gradient", rule="GF107", where="output",
        build=lambda: (zoo.mlp(3, 16), rows()), options={"loss": lambda out: (out - out.detach()).pow(2).mean()},
    )  # fmt: skip


def cut() -> Iterator[Fault]:
    """Parameters that no gradient reaches."""
    yield Fault(
        group="unreached", name="a head that nothing uses", rule="GF104", where="other", severity="warning",
        build=lambda: (Heads(lambda h, head, other: head(h)), rows()),
    )  # fmt: skip
    yield Fault(
        group="unreached", name="a head whose output the loss leaves out", rule="GF104", where="other", severity="warning",
        build=lambda: (Heads(lambda h, head, other: {"loss": head(h).pow(2).mean(), "more": other(h)}), rows()),
    )  # fmt: skip
    yield Fault(
        group="unreached", name="a head under no_grad", rule="GF104", where="other", severity="warning",
        build=lambda: (Heads(lambda h, head, other: head(h) + torch.no_grad()(other)(h)), rows()),
    )  # fmt: skip
    yield Fault(
        group="unreached", name="detach() before the head", rule="GF104", where="body.0", severity="error", line="",
        build=lambda: (Heads(lambda h, head, other: head(h.detach()) + other(h.detach()), 64), rows(64)),
    )  # fmt: skip
    yield Fault(
        group="unreached", name="a new tensor made from the old one's numbers", rule="GF104", where="body",
        build=lambda: (Between(lambda h: torch.tensor(h.tolist()), 64), rows(64)),
    )  # fmt: skip
    yield Fault(
        group="unreached", name="argmax() on the way", rule="GF104", where="body",
        build=lambda: (Between(lambda h: F.one_hot(h.argmax(-1), 64).float(), 64), rows(64)),
    )  # fmt: skip
    yield Fault(
        group="unreached", name="one branch of twelve detached", rule="GF104", where="layers.5.0", severity="warning",
        build=lambda: (Blocks(lambda x, h: x + h, lambda x, h: x + h.detach(), at=5), rows()),
    )  # fmt: skip
    yield Fault(
        group="frozen", name="everything but the head", rule="GF113", where="*", severity="info",
        build=lambda: (frozen(zoo.mlp(4, 16), "0", "2", "4", "6"), rows()),
    )  # fmt: skip
    yield Fault(
        group="frozen", name="ten of twelve blocks between trained ones", rule="GF113", where="*", severity="warning",
        build=lambda: (frozen(Blocks(lambda x, h: x + h), *(f"layers.{i}." for i in range(1, 11))), rows()),
    )  # fmt: skip


def nonfinite() -> Iterator[Fault]:
    """Infinities and NaN, at the line that makes them."""
    faults = (
        ("the derivative of sqrt at 0", lambda h: (h - h.amin(-1, keepdim=True)).sqrt(), "keepdim=True)).sqrt(), "),
        ("log of 0", lambda h: F.relu(h).log(), "F.relu(h).log()"),
        ("0/0", lambda h: (h - h) / (h - h), "(h - h) / (h - h)"),
        ("a division by 0", lambda h: h / F.relu(h), "h / F.relu(h)"),
        ("exp overflows", lambda h: (h * 1e4).exp(), "(h * 1e4).exp()"),
        ("the other side of where()", lambda h: torch.where(h > 0, h.sqrt(), h), "h.sqrt(), h)"),
        ("the norm of a zero row", lambda h: h * ((h * 0).pow(2).sum(-1, keepdim=True)).sqrt(), "(h * 0).pow(2)"),
        ("the standard deviation of a constant", lambda h: h / (h * 0).std(-1, keepdim=True), "h / (h * 0).std(-1"),
        ("a softmax that is masked throughout", lambda h: h * (h * 0 - torch.inf).softmax(-1), "- torch.inf).softmax(-1)"),
        ("acos at 1", lambda h: (h.sign() * h.sign()).add(h * 0).acos(), "(h * 0).acos()"),
    )  # fmt: skip
    for name, act, line in faults:
        yield Fault(group="not finite", name=name, rule="GF103", where="*", line=line, build=lambda a=act: (Between(a), rows()))
    yield Fault(
        group="not finite", name="an infinite weight", rule="GF103", where="*",
        build=lambda: (filled(zoo.mlp(4, 16), "4.weight", torch.inf), rows()),
    )  # fmt: skip
    yield Fault(
        group="not finite", name="NaN in the inputs", rule="GF103", where="*",
        build=lambda: (zoo.mlp(4, 16), torch.cat([rows(), torch.full((1, 16), torch.nan)])),
    )  # fmt: skip


def halves() -> Iterator[Fault]:
    """What float16 cannot hold."""
    yield Fault(
        group="half precision", name="float16: activations beyond 65504", rule="GF103", where="*",
        build=lambda: (multiplied(zoo.mlp(6, 64, init="he"), 20.0).half(), rows(64).half()),
    )  # fmt: skip
    yield Fault(
        group="half precision", name="autocast to float16: activations beyond 65504", rule="GF103", where="*",
        build=lambda: (multiplied(zoo.mlp(6, 64, init="he"), 20.0), rows(64)), options={"amp": "fp16"},
    )  # fmt: skip
    yield Fault(
        group="half precision", name="float16: gradients below 6e-8", rule="GF110", where="*", severity="warning",
        build=lambda: (zoo.mlp(6, 64, init="he").half(), rows(64).half()), options={"loss": lambda out: (out * 1e-7).float().sum()},
    )  # fmt: skip
    yield Fault(
        group="half precision", name="autocast to float16: underflow under the loss scale", rule="GF110", where="*", severity="warning",
        build=lambda: (zoo.mlp(8, 64, init="he"), rows(64)), options={"amp": "fp16", "loss": lambda out: out.float().sum() * 1e-12},
    )  # fmt: skip


def time_and_samples() -> Iterator[Fault]:
    """Recurrent networks through time, and a sample that drowns the others."""
    for gain, steps in ((1.5, 60), (2.0, 40), (1.2, 200)):
        yield Fault(
            group="through time", name=f"an exploding recurrence, W = {gain:g} × a rotation, {steps} steps", rule="GF102", where="cell", severity="warning",
            build=lambda g=gain, s=steps: (Recurrent(g, lambda h: h), torch.randn(s, 4, 16) * 0.1),
        )  # fmt: skip
    for name, loss, batch in (
        ("inputs", lambda out: out.pow(2).mean(), lambda: _poisoned(1e4)),
        ("inputs, among 64", lambda out: out.pow(2).mean(), lambda: torch.cat([_poisoned(1e4), rows(samples=56)])),
    ):
        yield Fault(
            group="one sample", name=f"{name} 10⁴ times too large", rule="GF112", where="*", severity="warning",
            build=lambda b=batch: (Between(F.relu), b()), options={"loss": loss},
        )  # fmt: skip
    yield Fault(
        group="one sample", name="a target 10⁴ times too large", rule="GF112", where="*", severity="warning",
        build=lambda: (Between(F.relu), rows(samples=32)), options={"targets": torch.cat([torch.ones(31, 4), torch.full((1, 4), 1e4)]), "loss": "mse"},
    )  # fmt: skip


def of_layers() -> tuple[Fault, ...]:
    return (*saturating(), *initialised(), *one_layer(), *zeros(), *cut(), *nonfinite(), *halves(), *time_and_samples())
