"""torch.fx.Graph -> skips. Touches no tensor.

A join closes a skip when one operand leads back to a fork x along a path with fewer weighted layers than another operand's heaviest path from the same x,
and the heavier path holds a parameter. The path is followed from the operand backwards, cheapest and nearest first, through single-operand operators and
through either factor of a product; the other factor is a gate and belongs to the branch. It ends at the first value that another operand also comes from.
Enumerating paths would explode; comparing subgraphs would take two equal towers for a skip because of the identities inside them.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from functools import cached_property

from torch import fx

from gradflow.operators import SLICING, UPSAMPLING, Role
from gradflow.records import Form
from gradflow.residual.flow import Ancestors, Edge, Flow, name_of
from gradflow.residual.paths import SkipPath, Stretch
from gradflow.residual.roles import JOINS, carriers, edge_role, kind_of, op_name, shows

_HEAVIEST_PROJECTION = 3  # weighted layers on a skip path; more is a second branch
_LIGHT_CUTS = frozenset({"conv1d", "conv2d", "conv3d", "linear", "matmul", "bmm", "mm", "addmm", "einsum", "embedding"})


@dataclass(frozen=True, kw_only=True)
class Operand:
    """One operand of a join.

    Attributes:
        edges: the edges from the join inward to the operand's value (several where sums are nested).
        value: the operand's node, or None for the product inside a fused operator.
        roots: where its ancestors start.
        roles: what each edge does to the gradient.
        weight, holds_parameter: of the fused product.
    """

    edges: tuple[Edge, ...]
    value: int | None
    roots: tuple[int, ...]
    roles: tuple[Role, ...] = ()
    weight: int = 0
    holds_parameter: bool = False


@dataclass(frozen=True, kw_only=True, order=True)
class _Step:
    weight: int
    nearness: int
    value: int = field(compare=False)
    edges: tuple[Edge, ...] = field(compare=False)
    roles: tuple[Role, ...] = field(compare=False)


@dataclass(frozen=True, kw_only=True)
class _Found:
    operand: int
    step: _Step
    bypassed: int


def find_skips(graph: fx.Graph) -> tuple[SkipPath, ...]:
    """Every skip of a lifted graph (or of any fx graph with its metadata), in the order of the joins."""
    flow = Flow(graph)
    return tuple(skip for i in range(len(flow.nodes)) if _may_join(flow, i) for skip in _Join(flow, i).skips())


def _may_join(flow: Flow, i: int) -> bool:
    """Sums and concatenations, but no terms of a loss: neither of single numbers nor outside the model's forward."""
    meta = flow.nodes[i].meta
    return (flow.role[i] in JOINS or _is_stacked_sum(flow, i)) and meta.get("shape") != () and meta.get("call", True) != ()


def _is_stacked_sum(flow: Flow, i: int) -> bool:
    """`stack(operands).sum(dim)`: a sum of the operands where the dimension is the stack's own."""
    if flow.role[i] is not Role.REDUCE or len(flow.sources[i]) != 1:
        return False
    j = flow.sources[i][0][1]
    return flow.role[j] is Role.STACK and len(flow.consumers[j]) == 1 and flow.nodes[i].meta.get("shape") == flow.nodes[flow.sources[j][0][1]].meta.get("shape")


