"""Branches closed by a parameter that is zero: why a gradient of exactly 0 can be healthy. Touches no tensor.

ReZero, SkipInit, Fixup and zero-initialised last norms multiply a branch by 0 at initialisation. Its layers get no gradient, the zero parameter does, and
after one step the branch is open. A layer is closed when every path from it to the loss is multiplied by such a parameter.
"""

from __future__ import annotations

from collections.abc import Set

from torch import fx

from gradflow.operators import Role, role
from gradflow.residual.flow import name_of

_FACTORS = {"addmm": (1, 2), "baddbmm": (1, 2), "addbmm": (1, 2), "addmv": (1, 2), "mm": (0, 1), "bmm": (0, 1), "mv": (0, 1), "linear": (1,)}


def closing_parameters(graph: fx.Graph, zero: Set[str]) -> dict[tuple[object, int], str]:
    """Autograd value -> name of the zero parameter that closes it, for every value whose paths to the loss are all closed.

    Args:
        zero: names of the parameters whose every element is 0.
    """
    closes = {node: name for node in graph.nodes if (name := _closed_by(node, zero))}
    if not closes:
        return {}
    open_nodes: set[fx.Node] = set()
    nearest: dict[fx.Node, str] = {}
    for node in reversed(list(graph.nodes)):
        users = list(node.users)
        if node.op == "output" or any(u in open_nodes and u not in closes for u in users):
            open_nodes.add(node)
        elif users:
            name = next((closes.get(u) or nearest.get(u) for u in users if u in closes or u in nearest), None)
            if name:
                nearest[node] = name
    return {node.meta["value"]: name for node, name in nearest.items() if "value" in node.meta}


def _closed_by(node: fx.Node, zero: Set[str]) -> str:
    """The zero parameter that this node multiplies its data by, or nothing."""
    if node.op != "call_function" or not node.meta.get("data"):
        return ""
    name = name_of(node)
    kind = role(name)
    if kind is Role.MULTIPLY:
        positions: tuple[int, ...] = (0, 1)
    elif kind in (Role.NORM, Role.WEIGHTED, Role.FUSED_ADD):
        positions = _FACTORS.get(name, (1,))
    else:
        return ""
    factors = (_parameter(node.args[p], zero) for p in positions if p < len(node.args))
    return next((f for f in factors if f), "")


def _parameter(operand: object, zero: Set[str]) -> str:
    """The zero parameter behind a parameter-only operand (through views and products), or nothing."""
    if not isinstance(operand, fx.Node) or operand.meta.get("data"):
        return ""
    if operand.op == "get_attr":
        name = str(operand.meta.get("parameter", ""))
        return name if name in zero else ""
    kind = role(name_of(operand))
    if kind in (Role.LAYOUT, Role.POOL, Role.SCALE, Role.MULTIPLY):
        return next((f for a in operand.args if (f := _parameter(a, zero))), "")
    return ""


