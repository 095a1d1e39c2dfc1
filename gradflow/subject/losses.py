"""The losses that have a name. Each is a row: how its random targets are drawn, and how it is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from gradflow.subject.seeding import draw

Tensor = torch.Tensor


@dataclass(frozen=True, kw_only=True)
class NamedLoss:
    """`targets` draws targets for an output, None where the loss needs none; `value` computes the loss from output and targets."""

    targets: Callable[[Tensor, torch.Generator], Tensor] | None
    value: Callable[[Tensor, Tensor], Tensor]


def _normal(output: Tensor, generator: torch.Generator) -> Tensor:
    return draw(tuple(output.shape), output.dtype, generator).to(output.device)


def _coins(output: Tensor, generator: torch.Generator) -> Tensor:
    return draw(tuple(output.shape), torch.bool, generator).to(output.device, output.dtype)


def _classes(output: Tensor, generator: torch.Generator) -> Tensor:
    """Class ids: [N] for [N, C], [B, T] for [B, T, C], [N, H, W] for [N, C, H, W], one number for [C]."""
    axis = _class_axis(output)
    shape = tuple(size for index, size in enumerate(output.shape) if index != axis)
    return draw(shape, torch.int64, generator, max(output.shape[axis], 1)).to(output.device)


def _class_axis(output: Tensor) -> int:
    """torch has the classes in dimension 1. A 3-d output is read as a language model's [batch, tokens, classes] instead."""
    if output.dim() == 0:
        raise ValueError("an output without dimensions has no classes")
    return {1: 0, 2: 1, 3: 2}.get(output.dim(), 1)


def _classwise(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Brings a language model's output and targets into torch's layout; targets [B, d2] of an output [B, C, d2] are torch's already."""

    def value(output: Tensor, targets: Tensor) -> Tensor:
        if output.dim() != 3 or (targets.dim() == 2 and targets.shape != output.shape[:2]):
            return loss(output, targets)
        probabilities = targets.shape == output.shape
        return loss(output.flatten(0, 1), targets.flatten(0, 1) if probabilities else targets.flatten())

    return value


def _same_dtype(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Integer labels are welcome; shapes that would broadcast are not: [N, 1] against [N] compares every output with every target."""

    def value(output: Tensor, targets: Tensor) -> Tensor:
        if targets.shape != output.shape:
            raise ValueError(f"the output has the shape {list(output.shape)} and the targets {list(targets.shape)}")
        return loss(output, targets.to(output.dtype))

    return value


NAMED = {
    "mse": NamedLoss(targets=_normal, value=_same_dtype(F.mse_loss)),
    "l1": NamedLoss(targets=_normal, value=_same_dtype(F.l1_loss)),
    "smooth_l1": NamedLoss(targets=_normal, value=_same_dtype(F.smooth_l1_loss)),
    "cross_entropy": NamedLoss(targets=_classes, value=_classwise(F.cross_entropy)),
    "nll": NamedLoss(targets=_classes, value=_classwise(F.nll_loss)),
    "bce": NamedLoss(targets=_coins, value=_same_dtype(F.binary_cross_entropy_with_logits)),
    "sum": NamedLoss(targets=None, value=lambda output, _: output.sum()),
    "mean": NamedLoss(targets=None, value=lambda output, _: output.mean()),
}
