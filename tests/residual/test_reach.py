"""Which values lead where, and past how much: every answer against an enumeration of all paths of random graphs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradflow.operators import Role
from gradflow.residual import reach
from gradflow.residual.reach import NO_WAY, Ascent, Descent, Descents, Lightest, Way

settings.register_profile("reach", deadline=None, derandomize=True, database=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
checked = settings(settings.get_profile("reach"))


@dataclass(frozen=True)
class Graph:
    """As much of a `Flow` as the walks look at: operands, weights, which nodes hold a parameter and which upsample. A node may use one value twice."""

    operands: tuple[tuple[int, ...], ...]
    weight: tuple[int, ...]
    holds_parameter: tuple[bool, ...]
    upsamples: tuple[bool, ...]
    fused: frozenset[int] = frozenset()

    @cached_property
    def role(self) -> list[Role]:
        return [Role.FUSED_ADD if i in self.fused else Role.OPAQUE for i in range(len(self))]

    @cached_property
    def sources(self) -> list[list[tuple[int, int]]]:
        return [list(enumerate(nodes)) for nodes in self.operands]

    @cached_property
    def consumers(self) -> list[list[tuple[int, int]]]:
        return [[(i, position) for i, used in enumerate(self.operands) for position, k in enumerate(used) if k == j] for j in range(len(self))]

    def name(self, i: int) -> str:
        return "upsample_nearest2d" if self.upsamples[i] else "linear"

    def __len__(self) -> int:
        return len(self.operands)

    def paths(self, start: int, end: int) -> Iterator[tuple[int, ...]]:
        """Every path, both ends included, as nodes; one of two edges between two nodes stands for both."""
        if start == end:
            yield (end,)
        for j in {j for j in self.operands[end] if j >= start}:
            for path in self.paths(start, j):
                yield (*path, end)

    def way(self, start: int, end: int) -> Way | None:
        """All paths taken together, the start's own weight not counted."""
        found = [path[1:] for path in self.paths(start, end)]
        if not found:
            return None
        return Way(
            weight=max(sum(self.weight[i] for i in path) for path in found),
            parameter=any(self.holds_parameter[i] for path in found for i in path),
            upsampled=any(self.upsamples[i] for path in found for i in path),
        )

    def between(self, start: int, ends: list[int]) -> set[int]:
        return {i for end in ends for path in self.paths(start, end) for i in path}


@st.composite
def graphs(draw: st.DrawFn, most: int = 11) -> Graph:
    """Graphs in execution order; some nodes lead nowhere, and some come from nowhere."""
    count = draw(st.integers(2, most))
    operands = tuple(tuple(draw(st.lists(st.integers(0, i - 1), max_size=3))) if i else () for i in range(count))
    weights, parameters, upsampling = (draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)) for _ in range(3))
    fused = frozenset(draw(st.sets(st.integers(0, count - 1))))
    return Graph(operands, tuple(weights), tuple(map(bool, parameters)), tuple(map(bool, upsampling)), fused)


@st.composite
def questions(draw: st.DrawFn) -> tuple[Graph, list[tuple[int, int]]]:
    """A graph, and pairs of its nodes in any order: later joins first, earlier ones again, ends before forks."""
    graph = draw(graphs())
    node = st.integers(0, len(graph) - 1)
    return graph, draw(st.lists(st.tuples(node, node), min_size=1, max_size=24))


ORDERS = {
    "as drawn": lambda pairs: pairs,
    "joins increase": lambda pairs: sorted(pairs, key=lambda p: p[1]),
    "joins decrease": lambda pairs: sorted(pairs, key=lambda p: -p[1]),
}


def first_edges(graph: Graph, fork: int, join: int) -> tuple[tuple[int, int], ...]:
    return tuple((i, position) for i, position in graph.consumers[fork] if any(True for _ in graph.paths(i, join)))


