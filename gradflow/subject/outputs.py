"""What a model returned, seen as tensors to walk back from. Computes nothing."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from gradflow.errors import NoGradient
from gradflow.subject.structure import CACHES, children, described, tensors


def differentiable_outputs(output: object) -> tuple[tuple[str, torch.Tensor], ...]:
    """Every floating or complex tensor with a gradient in an output, with its path ("output", "output[0]", "output.logits").

    Tuples, lists, mappings, dataclasses and what inherits from them are walked into, a language model's caches are not. An output that is an object of
    another kind (a distribution) is seen by its attributes.
    """
    if children(output) is None and not isinstance(output, torch.Tensor):
        output = {name: value for name, value in getattr(output, "__dict__", {}).items() if not name.startswith("_")}
    return tuple((name, tensor) for name, tensor in tensors(output, "output", skip=CACHES) if is_differentiable(tensor))


def is_differentiable(tensor: torch.Tensor) -> bool:
    """Whether a gradient can start at the tensor: it has one, and elements."""
    return tensor.requires_grad and (tensor.is_floating_point() or tensor.is_complex()) and tensor.numel() > 0


def primary_output(output: object, what: str) -> torch.Tensor:
    """The tensor that a named loss looks at: `.logits` where the output has it, else the first differentiable one.

    Raises:
        NoGradient: there is none; the error says what was found instead.
    """
    logits = _entry(output, "logits")
    if isinstance(logits, torch.Tensor) and is_differentiable(logits):
        return logits
    found = differentiable_outputs(output)
    if not found:
        raise NoGradient(what=what, found=described(output))
    return found[0][1]


def own_loss(output: object) -> torch.Tensor | None:
    """The loss that the model computed itself (`output.loss`, `output["loss"]`), if it is one real number with a gradient."""
    loss = _entry(output, "loss")
    return loss if isinstance(loss, torch.Tensor) and _is_real_scalar(loss) else None


def scalar_output(output: object) -> torch.Tensor | None:
    """The output itself, if it is one real number with a gradient."""
    return output if isinstance(output, torch.Tensor) and _is_real_scalar(output) else None


def _is_real_scalar(tensor: torch.Tensor) -> bool:
    return tensor.numel() == 1 and tensor.requires_grad and tensor.is_floating_point()


def _entry(output: object, name: str) -> object:
    if isinstance(output, torch.Tensor):
        return None
    if isinstance(output, Mapping):
        return output.get(name)
    return getattr(output, name, None)
