"""Which nodes of a diagram are shown, and which are folded: repeated blocks are shown once, and a row stands for the others.

A block begins where an index in the module path, or the number of a module's call, changes. Blocks fold where they follow each other and have the same
operators, modules, connections and kinds of skips; shapes may differ. So do the turns of a loop without modules. A fold hides no odd one out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradflow.blocks import Token, called, tokens
from gradflow.diagram import Diagram, Node
from gradflow.render.folding import pattern
from gradflow.render.names import place
from gradflow.render.summary import plural

Prefix = tuple[Token, ...]
Sign = tuple[object, ...]
_CALL = "\0call"
_LOOP: Prefix = ("\0loop",)
_LEAST_HIDDEN = 4  # rows; fewer are shown
_LONGEST_TURN = 512


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: a node, or a fold that stands for `nodes`."""

    nodes: Sequence[Node]
    title: str = ""

    @property
    def node(self) -> Node | None:
        """The node, where it is one."""
        return None if self.title else self.nodes[0]


def rows(diagram: Diagram, *, unfold: bool) -> list[Row]:
    """The diagram's nodes in execution order; parameters have no row of their own."""
    shown = [node for node in diagram.nodes if node.op != "get_attr"]
    return [Row(nodes=(node,)) for node in shown] if unfold else list(_Folding(diagram, shown).fold(0, len(shown), frozenset()))


@dataclass(frozen=True, kw_only=True)
class _Blocks:
    """Consecutive like blocks: [starts[0], starts[1]) is shown, what follows up to `end` is hidden; `shown` and `hidden` are their indices."""

    starts: tuple[int, ...]
    shown: tuple[int, ...]
    hidden: tuple[int, ...]
    end: int


@dataclass(frozen=True, eq=False)
class _Earlier:
    """An operand from before its block. Alike are two at one distance, two that are one node, and two that lie further back than a block is long."""

    position: int
    distance: int
    far: bool

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Earlier):
            return NotImplemented
        return self.distance == other.distance or self.position == other.position or (self.far and other.far)

    __hash__ = None  # type: ignore[assignment]


