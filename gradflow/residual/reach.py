"""Which values a fork leads to, and past how many weighted layers. Touches no tensor.

A search asks this of many forks and joins. Walking each join's ancestors back to each fork would be quadratic in an unrolled loop, where one operand of every
step may come from the loop's beginning; so each fork is walked forward once, only as far as it has been asked, and remembered (`Descents`). A join of many
operands is walked backward once for all of them (`Ascent`).
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import reduce

from gradflow.operators import UPSAMPLING, Role
from gradflow.residual.flow import Edge, Flow

_KEPT, _ENTRIES = 64, 100_000  # descents that are kept in any case, and the number of their entries above which older ones are forgotten
_PARAMETER, _UPSAMPLED, _FLAGS = 1, 2, 2


@dataclass(frozen=True, kw_only=True)
class Way:
    """The paths from one value to another: weighted layers on the heaviest, whether one holds a parameter, and whether one is upsampled."""

    weight: int
    parameter: bool
    upsampled: bool

    def __add__(self, further: Way) -> Way:
        return Way(weight=self.weight + further.weight, parameter=self.parameter or further.parameter, upsampled=self.upsampled or further.upsampled)


NO_WAY = Way(weight=0, parameter=False, upsampled=False)


def _coded(weight: int, parameter: bool, upsampled: bool) -> int:
    """A way as one number, since a search holds many: the weight above two flags."""
    return weight << _FLAGS | (_PARAMETER if parameter else 0) | (_UPSAMPLED if upsampled else 0)


def _way(code: int) -> Way:
    return Way(weight=code >> _FLAGS, parameter=bool(code & _PARAMETER), upsampled=bool(code & _UPSAMPLED))


def _together(one: int, other: int) -> int:
    """Two ways between the same ends: the heavier weight, the flags of both."""
    return max(one >> _FLAGS, other >> _FLAGS) << _FLAGS | (one | other) & (_PARAMETER | _UPSAMPLED)


def _through(flow: Flow, i: int, code: int) -> int:
    """A way that goes on through node `i`."""
    return code + (flow.weight[i] << _FLAGS) | _coded(0, flow.holds_parameter[i], flow.name(i) in UPSAMPLING)


def weight_of(flow: Flow, edge: Edge) -> int:
    """Weighted layers that an edge passes: 1 or 0. What is added to the product inside a fused sum passes none."""
    i, position = edge
    return 0 if flow.role[i] is Role.FUSED_ADD and position == 0 else flow.weight[i]


class _Walk(ABC):
    """A walk forward from a fork in execution order, as far as asked, with a number for each value that it meets: `code` for the fork."""

    def __init__(self, flow: Flow, fork: int, code: int) -> None:
        self.fork = fork
        self._flow = flow
        self._reach = {fork: code}
        self._heap: list[int] = []
        self._push(fork)

    def __len__(self) -> int:
        return len(self._reach)

    def __contains__(self, i: int) -> bool:
        """Whether the fork leads to node `i` (or is it)."""
        self._extend(i)
        return i in self._reach

    @abstractmethod
    def _arriving(self, i: int) -> int | None:
        """The number of node `i` by those of its operands; None where the fork leads to none of them."""

    def _push(self, i: int) -> None:
        for consumer, _ in self._flow.consumers[i]:
            heapq.heappush(self._heap, consumer)

    def _extend(self, limit: int) -> None:
        reach, heap = self._reach, self._heap
        while heap and heap[0] <= limit:
            i = heapq.heappop(heap)
            if i not in reach and (code := self._arriving(i)) is not None:
                reach[i] = code
                self._push(i)


class Descent(_Walk):
    """The values computed from a fork, with the ways to them."""

    def __init__(self, flow: Flow, fork: int) -> None:
        super().__init__(flow, fork, 0)
        self._whole: tuple[int, int] = (fork, 0)

    def to(self, i: int) -> Way | None:
        """The way from the fork to node `i`, both ends' own weights: the fork's not counted, the node's counted; None where there is no path."""
        self._extend(i)
        found = self._reach.get(i)
        return None if found is None else _way(found)

    def between(self, roots: Iterable[int]) -> set[int]:
        """The nodes on paths from the fork to the roots, both included."""
        return self._back(roots, self.fork)

    def first_edges(self, join: int) -> tuple[Edge, ...]:
        """The fork's own edges that lead to the join.

        In a loop that uses one value at every step, all its earlier edges lead to the join before: that join is remembered, and the walk back ends there.
        """
        edges = self._flow.consumers[self.fork]
        before, count = self._whole
        seen = self._back([join], before)
        if before not in seen:
            count, seen = 0, self.between([join])
        found = (*edges[:count], *(e for e in edges[count:] if e[0] in seen))
        if len(found) == bisect_right(edges, join, key=lambda e: e[0]):
            self._whole = (join, len(found))
        return found

    def _back(self, roots: Iterable[int], end: int) -> set[int]:
        """The nodes on paths to the roots, from `end` on."""
        stack = [r for r in roots if r in self]
        seen = set(stack)
        while stack:
            for _, j in self._flow.sources[stack.pop()]:
                if j >= end and j in self._reach and j not in seen:
                    seen.add(j)
                    stack.append(j)
        return seen

    def _arriving(self, i: int) -> int | None:
        known = [self._reach[j] for _, j in self._flow.sources[i] if j in self._reach]
        return _through(self._flow, i, reduce(_together, known)) if known else None