@pytest.mark.parametrize("order", ORDERS)
class TestDescent:
    """One descent for each fork, asked again and again."""

    @checked
    @given(asked=questions())
    def test_to(self, asked, order):
        """The heaviest of all paths, and whether one holds a parameter or upsamples; None where there is no path."""
        graph, pairs = asked
        descents = [Descent(graph, fork) for fork in range(len(graph))]
        for fork, join in ORDERS[order](pairs):
            assert descents[fork].to(join) == graph.way(fork, join)
            assert (join in descents[fork]) == any(True for _ in graph.paths(fork, join))

    @checked
    @given(asked=questions())
    def test_between(self, asked, order):
        """The nodes of all paths to any of the roots, those that cannot be reached left out."""
        graph, pairs = asked
        descents = [Descent(graph, fork) for fork in range(len(graph))]
        pairs = ORDERS[order](pairs)
        for (fork, join), (_, other) in zip(pairs, [*pairs[1:], pairs[0]], strict=True):
            assert descents[fork].between([join, other]) == graph.between(fork, [join, other])

    @checked
    @given(asked=questions())
    def test_first_edges(self, asked, order):
        """The fork's own edges that lead to the join, whatever join was asked for and remembered before."""
        graph, pairs = asked
        descents = [Descent(graph, fork) for fork in range(len(graph))]
        for fork, join in ORDERS[order](pairs):
            assert descents[fork].first_edges(join) == first_edges(graph, fork, join)

    @checked
    @given(asked=questions())
    def test_all_questions_to_one_descent(self, asked, order):
        """No question spoils the answer to another."""
        graph, pairs = asked
        descents = [Descent(graph, fork) for fork in range(len(graph))]
        for k, (fork, join) in enumerate(ORDERS[order](pairs)):
            if k % 3 == 0:
                assert descents[fork].first_edges(join) == first_edges(graph, fork, join)
            elif k % 3 == 1:
                assert descents[fork].between([join]) == graph.between(fork, [join])
            else:
                assert descents[fork].to(join) == graph.way(fork, join)


def loop(steps: int, detours: set[int]) -> Graph:
    """x used at every step: node 0 is x, then x, h -> product -> sum; a step in `detours` uses x beside the loop only, where it leads to no later state."""
    operands: list[tuple[int, ...]] = [()]
    state = 0
    for step in range(steps):
        operands.append((0,))
        if step not in detours:
            operands.append((state, len(operands) - 1))
            state = len(operands) - 1
    return Graph(tuple(operands), (0,) * len(operands), (False,) * len(operands), (False,) * len(operands))


@pytest.mark.parametrize("detours", [set(), {0}, {3}, {2, 5}], ids=str)
def test_first_edges_of_a_loop(detours):
    """A value that every step uses: its edges to each state, in order, in reverse and once more."""
    graph = loop(8, detours)
    descent = Descent(graph, 0)
    joins = [i for i, used in enumerate(graph.operands) if len(used) == 2]
    for join in [*joins, *reversed(joins), *joins]:
        assert descent.first_edges(join) == first_edges(graph, 0, join), join


def test_first_edges_look_at_a_loop_once():
    """Remembering the join before makes the questions of a loop cheap: each new join looks at its own step, and not at all before it."""
    graph = loop(400, set())
    counted = [0]

    class Counting(list):
        def __getitem__(self, i):
            counted[0] += 1
            return super().__getitem__(i)

    joins = [i for i, used in enumerate(graph.operands) if len(used) == 2]
    descent = Descent(graph, 0)
    assert descent.to(joins[-1]) is not None
    graph.__dict__["sources"] = Counting(graph.sources)
    for join in joins:
        descent.first_edges(join)
    assert counted[0] < 10 * len(joins)


def lightest(graph: Graph, joins: set[int], start: int, end: int) -> tuple[int, bool] | None:
    """Of all paths the least weight, and whether one so light passes a join after its start; through a fused sum's first operand it weighs nothing."""

    def paths(i: int) -> Iterator[tuple[int, bool]]:
        if i == start:
            yield 0, False
        for position, j in graph.sources[i] if i > start else ():
            own = 0 if position == 0 and i in graph.fused else graph.weight[i]
            yield from ((weight + own, joined or i in joins) for weight, joined in paths(j))

    found = list(paths(end))
    least = min((weight for weight, _ in found), default=None)
    return None if least is None else (least, any(joined for weight, joined in found if weight == least))


@pytest.mark.parametrize("order", ORDERS)
@checked
@given(asked=questions(), joins=st.sets(st.integers(0, 10)))
def test_lightest_ways(asked, joins, order):
    """The fewest weighted layers of all paths, and whether a join lies on one with so few, whatever was asked before."""
    graph, pairs = asked
    walks = [Lightest(graph, fork, joins) for fork in range(len(graph))]
    for fork, join in ORDERS[order](pairs):
        assert walks[fork].to(join) == lightest(graph, joins, fork, join)


