"""Twelve ReLU layers whose weights are drawn from N(0, 1): a gain of √(64/2) ≈ 5.7 a layer. Cured by σ = √(2/64), He's."""

import torch
from torch import nn

DEPTH, WIDTH = 12, 64


def model(std=1.0):
    layers = []
    for _ in range(DEPTH):
        linear = nn.Linear(WIDTH, WIDTH)
        nn.init.normal_(linear.weight, std=std)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10))


inputs = torch.randn(32, WIDTH, generator=torch.Generator().manual_seed(0))
loss = "probe"
