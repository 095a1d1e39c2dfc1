"""A line of inputs: two samples of a batch and the points between them, or a grid of numbers. The batch that it is made from is never changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gradflow import errors
from gradflow.shatter_records import Line
from gradflow.subject import Batch
from gradflow.subject.structure import dtype_name, replaced, tensors

POINTS, LAGS, GRID = 256, 15, (-2.0, 2.0)
_LEAST, _MOST = 4, 1024  # the references' exact deviations take n³ operations, and every layer n² numbers


class NoLine(errors.InputError):
    """The batch has no two points that a line could join."""

    def __init__(self, *, reason: str, remedy: str) -> None:
        super().__init__(f"There is no line of inputs: {reason}.", remedy)


@dataclass(frozen=True, kw_only=True)
class Course:
    """Which line is asked for; `between` and `grid` exclude each other, and where neither is given the batch decides.

    Raises:
        errors.UsageError: a number is outside its range, or both were given.
    """

    points: int = POINTS
    lags: int | None = None
    between: Sequence[int] | None = None
    grid: Sequence[float] | None = None
    last_lag: int = field(init=False)

    def __post_init__(self) -> None:
        if not _is_whole(self.points) or not _LEAST <= self.points <= _MOST:
            raise errors.UsageError(option="--points", value=self.points, expected=f"a whole number from {_LEAST} to {_MOST}")
        if self.lags is not None and (not _is_whole(self.lags) or not 1 <= self.lags <= self.points - 2):
            raise errors.UsageError(option="--lags", value=self.lags, expected=f"1 to {self.points - 2}, for {self.points} points")
        object.__setattr__(self, "last_lag", min(LAGS, self.points - 2) if self.lags is None else self.lags)
        if self.between is not None and self.grid is not None:
            raise errors.UsageError(option="--grid", value=_shown(self.grid), expected="one of between and grid, not both")
        if self.between is not None and not (_are(self.between, int) and min(self.between) >= 0 and len(set(self.between)) == 2):
            raise errors.UsageError(option="--between", value=self.between, expected="the numbers of two samples of the batch, such as 0,1")
        if self.grid is not None and not (_are(self.grid, (int, float)) and float("-inf") < self.grid[0] < self.grid[1] < float("inf")):
            raise errors.UsageError(option="--grid", value=_shown(self.grid), expected="two numbers, the smaller one first, such as -2:2")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are(values: object, kind: type | tuple[type, ...]) -> bool:
    """Whether these are two numbers of a kind."""
    return isinstance(values, (tuple, list)) and len(values) == 2 and all(isinstance(v, kind) and not isinstance(v, bool) for v in values)


def parse_between(text: str) -> tuple[int, ...]:
    """`0,1` as two sample numbers.

    Raises:
        errors.UsageError: it is something else.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise errors.UsageError(option="--between", value=text, expected="the numbers of two samples of the batch, such as 0,1") from error


def parse_grid(text: str) -> tuple[float, ...]:
    """`-2:2` as the two ends of a grid.

    Raises:
        errors.UsageError: it is something else.
    """
    try:
        return tuple(float(part) for part in text.split(":"))
    except ValueError as error:
        raise errors.UsageError(option="--grid", value=text, expected="two numbers, the smaller one first, such as -2:2") from error


@dataclass(frozen=True, kw_only=True)
class Laid:
    """A line as it is run: the batch of its points, what the record says of it, and how many samples the batch it was made from has."""

    batch: Batch
    line: Line
    samples: int


