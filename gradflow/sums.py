"""What was measured, as sums that merge by addition. Imports no torch.

Merging over the calls of a reused module, over batches and over ranks is one and the same addition; ratios are properties, computed last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

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

    def scaled(self, scale: float) -> GradientSums:
        """Of the gradient divided by `scale`; what was counted stays."""
        return replace(self, squares=self.squares / scale**2)

    @property
    def norm(self) -> float:
        return math.sqrt(self.squares) if self.squares >= 0 else math.nan


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleSums:
    """What each sample carries at one place, [samples] for each batch; `reason` says why there is none. Batches stand side by side."""

    where: str
    batches: tuple[Floats, ...] = ()
    reason: str = ""

    def __add__(self, other: SampleSums) -> SampleSums:
        return SampleSums(where=self.where, batches=self.batches + other.batches, reason=self.reason)


@dataclass(frozen=True, kw_only=True, eq=False)
class ChannelSums:
    """Σ⟨s,r⟩ and Σ⟨r,r⟩ of each channel, [channels], along one dimension of the fork."""

    dimension: int
    sr: Floats
    rr: Floats

    def __add__(self, other: ChannelSums) -> ChannelSums:
        return ChannelSums(dimension=self.dimension, sr=self.sr + other.sr, rr=self.rr + other.rr)


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeSums:
    """Random cotangents v, [probes, samples]: ⟨s_v,v⟩ (None where v cannot be compared with s_v) and ‖s_v‖²; ‖v‖² = `elements` in each.

    Calls add up sample by sample, for what one sample does at many steps is no evidence about others; samples are pooled where their counts differ.
    """

    elements: Floats
    along: Floats | None
    squares: Floats

    def __add__(self, other: ProbeSums) -> ProbeSums:
        if self.squares.shape != other.squares.shape:
            return self.pooled() + other.pooled()
        along = None if self.along is None or other.along is None else self.along + other.along
        return ProbeSums(elements=self.elements + other.elements, along=along, squares=self.squares + other.squares)

    def pooled(self) -> ProbeSums:
        """The samples as one: [probes, 1]."""
        elements, squares = (a.sum(axis=1, keepdims=True) for a in (self.elements, self.squares))
        return ProbeSums(elements=elements, along=None if self.along is None else self.along.sum(axis=1, keepdims=True), squares=squares)


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamSums:
    """Parallel streams at a mixing product, over all tokens and features: what arrives g [m, ·] above it and what it sends s [n, ·] below.

    Attributes:
        gram: Σ g gᵀ, [m, m].
        cross: Σ g sᵀ, [m, n].
        squares: Σ‖s‖².
    """

    gram: Floats
    cross: Floats
    squares: float

    def __add__(self, other: StreamSums) -> StreamSums:
        return StreamSums(gram=self.gram + other.gram, cross=self.cross + other.cross, squares=self.squares + other.squares)

    def scaled(self, scale: float) -> StreamSums:
        """Of the gradients divided by a loss scale."""
        return StreamSums(gram=self.gram / scale**2, cross=self.cross / scale**2, squares=self.squares / scale**2)

    def of_rows(self, rows: NDArray[np.bool_]) -> StreamSums:
        """Without the rows of what the mixing makes beside the streams (the branch's own input)."""
        return StreamSums(gram=self.gram[np.ix_(rows, rows)], cross=self.cross[rows], squares=self.squares)


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
        channels: where the path is multiplied by a vector.
        probe: where random cotangents were asked for and could be pushed.
        streams, probed_streams: where the path mixes streams: by the loss gradient, and by random cotangents.
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
    channels: ChannelSums | None = None
    probe: ProbeSums | None = None
    streams: StreamSums | None = None
    probed_streams: StreamSums | None = None

    def scaled(self, scale: float) -> SkipSums:
        """Of the gradients divided by a loss scale; what random cotangents gave does not depend on it."""
        if scale == 1:
            return self
        own: dict[str, Any] = {f.name: v / scale**2 for f in fields(self) if isinstance(v := getattr(self, f.name), (float, np.ndarray))}
        channels = None if self.channels is None else replace(self.channels, sr=self.channels.sr / scale**2, rr=self.channels.rr / scale**2)
        return replace(self, **own, channels=channels, streams=None if self.streams is None else self.streams.scaled(scale))

    @property
    def lam(self) -> float | None:
        """λ̂ of this call; None where it is not defined."""
        if self.rr is None or self.sr is None or not self.rr.sum() > 0:
            return None
        return float(self.sr.sum()) / float(self.rr.sum())


@dataclass(frozen=True, kw_only=True, eq=False)
class SpectrumSums:
    """One fork: p_m is the gradient that has passed through exactly m branches of the highway.

    Attributes:
        pp, pt: ‖p_m‖² and ⟨p_m,t⟩ for m = 0, 1, 2 …
        ot: ⟨t − Σ p_m, t⟩, of what came by other ways.
        tt: ‖t‖².
    """

    pp: Floats
    pt: Floats
    ot: float
    tt: float

    def __add__(self, other: SpectrumSums) -> SpectrumSums:
        return SpectrumSums(pp=self.pp + other.pp, pt=self.pt + other.pt, ot=self.ot + other.ot, tt=self.tt + other.tt)


@dataclass(frozen=True, kw_only=True, eq=False)
class HighwaySums:
    """One highway, its stages counted from the last join down.

    Attributes:
        top: ‖g‖² at the last join.
        arriving: ‖h‖² at the join of each stage whose trunk above is a transition; 0 elsewhere.
        identity: ‖h‖² at the first fork, had each skip that can be one been the identity; None where no skip differs from it.
        streams: from the last join to each fork, the composite mixing; empty where the highway does not mix streams throughout.
        spectrum: at each fork; empty where it was not asked for.
    """

    top: float
    arriving: Floats
    identity: float | None
    streams: tuple[StreamSums, ...] = ()
    spectrum: tuple[SpectrumSums, ...] = ()

    def scaled(self, scale: float) -> HighwaySums:
        """Of the gradients divided by a loss scale."""
        if scale == 1:
            return self
        square = scale**2
        return HighwaySums(
            top=self.top / square,
            arriving=self.arriving / square,
            identity=None if self.identity is None else self.identity / square,
            streams=tuple(s.scaled(scale) for s in self.streams),
            spectrum=tuple(SpectrumSums(pp=s.pp / square, pt=s.pt / square, ot=s.ot / square, tt=s.tt / square) for s in self.spectrum),
        )

    def identified(self, hh: float) -> HighwaySums:
        """With `hh`, what arrives at the first fork, for the counterfactual where no skip differs from the identity."""
        return replace(self, identity=hh) if self.identity is None else self

    def __add__(self, other: HighwaySums) -> HighwaySums:
        return HighwaySums(
            top=self.top + other.top,
            arriving=self.arriving + other.arriving,
            identity=None if self.identity is None or other.identity is None else self.identity + other.identity,
            streams=tuple(a + b for a, b in zip(self.streams, other.streams, strict=False)),
            spectrum=tuple(a + b for a, b in zip(self.spectrum, other.spectrum, strict=False)),
        )


def finite(value: float) -> float | None:
    """The value, if it is one that a report can hold."""
    return value if math.isfinite(value) else None


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
