"""Small networks in which a fault is planted. Built in float32 from torch's global generator, which the caller seeds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Join = Callable[[Tensor, Tensor], Tensor]


class Blocks(nn.Module):
    """Residual blocks on [batch, width]: `join(x, F(x))`, but for block `at`, which has `odd(x, F(x))`; F is LayerNorm, linear, GELU, linear."""

    def __init__(self, join: Join, odd: Join | None = None, *, at: int = 0, depth: int = 12, width: int = 16) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(width, width), nn.Linear(width, 4)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)) for _ in range(depth))
        self.join, self.odd, self.at = join, odd or join, at

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for i, (norm, layer) in enumerate(zip(self.norms, self.layers, strict=True)):
            x = (self.odd if i == self.at else self.join)(x, layer(norm(x)))
        return self.head(x)


class Between(nn.Module):
    """linear, `act`, linear on [batch, width] -> [batch, 4]."""

    def __init__(self, act: Callable[[Tensor], Tensor], width: int = 16) -> None:
        super().__init__()
        self.body, self.head, self.act = nn.Linear(width, width), nn.Linear(width, 4), act

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.body(x)))


class Unit(nn.Module):
    """A residual unit whose shortcut and branch are modules."""

    def __init__(self, shortcut: nn.Module, branch: nn.Module) -> None:
        super().__init__()
        self.shortcut, self.branch = shortcut, branch

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.branch(x)


def units(shortcut: Callable[[], nn.Module], branch: Callable[[], nn.Module] | None = None, *, depth: int = 6, width: int = 16) -> nn.Sequential:
    """A stem, `depth` units and a head on [batch, width]; without a branch of its own a unit has LayerNorm, linear, GELU, linear."""
    made = branch or (lambda: nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)))
    return nn.Sequential(nn.Linear(width, width), *(Unit(shortcut(), made()) for _ in range(depth)), nn.Linear(width, 4))


class Cnn(nn.Module):
    """`depth` 3×3 convolutions with ReLU, the mean over pixels, and a linear head: [batch, 3, h, w] -> [batch, 4]."""

    def __init__(self, depth: int, width: int = 8, std: float | None = None, bias: float = 0.0) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3 if i == 0 else width, width, 3, padding=1) for i in range(depth))
        self.head = nn.Linear(width, 4)
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu") if std is None else nn.init.normal_(conv.weight, std=std)
            nn.init.normal_(conv.bias, std=bias)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = F.relu(conv(x))
        return self.head(x.mean((2, 3)))


class Recurrent(nn.Module):
    """h ← act(W·h + U·x) over the steps of [steps, batch, width], W being `gain` times a rotation, and a head on the last state."""

    def __init__(self, gain: float, act: Callable[[Tensor], Tensor] = torch.relu, width: int = 16) -> None:
        super().__init__()
        self.cell, self.read, self.head, self.act = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 4), act
        nn.init.orthogonal_(self.cell.weight, gain)

    def forward(self, steps: Tensor) -> Tensor:
        h = torch.zeros_like(steps[0])
        for x in steps:
            h = self.act(self.cell(h) + self.read(x))
        return self.head(h)


class LongLstm(nn.Module):
    """An LSTM cell over the steps of [steps, batch, 4] whose forget gates have the bias `forget`, and a head on the last state."""

    def __init__(self, forget: float, width: int = 8) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(4, width), nn.Linear(width, 4)
        with torch.no_grad():
            for bias in (self.cell.bias_ih, self.cell.bias_hh):
                bias.zero_()
            self.cell.bias_ih[width : 2 * width] = forget

    def forward(self, steps: Tensor) -> Tensor:
        h = c = steps.new_zeros(steps.shape[1], 8)
        for x in steps:
            h, c = self.cell(x, (h, c))
        return self.head(h)


class Heads(nn.Module):
    """A body and two heads of which `forward` returns what `give` makes of them."""

    def __init__(self, give: Callable[[Tensor, nn.Module, nn.Module], object], width: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, width), nn.GELU())
        self.head, self.other, self.give = nn.Linear(width, 4), nn.Linear(width, 4), give

    def forward(self, x: Tensor) -> object:
        return self.give(self.body(x), self.head, self.other)


def multiplied(model: nn.Module, factor: float, name: str = "weight") -> nn.Module:
    """`model` with every parameter called `name`, or whose path ends in it, times `factor`."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if f".{key}".endswith(f".{name}"):
                parameter.mul_(factor)
    return model


def filled(model: nn.Module, name: str, value: float) -> nn.Module:
    """`model` with the parameter `name` filled with `value`."""
    with torch.no_grad():
        model.get_parameter(name).fill_(value)
    return model


def frozen(model: nn.Module, *beginnings: str) -> nn.Module:
    """`model` with the parameters frozen whose names start with one of `beginnings`."""
    for key, parameter in model.named_parameters():
        if key.startswith(beginnings):
            parameter.requires_grad_(False)
    return model


def chain(steps: Callable[[], list[nn.Module]], depth: int, width: int = 16) -> nn.Sequential:
    """`steps` by turns, `depth` times, and a head."""
    return nn.Sequential(*(step for _ in range(depth) for step in steps()), nn.Linear(width, 4))
