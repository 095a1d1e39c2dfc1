"""A ReLU layer in which a bias of -10 has killed 243 of 256 units, as one step of too high a learning rate does. Cured by biases of 0."""

import torch
from torch import nn


def model(bias=-10.0):
    hidden = nn.Linear(32, 256)
    nn.init.zeros_(hidden.bias)
    nn.init.constant_(hidden.bias[:243], bias)
    return nn.Sequential(hidden, nn.ReLU(), nn.Linear(256, 10))


def inputs():
    return torch.randn(64, 32)


loss = "probe"
