"""How a batch's gradient is spread over its samples, at the model's output and at the first weighted layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from gradflow.gauges.rows import LOOKED_UP, RowFinder, Rows
from gradflow.operators import Role, role
from gradflow.reduce import inner
from gradflow.residual.flow import name_of, parameters_of
from gradflow.sums import Floats, SampleSums
from gradflow.tape import Tape, Value

OUTPUT = "output"
_GIVEN = ("_saved_mat1", "_saved_input", "_saved_self")  # what addmm, convolution and mm keep of the data that they were given


@dataclass(kw_only=True, eq=False)
class Place:
    """A value whose gradient is weighed, sample by sample.

    Attributes:
        given: what the layer was given, its rows those of the value: ‖gᵢ‖² is multiplied by its ‖xᵢ‖².
    """

    value: Value
    rows: Rows
    given: Tensor | None = None

    def weights(self, grad: Tensor) -> Tensor:
        """[samples], float64."""
        found = self._of_samples(grad)
        return found if self.given is None else found * self._of_samples(self.given)

    def _of_samples(self, tensor: Tensor) -> Tensor:
        if self.rows.order is None:
            return inner(tensor, tensor, self.rows.samples, exact=False)
        return self.rows.gather(inner(tensor, tensor, self.rows.count, exact=False))


class SampleGauge:
    """Weights of the samples at one place of the model, read when the gradients of its values arrive.

    Args:
        where: name of the place.
        places: its values, one for each call; none where `reason` says why.
    """

    def __init__(self, where: str, places: Sequence[Place] = (), *, reason: str = "") -> None:
        self.where, self.places = where, tuple(places)
        self.weights: Tensor | None = None
        self._reason = reason

    def read(self, place: Place, grad: Tensor) -> None:
        """The gradient of a place's value has arrived."""
        if grad.layout is not torch.strided or grad.dim() == 0:
            self._reason = "the gradient there has no batch dimension"
            return
        weights = place.weights(grad)
        self.weights = weights if self.weights is None else self.weights + weights

    def sums(self, host: Floats | None) -> SampleSums:
        """`host` is `weights`, brought there."""
        return SampleSums(where=self.where, batches=() if host is None else (host,), reason=self._reason or "no gradient arrives there")


def sample_gauges(tape: Tape, outputs: Sequence[Value], samples: int, inputs: Sequence[Tensor]) -> list[SampleGauge]:
    """One for the model's first output and one for the first weighted layer, where it is certain which sample each row is of.

    Args:
        samples: the batch size.
        inputs: as they were handed to the model.
    """
    if samples < 2:
        return [SampleGauge(OUTPUT, reason="the batch has one sample, or no dimension that is known to count samples")]
    output = outputs[0]
    shape = output[0]._input_metadata[output[1]].shape
    leading = len(shape) > 0 and shape[0] == samples
    at_output = [Place(value=output, rows=Rows(count=samples, samples=samples))] if leading else ()
    gauges = [SampleGauge(OUTPUT, at_output, reason="" if leading else "the batch dimension does not survive to the output")]
    weighted = [(node, weight) for node in tape.graph.nodes if node in tape.values and (weight := _weight_of(node)) is not None]
    if weighted:
        first = weighted[0][1]
        gauges.append(_at(tape, first, [node for node, weight in weighted if weight == first], RowFinder(tape, samples, inputs)))
    return gauges


def _weight_of(node: fx.Node) -> str | None:
    """The name of the weight that a node applies to data, or nothing."""
    if node.op != "call_function" or not node.meta.get("data") or role(name_of(node)) not in (Role.WEIGHTED, Role.FUSED_ADD):
        return None
    return next(iter(reversed(parameters_of([node]))), None)  # the weight comes after the bias


def _at(tape: Tape, weight: str, calls: Sequence[fx.Node], finder: RowFinder) -> SampleGauge:
    found = [_place(tape, node, finder) for node in calls]
    reason = next((f for f in found if isinstance(f, str)), "")
    return SampleGauge(weight.rpartition(".")[0] or "(weight)", () if reason else [f for f in found if isinstance(f, Place)], reason=reason)


def _place(tape: Tape, node: fx.Node, finder: RowFinder) -> Place | str:
    """A layer's output, or why the samples cannot be told apart there."""
    shape = tuple(node.meta["shape"])
    looks_up = name_of(node) in LOOKED_UP
    given = None if looks_up else _given(tape.operators[node])
    if given is None and not looks_up:
        return "the tape does not keep what the layer was given"
    rows = finder.of(node, shape if given is None else given.shape)
    if rows is None:
        return "which sample each row of the layer's input is of is not certain"
    if given is not None and not shape[:1] == given.shape[:1] == (rows.count,):
        return "what the layer was given has another batch dimension than its output"
    return Place(value=tape.values[node], rows=rows, given=given)


def _given(operator: object) -> Tensor | None:
    """The data operand that an operator keeps for its backward pass."""
    for name in _GIVEN:
        try:
            saved = getattr(operator, name, None)
        except RuntimeError:  # written to in place since
            return None
        if isinstance(saved, Tensor) and saved.layout is torch.strided:
            return saved.detach()
    return None
