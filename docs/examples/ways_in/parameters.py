"""Where parameters live, and who uses them how often."""

import torch
from parts import Block, Network
from torch import Tensor, nn
from torch.nn.utils import parametrizations


class Frozen(Network):
    """A frozen stem, and a block whose branch is frozen: gradients pass through both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem.requires_grad_(False)
        self.blocks[1].requires_grad_(False)


class Repeated(Network):
    """One block, called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = Block()

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = self.blocks(x)
        return x


class Shared(nn.Module):
    """A table that embeds the tokens and, transposed, reads the answer out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.block, self.head = nn.Embedding(50, 8), Block(), nn.Linear(8, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.block(self.embed(ids)))


class Raw(nn.Module):
    """Parameters that no layer owns; the skips have a learnable factor for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Parameter(torch.randn(8, 8) / 8**0.5)
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(8, 8) / 8**0.5) for _ in range(2))
        self.scales = nn.ParameterDict({"a": nn.Parameter(torch.ones(8)), "b": nn.Parameter(torch.ones(8))})

    def forward(self, x: Tensor) -> Tensor:
        x = x @ self.stem
        for weight, scale in zip(self.weights, self.scales.values(), strict=True):
            x = scale * x + (x @ weight).tanh()
        return x


PARAMETRIZATIONS = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
}


def parametrized(by: str = "weight_norm") -> nn.Module:
    """The weights of both branches are computed from other parameters."""
    model = Network()
    for block in model.blocks:
        PARAMETRIZATIONS[by](block.f)
    return model
