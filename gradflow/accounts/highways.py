"""Highways: one record per chain of skips, its sums added over batches; segments, the counterfactual, composite mixing and the path spectrum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gradflow.accounts.extras import composite_of, spectrum_of
from gradflow.accounts.sites import Site, eps_of, highway_name
from gradflow.observe import Observation
from gradflow.records import Highway, Segment
from gradflow.residual import HighwayPath
from gradflow.residual.segments import SegmentPath, segments
from gradflow.sums import Floats, HighwaySums, SkipSums, finite

_Ratio = tuple[float, float]  # Σ⟨s,r⟩ and Σ⟨r,r⟩
_Form = Literal["stage", "transition"]


@dataclass(frozen=True, kw_only=True)
class HighwayTally:
    """One highway; everything by stage is ordered as in its record, nearest the input first.

    Attributes:
        skips: ids of the sites.
        lams: for each stage the sums of λ̂ of every skip that closes there; None where one has none.
        hh: ‖h‖² at each fork.
        tt: ‖t‖² at the first fork.
        sums: see there; its arrays run from the last join down.
        rows: which rows of the mixing product are streams, where it mixes them.
        whole: whether a gradient came to every stage.
    """

    skips: tuple[str, ...]
    trunk_ops: tuple[str, ...]
    segments: tuple[SegmentPath, ...]
    lams: tuple[tuple[_Ratio, ...] | None, ...]
    hh: Floats
    tt: float
    sums: HighwaySums
    rows: NDArray[np.bool_] | None
    eps: float
    whole: bool

    def renamed(self, ids: Mapping[str, str]) -> HighwayTally:
        """The same with other ids of its skips."""
        return replace(self, skips=tuple(ids[i] for i in self.skips))

    def __add__(self, other: HighwayTally) -> HighwayTally:
        alike = self.whole and other.whole and _outline(self) == _outline(other)
        one, two = (self, other) if alike else (self.at_forks(), other.at_forks())
        lams = tuple(
            None if a is None or b is None else tuple((p + q, r + t) for (p, r), (q, t) in zip(a, b, strict=False))
            for a, b in zip(self.lams, other.lams, strict=True)
        )
        differs = one.sums.identity is not None or two.sums.identity is not None
        sums = one.sums.identified(one.hh[0]) + two.sums.identified(two.hh[0]) if differs else one.sums + two.sums
        return replace(one, lams=lams, hh=self.hh + other.hh, tt=self.tt + other.tt, sums=sums)

    def at_forks(self) -> HighwayTally:
        """Without what is said of all stages together."""
        sums = replace(self.sums, arriving=np.zeros(len(self.skips)), identity=None, streams=(), spectrum=())
        return replace(self, segments=(), sums=sums, whole=False)


def _outline(tally: HighwayTally) -> list[object]:
    return [(segment.stages, segment.trunk, segment.transition) for segment in tally.segments]


def tally_highways(observation: Observation, sites: Sequence[Site]) -> tuple[HighwayTally, ...]:
    """One tally per highway of one batch with a gradient at its last join; of those that are one and the same site called many times the weakest."""
    position = {id(s): i for i, s in enumerate(observation.skips)}
    site_of = {i: site.id for site in sites for i in site.calls}
    stages = _stage_lams(observation)
    weakest: dict[tuple[str, ...], HighwayTally] = {}
    for path, sums in zip(observation.highways, observation.readings.highways, strict=True):
        on = [(i, s) for i in (position[id(p)] for p in path.skips) if (s := observation.readings.skips[i]) is not None]
        unreplayed = observation.readings.failures and any(s.hh is None for _, s in on)
        if sums is None or not on or unreplayed:
            continue
        reached = _tally(path, sums, [s for _, s in on], [site_of[i] for i, _ in on], observation.loss_scale)
        lams = tuple(stages[observation.skips[i].join, observation.skips[i].fork] for i, _ in reversed(on))
        found = replace(reached, lams=lams)
        known = weakest.get(found.skips)
        if known is None or found.hh[0] * known.sums.top < known.hh[0] * found.sums.top:
            weakest[found.skips] = found
    return tuple(weakest.values())


def _tally(path: HighwayPath, sums: HighwaySums, calls: Sequence[SkipSums], ids: Sequence[str], scale: float) -> HighwayTally:
    first = calls[0].probed_streams
    found = HighwayTally(
        skips=tuple(reversed(ids)),
        trunk_ops=tuple(op.removeprefix("native_") for op in path.trunk_ops),
        segments=segments(path),
        lams=(),
        hh=np.array([0.0 if c.hh is None else float(c.hh.sum()) for c in reversed(calls)]) / scale**2,
        tt=float(calls[-1].tt.sum()) / scale**2,
        sums=sums.scaled(scale),
        rows=None if first is None else np.diagonal(first.gram) > 0,
        eps=eps_of(path.skips[0]),
        whole=True,
    )
    return found if len(calls) == len(path.skips) else found.at_forks()


def _stage_lams(observation: Observation) -> dict[tuple[object, object], tuple[_Ratio, ...] | None]:
    """The sums of λ̂ between each join and fork, of every skip that closes there; None where one of them has none."""
    lams: dict[tuple[object, object], tuple[_Ratio, ...] | None] = {}
    for path, sums in zip(observation.skips, observation.readings.skips, strict=True):
        if sums is not None and path.kind != "detached":
            before = lams.get((path.join, path.fork), ())
            own = None if sums.sr is None or sums.rr is None or sums.lam is None else (float(sums.sr.sum()), float(sums.rr.sum()))
            lams[path.join, path.fork] = None if before is None or own is None else (*before, own)
    return lams


def account_highway(tally: HighwayTally, output: float) -> Highway:
    """The record of a highway; `output` is ‖∂L/∂(model output)‖²."""
    undefined: dict[str, str] = {}
    top, gains = tally.sums.top, _gains(tally)
    product = _product(tally, undefined)
    gain, arriving = (finite(gains[0]), finite(math.sqrt(tally.tt / top))) if top > 0 else (None, None)
    reached = tally.hh[0] if tally.sums.identity is None else tally.sums.identity
    identity = finite(math.sqrt(reached / top)) if top > 0 and tally.whole else None
    above = finite(math.sqrt(top / output)) if output > 0 else None
    reason = "the gradient at the last join is exactly 0" if top == 0 else "the gradient is not finite"
    undefined |= {k: reason for k, v in (("gain", gain), ("total_gain", arriving), ("identity_gain", identity)) if v is None}
    undefined |= {} if tally.whole or not top > 0 else {"identity_gain": "not every batch, or not every stage, has a gradient on the same way"}
    undefined |= {} if above is not None else {"top_gain": "the gradient at the model's output is not a positive number"}
    return Highway(
        name=highway_name(tally.skips),
        skips=tally.skips,
        trunk_ops=tally.trunk_ops,
        product_of_lambdas=product,
        gain=gain,
        total_gain=arriving,
        top_gain=above,
        identity_gain=identity,
        fork_gains=tuple(g if math.isfinite(g) else 0.0 for g in gains),
        segments=_segments(tally),
        streams=tuple(composite_of(s, tally.rows, tally.eps) for s in reversed(tally.sums.streams)),
        spectrum=tuple(spectrum_of(i, s) for i, s in zip(tally.skips, reversed(tally.sums.spectrum), strict=False)),
        undefined=undefined,
    )


def _gains(tally: HighwayTally) -> list[float]:
    return [math.sqrt(hh / tally.sums.top) if tally.sums.top > 0 else 0.0 for hh in tally.hh]


def _product(tally: HighwayTally, undefined: dict[str, str]) -> float | None:
    """∏λ̂ over the stages, the λ̂ of one stage's skips added up."""
    lams = [None if stage is None or any(not rr > 0 for _, rr in stage) else sum(sr / rr for sr, rr in stage) for stage in tally.lams]
    missing = lams.count(None)
    product = math.prod(lam for lam in lams if lam is not None)
    if missing or not math.isfinite(product):
        undefined["product_of_lambdas"] = f"λ is not defined on {missing} of {len(lams)} skips" if missing else "it overflows"
        return None
    return product


