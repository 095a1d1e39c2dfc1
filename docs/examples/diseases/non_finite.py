"""The length of a vector by a square root, for a batch with a padded sample: the root's slope at 0 is infinite, and 0·∞ is NaN. Cured by adding 1e-12."""

import torch
from torch import nn


class Lengths(nn.Module):
    def __init__(self, epsilon=0.0):
        super().__init__()
        self.epsilon = epsilon
        self.project = nn.Linear(16, 32, bias=False)
        self.head = nn.Linear(1, 10)

    def forward(self, x):
        squares = self.project(x).pow(2).sum(-1, keepdim=True)
        return self.head(torch.sqrt(squares + self.epsilon))


model = Lengths
inputs = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
inputs[7] = 0  # padding
loss = "probe"
