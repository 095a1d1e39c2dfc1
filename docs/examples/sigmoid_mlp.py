"""Thirty sigmoid layers with torch's default initialisation and no skip: the textbook vanishing gradient.

A sigmoid's slope is at most 1/4 and a default linear map passes about 0.58 of a gradient's norm, so every layer keeps some 14 % of what it gets, and
over thirty layers nothing is left. gradflow finds no skip, and names the first layers as those that the gradient does not reach.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

LAYERS, FEATURES, WIDTH, CLASSES = 30, 20, 64, 10


def model() -> nn.Module:
    layers: list[nn.Module] = []
    for layer in range(LAYERS - 1):
        layers += [nn.Linear(FEATURES if layer == 0 else WIDTH, WIDTH), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))


generator = torch.Generator().manual_seed(0)
inputs = torch.randn(32, FEATURES, generator=generator)
targets = torch.randint(CLASSES, (32,), generator=generator)


def loss(output: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(output, targets)
