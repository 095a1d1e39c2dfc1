"""Skips -> highways: each skip is linked to the one before it by the trunk between them. Touches no tensor."""

from __future__ import annotations

from torch import fx

from gradflow.operators import Role
from gradflow.residual.flow import Ancestors, Flow, name_of
from gradflow.residual.paths import HighwayPath, SkipPath, Stretch
from gradflow.residual.search import stretch


def find_highways(graph: fx.Graph, skips: tuple[SkipPath, ...]) -> tuple[HighwayPath, ...]:
    """Chains of additive skips, each followed back from its last join; longest chains first, then nearest the input.

    A skip's predecessor is the latest join that its fork is computed from. Where several skips have the same predecessor, the chain goes on along the one
    whose trunk is lightest and shortest, and the others begin highways of their own. Concatenations and detached skips carry no highway.
    """
    flow = Flow(graph)
    _cut_concatenations(flow, skips)
    parallel: dict[tuple[fx.Node, fx.Node], list[SkipPath]] = {}
    for skip in skips:
        if skip.form == "add" and skip.kind != "detached":
            parallel.setdefault((skip.join, skip.fork), []).append(skip)
    carrying = [group[0] for group in parallel.values()]
    main: dict[fx.Node, SkipPath] = {}
    for skip in carrying:
        if skip.join not in main or flow.index[skip.fork] > flow.index[main[skip.join].fork]:
            main[skip.join] = skip
    joins = {flow.index[join] for join in main}
    ends = {flow.index[s.join] for s in skips if s.kind == "detached"} - joins
    trunks = {id(skip): _trunk(flow, skip, joins, ends) for skip in carrying}
    stages = {id(group[0]): _stage(flow, group) for group in parallel.values()}
    following = _following(flow, carrying, trunks, main, [frozenset(s.branch_nodes) for s in skips] if carrying else [])
    chained = {id(s) for s in following.values()}
    chains = [_chain(skip, following) for skip in carrying if id(skip) not in chained]
    highways = [_highway(chain, trunks, stages) for chain in chains]
    return tuple(sorted(highways, key=lambda h: (-len(h.skips), flow.index[h.skips[-1].fork])))


def _cut_concatenations(flow: Flow, skips: tuple[SkipPath, ...]) -> None:
    """Where a skip closes at a concatenation, the trunk goes through the skip's operand and not through the branch's."""
    open_edges = {(flow.index[n], position) for s in skips if s.form == "concat" for n, position in s.path if flow.role[flow.index[n]] is Role.CONCAT}
    for i in {i for i, _ in open_edges}:
        flow.sources[i] = [(position, j) for position, j in flow.sources[i] if (i, position) in open_edges]


def _stage(flow: Flow, group: list[SkipPath]) -> Stretch:
    """The paths of skips between one join and one fork, opened together (`x + x + F(x)` passes the gradient on twice)."""
    edges = {edge for skip in group for edge in skip.path}
    ordered = tuple(sorted(edges, key=lambda edge: (-flow.index[edge[0]], edge[1])))
    return Stretch(top=group[0].join, bottom=group[0].fork, edges=ordered)


def _trunk(flow: Flow, skip: SkipPath, joins: set[int], ends: set[int]) -> Stretch | None:
    """The stretch from the skip's fork back to the latest join before it; none where that join's own skip is detached, which ends the highway."""
    fork = flow.index[skip.fork]
    if fork in ends:
        return None
    if fork in joins:
        return Stretch(top=skip.fork, bottom=skip.fork, edges=())
    ancestors = Ancestors(flow, [fork])
    for i in ancestors.descending():
        if i in ends:
            return None
        if i in joins:
            return stretch(flow, fork, i, ancestors.seen)
    return None


def _following(
    flow: Flow, carrying: list[SkipPath], trunks: dict[int, Stretch | None], main: dict[fx.Node, SkipPath], branches: list[frozenset[fx.Node]]
) -> dict[int, SkipPath]:
    """id of a skip -> the skip whose trunk leads back to its join: one on the same level before one inside another skip's branch, then the lightest."""
    best: dict[int, tuple[tuple[bool, int, int, int], SkipPath]] = {}
    nested = {id(skip): frozenset(k for k, other in enumerate(branches) if skip.join in other) for skip in carrying}
    for skip in carrying:
        trunk = trunks[id(skip)]
        if trunk is None:
            continue
        before = id(main[trunk.bottom])
        detour = nested[id(skip)] != nested[before]
        cost = (detour, sum(flow.weight[flow.index[n]] for n, _ in trunk.edges), len(trunk.edges), flow.index[skip.join])
        if before not in best or cost < best[before][0]:
            best[before] = (cost, skip)
    return {before: skip for before, (_, skip) in best.items()}


def _chain(skip: SkipPath, following: dict[int, SkipPath]) -> list[SkipPath]:
    chain = [skip]
    while id(chain[-1]) in following:
        chain.append(following[id(chain[-1])])
    return chain[::-1]


def _highway(chain: list[SkipPath], trunks: dict[int, Stretch | None], stages: dict[int, Stretch]) -> HighwayPath:
    linking = [t for s in chain[:-1] if (t := trunks[id(s)]) is not None]
    ops = dict.fromkeys(name_of(n) for t in reversed(linking) for n, _ in reversed(t.edges) if name_of(n) != "getitem")
    return HighwayPath(skips=tuple(chain), stages=tuple(stages[id(s)] for s in chain), trunks=tuple(linking), trunk_ops=tuple(ops))