class _Join:
    def __init__(self, flow: Flow, i: int) -> None:
        self.flow, self.i = flow, i
        self.form: Form = "concat" if flow.role[i] is Role.CONCAT else "add"

    def skips(self) -> list[SkipPath]:
        if self._is_inner():
            return []
        found = [f for k in range(len(self.operands)) if (f := self._close(k)) is not None] if len(self.operands) > 1 else []
        free = [f for f in found if f.step.weight == 0]
        heavy = [] if self.form == "concat" else [f for f in found if f.step.weight and not any(self._shares_fork(f, other) for other in free)]
        skips = [self._skip(f) for f in sorted([*free, *heavy], key=lambda f: f.operand)]
        return [*(s for s in skips if not self._merges_resolutions(s) and not self._compares_slices(s)), *self._detached()]

    def _shares_fork(self, heavy: _Found, free: _Found) -> bool:
        """Whether a weight-free skip starts where a projection does, but for norms: then the projection is a light branch beside it."""
        near, far = heavy.step.value, free.step.value
        ancestors = Ancestors(self.flow, [near])
        return ancestors.reach(far) and self.flow.heaviest(far, ancestors.seen).get(near, (1, False))[0] == 0

    def _is_inner(self) -> bool:
        """A sum whose only use is a larger sum (or a concatenation in a larger one) is part of that join."""
        edges = self.flow.consumers[self.i]
        if self._interpolates():
            return True
        if len(edges) != 1 or self.flow.role[self.i] not in (Role.ADD, Role.CONCAT):
            return False
        outer = edges[0][0]
        return self.flow.role[outer] is self.flow.role[self.i] and len(self.flow.sources[outer]) > 1

    def _interpolates(self) -> bool:
        """`h − n` in `(h − n)·z + n`, as GRU cells write it: the join is the outer sum."""
        flow, sources = self.flow, dict(self.flow.sources[self.i])
        if flow.name(self.i) != "sub" or 1 not in sources:
            return False
        products = [k for k, _ in flow.consumers[self.i] if flow.role[k] is Role.MULTIPLY]
        sums = [k for product in products for k, _ in flow.consumers[product] if flow.role[k] is Role.ADD]
        return any(sources[1] in dict(flow.sources[k]).values() for k in sums)

    @cached_property
    def operands(self) -> list[Operand]:
        return self._operands(self.i, ())

    def _operands(self, i: int, outer: tuple[tuple[Edge, Role], ...]) -> list[Operand]:
        flow, found = self.flow, []
        role = flow.role[i]
        for position, j in flow.sources[i]:
            edges = (*outer, ((i, position), edge_role(flow, i, position)))
            if (role is Role.FUSED_ADD and position > 0) or (role is Role.LERP and position > 1):
                continue
            if self._nests(i, j):
                found += self._operands(j, edges)
            else:
                found.append(Operand(edges=tuple(e for e, _ in edges), roles=tuple(r for _, r in edges), value=j, roots=(j,)))
        product = tuple(j for position, j in flow.sources[i] if position > 0)
        if role is Role.FUSED_ADD and product:
            found.append(Operand(edges=(), value=None, roots=product, weight=flow.weight[i], holds_parameter=flow.holds_parameter[i]))
        return found

    def _nests(self, i: int, j: int) -> bool:
        flow = self.flow
        if len(flow.consumers[j]) != 1 or len(flow.sources[j]) < 2 or (flow.role[i] is Role.ADD and len(flow.sources[i]) < 2):
            return False
        return flow.role[j] is Role.STACK if flow.role[i] is Role.REDUCE else flow.role[j] is flow.role[i] and flow.role[j] in (Role.ADD, Role.CONCAT)

    def _close(self, k: int) -> _Found | None:
        """Follow operand `k` back to the first value that another operand comes from as well."""
        operand = self.operands[k]
        if operand.value is None:
            return None
        others = [o for o in self.operands if o is not operand]
        ancestors = Ancestors(self.flow, [r for o in others for r in o.roots])
        heap = [_Step(weight=0, nearness=-operand.value, value=operand.value, edges=operand.edges, roles=operand.roles)]
        seen: set[int] = set()
        while heap:
            step = heapq.heappop(heap)
            if step.value in seen:
                continue
            seen.add(step.value)
            if ancestors.reach(step.value) and not self.flow.many_valued[step.value]:
                bypassed = self._heavier(step, others, ancestors)
                if bypassed is not None:
                    return _Found(operand=k, step=step, bypassed=bypassed)
                if not self._is_view(step.value):
                    continue
            for onward in self._onward(step, others):
                heapq.heappush(heap, onward)
        return None

    def _heavier(self, step: _Step, others: list[Operand], ancestors: Ancestors) -> int | None:
        """Weighted layers on the branch if it is heavier than the path, else None."""
        node = self.flow.nodes[step.value]
        if node.op == "placeholder" and not node.meta.get("tracked", True):
            return None
        reach = self.flow.heaviest(step.value, ancestors.seen)
        gates = Role.MULTIPLY in step.roles or Role.ACTIVATION in step.roles
        plain = not gates and not any(self.flow.holds_parameter[i] for i, _ in step.edges if i != self.i)
        best = None
        for other in others:
            for root in (r for r in other.roots if r in reach):
                weight, parameter = reach[root][0] + other.weight, reach[root][1] or other.holds_parameter
                if weight > step.weight or (weight == step.weight and plain and parameter):
                    best = max(best or 0, weight)
        return best

    def _is_view(self, i: int) -> bool:
        """A view is no fork of its own: the branch may start at the value behind it."""
        return self.flow.role[i] is Role.LAYOUT and self.flow.name(i) != "getitem"

    def _onward(self, step: _Step, others: list[Operand]) -> list[_Step]:
        flow, i = self.flow, step.value
        weight = step.weight + flow.weight[i]
        sliced = flow.name(i) in SLICING and any(flow.weight[k] for k, _ in step.edges)
        if sliced:
            return []  # a projection of one slice beside what came from others (the input of one time step): not one fork
        if weight > _HEAVIEST_PROJECTION or (flow.weight[i] and {Role.MULTIPLY, Role.ACTIVATION} <= set(step.roles)):
            return []  # an activated linear map that multiplies something is the gate, not what it gates
        return [
            _Step(weight=weight, nearness=-j, value=j, edges=(*step.edges, (i, position)), roles=(*step.roles, edge_role(flow, i, position)))
            for position, j in carriers(flow, i, {o.value for o in others})
        ]

    def _merges_resolutions(self, skip: SkipPath) -> bool:
        """A lateral convolution beside a top-down path that upsamples is a pyramid's merge, not a shortcut around it."""
        return skip.kind == "projection" and any(self.flow.name(self.flow.index[n]) in UPSAMPLING for n in skip.branch_nodes)

    def _compares_slices(self, skip: SkipPath) -> bool:
        """A sum of what came from one slice of a value with what came from others (two time steps of one input): no coordinate is bypassed."""
        leaving = [skip.path[-1], *skip.branch_edges]
        return self.form == "add" and all(name_of(n) in SLICING for n, _ in leaving)

    def _skip(self, found: _Found) -> SkipPath:
        flow, step = self.flow, found.step
        everything = Ancestors(flow, [r for o in self.operands for r in o.roots])
        everything.reach(step.value)
        reach = flow.heaviest(step.value, everything.seen)
        members = {*reach, *(i for o in self.operands for i, _ in o.edges), self.i}
        on_path = {i for i, _ in step.edges}
        branch = tuple(flow.nodes[i] for i in sorted(set(reach) - on_path - {step.value}))
        kind = kind_of(step.roles, self.form)
        return SkipPath(
            join=flow.nodes[self.i],
            fork=flow.nodes[step.value],
            form=self.form,
            kind=kind,
            path=_edges(flow, step.edges),
            roles=step.roles,
            path_ops=tuple(op_name(flow, e, r) for e, r in zip(reversed(step.edges), reversed(step.roles), strict=True) if shows(flow, e, r)),
            full=self._full(found, reach) if Role.MULTIPLY in step.roles and flow.role[self.i] is not Role.LERP else None,
            branch_edges=_edges(flow, tuple(e for e in flow.consumers[step.value] if e != step.edges[-1] and e[0] in members)),
            shared=any(len(flow.consumers[i]) > 1 for i, _ in step.edges if i != self.i),
            operand=found.operand,
            bypassed_layers=found.bypassed,
            branch_nodes=branch,
            parameters=_parameters(branch),
        )

    def _full(self, found: _Found, reach: dict[int, tuple[int, bool]]) -> Stretch:
        operand = self.operands[found.operand]
        inside = Ancestors(self.flow, operand.roots)
        inside.reach(found.step.value)
        return stretch(self.flow, self.i, found.step.value, inside.seen & set(reach), operand.edges)

    def _detached(self) -> list[SkipPath]:
        """Operands that were computed from the tape but are not on it: the skip is there in the forward only."""
        flow, node = self.flow, self.flow.nodes[self.i]
        skips = []
        for source, location, ops in node.meta.get("cut", ()):
            ancestors = Ancestors(flow, [r for o in self.operands for r in o.roots])
            if _LIGHT_CUTS.intersection(ops) or not ancestors.reach(flow.index[source]):
                continue
            reach = flow.heaviest(flow.index[source], ancestors.seen)
            best = max((reach[r] for o in self.operands for r in o.roots if r in reach), default=(0, False))
            if not best[1]:
                continue
            branch = tuple(flow.nodes[i] for i in sorted(reach) if i != flow.index[source])
            edges = tuple(e for e in flow.consumers[flow.index[source]] if e[0] in reach or e[0] == self.i)
            skips.append(
                SkipPath(
                    join=node, fork=source, form=self.form, kind="detached", path=(), roles=(), path_ops=ops, full=None, shared=False, operand=-1,
                    branch_edges=_edges(flow, edges), bypassed_layers=best[0], branch_nodes=branch, parameters=_parameters(branch), cut=location,
                )
            )  # fmt: skip
        return skips