class TestDescents:
    """A search's descents, older ones forgotten."""

    @checked
    @given(asked=questions())
    def test_answers_after_forgetting(self, asked):
        """With room for two small descents every answer is what it was."""
        graph, pairs = asked
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reach, "_KEPT", 2)
            patch.setattr(reach, "_ENTRIES", 4)
            descents = Descents(graph)
            for fork, join in pairs:
                assert descents.of(fork).to(join) == graph.way(fork, join)
                assert descents.of(fork).first_edges(join) == first_edges(graph, fork, join)

    def test_what_is_remembered(self, monkeypatch):
        """The recently used ones: as many as fit into the entries, and never fewer than those that are kept in any case."""
        monkeypatch.setattr(reach, "_KEPT", 3)
        monkeypatch.setattr(reach, "_ENTRIES", 100)
        graph = loop(60, set())
        descents = Descents(graph)
        forks = range(0, 40)
        first = [descents.of(fork) for fork in forks]
        assert [descents.of(fork) is known for fork, known in zip(forks, first, strict=True)] == [True] * 40  # small ones: all fit
        for fork in forks:
            descents.of(fork).to(len(graph) - 1)
        again = [descents.of(fork) for fork in reversed(forks)]
        kept = [one is other for one, other in zip(again, reversed(first), strict=True)]
        assert kept[:2] == [True, True]  # the last ones used
        assert kept.count(True) <= 4
        assert descents.of(forks[0]).to(len(graph) - 1) == graph_way_of_loop(graph)


def graph_way_of_loop(graph: Graph) -> Way:
    """A loop weighs nothing."""
    assert sum(graph.weight) == 0
    return NO_WAY


@st.composite
def joins(draw: st.DrawFn) -> tuple[Graph, list[tuple[int, int, Way]]]:
    """A graph, and a join's operands: group, root and what the way from the root to the join weighs."""
    graph = draw(graphs())
    ways = st.builds(Way, weight=st.integers(0, 2), parameter=st.booleans(), upsampled=st.booleans())
    return graph, draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, len(graph) - 1), ways), min_size=1, max_size=9))


def ways_to(graph: Graph, ends: list[tuple[int, int, Way]], i: int) -> dict[int, Way]:
    """For each group the paths from node `i` to its operands, taken together."""
    found: dict[int, list[Way]] = {}
    for group, root, way in ends:
        before = graph.way(i, root)
        if before is not None:
            found.setdefault(group, []).append(before + way)
    return {
        group: Way(weight=max(w.weight for w in ways), parameter=any(w.parameter for w in ways), upsampled=any(w.upsampled for w in ways))
        for group, ways in found.items()
    }


@checked
@given(asked=joins(), data=st.data())
def test_ascent(asked, data):
    """Of the ways from a value to other groups of operands it knows the heaviest, though it remembers two of them."""
    graph, ends = asked
    ascent = Ascent(graph, ends)
    for i in data.draw(st.permutations(range(len(graph)))):
        expected = ways_to(graph, ends, i)
        assert (i in ascent) == bool(expected)
        for group in (*range(5), -1):
            others = {k: way for k, way in expected.items() if k != group}
            found = ascent.other(i, group)
            assert (found is None) == (not others)
            if found is not None:
                assert found.weight == max(way.weight for way in others.values())


@checked
@given(asked=joins())
def test_ascent_of_two_groups(asked):
    """Where nothing has to be left out, it also says whether a path holds a parameter or is upsampled."""
    graph, ends = asked
    ends = [(group % 2, root, way) for group, root, way in ends]
    ascent = Ascent(graph, ends)
    for i in range(len(graph)):
        expected = ways_to(graph, ends, i)
        for group in (0, 1):
            assert ascent.other(i, group) == expected.get(1 - group)


def test_way_beyond_the_join():
    """Weights add up, and what one part holds the whole does."""
    one, other = Way(weight=2, parameter=False, upsampled=True), Way(weight=1, parameter=True, upsampled=False)
    assert one + other == Way(weight=3, parameter=True, upsampled=True)
    assert one + NO_WAY == one
