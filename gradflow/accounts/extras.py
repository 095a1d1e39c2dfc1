"""What is said of a skip or a highway beside its scalars: channels, random cotangents, mixing matrices, path spectra. Sums -> records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gradflow.accounts.interval import interval
from gradflow.accounts.streams import streams
from gradflow.records import Channel, Channels, ForkSpectrum, Probe, Streams
from gradflow.sums import ChannelSums, Floats, ProbeSums, SkipSums, SpectrumSums, StreamSums

_MOST_CHANNELS = 8
_TRACE = ("trace", "trace_low", "trace_high", "agrees")
FEWEST_BATCHES = 8  # whole batches that an interval may be drawn from, where samples cannot be
_SLIGHT = 0.01  # a relative difference between λ̂ and the probes' that no reader would act on


def channels_of(sums: ChannelSums) -> Channels:
    """λ̂ of each channel that a gradient reaches."""
    heard = [i for i in range(sums.rr.size) if sums.rr[i] > 0 and math.isfinite(sums.sr[i] / sums.rr[i])]
    lams = {i: float(sums.sr[i] / sums.rr[i]) for i in heard}
    worst = sorted(heard, key=lambda i: (-_from_one(lams[i]), i))[:_MOST_CHANNELS]
    measured = (float(np.min(v)), float(np.median(v)), float(np.max(v))) if (v := list(lams.values())) else (None, None, None)
    undefined = {} if lams else dict.fromkeys(("minimum", "median", "maximum"), "no channel receives a gradient at the join")
    return Channels(
        dimension=sums.dimension,
        count=int(sums.rr.size),
        silent=int(sums.rr.size) - len(heard),
        minimum=measured[0],
        median=measured[1],
        maximum=measured[2],
        worst=tuple(Channel(index=i, lam=lams[i]) for i in worst),
        undefined=undefined,
    )


def _from_one(lam: float) -> float:
    return abs(math.log(abs(lam))) if lam else math.inf


def probe_of(batches: Sequence[ProbeSums], probes: int, measures: dict[str, Any], coupled: bool, seed: int) -> Probe:
    """tr(J_S)/d and ‖J_S‖²_F/d as means over probes and samples.

    The interval is one over samples, the probes of a sample added up first; over the probes, or over 8 batches or more, where the samples are `coupled`.

    Args:
        batches: the sums of each batch's calls.
        measures: the skip's other fields.
        seed: of the bootstrap.
    """
    elements = sum(float(b.elements.sum()) for b in batches)
    frobenius = sum(float(b.squares.sum()) for b in batches) / elements
    along = [b.along for b in batches if b.along is not None]
    trace = sum(float(a.sum()) for a in along) / elements
    finite = math.isfinite(frobenius) and math.isfinite(trace)
    if not finite or len(along) < len(batches):
        undefined = dict.fromkeys(
            _TRACE, "what the cotangents give is not finite" if not finite else "fork and join do not hold the same coordinates: J_S has no trace"
        )
        undefined |= {} if finite else {"frobenius": undefined["trace"]}
        frobenius_or_none = frobenius if finite else None
        return Probe(probes=probes, trace=None, trace_low=None, trace_high=None, frobenius=frobenius_or_none, agrees=None, undefined=undefined)
    tops, bottoms = _units(along, coupled), _units([b.elements for b in batches], coupled)
    low, high = interval(tops, bottoms, seed) if tops.size > 1 else (None, None)
    undefined = {} if tops.size > 1 else dict.fromkeys(("trace_low", "trace_high"), "one probe of one sample has no spread")
    agrees = _agrees(measures, trace, trace if low is None else low, trace if high is None else high)
    if agrees is None:
        undefined["agrees"] = "λ is not defined" if measures["lam"] is None else "λ̂ has no interval that would tell a difference from chance"
    return Probe(probes=probes, trace=trace, trace_low=low, trace_high=high, frobenius=frobenius, agrees=agrees, undefined=undefined)


def _units(batches: Sequence[Floats], coupled: bool) -> Floats:
    """What the interval is drawn from, of [probes, samples] in each batch: the samples; else the batches, if they are enough; else the probes."""
    if coupled and len(batches) >= FEWEST_BATCHES:
        return np.array([b.sum() for b in batches])
    return np.concatenate([b.sum(axis=1 if coupled else 0) for b in batches])


def _agrees(measures: dict[str, Any], trace: float, low: float, high: float) -> bool | None:
    """Whether the intervals meet or the values are near; None where only λ̂'s own interval could say that they do not."""
    lam, lam_low, lam_high = (measures[name] for name in ("lam", "lam_low", "lam_high"))
    if lam is None:
        return None
    if low <= lam <= high or abs(lam - trace) <= _SLIGHT * max(abs(lam), abs(trace)):
        return True
    return None if lam_low is None else bool(lam_low <= high and low <= lam_high)


def streams_of(calls: Sequence[SkipSums], probes: int, eps: float) -> Streams:
    """Λ by the loss gradient; by the random cotangents, where those were asked for and the loss gradient does not tell the streams apart."""
    measured = reduce(add, [c.streams for c in calls if c.streams is not None])
    probed = [c.probed_streams for c in calls if c.probed_streams is not None]
    by_probes = reduce(add, probed) if probed else None
    rows = None if by_probes is None else np.diagonal(by_probes.gram) > 0
    by_loss = _solved(measured, rows, eps, "loss gradient")
    return by_loss if by_loss.matrix is not None or not probes or by_probes is None else _solved(by_probes, rows, eps, "random probes")


def composite_of(sums: StreamSums, rows: NDArray[np.bool_] | None, eps: float) -> Streams:
    """The mixing from the last join of a highway to one of its forks."""
    return _solved(sums, rows, eps, "loss gradient")


def _solved(sums: StreamSums, rows: NDArray[np.bool_] | None, eps: float, measured_by: Literal["loss gradient", "random probes"]) -> Streams:
    """Of the rows of the mixing product that are streams; of all, where that is not known."""
    kept = sums if rows is None else sums.of_rows(rows)
    return streams(kept.gram, kept.cross, kept.squares, eps=eps, measured_by=measured_by)


def spectrum_of(fork: str, sums: SpectrumSums) -> ForkSpectrum:
    """Shares and norms against the total gradient at the fork."""
    tt, weight = sums.tt, float(sums.pp.sum())
    finite = math.isfinite(tt) and math.isfinite(weight) and math.isfinite(sums.ot) and bool(np.isfinite(sums.pt).all())
    arrives, comes = finite and tt > 0, finite and weight > 0
    lost = "the gradient is not finite"
    undefined = {} if arrives else {"other_share": "the total gradient at the fork is exactly 0" if finite else lost}
    undefined |= {} if comes else {"mean_length": "no gradient comes down this highway" if finite else lost}
    return ForkSpectrum(
        fork=fork,
        norms=tuple(float(x) for x in np.sqrt(sums.pp / tt)) if arrives else (),
        shares=tuple(float(x) for x in sums.pt / tt) if arrives else (),
        other_share=sums.ot / tt if arrives else None,
        mean_length=float((np.arange(sums.pp.size) * sums.pp).sum()) / weight if comes else None,
        undefined=undefined,
    )
