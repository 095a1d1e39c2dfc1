"""Layers and parameters: each is measured, frozen, or unreached with the reason. Never a silent gap."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import fx, nn

from gradflow.accounts.closing import Closing, closings
from gradflow.accounts.heights import heights
from gradflow.accounts.reach import Reach
from gradflow.gauges import unit_dimension
from gradflow.observe import Observation, Sight
from gradflow.records import Layer, Location, Parameter
from gradflow.subject.structure import class_name
from gradflow.sums import Floats, GradientSums
from gradflow.tape import Value, parameter_users

FEWEST_BATCHES = 4
SMALL_SCALE = 0.02  # the rms below which an elementwise scale counts as closing its branch: LayerScale's 1e-2 and below
_GRADIENT_FIELDS = ("grad_norm", "grad_rms", "gain", "zero_fraction", "nonfinite", "fp16_underflow")


@dataclass(kw_only=True)
class Row:
    """A layer before it is a record: its calls' output values, and where in the forward it first ended."""

    name: str
    end: int
    calls: int = 0
    location: Location | None = None
    shape: tuple[int, ...] = ()
    values: list[Value] = field(default_factory=list)


def layer_rows(observation: Observation | Sight, model: nn.Module) -> list[Row]:
    """Every layer in the order in which the forward first finished it; those that never ran come last.

    A layer is a called module that owns parameters or has no children. An owner of parameters that is never called itself (attention's out_proj) is
    measured where its parameters are used.
    """
    modules = dict(model.named_modules())
    rows: dict[str, Row] = {}
    for call in observation.module_calls:
        module = modules[call.name]
        if not (module._parameters and any(p is not None for p in module._parameters.values())) and any(True for _ in module.children()):
            continue
        row = rows.setdefault(call.name, Row(name=call.name, end=call.end, location=call.location))
        row.calls += 1
        row.shape = call.shape
        row.values.extend(call.values)
    for owner, nodes in parameter_users(observation.tape, lambda owner: owner not in rows or not rows[owner].values).items():
        first = nodes[0]
        rows[owner] = Row(name=owner, end=first.meta["seq"] + 1, calls=len(nodes), location=first.meta.get("location"), shape=first.meta["shape"])
        rows[owner].values.extend(observation.tape.values[n] for n in nodes)
    silent = [n for n, m in modules.items() if n not in rows and any(p is not None for p in m._parameters.values())]
    ordered = sorted(rows.values(), key=lambda r: r.end)
    return [*ordered, *(Row(name=n, end=2**62) for n in silent)]


@dataclass(frozen=True, kw_only=True)
class ParameterTally:
    """One parameter: sums over itself and, for each batch that reached it, over its gradient; `live` is not 0 for units with a gradient in any batch."""

    name: str
    shape: tuple[int, ...]
    frozen: bool
    weight: GradientSums
    gradients: tuple[GradientSums, ...]
    reason: str
    live: Floats | None = None

    def __add__(self, other: ParameterTally) -> ParameterTally:
        live = other.live if self.live is None else self.live if other.live is None else np.maximum(self.live, other.live)
        return replace(self, gradients=self.gradients + other.gradients, live=live)


@dataclass(frozen=True, kw_only=True)
class LayerTally:
    """One layer: what its record says without a gradient, and sums over the gradient at its output; `reason` says why there is none.

    Attributes:
        gains: of each batch in which it is finite and not 0.
        layers_after: as in the record; of several batches the most.
        uncounted: why its units cannot be counted; "" where they can.
    """

    name: str
    type: str
    calls: int
    location: Location | None
    output_shape: tuple[int, ...]
    sums: GradientSums
    reason: str
    closed_by: str
    parameters: tuple[ParameterTally, ...]
    gains: tuple[float, ...]
    uncounted: str
    layers_after: int

    def __add__(self, other: LayerTally) -> LayerTally:
        first = self if not self.reason or other.reason else other  # a layer that only some batches reach is measured there
        return replace(
            first,
            calls=max(self.calls, other.calls),
            sums=self.sums + other.sums,
            closed_by=self.closed_by if self.closed_by and other.closed_by else "",
            parameters=tuple(a + b for a, b in zip(self.parameters, other.parameters, strict=True)),
            gains=self.gains + other.gains,
            layers_after=max(self.layers_after, other.layers_after),
        )


