"""Convolutional residual networks after He et al. 2015 and 2016, with every shortcut of their Table 1. A network of depth d has (d - 2) / 2 two-layer units."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from gradflow.zoo.choices import at_least, initialise, one_of
from gradflow.zoo.residual import Residual
from gradflow.zoo.shortcuts import Gate, Scaled, resize

GATED = ("exclusive_gating", "shortcut_only_gating")
SHORTCUTS = ("identity", "scaled", *GATED, "conv1x1", "dropout", "none")


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """What all units of one network share: the shortcut's kind and constants, and whether the branch normalises."""

    preact: bool
    shortcut: str
    scale: float
    branch_scale: float
    gate_bias: float
    gate_weights: str
    option: str
    norm: bool

    def __post_init__(self) -> None:
        one_of("shortcut", self.shortcut, SHORTCUTS)
        one_of("gate_weights", self.gate_weights, ("zero", "he"))
        one_of("option", self.option, ("A", "B"))
        if self.scale != 1.0 and self.shortcut != "scaled":
            raise ValueError(f"scale={self.scale!r} has a meaning for shortcut='scaled' alone, not for shortcut={self.shortcut!r}")

    def conv(self, inside: int, outside: int, stride: int = 1) -> nn.Conv2d:
        """A 3×3 convolution that keeps the size (or divides it by `stride`); it has a bias where no norm follows."""
        return nn.Conv2d(inside, outside, 3, stride, 1, bias=not self.norm)

    def normed(self, channels: int) -> list[nn.Module]:
        """The batch norm of [batch, channels, height, width], or nothing."""
        return [nn.BatchNorm2d(channels)] if self.norm else []

    def branch(self, inside: int, outside: int, stride: int) -> nn.Sequential:
        """F: norm, ReLU, 3×3 twice (He et al. 2016, fig. 4e), or 3×3, norm, ReLU, 3×3, norm where the activation follows the sum (fig. 4a)."""
        first, second = self.conv(inside, outside, stride), self.conv(outside, outside)
        if self.preact:
            return nn.Sequential(*self.normed(inside), nn.ReLU(), first, *self.normed(outside), nn.ReLU(), second)
        return nn.Sequential(first, *self.normed(outside), nn.ReLU(), second, *self.normed(outside))

    def skip(self, inside: int, outside: int, stride: int) -> nn.Module | None:
        """S without its gate; None for the plain network."""
        if self.shortcut == "none":
            return None
        if self.shortcut == "conv1x1":
            return nn.Conv2d(inside, outside, 1, stride, bias=False)
        path = resize(inside, outside, stride, self.option)
        if self.shortcut == "scaled":
            return nn.Sequential(path, Scaled(self.scale)) if stride > 1 or inside != outside else Scaled(self.scale)
        return nn.Sequential(path, nn.Dropout(0.5)) if self.shortcut == "dropout" else path