def lay(batch: Batch, course: Course) -> Laid:
    """The batch of `course.points` inputs x(u) = a + u(b − a), u from 0 to 1, a and b being samples of `batch`; or a grid, for inputs of one number.

    The first floating input of two dimensions or more tells the batch size. Every floating input with that leading size changes along the line; other
    tensors with it keep sample a's value at every point, and what has no batch dimension stays as it is. On a grid the first input alone changes.

    Raises:
        errors.EmptyBatch: that input has no elements.
        NoLine: no floating input has a batch dimension, there are too few samples, the two are equal, or a grid is asked for where inputs have more numbers.
    """
    named = {id(tensor): name for name, tensor in _named(batch)}
    found = [tensor for _, tensor in _named(batch) if tensor.layout is torch.strided]
    first = next((t for t in found if t.is_floating_point() and t.dim() >= 2), None)
    if first is None:
        raise _integers(batch)
    samples = int(first.shape[0])
    if first.numel() == 0:
        raise errors.EmptyBatch(name=named[id(first)], shape=first.shape)
    along = [t for t in found if t.is_floating_point() and t.dim() >= 1 and t.shape[0] == samples]
    grid = course.grid
    if grid is None and course.between is None and first[0].numel() == 1 and len(along) == 1:
        grid = GRID
    if grid is not None and first[0].numel() != 1:
        raise NoLine(
            reason=f"a grid is one number per point, and {named[id(first)]} has {first[0].numel()} per sample",
            remedy="Leave out --grid: the line then joins two samples of the batch (--between 0,1).",
        )
    ends = _ends(samples, named[id(first)], course) if grid is None else (0, 0)
    moving = along if grid is None else [first]
    share = torch.linspace(0, 1, course.points, dtype=torch.float64)
    new = {id(t): _grid(t, share, grid) if grid is not None else _between(t, share, ends) for t in moving}
    held = [t for t in found if t.dim() >= 1 and t.shape[0] == samples and id(t) not in new]
    new |= {id(t): t[ends[0]].detach().expand(course.points, *t.shape[1:]).clone() for t in held}
    step = _step([new[id(t)] for t in moving])
    if step == 0:
        raise NoLine(reason=f"samples {ends[0]} and {ends[1]} of the batch are equal", remedy="Name two that differ with --between.")
    line = Line(
        kind="between" if grid is None else "grid",
        ends=tuple(float(x) for x in (ends if grid is None else grid)),
        points=course.points,
        step=step,
        inputs=tuple(named[id(t)] for t in moving),
        held=tuple(named[id(t)] for t in held),
    )
    return Laid(batch=_rebuilt(batch, new), line=line, samples=samples)


def _ends(samples: int, name: str, course: Course) -> tuple[int, int]:
    a, b = course.between or (0, 1)
    if samples < 2:
        raise NoLine(reason=f"the batch has one sample ({name}), and a line joins two", remedy="Give a batch of two samples or more, with --input or --batch.")
    if max(a, b) >= samples:
        raise NoLine(reason=f"the batch has {samples} samples, counted from 0, and {max(a, b)} was asked for", remedy="Name two of them with --between.")
    return a, b


def _integers(batch: Batch) -> NoLine:
    """Why there is no floating input with a batch dimension."""
    shown = ", ".join(f"{r.name} {r.dtype}[{','.join(map(str, r.shape))}]" for r in batch.records[:3]) or "no tensor"
    return NoLine(
        reason=f"no floating-point input has a batch dimension (found {shown}), and between two integers there is nothing",
        remedy="Give the model a floating-point input; a transformer takes embeddings, such as --input inputs_embeds=float32[2,16,768].",
    )


def _between(tensor: Tensor, share: Tensor, ends: tuple[int, int]) -> Tensor:
    """[points, ...]: both ends are the samples themselves, bit for bit."""
    a, b = tensor[ends[0]].detach(), tensor[ends[1]].detach()
    u = share.to(tensor.device, torch.promote_types(tensor.dtype, torch.float32)).reshape(-1, *[1] * a.dim())
    points = torch.lerp(a.to(u.dtype).unsqueeze(0), b.to(u.dtype).unsqueeze(0), u)
    return points.to(tensor.dtype)


def _grid(tensor: Tensor, share: Tensor, grid: Sequence[float]) -> Tensor:
    values = grid[0] + share * (grid[1] - grid[0])
    return values.to(tensor.device, tensor.dtype).reshape(-1, *tensor.shape[1:])


def _step(moved: Sequence[Tensor]) -> float:
    """Distance between neighbours, from the two ends."""
    squares = [float((t[-1].double() - t[0].double()).square().sum()) for t in moved]
    return math.sqrt(sum(squares)) / (len(moved[0]) - 1)


def _named(batch: Batch) -> list[tuple[str, Tensor]]:
    found = tensors((batch.args, batch.kwargs), "input")
    names = [record.name for record in batch.records]
    return [(names[i] if i < len(names) else path, tensor) for i, (path, tensor) in enumerate(found)]


def _rebuilt(batch: Batch, new: dict[int, Tensor]) -> Batch:
    def change(tensor: Tensor) -> Tensor:
        return new.get(id(tensor), tensor)

    records = tuple(
        replace(record, shape=tuple(new[id(t)].shape), dtype=dtype_name(t.dtype)) if id(t) in new else record
        for record, (_, t) in zip(batch.records, _named(batch), strict=False)
    )
    args = tuple(replaced(value, change) for value in batch.args)
    kwargs = {name: replaced(value, change) for name, value in batch.kwargs.items()}
    return replace(batch, args=args, kwargs=kwargs, records=records)


def _shown(grid: Sequence[float]) -> str:
    return ":".join(f"{end:g}" for end in grid)
