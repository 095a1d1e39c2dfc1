"""What passing back along an edge does to a gradient, and along which edges a skip path may go. Touches no tensor."""

from __future__ import annotations

import math

from gradflow.operators import GATES, Role
from gradflow.records import Form, Kind
from gradflow.residual.flow import Edge, Flow
from gradflow.residual.mixing import streams_operand

JOINS = frozenset({Role.ADD, Role.FUSED_ADD, Role.LERP, Role.CONCAT})

# What the most transforming operator on the path makes of the skip.
_KINDS: tuple[tuple[Role, Kind], ...] = (
    (Role.WEIGHTED, "projection"),
    (Role.MIX, "streams"),
    (Role.MULTIPLY, "gated"),
    (Role.ACTIVATION, "gated"),
    (Role.NORM, "norm"),
    (Role.DROPOUT, "dropout"),
    (Role.POOL, "pooled"),
    (Role.SCALE, "scaled"),
)


def carriers(flow: Flow, i: int, other_operands: set[int | None]) -> list[tuple[int, int]]:
    """The operands of node `i` along which a skip path may go on."""
    role, sources = flow.role[i], flow.sources[i]
    mixed = streams_operand(flow, i)
    if mixed is not None:
        return [s for s in sources if s[0] == mixed]
    if role is Role.MULTIPLY:
        gates = [_is_gate(flow, j) for _, j in sources]
        masks = [flow.nodes[j].op == "placeholder" for _, j in sources]  # a mask that was given, unless what it multiplies is a gate
        return [s for k, s in enumerate(sources) if gates[1 - k] or (masks[1 - k] and not gates[k])]
    if role is Role.DIVIDE:
        return [s for s in sources if s[0] == 0]
    if role is Role.ADD:
        carried = [s for s in sources if s[1] not in other_operands]
        return carried if len(carried) == 1 else []
    if role in (Role.OPAQUE, Role.CONCAT, Role.STACK, Role.LERP) or (role is Role.REDUCE and flow.name(i) == "sum") or len(sources) != 1:
        return []
    return sources


def _is_gate(flow: Flow, i: int) -> bool:
    """Whether a factor is a bounded function's value (σ, 1 − σ, tanh …), seen through views, slices, constants and scales; else the product is bilinear."""
    while flow.name(i) not in GATES:
        if len(flow.sources[i]) != 1 or flow.role[i] not in (Role.LAYOUT, Role.POOL, Role.SCALE, Role.ADD):
            return False
        i = flow.sources[i][0][1]
    return True


def edge_role(flow: Flow, i: int, position: int) -> Role:
    """What passing back through argument `position` of node `i` does to the gradient."""
    role = flow.role[i]
    if streams_operand(flow, i) == position:
        return Role.MIX
    if role in (Role.ADD, Role.FUSED_ADD):
        return _sum_role(flow, i, position)
    if role is Role.LERP:
        return Role.MULTIPLY if len(flow.sources[i]) > 2 else Role.SCALE
    if role is Role.REDUCE:
        mean = Role.SCALE if flow.role[flow.sources[i][0][1]] is Role.STACK else Role.POOL
        return mean if flow.name(i) == "mean" else Role.LAYOUT
    if role is Role.LAYOUT and flow.name(i) == "getitem":
        return Role.POOL
    return {Role.CONCAT: Role.LAYOUT, Role.STACK: Role.LAYOUT, Role.DIVIDE: Role.MULTIPLY}.get(role, role)


def _sum_role(flow: Flow, i: int, position: int) -> Role:
    """The same for a sum: an operand passes as it is, but for a sign, a constant factor or, in a fused sum, the product."""
    role, node = flow.role[i], flow.nodes[i]
    if role is Role.ADD:
        if position == 1 and node.meta.get("through_view") and _elements(flow, i) != _elements(flow, dict(flow.sources[i]).get(1, i)):
            return Role.POOL  # added to a part of the sum
        return Role.SCALE if position == 1 and (flow.name(i) == "sub" or "alpha" in node.kwargs) else Role.LAYOUT
    if position > 0:
        return Role.WEIGHTED if flow.weight[i] else Role.SCALE
    return Role.SCALE if "beta" in node.kwargs else Role.LAYOUT


def kind_of(roles: tuple[Role, ...], form: Form) -> Kind:
    """The kind of a skip by the most transforming operator on its path."""
    kind: Kind = next((kind for role, kind in _KINDS if role in roles), "identity")
    return "concat" if form == "concat" and kind != "projection" else kind


def shows(flow: Flow, edge: Edge, role: Role) -> bool:
    """Whether an edge's operator is listed in `path_ops`: sums and concatenations that pass the gradient on as it is are not."""
    return flow.name(edge[0]) != "getitem" and (flow.role[edge[0]] not in (*JOINS, Role.STACK) or role is not Role.LAYOUT)


def op_name(flow: Flow, edge: Edge, role: Role) -> str:
    """The operator with the constant that scales this operand, e.g. `add(alpha=0.5)`."""
    name, constants = flow.name(edge[0]), flow.nodes[edge[0]].kwargs
    factor = next((f"({k}={v})" for k, v in constants.items() if k == ("alpha" if flow.role[edge[0]] is Role.ADD else "beta")), "")
    return name + factor if role is Role.SCALE else name


def _elements(flow: Flow, i: int) -> int:
    return math.prod(flow.nodes[i].meta.get("shape", ()))