def _segments(tally: HighwayTally) -> tuple[Segment, ...]:
    """Each segment's gain is ‖h‖ at its lower end against that at its upper end."""
    last = len(tally.skips) - 1
    at_fork, at_join = tally.hh[::-1], tally.sums.arriving
    behind = {s.trunk for s in tally.segments if s.trunk is not None}
    found = []
    for segment in tally.segments:
        k = segment.trunk if segment.trunk is not None else segment.stages[0]
        above = tally.sums.top if k == 0 else at_join[k] if k in behind and segment.trunk is None else at_fork[k - 1]
        below = at_join[k] if segment.trunk is not None else at_fork[segment.stages[-1]]
        ids = tuple(tally.skips[last - stage] for stage in reversed(segment.stages))
        found.append(_segment(segment, ids, f"{tally.skips[last - k]} → {tally.skips[last - k + 1]}" if segment.trunk is not None else "", above, below))
    return tuple(reversed(found))


def _segment(path: SegmentPath, ids: tuple[str, ...], between: str, above: float, below: float) -> Segment:
    gain = finite(math.sqrt(below / above)) if above > 0 else None
    form: _Form = "transition" if path.transition else "stage"
    reason = {} if gain is not None else {"gain": "no gradient arrives at its upper end" if above == 0 else "the gradient is not finite"}
    ops = tuple(op.removeprefix("native_") for op in path.ops)
    return Segment(name=highway_name(ids) if ids else between, form=form, skips=ids, ops=ops, gain=gain, undefined=reason)
