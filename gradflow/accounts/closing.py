"""Branches closed by a small or zero factor: why a gradient of 0, or next to it, can be healthy. Touches no tensor.

ReZero, SkipInit, Fixup and zero-initialised last norms multiply a branch by 0 at initialisation, LayerScale by 1e-6. The branch's layers get next to no
gradient, the factor does, and it opens the branch. Stochastic depth drops a branch for a whole batch. A layer is closed when every path from it to the
loss is multiplied so.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from torch import fx

from gradflow.operators import KEEPS_ZERO, Role, role
from gradflow.residual.flow import name_of

_FACTORS = {"addmm": (1, 2), "baddbmm": (1, 2), "addbmm": (1, 2), "addmv": (1, 2), "mm": (0, 1), "bmm": (0, 1), "mv": (0, 1), "linear": (1,)}


STOCHASTIC_DEPTH = "stochastic depth"


def closing_parameters(graph: fx.Graph, zero: Set[str], small: Set[str]) -> dict[tuple[object, int], str]:
    """Autograd value -> name of the parameter that closes it (or STOCHASTIC_DEPTH), for every value whose paths to the loss are all closed.

    Args:
        zero: names of the parameters whose every element is 0.
        small: names of those that all but close a branch when they scale it, elementwise.
    """
    closes = {node: name for node in graph.nodes if (name := _closed_by(node, zero, small))}
    silent = _silent(graph, closes, zero)
    if not closes:
        return {}
    open_nodes: set[fx.Node] = set()
    nearest: dict[fx.Node, str] = {}
    for node in reversed(list(graph.nodes)):
        users = list(node.users)
        stopped = {u: closes.get(u) or _silenced_by(u, node, silent) for u in users}
        if node.op == "output" or any(u in open_nodes and not stopped[u] for u in users):
            open_nodes.add(node)
        elif users:
            closing = next((stopped[u] or nearest[u] for u in users if stopped[u] or u in nearest), "")
            if closing:
                nearest[node] = closing
    return {node.meta["value"]: name for node, name in nearest.items() if "value" in node.meta}


def _silent(graph: fx.Graph, closes: Mapping[fx.Node, str], zero: Set[str]) -> dict[fx.Node, str]:
    """Values that are exactly 0 in the forward, and the zero parameter that made them so: a gate that multiplies one gets no gradient either."""
    silent: dict[fx.Node, str] = {}
    for node in graph.nodes:
        operands = [a for a in node.args if isinstance(a, fx.Node)]
        kind = role(name_of(node)) if node.op == "call_function" else Role.OPAQUE
        if closes.get(node) in zero:
            added = operands[2:] if kind in (Role.NORM, Role.WEIGHTED) else operands[:1] if kind is Role.FUSED_ADD else []
            if all(_parameter(a, zero) for a in added):
                silent[node] = closes[node]
        elif kind in (Role.LAYOUT, Role.POOL, Role.SCALE, Role.DROPOUT) or name_of(node) in KEEPS_ZERO:
            inherited = next((silent[a] for a in operands if a in silent), "")
            if inherited:
                silent[node] = inherited
    return silent


def _silenced_by(product: fx.Node, operand: fx.Node, silent: Mapping[fx.Node, str]) -> str:
    """The zero parameter behind another factor of a product, or nothing."""
    if product.op != "call_function" or role(name_of(product)) is not Role.MULTIPLY:
        return ""
    return next((silent[a] for a in product.args if isinstance(a, fx.Node) and a is not operand and a in silent), "")


def _closed_by(node: fx.Node, zero: Set[str], small: Set[str]) -> str:
    """The factor that this node closes its data with, or nothing."""
    if node.meta.get("dropped"):
        return STOCHASTIC_DEPTH
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
    closing = zero | small if kind in (Role.MULTIPLY, Role.NORM) else zero
    factors = (_parameter(node.args[p], closing) for p in positions if p < len(node.args))
    return next((f for f in factors if f), "")


def _parameter(operand: object, zero: Set[str]) -> str:
    """The closing parameter behind a parameter-only operand (through views and products), or nothing."""
    if not isinstance(operand, fx.Node) or operand.meta.get("data"):
        return ""
    if operand.op == "get_attr":
        name = str(operand.meta.get("parameter", ""))
        return name if name in zero else ""
    kind = role(name_of(operand))
    if kind is Role.NORM:  # a standardised weight: its gain is the factor
        return _parameter(operand.args[1], zero) if len(operand.args) > 1 else ""
    if kind in (Role.LAYOUT, Role.POOL, Role.SCALE, Role.MULTIPLY) or name_of(operand) in KEEPS_ZERO:
        return next((f for a in operand.args if (f := _parameter(a, zero))), "")
    return ""
