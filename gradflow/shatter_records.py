"""The frozen records of `gradflow shatter`: the gradient along a line of inputs, layer by layer. Imports no torch.

A measured value that is not defined is None, and its field's name stands in the record's `undefined` with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gradflow.codec import Document
from gradflow.records import Environment, Input, Location, Measured, Target

SCHEMA = "gradflow/shatter/v1"

Process = Literal["white noise", "Brownian motion"]
BROKEN = ("its gradient is not finite", "its gradient is zero at every point")  # reasons of an undefined ACF that say something of the gradient
Likeness = Literal["white noise", "between", "Brownian motion", "constant", "undefined"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """The line of inputs x(u) = a + u(b − a), or a grid of numbers.

    Attributes:
        kind: between two samples of the batch, or a grid.
        ends: of a grid its two ends; else the numbers of the samples a and b in the batch.
        points: how many inputs stand on the line, at equal distances, both ends included.
        step: distance of neighbours, L2 over all inputs that change.
        inputs: names of the inputs that change along the line.
        held: names of the inputs that keep sample a's value.
    """

    kind: Literal["between", "grid"]
    ends: Sequence[float]
    points: int
    step: float
    inputs: Sequence[str]
    held: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Curve(Measured):
    """The gradient z_i of point i's output with respect to one layer's output, or to an input, along the line; z̃ is z minus its mean over the points.

    Attributes:
        name: of the layer or the input.
        type: class of the layer; "input" for an input.
        depth: position of the layer in the order of first calls, as in gradflow profile; -1 for an input.
        location: the user's line that calls the layer.
        output_shape: of its last call's first output; of the input itself; both on the line.
        variation: Σ‖z̃_i‖² / Σ‖z_i‖², the share of the gradient that changes along the line: 0 for a constant one, 1 where its mean is 0.
        acf: Σ⟨z̃_i, z̃_{i+k}⟩ / Σ‖z̃_i‖² for the lags k = 0, 1, …
        correlation_length: the lag in points at which the ACF first falls below 1/e, interpolated between lags.
        correlation_share: that lag as a share of the line.
        mean_cosine: mean of cos(g_i, g_j) over all pairs of the batch's own samples, not centred.
        like: the process that the ACF at lag 1 is like.
    """

    optional = frozenset({"variation", "acf", "correlation_length", "correlation_share", "mean_cosine"})

    name: str
    type: str
    depth: int
    location: Location | None
    output_shape: Sequence[int]
    variation: float | None
    acf: Sequence[float] | None
    correlation_length: float | None
    correlation_share: float | None
    mean_cosine: float | None
    like: Likeness


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A process of one number per point: mean and standard deviation of its ACF at the lags 0, 1, …"""

    name: Process
    acf: Sequence[float]
    deviation: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class ShatterReport(Document):
    """Shattered gradients (Balduzzi et al. 2017): how the gradient of one functional of the output changes along a line of inputs.

    Attributes:
        mode: the mode that the model ran in.
        inputs: the tensors of the batch.
        samples: how many of the batch's samples the mean cosines are taken over.
        line: the line of inputs.
        lags: the largest lag of the ACF.
        curves: the inputs first, then the layers in the order of the forward pass.
        references: white noise and Brownian motion of the same number of points.
        like: what the gradient at the first input is like; where it is not measured, at the first layer that is.
        notes: what was assumed, or bears on how the numbers are read.
    """

    gradflow_version: str
    environment: Environment
    target: Target
    mode: Literal["train", "eval"]
    inputs: Sequence[Input]
    samples: int
    line: Line
    lags: int
    curves: Sequence[Curve]
    references: Sequence[Reference]
    like: Likeness
    notes: Sequence[str] = ()
    schema: str = SCHEMA
