"""What passes no gradient on: for each layer that receives exactly 0, the nearest layer or operator after it that receives a gradient. A second run."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from torch import Tensor, fx, nn

from gradflow.accounts.layers import layer_rows
from gradflow.causes.listening import Grads, Listener, listening
from gradflow.forward import Forward, Settings, tracked
from gradflow.observe import Sight, chart, go_back
from gradflow.reduce import wide
from gradflow.residual.flow import name_of
from gradflow.subject import Batch, Objective
from gradflow.subject.structure import class_name
from gradflow.tape import Tape, consumers, standing

Passing = Mapping[fx.Node, tuple[bool, Sequence[bool]]]  # whether anything but 0 arrived, and whether anything but 0 was sent along each edge


def silencers(
    model: nn.Module, batch: Batch, objective: Objective, settings: Settings, silent: Set[str], bystanders: Sequence[nn.Module] = ()
) -> dict[str, str]:
    """For each layer of `silent` what silences it, by name; a layer for which nothing is found (gradients that cancel) is missing.

    Raises:
        GradflowError: as `observe`.
    """

    def then(model: nn.Module, forward: Forward, settings: Settings, track: bool) -> dict[str, str]:
        way = chart(model, forward, settings)
        seen: dict[fx.Node, tuple[Tensor | None, list[Tensor | None]]] = {}
        with listening(way.tape.operators.items(), lambda node: _listener(node, seen)):
            go_back(way)
        passing = {node: (_is_true(above), [_is_true(b) for b in below]) for node, (above, below) in seen.items()}
        calls = forward.recorder.module_calls
        rows = layer_rows(Sight(tape=way.tape, skips=(), highways=(), module_calls=calls, inputs_tracked=track), model)
        layers = {row.name for row in rows}
        found = {}
        for row in rows:
            name = row.name or f"({class_name(model)})"
            nodes = [way.tape.nodes[v] for value in row.values if (v := standing(way.tape, value)) in way.tape.nodes]
            if name in silent and (by := _silencer(way.tape, nodes, passing)) is not None:
                found[name] = _named(by, layers - {row.name})
        return found

    return tracked((model, *bystanders), batch, objective, settings, then)


def _listener(node: fx.Node, seen: dict[fx.Node, tuple[Tensor | None, list[Tensor | None]]]) -> Listener:
    def listen(sent: Grads, arrived: Grads) -> None:
        seen[node] = (_any(arrived), [_any((grad,)) for grad in sent])

    return listen


def _any(grads: Iterable[Tensor | None]) -> Tensor | None:
    """Whether any element is not 0, on its device; None where there is no gradient."""
    found: Any = None
    for grad in grads:
        if grad is not None:
            here = wide(grad).ne(0).any()
            found = here if found is None else found | here
    return found  # type: ignore[no-any-return]


def _is_true(flag: Tensor | None) -> bool:
    return flag is not None and bool(flag)


def _silencer(tape: Tape, nodes: Sequence[fx.Node], passing: Passing) -> fx.Node | None:
    """The nearest node after these that receives a gradient and sends 0 to where they lead to it."""
    into = consumers(tape)
    queue, seen = deque(nodes), set(nodes)
    while queue:
        node = queue.popleft()
        for user, position in into.get(node, ()):
            if user in seen:
                continue
            seen.add(user)
            if user not in tape.operators:
                queue.append(user)  # picks an output of the one before it
                continue
            arrived, sent = passing.get(user, (False, ()))
            if not arrived:
                queue.append(user)
            elif position >= len(sent) or not sent[position]:
                return user
    return None


def _named(node: fx.Node, layers: Set[str]) -> str:
    """The layer in which the operator runs, or else the operator and its line."""
    calls = node.meta.get("call", ())
    if calls and calls[-1][0] in layers:
        return str(calls[-1][0])
    location = node.meta.get("location")
    return f"{name_of(node)} at {location}" if location else f"{name_of(node)} in {calls[-1][0]}" if calls and calls[-1][0] else name_of(node)
