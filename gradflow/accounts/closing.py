"""Branches closed by a small or zero factor: why a gradient of 0, or next to it, can be healthy. Touches no tensor.

ReZero, SkipInit, Fixup and zero-initialised last norms multiply a branch by 0 at initialisation, LayerScale by 1e-6. The branch's layers get next to no
gradient, the factor does, and it opens the branch. Stochastic depth drops a branch for a whole batch. A layer is closed when every path from it to the
loss is multiplied so. A small factor on the only way to the loss closes no branch: it is a fault of the trunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from heapq import heappop, heappush

from torch import fx

from gradflow.operators import KEEPS_ZERO, Role, role
from gradflow.records import TIMES
from gradflow.residual.flow import name_of

_FACTORS = {"addmm": (1, 2), "baddbmm": (1, 2), "addbmm": (1, 2), "addmv": (1, 2), "mm": (0, 1), "bmm": (0, 1), "mv": (0, 1), "linear": (1,)}


STOCHASTIC_DEPTH = "stochastic depth"


@dataclass(frozen=True, kw_only=True)
class Closing:
    """What multiplies the most open path from a value to the loss.

    Attributes:
        zeros: how many factors on it are 0.
        scale: the product of the small ones.
        names: of those that close it, the nearest first; of several that are 0 the nearest alone, which is enough.
    """

    zeros: int = 0
    scale: float = 1.0
    names: tuple[str, ...] = ()

    def behind(self, name: str, factor: float) -> Closing:
        """The same path, one factor farther from the loss."""
        if not factor:
            return Closing(zeros=self.zeros + 1, scale=self.scale, names=(name,))
        return Closing(zeros=self.zeros, scale=self.scale * factor, names=self.names if self.zeros else (name, *self.names))

    def closed_by(self, silent: bool) -> str:
        """The names for a record, "" where the path is open, or where the gradient is exactly 0 and no factor is: something else made it so."""
        return "" if silent and not self.zeros else TIMES.join(self.names)


_OPEN = Closing()
Edge = tuple[fx.Node, fx.Node]  # (consumer, operand)


class _Ways:
    """The ways of a graph's data to its output."""

    def __init__(self, graph: fx.Graph) -> None:
        self._at = {node: i for i, node in enumerate(graph.nodes)}

    def around(self, node: fx.Node) -> bool:
        """Whether anything that a node is computed from leads to the output by another way as well: a skip around it, or a branch beside it.

        Walks back from the node, latest first, and ends at the first such value: in a branch that is its fork.
        """
        seen, waiting = {node}, [(-self._at[node], node)]
        while waiting:
            _, here = heappop(waiting)
            if here is not node and any(user not in seen for user in here.users):
                return True
            for source in here.all_input_nodes:
                if source not in seen and source.meta.get("data") and source.meta.get("tracked", True):
                    seen.add(source)
                    heappush(waiting, (-self._at[source], source))
        return False


def closings(graph: fx.Graph, zero: Set[str], small: Mapping[str, float], mute: Set[Edge]) -> dict[tuple[object, int], Closing]:
    """Autograd value -> what closes it, for every value whose paths to the loss are all closed.

    Args:
        zero: names of the parameters whose every element is 0.
        small: those that all but close a branch when they scale it, elementwise, with their root mean square.
        mute: edges that were seen to pass on a gradient of exactly 0: they open nothing.
    """
    ways = _Ways(graph)
    closes = {node: found for node in graph.nodes if (found := _closed_by(node, zero, small, ways))}
    if not closes:
        return {}
    silent = _silent(graph, closes, zero)
    best: dict[fx.Node, Closing] = {}
    for node in reversed(list(graph.nodes)):
        onward = (
            [_OPEN]
            if node.op == "output"
            else [_through(user, node, best[user], closes, silent) for user in node.users if user in best and (user, node) not in mute]
        )
        if onward:
            best[node] = min(onward, key=lambda closing: (closing.zeros, -closing.scale))
    return {node.meta["value"]: found for node, found in best.items() if found.names and "value" in node.meta}


def _through(user: fx.Node, node: fx.Node, after: Closing, closes: Mapping[fx.Node, tuple[str, float]], silent: Mapping[fx.Node, str]) -> Closing:
    """What closes the path from a value through one of its users, which is closed by `after`."""
    if user in closes and _is_multiplied(user, node):
        return after.behind(*closes[user])
    gate = _silenced_by(user, node, silent)
    return after.behind(gate, 0.0) if gate else after


def _is_multiplied(user: fx.Node, node: fx.Node) -> bool:
    """Whether the operand is one that the user multiplies: a fused sum passes the one that it adds on as it is."""
    fused = user.op == "call_function" and role(name_of(user)) is Role.FUSED_ADD
    return node in user.args[1:] if fused else True


def _silent(graph: fx.Graph, closes: Mapping[fx.Node, tuple[str, float]], zero: Set[str]) -> dict[fx.Node, str]:
    """Values that are exactly 0 in the forward, and the zero parameter that made them so: a gate that multiplies one gets no gradient either."""
    silent: dict[fx.Node, str] = {}
    for node in graph.nodes:
        operands = [a for a in node.args if isinstance(a, fx.Node)]
        kind = role(name_of(node)) if node.op == "call_function" else Role.OPAQUE
        closing, factor = closes.get(node, ("", 1.0))
        if not factor and closing in zero:
            added = operands[2:] if kind in (Role.NORM, Role.WEIGHTED) else operands[:1] if kind is Role.FUSED_ADD else []
            if all(_parameter(a, zero) for a in added):
                silent[node] = closing
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


def _closed_by(node: fx.Node, zero: Set[str], small: Mapping[str, float], ways: _Ways) -> tuple[str, float] | None:
    """The factor that this node closes its data with, and its size; a zero before a small one."""
    if node.meta.get("dropped"):
        return STOCHASTIC_DEPTH, 0.0
    if node.op != "call_function" or not node.meta.get("data"):
        return None
    name = name_of(node)
    kind = role(name)
    if kind is Role.MULTIPLY:
        positions: tuple[int, ...] = (0, 1)
    elif kind in (Role.NORM, Role.WEIGHTED, Role.FUSED_ADD):
        positions = _FACTORS.get(name, (1,))
    else:
        return None
    operands = [node.args[p] for p in positions if p < len(node.args)]
    nothing = next((f for a in operands if (f := _parameter(a, zero))), "")
    if nothing:
        return nothing, 0.0
    scale = next((f for a in operands if (f := _parameter(a, small.keys()))), "") if kind in (Role.MULTIPLY, Role.NORM) else ""
    return (scale, small[scale]) if scale and ways.around(node) else None


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