def tally_layers(
    observation: Observation, rows: Sequence[Row], model: nn.Module, weights: Mapping[str, GradientSums], output: GradientSums
) -> tuple[LayerTally, ...]:
    """One tally per layer of one batch.

    Args:
        rows: what `layer_rows` found.
        weights: sums over each parameter itself, by name.
        output: sums over the gradient at the model's output.
    """
    reach = Reach(observation, model)
    zero = {name for name, sums in weights.items() if sums.squares == 0}
    sizes = {name: sums.norm / math.sqrt(sums.count) for name, sums in weights.items() if sums.count and name not in zero}
    small = {name: size for name, size in sizes.items() if size <= SMALL_SCALE}
    closing = closings(observation.tape.graph, zero, small, _mute(observation))
    modules = dict(model.named_modules())
    above = heights(observation.tape.graph)
    tallies = (
        replace(_tally(row, modules[row.name], observation, weights, reach, closing), layers_after=max((above.get(v, 0) for v in row.values), default=0))
        for row in rows
    )
    return tuple(replace(t, gains=(gain,)) if (gain := _ratio(t.sums.norm, output.norm)) and math.isfinite(gain) else t for t in tallies)


def _mute(observation: Observation) -> frozenset[tuple[fx.Node, fx.Node]]:
    """Edges of concatenations whose part nothing reads, so that a gradient of exactly 0 comes back: patches beside a class token that alone is read."""
    read = zip(observation.skips, observation.readings.skips, strict=True)
    beside = [(skip, sums) for skip, sums in read if skip.form == "concat" and skip.path and not skip.shared and sums is not None]
    return frozenset((skip.path[-1][0], skip.fork) for skip, sums in beside if sums.gg.sum() > 0 and not sums.ss.any())


def _tally(
    row: Row, module: nn.Module, observation: Observation, weights: Mapping[str, GradientSums], reach: Reach, closing: Mapping[Value, Closing]
) -> LayerTally:
    read = [observation.readings.values[v] for v in dict.fromkeys(row.values) if v in observation.readings.values]
    prefix = f"{row.name}." if row.name else ""
    dimension = unit_dimension(module)
    sums = sum(read, GradientSums()).scaled(observation.loss_scale)
    own = [(prefix + n, p) for n, p in module._parameters.items() if p is not None and prefix + n in weights]
    return LayerTally(
        name=row.name or f"({class_name(module)})",
        type=class_name(module),
        calls=row.calls,
        location=row.location,
        output_shape=row.shape,
        sums=sums,
        reason=reach.of_layer(row.name, row.calls, row.values) if not read else "",
        closed_by=next((closing[v].closed_by(silent=sums.zeros == sums.count) for v in row.values if v in closing), "") if read else "",
        parameters=tuple(_tally_parameter(n, p, observation, weights[n], reach) for n, p in own),
        gains=(),
        uncounted=dimension if isinstance(dimension, str) else "",
        layers_after=0,
    )


def _tally_parameter(name: str, parameter: nn.Parameter, observation: Observation, weight: GradientSums, reach: Reach) -> ParameterTally:
    grad = observation.readings.parameters.get(name)
    frozen = not parameter.requires_grad
    reason = "" if grad is not None else "frozen: requires_grad is False" if frozen else reach.of_parameter(name)
    gradients = () if grad is None else (grad.scaled(observation.loss_scale),)
    live = observation.readings.live.get(name)
    return ParameterTally(name=name, shape=tuple(parameter.shape), frozen=frozen, weight=weight, gradients=gradients, reason=reason, live=live)


def account_layer(tally: LayerTally, depth: int, output: GradientSums) -> Layer:
    """The record of a layer; `output` sums over the gradient at the model's output."""
    measured, undefined = _gradient(tally.sums, output, tally.reason)
    dead, fluctuation = _dead_units(tally), _fluctuation(tally)
    for name, value in (("dead_units", dead), ("fluctuation", fluctuation)):
        measured[name] = None if isinstance(value, str) else value
        undefined |= {name: value} if isinstance(value, str) else {}
    return Layer(
        name=tally.name,
        type=tally.type,
        calls=tally.calls,
        depth=depth,
        location=tally.location,
        output_shape=tally.output_shape,
        **measured,  # type: ignore[arg-type]
        closed_by=tally.closed_by,
        layers_after=tally.layers_after,
        parameters=tuple(_parameter(p) for p in tally.parameters),
        undefined=undefined,
    )


