"""Skips -> highways: each skip is linked to the one before it by the trunk between them. Touches no tensor."""

from __future__ import annotations

from bisect import bisect_left

from torch import fx

from gradflow.operators import Role
from gradflow.residual.flow import Flow, name_of
from gradflow.residual.joins import takes_one
from gradflow.residual.paths import HighwayPath, SkipPath, Stretch, stretch
from gradflow.residual.reach import Descent, Descents
from gradflow.residual.stream import on_the_stream


def find_highways(skips: tuple[SkipPath, ...]) -> tuple[HighwayPath, ...]:
    """Chains of additive skips, each followed back from its last join; longest chains first, then nearest the input.

    Of several skips that end in one join the highway takes the lightest way back (`on_the_stream`). A skip's predecessor is the latest join that its fork is
    computed from. Where several skips have the same predecessor, the chain goes on along the one whose trunk is lightest and shortest, and the others begin
    highways of their own. Concatenations and detached skips carry no highway, nor do a join's other skips: `x0` in `a·x + b·x0`, `o` in `x + o + A(o)`.
    """
    if not skips:
        return ()
    flow = _through_concatenations(skips[0].branch.flow, skips)
    parallel: dict[tuple[fx.Node, fx.Node], list[SkipPath]] = {}
    for skip in skips:
        if _carries(skip):
            parallel.setdefault((skip.join, skip.fork), []).append(skip)
    main = on_the_stream(flow, [group[0] for group in parallel.values()])
    carrying = list(main.values())
    joins = {flow.index[join] for join in main}
    ends = {flow.index[s.join] for s in skips if s.kind == "detached"} - joins
    latest = _latest(flow, joins | ends)
    before = {fork: i for fork in {flow.index[skip.fork] for skip in skips} if (i := latest[fork]) in joins}
    of_fork = {fork: _trunk(flow, fork, before[fork]) for fork in {flow.index[skip.fork] for skip in carrying} if fork in before}
    before = {fork: join for fork, join in before.items() if fork not in of_fork or of_fork[fork] is not None}
    trunks = {id(skip): of_fork.get(flow.index[skip.fork]) for skip in carrying}
    stages = {id(skip): _stage(flow, parallel[skip.join, skip.fork]) for skip in carrying}
    following = _following(flow, skips, before, trunks, main)
    chained = {id(s) for s in following.values()}
    chains = [_chain(skip, following) for skip in carrying if id(skip) not in chained]
    highways = [_highway(chain, trunks, stages) for chain in chains]
    return tuple(sorted(highways, key=lambda h: (-len(h.skips), flow.index[h.skips[-1].fork])))


def _through_concatenations(flow: Flow, skips: tuple[SkipPath, ...]) -> Flow:
    """The flow for trunks: where a skip closes at a concatenation, they go through the skip's operand and not through the branch's."""
    open_edges = {(flow.index[n], position) for s in skips if s.form == "concat" for n, position in s.path if flow.role[flow.index[n]] is Role.CONCAT}
    return flow.through({i: [(position, j) for position, j in flow.sources[i] if (i, position) in open_edges] for i in {i for i, _ in open_edges}})


def _stage(flow: Flow, group: list[SkipPath]) -> Stretch:
    """The paths of skips between one join and one fork, opened together (`x + x + F(x)` passes the gradient on twice)."""
    edges = {edge for skip in group for edge in skip.path}
    ordered = tuple(sorted(edges, key=lambda edge: (-flow.index[edge[0]], edge[1])))
    return Stretch(top=group[0].join, bottom=group[0].fork, edges=ordered)


def _latest(flow: Flow, marked: set[int]) -> list[int]:
    """For each node the latest of the marked ones that it is computed from, itself included; -1 for none."""
    latest: list[int] = []
    for i, sources in enumerate(flow.sources):
        latest.append(i if i in marked else max((latest[j] for _, j in sources), default=-1))
    return latest


def _trunk(flow: Flow, fork: int, join: int) -> Stretch | None:
    """The stretch from a fork back to the join before it; None where it regroups the steps of a loop, which ends the highway."""
    if fork == join:
        return Stretch(top=flow.nodes[fork], bottom=flow.nodes[fork], edges=())
    trunk = stretch(flow, fork, join, Descent(flow, join).between([fork]))
    return None if _regroups(flow, trunk) else trunk


def _regroups(flow: Flow, trunk: Stretch) -> bool:
    """Whether a trunk collects the steps of one loop and takes single ones out again for the next: the last of one is not the first of the other."""
    on = [flow.index[node] for node, _ in trunk.edges]
    collected = min((i for i in on if flow.role[i] in (Role.STACK, Role.CONCAT)), default=None)
    return collected is not None and any(i > collected and takes_one(flow, i) for i in on)


def _following(
    flow: Flow, skips: tuple[SkipPath, ...], before: dict[int, int], trunks: dict[int, Stretch | None], main: dict[fx.Node, SkipPath]
) -> dict[int, SkipPath]:
    """id of a skip -> the skip whose trunk leads back to its join: the lightest trunk, but for skips inside the branch of another that starts there."""
    descents = Descents(skips[0].branch.flow)
    starting: dict[int, list[SkipPath]] = {}
    for skip in skips:
        join = before.get(flow.index[skip.fork])
        if join is not None:
            starting.setdefault(id(main[flow.nodes[join]]), []).append(skip)
    found = {first: _nearest(flow, descents, group, trunks) for first, group in starting.items()}
    return {first: skip for first, skip in found.items() if skip is not None}


def _nearest(flow: Flow, descents: Descents, group: list[SkipPath], trunks: dict[int, Stretch | None]) -> SkipPath | None:
    def cost(skip: SkipPath) -> tuple[int, int, int]:
        trunk = trunks[id(skip)]
        edges = trunk.edges if trunk is not None else ()
        return sum(flow.weight[flow.index[n]] for n, _ in edges), len(edges), flow.index[skip.join]

    carrying = sorted((skip for skip in group if id(skip) in trunks), key=cost)
    widest = sorted(group, key=lambda skip: -flow.index[skip.join])
    outside = (skip for skip in carrying if not any(_inside(flow, descents, skip, other) for other in widest))
    return next(outside, carrying[0] if carrying else None)


def _carries(skip: SkipPath) -> bool:
    return skip.form == "add" and skip.kind != "detached"


def _inside(flow: Flow, descents: Descents, skip: SkipPath, other: SkipPath) -> bool:
    """Whether the join of `skip` lies on the branch of `other`."""
    join, end = flow.index[skip.join], flow.index[other.join]
    branch = other.branch
    if join >= end or join in branch.sums or join in branch.path or join not in descents.of(flow.index[other.fork]):
        return False
    descent = descents.of(join)
    return any(branch.roots[k] in descent for k in range(bisect_left(branch.roots, join), len(branch.roots)))


def _chain(skip: SkipPath, following: dict[int, SkipPath]) -> list[SkipPath]:
    chain = [skip]
    while id(chain[-1]) in following:
        chain.append(following[id(chain[-1])])
    return chain[::-1]


def _highway(chain: list[SkipPath], trunks: dict[int, Stretch | None], stages: dict[int, Stretch]) -> HighwayPath:
    linking = [t for s in chain[:-1] if (t := trunks[id(s)]) is not None]
    ops = dict.fromkeys(name_of(n) for t in reversed(linking) for n, _ in reversed(t.edges) if name_of(n) != "getitem")
    return HighwayPath(skips=tuple(chain), stages=tuple(stages[id(s)] for s in chain), trunks=tuple(linking), trunk_ops=tuple(ops))
