"""A residual MLP that adds x.detach(): the sum is right, and the gradient takes the branch alone. Cured by x."""

import torch
from torch import nn

WIDTH = 64


class Block(nn.Module):
    def __init__(self, cured):
        super().__init__()
        self.cured = cured
        self.branch = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, x):
        if self.cured:
            return x + self.branch(x)
        return x.detach() + self.branch(x)


def model(cured=False):
    return nn.Sequential(*(Block(cured) for _ in range(12)), nn.Linear(WIDTH, 10))


inputs = torch.randn(32, WIDTH, generator=torch.Generator().manual_seed(0))
loss = "probe"
