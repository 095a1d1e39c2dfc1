"""The replay: a gradient pushed down a stretch of the tape by calling its nodes directly.

Calling a node runs its backward without hooks and without freeing its buffers, so the highway costs no second forward or backward.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gradflow.operators import Role, role
from gradflow.residual import SkipPath, Stretch
from gradflow.residual.flow import name_of
from gradflow.tape import Tape


class Replay:
    """A stretch, ready to be replayed any number of times before the backward pass reaches it.

    Attributes:
        failure: the operator that could not be called and why; then nothing is said of what it would have sent.
    """

    def __init__(self, tape: Tape, stretch: Stretch) -> None:
        self._top = tape.values[stretch.top]
        self._bottom = tape.values[stretch.bottom]
        self.failure = ""
        self._steps: dict[Any, list[int]] = {}
        for fx_node, position in stretch.edges:
            if fx_node in tape.operators:  # a getitem picks an output of a node; the edge above it already leads there
                self._steps.setdefault(tape.operators[fx_node], []).append(position)

    def push(self, grad: Tensor) -> Tensor | None:
        """The gradient that arrives at the bottom when `grad` ([shape of the top's value]) starts at the top; None if none does."""
        waiting: dict[Any, dict[int, Tensor]] = {self._top[0]: {self._top[1]: grad}}
        with torch.no_grad():
            for node, positions in self._steps.items():
                grads = waiting.pop(node, None)
                if grads is None:
                    continue
                try:
                    results = call(node, grads, positions)
                except Exception as error:  # the engine may call a node in a way that we do not know: no fault of the model's
                    self.failure = f"{node.name()}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
                    return None
                for position in positions:
                    self._deliver(waiting, node, position, results[position])
        return waiting.get(self._bottom[0], {}).get(self._bottom[1])

    @staticmethod
    def _deliver(waiting: dict[Any, dict[int, Tensor]], node: Any, position: int, grad: Tensor | None) -> None:
        if grad is None:
            return
        target, nr = node.next_functions[position]
        arrived = waiting.setdefault(target, {})
        grad = _fit(grad, target._input_metadata[nr])
        arrived[nr] = arrived[nr] + grad if nr in arrived else grad


class Layout:
    """The changes of layout on a skip path (views, permutations, casts): what makes g comparable with s where the fork is laid out differently."""

    def __init__(self, tape: Tape, skip: SkipPath) -> None:
        self._shape = tuple(skip.fork.meta["shape"])
        self._through_view = bool(skip.join.meta.get("through_view"))  # the tape holds the sum in the layout of what is behind the view
        self._comparable = skip.form == "add" and Role.POOL not in skip.roles
        steps = zip(skip.path, skip.roles, strict=True)
        self._steps = [(tape.operators[n], p) for (n, p), r in steps if r is Role.LAYOUT and role(name_of(n)) is Role.LAYOUT and n in tape.operators]

    def of(self, g: Tensor) -> Tensor | None:
        """g in the fork's layout, or None where the path changes what a coordinate is (pooling, another width, a concatenation)."""
        if not self._comparable:
            return None
        if self._through_view and self._steps:
            inner = tuple(self._steps[0][0]._input_metadata[0].shape)
            g = g.reshape(inner) if g.numel() == math.prod(inner) else g
        for node, position in self._steps:
            if tuple(g.shape) != tuple(node._input_metadata[0].shape):
                return None
            pushed = call(node, {0: g}, [position])[position]
            if pushed is None:
                return None
            target, nr = node.next_functions[position]
            g = _fit(pushed, target._input_metadata[nr])
        if self._through_view and g.numel() == math.prod(self._shape):
            g = g.reshape(self._shape)
        return g if tuple(g.shape) == self._shape else None


def call(node: Any, grads: dict[int, Tensor], positions: list[int]) -> tuple[Tensor | None, ...]:
    """What a node sends along its edges for the given output gradients; outputs without one get none, as from the engine, or zeros in a custom function."""
    shortcut = _INPUT_ONLY.get(node.name()) if positions == [0] else None
    if shortcut is not None:
        return (shortcut(node, grads[0]),)
    metadata = node._input_metadata
    if callable(node) and not hasattr(node, "apply"):
        results = node(*(grads.get(i) for i in range(len(metadata))))
    else:
        results = node.apply(*(grads[i] if i in grads else torch.zeros(m.shape, dtype=m.dtype, device=m.device) for i, m in enumerate(metadata)))
    return results if isinstance(results, tuple) else (results,)


def _convolution_input(node: Any, grad: Tensor) -> Tensor:
    """The input's gradient alone: the node itself would compute the weight's as well, which is half the work."""
    return torch.ops.aten.convolution_backward(  # type: ignore[no-any-return]
        grad, node._saved_input, node._saved_weight, None, node._saved_stride, node._saved_padding, node._saved_dilation,
        node._saved_transposed, node._saved_output_padding, node._saved_groups, [True, False, False],
    )[0]  # fmt: skip


_INPUT_ONLY: dict[str, Callable[[Any, Tensor], Tensor]] = {"ConvolutionBackward0": _convolution_input}


def _fit(grad: Tensor, metadata: Any) -> Tensor:
    """As the engine does between nodes: summed to the value's shape where it was broadcast, cast to its type."""
    shape = tuple(metadata.shape)
    if tuple(grad.shape) != shape:
        grad = grad.sum_to_size(shape)
    return grad if grad.dtype == metadata.dtype else grad.to(metadata.dtype)