class ConvUnit(Residual):
    """A two-layer unit, [batch, inside, h, w] -> [batch, outside, h/stride, w/stride]; the sum is the last step, but for the ReLU after it in post-activation.

    With a gate g the sum is (1 − g)·S + g·F ("exclusive_gating") or (1 − g)·S + F ("shortcut_only_gating"): He et al. 2016, section 3.1.
    """

    def __init__(self, wiring: Wiring, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.branch = wiring.branch(inside, outside, stride)
        self.skip = wiring.skip(inside, outside, stride)
        self.gate = Gate(inside, outside, stride, wiring.gate_bias, wiring.gate_weights) if wiring.shortcut in GATED else None
        self.exclusive = wiring.shortcut == "exclusive_gating"
        self.branch_scale, self.preact = wiring.branch_scale, wiring.preact

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.branch(x)
        if self.branch_scale != 1.0:
            branch = branch * self.branch_scale
        joined = self._join(x, branch)
        return joined if self.preact else functional.relu(joined)

    def _join(self, x: Tensor, branch: Tensor) -> Tensor:
        if self.skip is None:
            return self.severed(branch)
        skip: Tensor = self.skip(x)
        if self.gate is None:
            return skip + self.severed(branch)
        gate: Tensor = self.gate(x)
        carry = self.severed(1 - gate)
        return carry * skip + self.severed(gate * branch if self.exclusive else branch)


class ConvResNet(nn.Module):
    """Images [batch, 3, h, w] -> logits [batch, classes]: a 3×3 stem, `blocks` (one `ConvUnit` each), global average pooling and a linear head."""

    def __init__(self, wiring: Wiring, depth: int, stages: Sequence[int], classes: int, init: str) -> None:
        super().__init__()
        activation = [] if wiring.preact else [*wiring.normed(stages[0]), nn.ReLU()]
        self.stem = nn.Sequential(wiring.conv(3, stages[0]), *activation)
        units, inside = [], stages[0]
        for stage, outside in enumerate(stages):
            for unit in range((depth - 2) // (2 * len(stages))):
                units.append(ConvUnit(wiring, inside, outside, 2 if stage > 0 and unit == 0 else 1))
                inside = outside
        self.blocks = nn.Sequential(*units)
        self.tail = nn.Sequential(*wiring.normed(inside), nn.ReLU()) if wiring.preact else nn.Identity()
        self.head = nn.Linear(inside, classes)
        initialise(self, init)
        for module in self.modules():
            if isinstance(module, Gate):
                module.reset()

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.tail(self.blocks(self.stem(x)))
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits


def _build(wiring: Wiring, depth: int, stages: Sequence[int], classes: int, init: str) -> ConvResNet:
    if not isinstance(stages, tuple | list) or not stages:
        raise ValueError(f"stages={stages!r} must be a tuple of channel counts such as (16,) or (16, 32, 64)")
    at_least(1, classes=classes, **{f"stages[{index}]": channels for index, channels in enumerate(stages)})
    at_least(2, depth=depth)
    step = 2 * len(stages)
    if depth <= 2 or (depth - 2) % step:
        raise ValueError(f"depth={depth} does not divide into {len(stages)} stage(s) of two-layer units: it must be {step}n+2 with n of at least 1")
    return ConvResNet(wiring, depth, stages, classes, init)


def preact_resnet(
    depth: int = 20,
    *,
    shortcut: str = "identity",
    scale: float = 1.0,
    branch_scale: float = 1.0,
    gate_bias: float = -6.0,
    gate_weights: str = "zero",
    option: str = "A",
    stages: Sequence[int] = (16,),
    classes: int = 10,
    norm: bool = True,
    init: str = "he",
) -> ConvResNet:
    """The full pre-activation ResNet of He et al. 2016: x_{l+1} = S(x_l) + F(x_l), and nothing on the trunk between two sums.

    By default every unit has the same width and resolution, so that each of the (depth - 2) / 2 shortcuts is comparable and the highway of a constant
    shortcut is exactly λ to that power; `stages=(16, 32, 64)` is He's CIFAR network, whose stages each halve the image. A stage's first unit takes its
    shortcut from x itself, as all the others do.

    Args:
        depth: weighted layers, 2·n·len(stages) + 2; 110 has 54 units.
        shortcut: "identity", "scaled" (λ = `scale`), "exclusive_gating", "shortcut_only_gating", "conv1x1", "dropout" (0.5) or "none".
        scale: λ of the scaled shortcut, in front of the resized x where the shape changes.
        branch_scale: constant factor on F.
        gate_bias: b of the gate σ(Wx + b); 1 − σ(b) is what the shortcut carries.
        gate_weights: "zero" (the gate is σ(b) exactly) or "he".
        option: where the shape changes, "A" (stride and zero-pad) or "B" (a strided 1×1 convolution without norm).
        stages: channels of each stage.
        classes: logits.
        norm: batch norm, or convolutions with a bias and no norm.
        init: "he" (N(0, 2/fan_in)) or another rule of `gradflow.zoo.choices.INITS`.

    Returns:
        A module [batch, 3, h, w] -> [batch, classes].

    Raises:
        ValueError: an argument is outside its allowed values, which the message names.
    """
    wiring = Wiring(
        preact=True,
        shortcut=shortcut,
        scale=scale,
        branch_scale=branch_scale,
        gate_bias=gate_bias,
        gate_weights=gate_weights,
        option=option,
        norm=norm,
    )
    return _build(wiring, depth, stages, classes, init)


def postact_resnet(
    depth: int = 20,
    *,
    shortcut: str = "identity",
    scale: float = 1.0,
    branch_scale: float = 1.0,
    gate_bias: float = -6.0,
    gate_weights: str = "zero",
    option: str = "A",
    stages: Sequence[int] = (16,),
    classes: int = 10,
    norm: bool = True,
    init: str = "he",
) -> ConvResNet:
    """The ResNet of He et al. 2015 and of Table 1 of He et al. 2016: x_{l+1} = ReLU(S(x_l) + F(x_l)).

    The ReLU after the sum belongs to the trunk: a constant shortcut λ is exact from each sum to its fork, while the highway over many units carries the
    ReLU masks too. `stages=(16, 32, 64)` is the CIFAR network (1.7 M parameters at depth 110 with option A).

    Args:
        depth: weighted layers, 2·n·len(stages) + 2; 110 has 54 units.
        shortcut: see `preact_resnet`, as for every argument below.
        scale: λ of the scaled shortcut.
        branch_scale: constant factor on F.
        gate_bias: b of the gate.
        gate_weights: "zero" or "he".
        option: "A" or "B".
        stages: channels of each stage.
        classes: logits.
        norm: batch norm or none.
        init: a rule of `gradflow.zoo.choices.INITS`.

    Returns:
        A module [batch, 3, h, w] -> [batch, classes].

    Raises:
        ValueError: an argument is outside its allowed values, which the message names.
    """
    wiring = Wiring(
        preact=False,
        shortcut=shortcut,
        scale=scale,
        branch_scale=branch_scale,
        gate_bias=gate_bias,
        gate_weights=gate_weights,
        option=option,
        norm=norm,
    )
    return _build(wiring, depth, stages, classes, init)
