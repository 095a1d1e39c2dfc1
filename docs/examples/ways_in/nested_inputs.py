"""Containers as inputs: they cannot be written on a command line, so that this file defines `inputs`."""

import torch
from several_inputs import Several
from torch import Tensor


class Nested(Several):
    """One input: a dictionary that holds a tensor and a list."""

    def forward(self, batch: dict) -> Tensor:
        return super().forward(batch["x"], batch["more"][0])


generator = torch.Generator().manual_seed(0)
inputs = ({"x": torch.randn(4, 8, generator=generator), "more": [torch.randn(4, 8, generator=generator)]},)  # one positional argument
