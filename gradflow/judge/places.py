"""Where along the depth a gradient vanishes or explodes: at one layer, or a little at each. Touches no tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from gradflow.bands import is_weighted
from gradflow.numbers import number
from gradflow.records import Layer, Parameter

_MOST = 0.5  # of the decades between the output and the worst layer: what one layer takes is the fault of that layer
_FEWEST = 3  # layers of which "each" can be said
_ONE_CALL = 1.0  # decades at least, for a step that stands out


@dataclass(frozen=True, kw_only=True)
class Step:
    """A layer at which most of a gradient is lost or gained.

    Attributes:
        at, before: the layer to blame and the one before it; what happens lies between their outputs. They are one where it happens between its calls.
        factor: of the norm of the gradient after the step, what there is before it.
    """

    at: Layer
    before: Layer
    factor: float

    @property
    def weight(self) -> Parameter | None:
        """The parameter whose size explains at least half of the decades; None where it is something else."""
        found = sized(self.at)
        if found is None or self.at.calls > 1:
            return None
        parameter, factor = found
        return parameter if math.log10(factor) / math.log10(self.factor) >= _MOST else None


def step(layers: Sequence[Layer], counts: Sequence[bool], worst: int, *, below: bool) -> Step | None:
    """The one layer at which most of the gradient of `layers[worst]` is lost, or gained; None where it is a little at each, or where other layers lie between
    those that it divides into two.

    Every layer before it has a smaller gradient than every layer after it (larger, where it grows), so that layers beside each other are no step.

    Args:
        counts: for each layer whether it lies on the way of the gradient: not aside, not in a branch that a skip leads around.
    """
    sign = 1.0 if below else -1.0
    gains = {i: sign * math.log10(layer.gain) for i, (layer, on) in enumerate(zip(layers, counts, strict=True)) if on and layer.gain and i >= worst}
    if worst not in gains:
        return None
    way = sorted(gains)
    before = [max(gains[j] for j in way[: k + 1]) for k in range(len(way) - 1)]
    after = [min(gains[j] for j in way[k + 1 :]) for k in range(len(way) - 1)]
    drops = [high - low for low, high in zip(before, after, strict=True)]
    if not drops:
        return None
    k = max(range(len(drops)), key=drops.__getitem__)
    unmeasured = all(layers[j].gain is None for j in range(way[k] + 1, way[k + 1]))
    if drops[k] < max(_ONE_CALL, _MOST * abs(gains[worst])) or not unmeasured:
        return None
    before_it = layers[way[k]]
    at = before_it if before_it.calls > 1 else layers[way[k + 1]]  # a layer that is called again and again has the gradient of its last call, and the others'
    return Step(at=at, before=before_it, factor=10 ** (sign * (gains[way[k]] - gains[way[k + 1]])))


def told(found: Step, verb: str) -> str:
    """ "vanishes at 5.0 (Linear), …": what happens at the step."""
    at, before = (f"{layer.name} ({layer.type})" for layer in (found.at, found.before))
    some = f"{number(found.factor, 3)} {'of it' if found.factor < 1 else 'times as much'}"
    if found.at.calls > 1:
        return f"{verb} in the {found.at.calls} calls of {at}" + ("" if found.at is found.before else f": {some} comes back to {before}")
    weight = sized(found.at) if found.weight else None
    if weight is None:
        return f"{verb} between {before} and {at}: {some} gets from one output to the other"
    size = f"{number(weight[1], 3)} is what the size of {weight[0].name} makes of it (‖W‖/√outputs)"
    return f"{verb} at {at}: {some} gets from its output to that of {before}, and {size}"


def rate(worst: Layer, *, bare: bool) -> str:
    """ "by a factor of 0.24 at each of …": where it is a little at each layer and no skip leads around any; else empty.

    Args:
        bare: whether no live skip leads around a layer.
    """
    if not bare or worst.layers_after < _FEWEST or not worst.gain:
        return ""
    return f", by a factor of {number(worst.gain ** (1 / worst.layers_after), 3)} at each of the {worst.layers_after} weighted layers after it"


def sized(layer: Layer) -> tuple[Parameter, float] | None:
    """The one weight of a layer, and the factor by which it changes the norm of a gradient: ‖W‖_F/√outputs of a matrix or a kernel, the expectation for a
    gradient that knows nothing of W, and the root mean square of a scale. None where a layer has no weight of its own or several, or one of 0."""
    matrices = [p for p in layer.parameters if len(p.shape) > 1]
    scales = [p for p in layer.parameters if len(p.shape) == 1 and p.name.rpartition(".")[2] == "weight"]
    found = matrices if is_weighted(layer) else scales
    if len(found) != 1 or not found[0].weight_norm or not math.prod(found[0].shape):
        return None
    outputs = found[0].shape[1 if layer.type.startswith("ConvTranspose") else 0]
    return found[0], found[0].weight_norm / math.sqrt(outputs)


def usual_size(layers: Sequence[Layer]) -> float:
    """The median ‖W‖_F/√outputs of the matrices and kernels; 1 where there are none."""
    return median([weight[1] for layer in layers if is_weighted(layer) and (weight := sized(layer)) is not None] or [1.0])