def stretch(flow: Flow, top: int, bottom: int, inside: set[int], entry: tuple[Edge, ...] = ()) -> Stretch:
    """The part of the graph on paths from `bottom` up to `top` that stays inside `inside`; `entry` are the first edges, where only those are open."""
    reach = flow.heaviest(bottom, inside)
    consumers = sorted((i for i in reach if i != bottom), reverse=True)
    edges = [*entry, *((i, position) for i in consumers for position, j in flow.sources[i] if j in reach)]
    return Stretch(top=flow.nodes[top], bottom=flow.nodes[bottom], edges=_edges(flow, tuple(dict.fromkeys(edges))))


def _edges(flow: Flow, edges: tuple[Edge, ...]) -> tuple[tuple[fx.Node, int], ...]:
    return tuple((flow.nodes[i], position) for i, position in edges)


def _parameters(nodes: tuple[fx.Node, ...]) -> frozenset[str]:
    """Names of the parameters that these nodes use, directly or through parameter-only nodes."""
    stack = [a for n in nodes for a in n.args if isinstance(a, fx.Node)]
    found, seen = {name for n in nodes for name in n.meta.get("frozen", ())}, set()
    while stack:
        node = stack.pop()
        if node in seen or node.meta.get("data"):
            continue
        seen.add(node)
        if node.meta.get("parameter"):
            found.add(node.meta["parameter"])
        stack.extend(a for a in node.args if isinstance(a, fx.Node))
    return frozenset(found)
