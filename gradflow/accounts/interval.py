"""A bootstrap interval for a ratio of sums over samples. Seeded: the same report twice is the same report."""

from __future__ import annotations

import numpy as np

from gradflow.sums import Floats

RESAMPLES = 2000
LEVEL = 0.95
MOST_UNITS = 512


def interval(top: Floats, bottom: Floats, seed: int) -> tuple[float, float]:
    """Percentile bootstrap interval of Σtop/Σbottom (Efron and Tibshirani 1993, ch. 13).

    Args:
        top, bottom: [samples], bottom ≥ 0 with a positive sum.
    """
    keep = bottom > 0
    ratios = top[keep] / bottom[keep]
    if np.ptp(ratios) <= 4 * np.finfo(np.float64).eps * np.abs(ratios).max(initial=0.0):
        value = float(top.sum() / bottom.sum())
        return value, value
    if top.size > MOST_UNITS:  # many samples: neighbours are resampled together, which changes nothing where they are exchangeable
        edges = np.linspace(0, top.size, MOST_UNITS, endpoint=False).astype(int)
        top, bottom = np.add.reduceat(top, edges), np.add.reduceat(bottom, edges)
    draws = np.random.default_rng(seed).multinomial(top.size, np.full(top.size, 1 / top.size), size=RESAMPLES)
    denominators = draws @ bottom
    values = (draws @ top)[denominators > 0] / denominators[denominators > 0]
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
