"""Why a gradient did not come: the reason for every layer and parameter that was not measured."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from gradflow.accounts.opaque import running_inside
from gradflow.observe import Observation
from gradflow.recorder import Origin
from gradflow.tape import Value


class Reach:
    """Answers for one observation."""

    def __init__(self, observation: Observation, model: nn.Module) -> None:
        self._observation = observation
        self._called = {call.name for call in observation.module_calls}
        self._leading = {call.name for call in observation.module_calls if any(v in observation.tape.nodes for v in call.values)}
        self._on_tape = {n.meta["parameter"] for n in observation.tape.graph.nodes if n.op == "get_attr"}
        self._names: dict[Tensor, str] = {p: n for n, p in model.named_parameters()}
        self._cut: dict[str, str] | None = None
        self._inside = running_inside(observation)

    def of_layer(self, name: str, calls: int, values: Sequence[Value]) -> str:
        """Why no gradient was read at a layer's output."""
        if not calls:
            return "it was not called in the forward pass"
        if not values and name in self._inside:
            return f"it runs inside {self._inside[name]}, a custom autograd.Function: its output is not on the tape"
        if not values:
            return "its output is not on the tape: no trainable parameter or differentiable input leads to it, or no_grad() or detach() cuts it"
        if not any(v in self._observation.tape.nodes for v in values):
            return "its output does not lead to the loss"
        return "no parameter lies before it, so that no gradient is computed there"

    def of_parameter(self, name: str) -> str:
        """Why a trainable parameter got no gradient."""
        if name in self._on_tape:
            return "an operator on its way to the loss sent no gradient back"
        if name in self._inside:
            return f"it is used inside {self._inside[name]}, a custom autograd.Function whose backward sent it no gradient"
        cut = self._cuts().get(name)
        if cut:
            return f"cut by {cut}"
        owner = name.rpartition(".")[0]
        if owner in self._leading:
            return "its module does not use it on the way to the loss"
        return "its module's output does not lead to the loss" if owner in self._called else "its module was not called in the forward pass"

    def _cuts(self) -> dict[str, str]:
        """Parameter -> the detach() or no_grad() behind which it lies."""
        if self._cut is None:
            self._cut = {self._names[leaf]: _how(origin) for leaf, origin in self._observation.cut_leaves if leaf in self._names}
            for origin in self._observation.cuts:
                stack, seen = [origin.source[0]] if origin.source else [], set()
                while stack:
                    node = stack.pop()
                    if node in seen:
                        continue
                    seen.add(node)
                    name = self._names.get(getattr(node, "variable", None))  # type: ignore[arg-type]
                    if name is not None:
                        self._cut.setdefault(name, _how(origin))
                    stack.extend(n for n, _ in node.next_functions if n is not None)
        return self._cut


def _how(origin: Origin) -> str:
    return f"{origin.ops[-1]}() at {origin.location}" if origin.ops[-1] in ("detach", "data") else f"no_grad() at {origin.location}"
