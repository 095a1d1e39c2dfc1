"""By how much a layer's gain fluctuates in a healthy net. For the judge, which allows for it, and for the pictures, which shade it; touches no tensor."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from gradflow.records import Layer

_WIDEST = 3.0  # decades


def fluctuation(layers: Sequence[Layer]) -> tuple[float, ...]:
    """For each layer the decades by which its gain fluctuates in a healthy net: two standard deviations of the log norm. Over the weighted layers after it, of
    widths n, that of the squared norm has the deviation √(5 Σ 1/n) (Hanin 2018), and the norm's is half of it. Of parallel layers the narrowest counts."""
    bands: list[float] = []
    total, inverse = 0.0, defaultdict[int, float](float)  # 1/n by the layers after it: those that are parallel have one
    for layer in reversed(layers):
        bands.append(min(_WIDEST, math.sqrt(5 * total) / math.log(10)))
        width = math.prod(layer.output_shape[1:])
        if width and is_weighted(layer):
            wider = max(layer.calls / width - inverse[layer.layers_after], 0.0)
            inverse[layer.layers_after] += wider
            total += wider
    return tuple(reversed(bands))


def is_weighted(layer: Layer) -> bool:
    """Whether it has a matrix or a kernel of its own."""
    return any(len(p.shape) > 1 for p in layer.parameters)
