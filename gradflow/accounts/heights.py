"""How many weighted layers lie between each value and the loss. Touches no tensor."""

from __future__ import annotations

from torch import fx

from gradflow.operators import Role, role
from gradflow.residual.flow import name_of
from gradflow.tape import Value

_WEIGHTED = frozenset({Role.WEIGHTED, Role.FUSED_ADD, Role.OPAQUE})


def heights(graph: fx.Graph) -> dict[Value, int]:
    """Autograd value -> weighted layers on the longest path from it to the loss: operators that take a matrix or a kernel of the model's own."""
    weighted = _weighted(graph)
    above: dict[fx.Node, int] = {}
    for node in reversed(list(graph.nodes)):
        above[node] = max((above[user] + (user in weighted) for user in node.users), default=0)
    return {node.meta["value"]: height for node, height in above.items() if "value" in node.meta}


def _weighted(graph: fx.Graph) -> set[fx.Node]:
    matrices: set[fx.Node] = set()
    found = set()
    for node in graph.nodes:
        takes = any(operand in matrices for operand in node.all_input_nodes) or bool(node.meta.get("frozen"))
        if node.op == "get_attr":
            if node.meta.get("parameter") and len(node.meta["shape"]) > 1:
                matrices.add(node)
        elif takes and not node.meta.get("data"):
            matrices.add(node)  # a transposed, normalised or cast one
        elif takes and node.op == "call_function" and role(name_of(node)) in _WEIGHTED:
            found.add(node)
    return found
