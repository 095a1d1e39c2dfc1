"""A pre-activation ResNet-110 whose shortcuts are halved: each of 54 passes on λ = 0.5. Cured by λ = 1."""

import torch
from torch import nn

CHANNELS = 16


class Block(nn.Module):
    def __init__(self, lam):
        super().__init__()
        self.lam = lam
        self.branch = nn.Sequential(*self.layer(), *self.layer())

    def layer(self):
        return nn.BatchNorm2d(CHANNELS), nn.ReLU(), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)

    def forward(self, x):
        return self.lam * x + self.branch(x)


class ResNet110(nn.Module):
    def __init__(self, lam=0.5):
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(lam) for _ in range(54)))
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.head = nn.Linear(CHANNELS, 10)

    def forward(self, images):
        return self.head(torch.relu(self.norm(self.blocks(self.stem(images)))).mean((2, 3)))


model = ResNet110
generator = torch.Generator().manual_seed(0)
inputs = torch.randn(8, 3, 8, 8, generator=generator)
targets = torch.randint(10, (8,), generator=generator)
loss = nn.functional.cross_entropy