def _gradient(sums: GradientSums, output: GradientSums, unreached: str) -> tuple[dict[str, float | None], dict[str, str]]:
    """The measured fields of a layer, and reasons for those that are not defined."""
    if unreached or sums.count == 0:
        reason = unreached or "its output has no elements"
        return dict.fromkeys(_GRADIENT_FIELDS), dict.fromkeys(_GRADIENT_FIELDS, reason)
    nonzero = sums.count - sums.zeros
    measured: dict[str, float | None] = {
        "grad_norm": sums.norm,
        "grad_rms": sums.norm / math.sqrt(sums.count),
        "gain": _ratio(sums.norm, output.norm),
        "zero_fraction": sums.zeros / sums.count,
        "nonfinite": sums.nonfinite,
        "fp16_underflow": sums.underflow / nonzero if nonzero else 0.0,
    }
    undefined = {}
    for name in ("grad_norm", "grad_rms", "gain"):
        value = measured[name]
        if value is None or not math.isfinite(value):
            measured[name] = None
            undefined[name] = (
                f"{sums.nonfinite} gradient elements are not finite" if sums.nonfinite else "the gradient at the model's output is not a positive number"
            )
    return measured, undefined


def _dead_units(tally: LayerTally) -> float | str:
    """The share of units without a gradient, or why there is none."""
    weight = next((p for p in tally.parameters if p.name.rpartition(".")[2] == "weight"), None)
    if tally.uncounted or weight is None:
        return tally.uncounted or "its weight is tied to another layer's and listed there"
    if weight.live is None:
        return weight.reason or "the gradient of its weight is not a dense tensor"
    return 1 - float(weight.live.mean()) if weight.live.any() else "the gradient of its weight is 0 throughout"


def _fluctuation(tally: LayerTally) -> float | str:
    """The standard deviation of the decades of gain from batch to batch, or why there is none."""
    if len(tally.gains) < FEWEST_BATCHES:
        return f"it takes {FEWEST_BATCHES} batches in which the gain is finite and not 0, and there are {len(tally.gains)}"
    return float(np.std(np.log10(tally.gains), ddof=1))


def _parameter(tally: ParameterTally) -> Parameter:
    weight, gradients = tally.weight, tally.gradients
    norm = weight.norm if math.isfinite(weight.norm) else None
    undefined = {} if norm is not None else {"weight_norm": f"{weight.nonfinite} elements are not finite"}
    fields = {"name": tally.name, "shape": tally.shape, "weight_norm": norm}
    if not gradients:
        undefined |= {"grad_norm": tally.reason, "update_ratio": tally.reason}
        status = "frozen" if tally.frozen else "unreached"
        return Parameter(**fields, status=status, grad_norm=None, update_ratio=None, undefined=undefined)  # type: ignore[arg-type]
    gradient: float | None = math.sqrt(sum(g.squares for g in gradients) / len(gradients))
    if gradient is None or not math.isfinite(gradient):
        gradient, undefined["grad_norm"] = None, f"{sum(g.nonfinite for g in gradients)} gradient elements are not finite"
    ratio = _ratio(gradient, norm) if gradient is not None and norm is not None else None
    if ratio is None:
        undefined["update_ratio"] = undefined.get("grad_norm") or undefined.get("weight_norm") or "the parameter is zero"
    return Parameter(**fields, status="measured", grad_norm=gradient, update_ratio=ratio, undefined=undefined)  # type: ignore[arg-type]


def _ratio(top: float, bottom: float) -> float | None:
    return top / bottom if bottom > 0 and math.isfinite(bottom) else None


def depth_of(rows: Sequence[Row], sequence: int) -> int:
    """How many layers the forward had finished when it made the node with this sequence number."""
    return sum(1 for row in rows if row.end <= sequence + 1)
