"""What a TorchScript module was before it was compiled, as far as its classes' names and its weights' shapes tell. For guessing inputs; nothing runs it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from gradflow.subject.structure import class_name

_LAYERS: dict[str, Callable[..., nn.Module]] = {
    "Linear": lambda w: nn.Linear(w[1], w[0], device="meta"),
    "Conv1d": lambda w: nn.Conv1d(w[1], w[0], w[2], device="meta"),  # a first convolution has one group
    "Conv2d": lambda w: nn.Conv2d(w[1], w[0], w[2:], device="meta"),
    "Conv3d": lambda w: nn.Conv3d(w[1], w[0], w[2:], device="meta"),
    "Embedding": lambda w: nn.Embedding(w[0], w[1], device="meta"),
    "LayerNorm": lambda w: nn.LayerNorm(w, device="meta"),
    "BatchNorm1d": lambda w: nn.BatchNorm1d(w[0], device="meta"),
    "BatchNorm2d": lambda w: nn.BatchNorm2d(w[0], device="meta"),
}


def likeness(module: nn.Module) -> nn.Module:
    """A module with the same tree of names, in which layers of torch.nn are real ones without numbers, and others are empty classes of the same name."""
    weight = getattr(module, "weight", None)
    layer = _LAYERS.get(class_name(module))
    if layer is not None and isinstance(weight, torch.Tensor):
        return layer(tuple(weight.shape))
    shell: nn.Module = type(class_name(module), (nn.Module,), {})()
    for name, child in module.named_children():
        shell.add_module(name, likeness(child))
    return shell