class _Folding:
    def __init__(self, diagram: Diagram, shown: Sequence[Node]) -> None:
        self._nodes = shown
        self._parameters = {node.name: node.parameter or "" for node in diagram.nodes if node.op == "get_attr"}
        self._position = {node.name: i for i, node in enumerate(shown)}
        self._paths = [_path(node) for node in shown]
        self._joins: list[set[str]] = [set() for _ in shown]
        self._forks: list[list[tuple[int, str]]] = [[] for _ in shown]
        for skip in diagram.skips:
            fork, join = self._position.get(skip.fork), self._position[skip.join]
            self._joins[join].add(skip.kind)
            if fork is not None:
                self._forks[fork].append((join, skip.kind))

    def fold(self, low: int, high: int, done: frozenset[Prefix]) -> Iterator[Row]:
        """The rows of the nodes from `low` up to `high`; containers in `done` are not tried again."""
        for prefix, starts in self._containers(low, high, done):
            runs = self._runs(prefix, starts, high, 1) or self._runs(prefix, starts, high, 2)
            if not runs:
                continue
            at = low
            for run in runs:
                yield from self.fold(at, run.starts[0], done)
                yield from self.fold(run.starts[0], run.starts[1], done | {prefix})
                hidden = self._nodes[run.starts[1] : run.end]
                yield Row(nodes=hidden, title=_title(prefix, run, hidden))
                at = run.end
            yield from self.fold(at, high, done)
            return
        yield from self._unroll(low, high)

    def _unroll(self, low: int, high: int) -> Iterator[Row]:
        """The same for what no module divides: the turns of a loop written by hand, whose operators come from the same lines."""
        starts = self._turns(low, high)
        runs = [run for run in self._runs(_LOOP, starts, high, 1) if len(run.starts) > 2]
        if not runs:
            yield from (Row(nodes=(node,)) for node in self._nodes[low:high])
            return
        first = runs[0]
        hidden = self._nodes[first.starts[1] : first.end]
        yield from self._unroll(low, first.starts[0])
        yield from self._unroll(first.starts[0], first.starts[1])
        where = f", from {place(hidden[0].location)}" if hidden[0].location else ""
        yield Row(nodes=hidden, title=f"{plural(len(first.starts) - 1, 'more turn')} like the one above{where}")
        yield from self._unroll(first.end, high)

    def _turns(self, low: int, high: int) -> list[tuple[int, int]]:
        """Where the turns of the loop begin that hides the most rows, as (row, turn): the period after which operators and lines come again."""
        known: dict[object, int] = {}
        signs = [(n.operator, n.module, n.location) for n in self._nodes[low:high]]
        codes = np.array([known.setdefault(sign, len(known)) for sign in signs], dtype=np.int64)
        best, hidden = (0, 0, 0), 0
        for period in range(1, min(len(codes) // 3, _LONGEST_TURN) + 1):
            differs = np.flatnonzero(np.concatenate(([True], codes[period:] != codes[:-period], [True])))
            lengths = np.diff(differs) - 1
            i = int(lengths.argmax())
            turns = int(lengths[i]) // period + 1
            if (turns - 1) * period > hidden:
                hidden, best = (turns - 1) * period, (low + int(differs[i]), period, turns)
        start, period, turns = best
        return [(start + k * period, k) for k in range(turns)]

    def _containers(self, low: int, high: int, done: frozenset[Prefix]) -> list[tuple[Prefix, list[tuple[int, int]]]]:
        """Where each container's index changes, as (row, index); the outermost containers first."""
        found: dict[Prefix, list[tuple[int, int]]] = {}
        for i in range(low, high):
            path = self._paths[i]
            for position, token in enumerate(path):
                if isinstance(token, int) and path[:position] not in done:
                    starts = found.setdefault(path[:position], [])
                    if not starts or starts[-1][1] != token:
                        starts.append((i, token))
        several = [(prefix, starts) for prefix, starts in found.items() if len(starts) > 1]
        return sorted(several, key=lambda item: len(item[0]))

    def _runs(self, prefix: Prefix, starts: Sequence[tuple[int, int]], high: int, step: int) -> list[_Blocks]:
        """Runs of like blocks of `step` rising indices each (two where kinds of blocks alternate). The last block is as long as the one before it."""
        found, first = [], 0
        while first + step < len(starts):
            length = starts[first + step][0] - starts[first][0]
            last = first
            while self._follows(prefix, starts, last, length, high, step):
                last += step
            run = starts[first : last + step]
            if last > first and starts[last][0] + length - starts[first + step][0] >= _LEAST_HIDDEN:
                indices = [index for _, index in run]
                at = tuple(row for row, _ in run[::step])
                found.append(_Blocks(starts=at, shown=tuple(indices[:step]), hidden=tuple(indices[step:]), end=at[-1] + length))
            first = last + step if last > first else first + 1
        return found

    def _follows(self, prefix: Prefix, starts: Sequence[tuple[int, int]], last: int, length: int, high: int, step: int) -> bool:
        """Whether the block after `last` is like it; compared one by one, so that what is like the first by chance is not like all."""
        if last + 2 * step > len(starts) or [index - starts[last][1] for _, index in starts[last : last + 2 * step]] != list(range(2 * step)):
            return False
        before, begin = starts[last][0], starts[last + step][0]
        end = starts[last + 2 * step][0] if last + 2 * step < len(starts) else begin + length
        if end != begin + length or end > high:
            return False
        return self._sign(prefix, before, begin) == self._sign(prefix, begin, end)

    def _sign(self, prefix: Prefix, low: int, high: int) -> Sign:
        """What must be equal: operators, module paths but for the index, where the operands come from, and the kinds of skips."""
        found = []
        for i, node in enumerate(self._nodes[low:high], low):
            forks = {kind for join, kind in self._forks[i] if join < high}
            found.append((node.operator, node.weighted, self._without(prefix, i), self._operands(i, low, high), frozenset(self._joins[i]), frozenset(forks)))
        return tuple(found)

    def _without(self, prefix: Prefix, i: int) -> Prefix:
        path, length = self._paths[i], len(prefix)
        if prefix[-1] == _CALL:
            return path[:-1]
        return (*prefix, "*", *path[length + 1 :]) if path[:length] == prefix and length < len(path) else path

    def _operands(self, i: int, low: int, high: int) -> Sign:
        """Operands from the block and from as many rows before it by position, parameters by their last name; what lies further back is all alike."""
        found: list[object] = []
        for operand in self._nodes[i].operands:
            if operand in self._parameters:
                found.append(self._parameters[operand].rpartition(".")[2])
            elif (position := self._position.get(operand)) is None:
                found.append(operand)
            elif position >= low:
                found.append(position - low)
            else:
                item = _Earlier(position, low - position, far=low - position > high - low)
                before = found[-1] if found else None
                if not (item.far and isinstance(before, _Earlier) and before.far):  # a dense block's layers take ever more of them
                    found.append(item)
        return tuple(found)


def _path(node: Node) -> Prefix:
    """Tokens of the module path, then of the call: `("blocks.", 3, ".norm", _CALL, 0)`."""
    return (*tokens(node.module), _CALL, node.call) if node.module is not None else ()


def _title(prefix: Prefix, run: _Blocks, hidden: Sequence[Node]) -> str:
    """`h.[1-11]: 11 more like h.0`, `cell: calls 1–5 like call 0`."""
    if prefix[-1] == _CALL:
        numbers = f"call {run.hidden[0]}" if len(run.hidden) == 1 else f"calls {run.hidden[0]}–{run.hidden[-1]}"
        return f"{called(shared_module(hidden))}: {numbers} like call {' and '.join(map(str, run.shown))}"
    text = "".join(map(str, prefix))
    more, like = (", ".join(pattern(f"{text}{k}" for k in indices)) for indices in (run.hidden, run.shown))
    return f"{more}: {len(run.hidden)} more like {like}"


def shared_module(nodes: Sequence[Node]) -> str:
    """Path of the innermost module that holds all of them."""
    shared: list[str] = []
    for level in zip(*((node.module or "").split(".") for node in nodes), strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared)


def row_of(shown: Sequence[Row]) -> Mapping[str, int]:
    """Name of a node -> the row that shows it or stands for it."""
    return {node.name: i for i, row in enumerate(shown) for node in row.nodes}
