"""The first operation that made an infinity or NaN of those that reach the loss or a gradient. A second run of the same batch under the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, fx, nn

from gradflow.causes.listening import Grads, Listener, listening
from gradflow.causes.watch import Event, ForwardWatch, counted, state_of
from gradflow.forward import Forward, Settings, tracked
from gradflow.observe import Chart, chart, go_back
from gradflow.recorder import Recorder
from gradflow.records import Location, Nonfinite
from gradflow.residual.flow import name_of
from gradflow.subject import Batch, Objective
from gradflow.subject.structure import class_name
from gradflow.tape import Tape, function_of

LOSS = "loss"


def first_nonfinite(model: nn.Module, batch: Batch, objective: Objective, settings: Settings, bystanders: Sequence[nn.Module] = ()) -> Nonfinite | None:
    """Where infinities and NaN come from: on the way to the loss, else on the way back. None where this run shows none.

    Raises:
        GradflowError: as `observe`.
    """
    watches: list[ForwardWatch] = []

    def around(recorder: Recorder, inputs: Sequence[tuple[str, Tensor]]) -> AbstractContextManager[object]:
        watches.append(ForwardWatch(recorder, inputs, model))
        return watches[-1]

    def then(model: nn.Module, forward: Forward, settings: Settings, track: bool) -> Nonfinite | None:
        roots = forward.roots
        event = watches[-1].first_behind(roots.tensors) or watches[-1].first_behind([roots.value])
        watches.clear()  # it keeps whatever is not finite
        origin = _of_event(event) if event is not None else _on_the_way_back(model, forward, settings)
        return origin and replace(origin, module=origin.module or f"({class_name(model)})")

    return tracked((model, *bystanders), batch, objective, settings, then, around)


def _of_event(event: Event) -> Nonfinite:
    module = LOSS if event.module is None else event.module
    return Nonfinite(operator=event.operator, module=module, phase="forward", location=event.location, what=event.what)


@dataclass(frozen=True, kw_only=True)
class _Made:
    node: fx.Node
    what: str
    added: bool


def _on_the_way_back(model: nn.Module, forward: Forward, settings: Settings) -> Nonfinite | None:
    way = chart(model, forward, settings)
    found: list[_Made] = []
    with listening(_nodes(way), lambda node: _listener(node, found)):
        go_back(way)
    if not found:
        return None
    first = found[0]
    node = first.node
    return Nonfinite(
        operator="sum" if first.added else name_of(node), module=_module(node), phase="backward", location=_location(node, way.tape), what=first.what
    )


def _nodes(way: Chart) -> list[tuple[fx.Node, Any]]:
    """The operators of the tape, and the leaves at which gradients are added up."""
    leaves = [(node, value[0]) for node, value in way.tape.values.items() if node.op == "get_attr"]
    return [*way.tape.operators.items(), *leaves]


def _listener(node: fx.Node, found: list[_Made]) -> Listener:
    """Notes the first node that sends back what is not finite although what arrives is, or at which finite gradients add up to what is not."""

    def listen(sent: Grads, arrived: Grads) -> None:
        if found:
            return
        above = next((g for g in arrived if g is not None and state_of(g)), None)
        if above is not None:
            found.append(_Made(node=node, what=f"{counted(above)} in the gradient of its output, to which finite gradients add up", added=True))
            return
        below = next((g for g in sent if g is not None and state_of(g)), None)
        if below is not None:
            found.append(_Made(node=node, what=f"{counted(below)} in the gradient that it sends back, of a finite one", added=False))

    return listen


def _module(node: fx.Node) -> str:
    if node.op == "get_attr":
        return str(node.meta["parameter"]).rpartition(".")[0]
    calls = node.meta.get("call", ())
    return str(calls[-1][0]) if calls else LOSS


def _location(node: fx.Node, tape: Tape) -> Location | None:
    """The line of the operator; of a custom function, whose call is not known, that of its backward; of a leaf, that of the operator that takes it."""
    function = function_of(tape.operators[node]) if node in tape.operators else None
    code = getattr(getattr(function, "backward", None), "__code__", None)
    if code is not None:
        return Location(file=code.co_filename, line=code.co_firstlineno)
    for near in (node, *(node.users if node.op == "get_attr" else ())):
        location = near.meta.get("location")
        if isinstance(location, Location):
            return location
    return None
