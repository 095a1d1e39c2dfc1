"""Healthy networks whose branches are closed at initialisation: the gradient passes untouched, and (most) branch weights start with a gradient of exactly 0."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradflow.zoo.choices import ACTIVATIONS, at_least, initialise, one_of
from gradflow.zoo.mlp import ResidualMLP
from gradflow.zoo.residual import Residual


class ReZeroUnit(Residual):
    """x + α·F(x) on [batch, width] with a learnable scalar α = 0: Bachlechner et al. 2020, eq. 1. F is linear, activation, linear."""

    def __init__(self, width: int, activation: str) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(width, width), ACTIVATIONS[activation](), nn.Linear(width, width))
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.severed(self.alpha * self.branch(x))


class FixupUnit(Residual):
    """x + F(x) on [batch, channels, h, w]: two 3×3 convolutions, a scalar bias before each map and a scalar multiplier, of Zhang et al. 2019.

    The first convolution is He's, times `blocks`^(−1/2) (L^(−1/(2m−2)) with m = 2 layers); the last is zero. There is no ReLU after the sum.
    """

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.biases = nn.Parameter(torch.zeros(4))
        self.scale = nn.Parameter(torch.ones(()))
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        with torch.no_grad():
            self.first.weight.mul_(blocks**-0.5)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.relu(self.first(x + self.biases[0]) + self.biases[1])
        return x + self.severed(self.second(hidden + self.biases[2]) * self.scale + self.biases[3])


class FixupNet(nn.Module):
    """Images [batch, 3, h, w] -> logits [batch, classes]: a 3×3 stem, `blocks`, global average pooling and a linear head."""

    def __init__(self, blocks: int, width: int, classes: int, zero_head: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(*(FixupUnit(width, blocks) for _ in range(blocks)))
        self.head = nn.Linear(width, classes)
        if zero_head:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.blocks(self.stem(x))
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits


def rezero_net(
    blocks: int = 16, width: int = 64, *, activation: str = "relu", init: str = "he", inputs: int | None = None, outputs: int | None = 10
) -> ResidualMLP:
    """ReZero (Bachlechner et al. 2020): x + α·F(x) with α = 0, on vectors [batch, inputs] -> [batch, outputs].

    At initialisation the gradient at every fork equals that at the last join, and every weight of every F has a gradient of exactly 0; the α's have not.

    Args:
        blocks: residual units.
        width: features of the trunk.
        activation: see `mlp`.
        init: see `mlp`.
        inputs: features of x, mapped to the trunk by a linear stem; None means that x is the trunk's first state, [batch, width].
        outputs: logits of a linear head; None means that the trunk's last state is the output.

    Raises:
        ValueError: an argument is outside its allowed values, which the message names.
    """
    one_of("activation", activation, ACTIVATIONS)
    sizes = {name: size for name, size in (("inputs", inputs), ("outputs", outputs)) if size is not None}
    at_least(1, blocks=blocks, width=width, **sizes)
    network = ResidualMLP([ReZeroUnit(width, activation) for _ in range(blocks)], width, inputs, outputs)
    initialise(network, init)
    return network


def fixup_net(blocks: int = 8, width: int = 16, classes: int = 10, zero_head: bool = False) -> FixupNet:
    """Fixup (Zhang et al. 2019): residual units without normalisation whose last convolution starts at zero.

    At initialisation the gradient at every fork equals that at the last join, and the first convolution of every unit has a gradient of exactly 0; the
    last one has not, which is how training starts.

    Args:
        blocks: residual units L; each first convolution is scaled by L^(−1/2).
        width: channels of the trunk.
        classes: logits.
        zero_head: start the classifier at zero too, as the paper does. Then no gradient at all enters the trunk in the first step, so it is off by default.

    Raises:
        ValueError: a size is not a positive integer.
    """
    at_least(1, blocks=blocks, width=width, classes=classes)
    return FixupNet(blocks, width, classes, zero_head)
