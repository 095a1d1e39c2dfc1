"""ReZero: every branch is multiplied by a scale that starts at 0. In the first step its layers receive no gradient and the scale does: it opens. Healthy."""

import torch
from torch import nn

WIDTH = 64


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x + self.scale * self.branch(x)


def model(blocks=12):
    return nn.Sequential(nn.Linear(20, WIDTH), *(Block() for _ in range(blocks)), nn.Linear(WIDTH, 10))


inputs = torch.randn(32, 20, generator=torch.Generator().manual_seed(0))
loss = "probe"
