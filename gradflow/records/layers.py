"""Layers and their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradflow.records.base import Location, Measured, Status

TIMES = " × "  # between the names of scales that multiply


@dataclass(frozen=True, kw_only=True)
class Parameter(Measured):
    """One parameter: `weight_norm` = ‖W‖, `grad_norm` = ‖∇W‖, `update_ratio` = ‖∇W‖/‖W‖ (no learning rate in it)."""

    optional = frozenset({"weight_norm", "grad_norm", "update_ratio"})

    name: str
    shape: Sequence[int]
    status: Status
    weight_norm: float | None
    grad_norm: float | None
    update_ratio: float | None


@dataclass(frozen=True, kw_only=True)
class Layer(Measured):
    """One layer: a module that owns parameters or is a leaf, all its calls merged.

    Attributes:
        depth: position in the order of first calls, 0 is nearest the input.
        location: the user's line that calls the layer.
        output_shape: of its last call's first output.
        grad_norm: ‖∂L/∂output‖ over the whole batch and all calls.
        grad_rms: grad_norm / √count.
        gain: grad_norm / ‖∂L/∂(model output)‖.
        zero_fraction: share of output-gradient elements that are exactly 0.
        nonfinite: how many of them are inf or nan.
        fp16_underflow: share of the nonzero elements that round to 0 in float16.
        closed_by: what closes every path from here to the loss: the name of a parameter that is zero or of a small one with a way around it, as a
            LayerScale (of several that multiply all, joined by " × "), or "stochastic depth" where it dropped the branch for the whole batch; "" where a
            path is open.
        dead_units: share of the rows of a linear layer's weight, or of a convolution's output channels, whose gradient is exactly 0 in every batch, where not
            all of it is.
        fluctuation: standard deviation over the batches of log10 of the gain of each; from 4 batches on.
        layers_after: weighted layers on the longest path from its output to the loss; 0 where there is none.
        silenced_by: of a layer that receives exactly 0, the nearest layer or operator after it that receives a gradient and passes none on.
    """

    optional = frozenset({"grad_norm", "grad_rms", "gain", "zero_fraction", "nonfinite", "fp16_underflow", "dead_units", "fluctuation"})

    name: str
    type: str
    calls: int
    depth: int
    location: Location | None
    output_shape: Sequence[int]
    grad_norm: float | None
    grad_rms: float | None
    gain: float | None
    zero_fraction: float | None
    nonfinite: int | None
    fp16_underflow: float | None
    dead_units: float | None
    fluctuation: float | None
    closed_by: str = ""
    silenced_by: str = ""
    layers_after: int = 0
    parameters: Sequence[Parameter] = ()

    @property
    def closing(self) -> tuple[str, ...]:
        """The names in `closed_by`."""
        return tuple(self.closed_by.split(TIMES)) if self.closed_by else ()
