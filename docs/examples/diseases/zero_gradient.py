"""A score that is clamped to [0, 1] and starts at 3: the clamp's slope is 0 there, and nothing before it learns. Cured by a sigmoid."""

import torch
from torch import nn


class Scorer(nn.Module):
    def __init__(self, cured=False):
        super().__init__()
        self.cured = cured
        self.body = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 1))
        nn.init.constant_(self.body[2].bias, 3.0)

    def forward(self, x):
        score = self.body(x)
        if self.cured:
            return torch.sigmoid(score)
        return score.clamp(0, 1)


model = Scorer
generator = torch.Generator().manual_seed(0)
inputs = torch.randn(32, 16, generator=generator)
targets = torch.rand(32, 1, generator=generator)
loss = nn.functional.mse_loss
