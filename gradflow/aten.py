"""From an autograd node to the ATen operator that it is the backward of, with the constants that it saved."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import cache
from operator import getitem
from typing import Any

import torch
from torch import fx

__all__ = ["constant", "drops_everything", "getitem", "is_mask", "keywords", "operator", "takes_untracked", "written_slice"]

_STAND_INS = {"CopySlices": "copy_slices", "CopyBackwards": "_to_copy", "torch::autograd::CopyBackwards": "_to_copy"}
_LOOK_UPS = frozenset({"embedding", "embedding_bag", "_embedding_bag", "index", "index_select", "gather"})


@cache
def operator(name: str) -> Callable[..., Any]:
    """`torch.ops.aten.add` for "AddBackward0"; a stand-in of the same name where ATen has no such operator.

    ATen's nodes are numbered. One that is not is a custom function's, whose class may well be called Linear or Add and do something else.
    """
    bare = re.sub(r"Backwards?\d*$", "", name.rsplit("::", 1)[-1])
    if name not in _STAND_INS and not name[-1:].isdigit() and not name.endswith("CopySlices"):
        return _stand_in(bare if bare[:1].isupper() else f"{bare}_function")
    snake = _STAND_INS.get(name) or _snake(bare)
    for candidate in (snake, "_" + snake):
        if hasattr(torch.ops.aten, candidate):
            return getattr(torch.ops.aten, candidate)  # type: ignore[no-any-return]
    return _stand_in(snake or "unknown")


def _snake(camel: str) -> str:
    camel = re.sub(r"(?<=\d)D", "d", camel)  # MaxPool2DWithIndices
    parts = re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z]+|\d+", camel)
    return "_".join(p.lower() for p in parts)


def _stand_in(name: str) -> Callable[..., Any]:
    def unavailable(*args: object, **kwargs: object) -> object:
        raise NotImplementedError(f"{name} stands for a tape node without an ATen operator; it cannot be run")

    unavailable.__name__ = unavailable.__qualname__ = name if name.isidentifier() else "unknown"
    return unavailable


def written_slice(node: Any, function: str) -> Callable[..., Any] | None:
    """The sum, or the copy, behind a CopySlices node, which holds the whole that a view was written to.

    `out += x` on nn.Linear's 3-d output and `out[:, 2:] += x` are sums; `zeros[:] = x` is x.
    """
    if not node.name().endswith("CopySlices"):
        return None
    sizes = [math.prod(target._input_metadata[nr].shape) for target, nr in node.next_functions if target is not None]
    whole = math.prod(node._input_metadata[0].shape)
    if function in ("copy_", "__setitem__"):
        return torch.ops.aten._to_copy if sizes == [whole] else None
    if function not in ("add_", "__iadd__", "sub_", "__isub__") or len(sizes) != 2 or sizes[0] != whole or sizes[1] > whole:
        return None
    return torch.ops.aten.sub if "sub" in function else torch.ops.aten.add


def keywords(node: Any) -> dict[str, object]:
    """The saved constants that change what the operator does to a gradient."""
    found = {name: getattr(node, f"_saved_{name}", 1) for name in ("alpha", "beta")}
    return {name: value for name, value in found.items() if isinstance(value, (int, float)) and value != 1}


def constant(node: Any, position: int) -> object:
    """The untracked operand at an edge that leads nowhere: a Python number where the node saved one, a tuple (its shape) for a tensor, else None."""
    for saved in ("_saved_self", "_saved_other")[position : position + 1]:
        tensor = _saved(node, saved)
        if isinstance(tensor, torch.Tensor):
            return tensor.item() if tensor.dim() == 0 and tensor.device.type == "cpu" else tuple(tensor.shape)
    return None


def _saved(node: Any, name: str) -> object:
    try:
        return getattr(node, name, None)
    except RuntimeError:  # the saved tensor was changed in place: backward will say so
        return None


def takes_untracked(target: Callable[..., Any], inputs: Sequence[fx.Node | None]) -> bool:
    """Whether an operator of parameters alone can still carry data: it looks rows up, or has an operand that is not on the tape."""
    return None in inputs or getattr(target, "__name__", "") in _LOOK_UPS


def drops_everything(node: Any, inputs: Sequence[fx.Node | None]) -> bool:
    """Whether a per-sample mask (stochastic depth) is 0 for every sample of this batch. Reads the mask's few numbers from the device."""
    if len(inputs) != 2 or None not in inputs:
        return False
    mask = _saved(node, "_saved_other" if inputs[1] is None else "_saved_self")
    return isinstance(mask, torch.Tensor) and mask.numel() == mask.shape[:1].numel() and not bool(mask.any())


def is_mask(node: Any, inputs: Sequence[fx.Node | None], function: str) -> bool:
    """Whether a multiplication is by a random mask: inside a dropout function, or by one untracked number per sample (stochastic depth)."""
    if "dropout" in function:
        return True
    if len(inputs) != 2 or None not in inputs or inputs == [None, None]:
        return False
    shape = constant(node, inputs.index(None))
    return isinstance(shape, tuple) and len(shape) > 1 and shape[0] > 1 and set(shape[1:]) == {1}
