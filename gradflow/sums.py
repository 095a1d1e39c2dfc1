"""What was measured, as sums that merge by addition. Imports no torch.

Merging over the calls of a reused module, over batches and over ranks is one and the same addition; ratios are properties, computed last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class GradientSums:
    """One gradient: element count, Σ|g|², and how many elements are exactly 0, not finite, or nonzero but 0 in float16."""

    count: int = 0
    squares: float = 0.0
    zeros: int = 0
    nonfinite: int = 0
    underflow: int = 0

    def __add__(self, other: GradientSums) -> GradientSums:
        return GradientSums(
            count=self.count + other.count,
            squares=self.squares + other.squares,
            zeros=self.zeros + other.zeros,
            nonfinite=self.nonfinite + other.nonfinite,
            underflow=self.underflow + other.underflow,
        )

    @property
    def norm(self) -> float:
        return math.sqrt(self.squares) if self.squares >= 0 else math.nan


@dataclass(frozen=True, kw_only=True, eq=False)
class SkipSums:
    """One call of a skip; every array holds one sum per sample (or one in all, where the batch dimension is lost).

    Attributes:
        gg: Σ⟨g,g⟩ at the join.
        rr, sr: Σ⟨r,r⟩ and Σ⟨s,r⟩, r being g in the fork's layout; None where the path changes the shape.
        rest: Σ‖s − λ̂r‖² with the call's own λ̂, summed directly: 1 − cos² would lose half the digits.
        full: Σ⟨s_full,r⟩ with the gates differentiated as well.
        ss, ff, tt, sf: of the skip, the branch and the total gradient at the fork.
        ledger: Σ‖t − (s + f + others)‖².
        hh, ht: of the highway's gradient at the fork; None where the skip lies on no highway.
    """

    gg: Floats
    rr: Floats | None
    sr: Floats | None
    rest: float
    full: Floats | None
    ss: Floats
    ff: Floats
    tt: Floats
    sf: Floats
    ledger: Floats
    hh: Floats | None
    ht: Floats | None

    @property
    def lam(self) -> float | None:
        """λ̂ of this call; None where it is not defined."""
        if self.rr is None or self.sr is None or not self.rr.sum() > 0:
            return None
        return float(self.sr.sum() / self.rr.sum())


def total(arrays: list[Floats]) -> Floats:
    """Per-sample sums over calls; calls whose sample counts differ are pooled."""
    if len({a.shape for a in arrays}) > 1:
        arrays = [a.sum(keepdims=True) for a in arrays]
    result: Floats = np.sum(arrays, axis=0)
    return result


def misfit_squared(calls: list[SkipSums], lam: float) -> float:
    """‖s − λ̂r‖² over all calls for the pooled λ̂: the calls' own rests, and the spread of their λ̂ about the pooled one."""
    spread = sum((c.lam - lam) ** 2 * float(c.rr.sum()) for c in calls if c.lam is not None and c.rr is not None)
    return sum(c.rest for c in calls) + spread