class Lightest(_Walk):
    """The values computed from a fork, with the lightest ways to them.

    Args:
        joins: those known so far; asked of a value when the walk meets it.
    """

    def __init__(self, flow: Flow, fork: int, joins: Container[int]) -> None:
        super().__init__(flow, fork, 1)  # a way as one number: twice its weight, and one more where no join lies on it
        self._joins = joins

    def to(self, i: int) -> tuple[int, bool] | None:
        """The fewest weighted layers on a way to node `i`, its own included, and whether a join lies on a way with so few; None where there is no path."""
        self._extend(i)
        found = self._reach.get(i)
        return None if found is None else (found >> 1, not found & 1)

    def _arriving(self, i: int) -> int | None:
        flow = self._flow
        known = [self._reach[j] + (weight_of(flow, (i, position)) << 1) for position, j in flow.sources[i] if j in self._reach]
        return min(known) & (-2 if i in self._joins else -1) if known else None


class Descents:
    """The descents of one search, the recently used ones remembered."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._known: OrderedDict[int, tuple[Descent, int]] = OrderedDict()
        self._entries = 0

    def of(self, fork: int) -> Descent:
        """The descent from `fork`."""
        found = self._known.pop(fork, None)
        descent, counted = found or (Descent(self._flow, fork), 0)
        self._known[fork] = descent, len(descent)
        self._entries += len(descent) - counted
        while self._entries > _ENTRIES and len(self._known) > _KEPT:
            self._entries -= self._known.popitem(last=False)[1][1]
        return descent


class Ascent:
    """The values that a join's operands are computed from, walked backward as far as asked; for each the heaviest ways to two groups.

    Args:
        ends: group of the operand, root, and the way from the root to the join (a fused product weighs).
    """

    def __init__(self, flow: Flow, ends: Iterable[tuple[int, int, Way]]) -> None:
        self._flow = flow
        self._ways: dict[int, dict[int, int]] = {}
        self._heap: list[int] = []
        for group, root, way in ends:
            self._arrive(root, group, _coded(way.weight, way.parameter, way.upsampled))

    def __contains__(self, i: int) -> bool:
        """Whether node `i` leads to the join."""
        self._extend(i)
        return i in self._ways

    def other(self, i: int, group: int) -> Way | None:
        """The heaviest way from node `i` to an operand of another group than this; None where there is none."""
        self._extend(i)
        found = max((code for k, code in self._ways.get(i, {}).items() if k != group), default=None)
        return None if found is None else _way(found)

    def _arrive(self, i: int, group: int, code: int) -> None:
        ways = self._ways.get(i)
        if ways is None:
            ways = self._ways[i] = {}
            heapq.heappush(self._heap, -i)
        ways[group] = _together(ways.get(group, 0), code)
        if len(ways) > 2:
            del ways[min(ways, key=lambda k: (ways[k], -k))]

    def _extend(self, limit: int) -> None:
        flow = self._flow
        while self._heap and -self._heap[0] >= limit:
            i = -heapq.heappop(self._heap)
            onward = [(group, _through(flow, i, code)) for group, code in self._ways[i].items()]
            for _, j in flow.sources[i]:
                for group, code in onward:
                    self._arrive(j, group, code)
