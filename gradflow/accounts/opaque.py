"""What could not be seen: parts of the model that are one operator of the tape. Never a silent pass.

Most of ATen's operators are what they say and nothing is hidden in them: attention, softmax or an index hold no skip. A fused recurrent kernel holds its
cell's carry, a custom function or a compiled graph whatever its author put there. A custom function of one value without parameters is an activation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx

from gradflow.observe import Observation, Sight
from gradflow.operators import Role, role
from gradflow.records import Location, Opaque
from gradflow.residual.flow import name_of, parameters_of
from gradflow.tape import function_of

_UNROLL = "to see them, profile in float64, in which torch unrolls it, or unroll the loop with nn.LSTMCell"
_ON_CPU = "to see them, run it on the CPU, unrolled (nn.LSTMCell, nn.GRUCell)"
_ON_CPU_CELL = "to see them, run it on the CPU, where the cell is not fused"
_RECURRENT = {
    "mkldnn_rnn_layer": _UNROLL,
    "cudnn_rnn": _ON_CPU,
    "miopen_rnn": _ON_CPU,
    "lstm_mps": _ON_CPU,
    "thnn_fused_lstm_cell": _ON_CPU_CELL,
    "thnn_fused_gru_cell": _ON_CPU_CELL,
}
_FUSED_NAME = re.compile(r"^fused_|(^|_)(rnn|lstm|gru)(_|$)")  # an operator of a torch that is newer than the table
_PRIMITIVE_FUNCTIONS = frozenset({"SyncBatchNorm", "FlexAttentionAutogradOp"})  # custom functions of torch's own that are one layer each
_IN_TORCHS_WORDS = "to see them, profile a variant of it that is written with torch's operators"
_TORCH = str(Path(torch.__file__).parent)


@dataclass(frozen=True, kw_only=True)
class _Sort:
    """What one node is; `always` opaque, or only where several values or a parameter meet in it."""

    operator: str
    reason: str
    fix: str
    always: bool = False


def account_opaque(observation: Observation | Sight, model_class: str) -> tuple[Opaque, ...]:
    """One record per module and operator, in the order in which the forward met them."""
    places = {(call.name, call.index): call.location for call in observation.module_calls}
    found: dict[tuple[str, str, str], list[tuple[fx.Node, Any, _Sort]]] = {}
    for node, grad in observation.tape.operators.items():
        sort = _sort(node, grad) if node.meta["data"] else None
        if sort is not None and (sort.always or _hides(node)):
            found.setdefault((_module(node, model_class), sort.operator, sort.reason), []).append((node, grad, sort))
    return tuple(
        Opaque(
            name=name,
            operator=operator,
            reason=reason,
            fix=members[0][2].fix,
            calls=len(members),
            parameters=tuple(dict.fromkeys(p for node, _, _ in members for p in parameters_of([node]))),
            location=_location(*members[0][:2], places),
        )
        for (name, operator, reason), members in found.items()
    )


def running_inside(observation: Observation) -> dict[str, str]:
    """Module or parameter -> the custom function in whose forward it ran, unseen."""
    functions = [(node, cls.__name__) for node, grad in observation.tape.operators.items() if (cls := function_of(grad))]
    return {name: function for node, function in functions for name in (*node.meta.get("inside", ()), *node.meta.get("frozen", ()))}


def _sort(node: fx.Node, grad: Any) -> _Sort | None:
    name, function = name_of(node), function_of(grad)
    if function is not None:
        return _sort_of_function(function)
    if name in _RECURRENT:
        return _Sort(operator=name, reason="a fused recurrent kernel", fix=_RECURRENT[name], always=True)
    if "DifferentiableGraph" in grad.name():
        fix = "to see them, profile the eager model, or run under torch.jit.optimized_execution(False)"
        return _Sort(operator="DifferentiableGraph", reason="a TorchScript graph that is differentiated as one", fix=fix, always=True)
    if role(name) is not Role.OPAQUE:
        return None
    if isinstance(node.target, torch._ops.OpOverloadPacket):
        return _Sort(operator=name, reason="a fused operator that gradflow does not know", fix=_IN_TORCHS_WORDS) if _FUSED_NAME.search(name) else None
    if name == "copy_slices":
        return None
    written = re.search(r"CppNode<(?:.*::)?(\w+)>", grad.name())
    return _Sort(operator=written[1] if written else name, reason="an operator that is not torch's own", fix=_IN_TORCHS_WORDS)


def _sort_of_function(function: type) -> _Sort | None:
    name, home = function.__name__, function.__module__
    if home.startswith("torch._library"):
        return _Sort(operator=_registered(name), reason="a custom operator", fix=_IN_TORCHS_WORDS)
    if name == "CompiledFunction" and home.startswith("torch._functorch"):
        return _Sort(operator=name, reason="a compiled graph", fix="to see them, profile the model before torch.compile", always=True)
    if home.startswith("torch.") and name in _PRIMITIVE_FUNCTIONS:
        return None
    return _Sort(operator=name, reason="a custom autograd.Function", fix=_IN_TORCHS_WORDS)


def _registered(name: str) -> str:
    """`mylib::scan` for the function that torch generates for it, GeneratedBackwardFor_mylib_scan_default."""
    bare = name.removeprefix("GeneratedBackwardFor_").removesuffix("_default")
    known = (op for op in torch._C._dispatch_get_all_op_names() if op.replace("::", "_").replace(".", "_") == bare)
    return next(known, bare)


def _hides(node: fx.Node) -> bool:
    """Whether several values, or a value and a parameter, meet in it: then there can be a skip, or a layer."""
    data = {a for a in node.args if isinstance(a, fx.Node) and a.meta.get("data")}
    return len(data) > 1 or bool(node.meta.get("inside") or parameters_of([node]))


def _module(node: fx.Node, model_class: str) -> str:
    path = node.meta["call"]
    return str(path[-1][0]) or f"({model_class})" if path else "(outside the model)"


def _location(node: fx.Node, grad: Any, places: dict[tuple[str, int], Location | None]) -> Location | None:
    """The user's line that made the node; a custom function's is not known, so that its definition stands for it, or else the call of its module."""
    if isinstance(node.meta.get("location"), Location):
        return node.meta["location"]  # type: ignore[no-any-return]
    code = getattr(getattr(function_of(grad), "forward", None), "__code__", None)
    if code is not None and not code.co_filename.startswith((_TORCH, "<")):
        return Location(file=code.co_filename, line=code.co_firstlineno)
    return next((place for call in reversed(node.meta["call"]) if (place := places.get(call)) is not None), None)
