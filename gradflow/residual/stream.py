"""Which of the skips that end in one join carries the stream. Touches no tensor."""

from __future__ import annotations

from functools import cache

from torch import fx

from gradflow.operators import Role
from gradflow.residual.flow import Edge, Flow
from gradflow.residual.paths import SkipPath
from gradflow.residual.reach import Lightest, weight_of


def on_the_stream(flow: Flow, skips: list[SkipPath]) -> dict[fx.Node, SkipPath]:
    """For each join the skip on which its stream goes on; none for a join that only adds to a stream.

    The stream takes the lightest way back. Of two skips the far one is the stream, and what leads from its fork to the near one's is a branch: x in
    `x + o + A(o)` (an adapter) and in `x + W h + B A h` (LoRA). The near one is the stream if the way back through it weighs less, or if it weighs nothing and
    passes joins: then it is the far value and what was added to it since, as x is beside x0 in `x + x0 + F(x)`. It is too if it comes from elsewhere once the
    branches of the joins before are cut. Where its way passes joins and layers, both are highways that could be meant: the far skip is the stream there if it
    is an identity, and a second operand if it comes with a factor, a norm, a projection.

    The same holds of an operand that is an earlier join, but for views, factors and masks: beside x0 in `a·x + b·x0` it is the stream, beside x in
    `x + dropout(o + A(o))` it is not.
    """
    ending: dict[fx.Node, list[SkipPath]] = {}
    for skip in sorted(skips, key=lambda skip: (flow.index[skip.join], flow.index[skip.fork])):
        ending.setdefault(skip.join, []).append(skip)
    kept: dict[fx.Node, SkipPath] = {}
    stream: dict[int, int] = {}  # join -> the join that its value counts as: itself, or for one that only adds to the stream, the stream's own
    free: set[int] = set()  # joins whose stream passes no weighted layer; LoRA's `W h + B A h` in the middle of a branch is none
    carried = flow.through({})  # in which the branches of the joins before are cut
    lightest = cache(lambda fork: Lightest(carried, flow.index[fork], free))
    for join, (far, *nearer) in ending.items():
        skip = far
        for near in nearer:
            if _goes_on(lightest(skip.fork), skip, flow.index[near.fork], _weight(flow, near)):
                skip = near
        fork = flow.index[skip.fork]
        roots = (r for r in skip.branch.roots if r not in skip.branch.path and r > fork)
        passed = (b for r in roots if (b := _behind(flow, r, stream)) is not None and b > fork)
        before = max((b for b in passed if _goes_on(lightest(skip.fork), skip, b, 0)), default=None)
        stream[flow.index[join]] = flow.index[join] if before is None else before
        if before is None:
            kept[join] = skip
            _cut_branch(carried, skip)
        if before is not None or not _weight(flow, skip):
            free.add(flow.index[join])
    return kept


def _cut_branch(flow: Flow, skip: SkipPath) -> None:
    """Leave a join no other operand than the skip's."""
    path = _edges(flow, skip)
    for i in skip.branch.sums:
        flow.sources[i] = [(position, j) for position, j in flow.sources[i] if (i, position) in path]


def _goes_on(lightest: Lightest, far: SkipPath, near: int, weight: int) -> bool:
    """Whether the stream passes node `near`, `weight` layers before the join, rather than the far skip."""
    way = lightest.to(near)
    if way is None:
        return True
    layers, joined = way[0] + weight, way[1]
    return layers < _weight(far.branch.flow, far) or (joined and (layers == 0 or far.kind != "identity"))


def _weight(flow: Flow, skip: SkipPath) -> int:
    """Weighted layers on a skip's path."""
    return sum(weight_of(flow, edge) for edge in _edges(flow, skip))


def _edges(flow: Flow, skip: SkipPath) -> set[Edge]:
    return {(flow.index[node], position) for node, position in skip.path}


def _behind(flow: Flow, i: int, stream: dict[int, int]) -> int | None:
    """The join that a value is, but for views, factors and masks."""
    while i not in stream:
        if flow.role[i] not in (Role.LAYOUT, Role.SCALE, Role.DROPOUT) or len(flow.sources[i]) != 1:
            return None
        i = flow.sources[i][0][1]
    return stream[i]
