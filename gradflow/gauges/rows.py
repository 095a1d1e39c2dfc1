"""Which sample each row of a layer's input is of: batch-first models that compute time-major, merged and rearranged dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from gradflow.highway import call
from gradflow.operators import SLICING, Role, role
from gradflow.residual.flow import name_of
from gradflow.tape import Tape

_ELEMENTWISE = frozenset({Role.SCALE, Role.MULTIPLY, Role.DIVIDE, Role.ACTIVATION, Role.NORM, Role.DROPOUT, Role.ADD, Role.LERP})
LOOKED_UP = frozenset({"embedding", "embedding_bag"})


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """The rows that a value is made of, outermost dimension first: its slices along that, or of an embedding the vector of each id.

    Attributes:
        count: of the rows.
        samples: the batch size.
        order: the sample of each row, int64 [count] on the CPU; None where the samples stand one after another, each with as many rows as the others.
    """

    count: int
    samples: int
    order: Tensor | None = None

    def gather(self, sums: Tensor) -> Tensor:
        """Sums of the rows, [count] -> sums of the samples, [samples]."""
        if self.order is None:
            return sums.reshape(self.samples, -1).sum(dim=1)
        return sums.new_zeros(self.samples).index_add_(0, self.order.to(sums.device), sums)


class RowFinder:
    """Follows what a layer is given back to the model's input, whose leading dimension counts the samples.

    Args:
        samples: the batch size.
        inputs: as they were handed to the model; token ids are not on the tape.
    """

    def __init__(self, tape: Tape, samples: int, inputs: Sequence[Tensor]) -> None:
        self._tape, self._samples, self._inputs = tape, samples, inputs
        self._known: dict[object, Rows | None] = {}  # the calls in a loop come by like ways

    def of(self, node: fx.Node, given: Sequence[int]) -> Rows | None:
        """The rows of what a layer's operator is given, of shape `given`; None where it is not certain which sample each is of."""
        try:
            if name_of(node) in LOOKED_UP:
                return self._looked_up(self._tape.operators[node]._saved_indices)
            return self._followed(node, tuple(given))
        except (AttributeError, RuntimeError, TypeError, ValueError):  # an operator that cannot be called alone, or that has not kept its indices
            return None

    def _looked_up(self, indices: Tensor) -> Rows | None:
        """Ids that are a view of an input have its samples where the view has put them."""
        storage = indices.untyped_storage()
        for ids in self._inputs:
            is_view = ids.device == indices.device and ids.untyped_storage().data_ptr() == storage.data_ptr()
            if is_view and ids.shape[:1] == (self._samples,):
                memory = torch.full((storage.nbytes() // ids.element_size(),), -1)
                memory.as_strided(ids.shape, ids.stride(), ids.storage_offset()).copy_(_counted(ids.shape))
                found = memory.as_strided(indices.shape, indices.stride(), indices.storage_offset())
                return _ordered(found.reshape(-1, 1), self._samples)
        return self._leading(tuple(indices.shape))

    def _followed(self, node: fx.Node, given: tuple[int, ...]) -> Rows | None:
        steps: list[_Step] = []
        edge = _edge(self._tape, node)
        while edge is not None and edge.below.op != "placeholder":
            edge = _edge(self._tape, edge.below)
            if edge is not None and (role(edge.name) is Role.LAYOUT or edge.name in SLICING) and edge.name != "to_copy":
                steps.append(edge)
            elif edge is None or not _is_elementwise(edge):
                return self._leading(given)
        if edge is None:
            return self._leading(given)
        shape = tuple(edge.below.meta["shape"])
        if shape[:1] != (self._samples,):
            return None
        if all(step.name in SLICING for step in steps):
            clear = all(self._leading(at) for at in (shape, given, *(step.shape for step in steps)))
            if clear or not steps:
                return Rows(count=self._samples, samples=self._samples)
        way = (given, shape, *((step.name, step.shape, step.position) for step in steps))
        if way not in self._known:
            self._known[way] = _pushed(steps, given, shape)
        return self._known[way]

    def _leading(self, shape: tuple[int, ...]) -> Rows | None:
        """What a shape alone tells: where one dimension has the samples' number, and it is the leading one, it counts them."""
        found = shape[:1] == (self._samples,) and shape.count(self._samples) == 1
        return Rows(count=self._samples, samples=self._samples) if found else None


@dataclass(frozen=True, kw_only=True)
class _Step:
    """An operator with the one edge on which it takes what is computed from the model's input."""

    operator: Any
    name: str
    number: int
    position: int
    shape: tuple[int, ...]
    below: fx.Node


def _edge(tape: Tape, node: fx.Node) -> _Step | None:
    """The first edge to data of an operator all of whose operands of that kind have one shape; None where they have not, or where it is not on the tape."""
    whole = node.args[0] if name_of(node) == "getitem" else node  # an item picks an output of the operator before it
    operator = tape.operators.get(whole) if isinstance(whole, fx.Node) else None
    if operator is None or not isinstance(whole, fx.Node):
        return None
    edges = len(operator.next_functions)
    data = [(i, a) for i, a in enumerate(whole.args) if isinstance(a, fx.Node) and a.meta.get("data")]
    if not data or data[0][0] >= edges or len({tuple(a.meta["shape"]) for _, a in data}) > 1:
        return None
    position, below = data[0]
    number = tape.values[node][1] if node in tape.values else 0
    return _Step(operator=operator, name=name_of(whole), number=number, position=position, shape=tuple(node.meta["shape"]), below=below)


def _is_elementwise(step: _Step) -> bool:
    return (role(step.name) in _ELEMENTWISE or step.name == "to_copy") and step.shape == tuple(step.below.meta["shape"])


def _pushed(steps: Sequence[_Step], shape: tuple[int, ...], given: tuple[int, ...]) -> Rows | None:
    """The numbers of the rows, sent back through the changes of layout as a gradient would be; their squares as well, which tell where two were added.

    Args:
        shape: of what the layer is given.
        given: of the model's input.
    """
    numbers = torch.arange(1, shape[0] + 1, dtype=torch.float64).reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
    row, square = numbers, numbers.square()
    for step in steps:
        row, square = (_sent(step, sent) for sent in (row, square))
    if tuple(row.shape) != given or not bool((row.square() == square).all()):
        return None
    rows, sample = row.reshape(-1).long(), _counted(row.shape).reshape(-1)
    low = torch.full((shape[0] + 1,), given[0]).scatter_reduce_(0, rows, sample, "amin")
    high = torch.full((shape[0] + 1,), -1).scatter_reduce_(0, rows, sample, "amax")
    return _ordered(torch.stack([low, high], dim=1)[1:], given[0])


def _sent(step: _Step, grad: Tensor) -> Tensor:
    found = call(step.operator, {step.number: grad.reshape(step.shape)}, [step.position])[step.position]
    if found is None:
        raise ValueError("nothing is sent")
    return found.sum_to_size(tuple(step.below.meta["shape"]))


def _ordered(sample: Tensor, samples: int) -> Rows | None:
    """`sample`: that of each element, [rows, elements of a row]."""
    count = sample.shape[0]
    order = sample[:, 0]
    if not bool((sample == order[:, None]).all()) or not bool(((order >= 0) & (order < samples)).all()):
        return None
    plain = count % samples == 0 and bool((order == torch.arange(samples).repeat_interleave(count // samples)).all())
    return Rows(count=count, samples=samples, order=None if plain else order)


def _counted(shape: Sequence[int]) -> Tensor:
    """The number of each element along the leading dimension."""
    return torch.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)).expand(tuple(shape))
