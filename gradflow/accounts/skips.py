"""Skips: the sums of all calls and batches merged into one row per site, ratios computed last, each undefined value with its reason."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import zip_longest
from operator import add
from typing import Any

import numpy as np

from gradflow.accounts.extras import FEWEST_BATCHES, channels_of, probe_of, streams_of
from gradflow.accounts.interval import gain_interval, interval
from gradflow.accounts.layers import Row, depth_of
from gradflow.accounts.sites import Site, eps_of, structure
from gradflow.observe import Observation
from gradflow.operators import Role
from gradflow.records import Skip
from gradflow.sums import Floats, SkipSums, finite, misfit_squared, total

_BATCH_NORMS = frozenset({"native_batch_norm", "cudnn_batch_norm", "batch_norm"})
Measures = dict[str, Any]
Calls = tuple[SkipSums | None, ...]


@dataclass(frozen=True, kw_only=True)
class Deepest:
    """A site's first call that lies on a highway: ‖h‖², ⟨h,t⟩ and ‖t‖² at its fork, and ‖g‖² at the highway's last join."""

    hh: float
    ht: float
    tt: float
    top: float

    def __add__(self, other: Deepest) -> Deepest:
        return Deepest(hh=self.hh + other.hh, ht=self.ht + other.ht, tt=self.tt + other.tt, top=self.top + other.top)


@dataclass(frozen=True, kw_only=True)
class SkipTally:
    """One site: what its record says without a gradient, and the sums of each batch's calls (None where no gradient came).

    Attributes:
        fields: of the record, by name.
        shapes: of the fork and of the join.
        gated, entangled: see `SkipPath`.
        samples: how many the batch has, the largest of several; 1 where that is not known.
        eps: the spacing of the gradient's numbers at 1.
    """

    fields: dict[str, Any]
    shapes: tuple[str, str]
    gated: bool
    entangled: bool
    samples: int
    eps: float
    batches: tuple[Calls, ...]
    deepest: Deepest | None

    @property
    def id(self) -> str:
        return str(self.fields["id"])

    @property
    def place(self) -> Hashable:
        """Where in the source it is: the same in every batch."""
        return tuple(self.fields[name] for name in ("name", "location", "form", "kind", "branch"))

    def renamed(self, ids: Mapping[str, str]) -> SkipTally:
        """The same under another id."""
        return replace(self, fields=self.fields | {"id": ids[self.id]})

    def __add__(self, other: SkipTally) -> SkipTally:
        deepest = self.deepest + other.deepest if self.deepest is not None and other.deepest is not None else self.deepest or other.deepest
        fields = self.fields | {"calls": max(self.fields["calls"], other.fields["calls"])}
        samples = max(self.samples, other.samples)
        return replace(self, fields=fields, samples=samples, batches=self.batches + other.batches, deepest=deepest)

    @property
    def read(self) -> list[list[SkipSums]]:
        """The calls with a gradient, batch by batch; batches without any are left out."""
        return [found for calls in self.batches if (found := [c for c in calls if c is not None])]

    def per_sample(self, name: str) -> Floats:
        """One sum for each sample of every batch, over its calls; or one for each batch, where samples are not told apart."""
        arrays = [total([x for c in calls if (x := getattr(c, name)) is not None]) for calls in self.read if any(getattr(c, name) is not None for c in calls)]
        return np.concatenate(arrays)

    def per_batch(self, name: str) -> Floats:
        """One sum for each batch."""
        return np.array([sum(_sum(getattr(c, name)) for c in calls) for calls in self.read])


def tally_skips(observation: Observation, rows: Sequence[Row], sites: Sequence[Site]) -> tuple[SkipTally, ...]:
    """One tally per site of one batch."""
    tops = _tops(observation)
    return tuple(_tally(site, observation, rows, tops) for site in sites)


def _tally(site: Site, observation: Observation, rows: Sequence[Row], tops: dict[int, float]) -> SkipTally:
    path = observation.skips[site.calls[0]]
    calls = tuple(None if (s := observation.readings.skips[i]) is None else s.scaled(observation.loss_scale) for i in site.calls)
    lying = [(c, tops[i]) for i, c in zip(site.calls, calls, strict=True) if c is not None and c.hh is not None and c.ht is not None and i in tops]
    lying.sort(key=lambda pair: pair[1] == 0)  # the first whose highway has a gradient
    deepest = [Deepest(hh=_sum(c.hh), ht=_sum(c.ht), tt=_sum(c.tt), top=top / observation.loss_scale**2) for c, top in lying[:1]]
    depths = {"fork_depth": _depth(rows, path.fork), "join_depth": _depth(rows, path.join)}
    return SkipTally(
        fields={**structure(path, site), **depths, "calls": len(site.calls)},
        shapes=(_shape(path.fork), _shape(path.join)),
        gated=Role.MULTIPLY in path.roles,
        entangled=path.entangled,
        samples=observation.samples,
        eps=eps_of(path),
        batches=(calls,),
        deepest=deepest[0] if deepest else None,
    )


def _tops(observation: Observation) -> dict[int, float]:
    """Position of a skip -> ‖g‖² at the last join of its highway."""
    position = {id(s): i for i, s in enumerate(observation.skips)}
    pairs = zip(observation.highways, observation.readings.highways, strict=True)
    return {position[id(s)]: sums.top for highway, sums in pairs if sums is not None for s in highway.skips}


def account_skip(tally: SkipTally, seed: int, probes: int) -> Skip:
    """The record of a site; `seed` is that of the bootstrap."""
    calls = [c for batch in tally.read for c in batch]
    measures, undefined = _measure(tally, calls, seed)
    _add_highway(measures, undefined, tally.deepest, bool(calls))
    trend = _trend(tally.batches) if tally.fields["calls"] > 1 else ()
    channels = [c.channels for c in calls if c.channels is not None]
    probed = [reduce(add, found) for batch in tally.read if (found := [c.probe for c in batch if c.probe is not None])]
    return Skip(
        **tally.fields,
        **measures,
        trend=trend,
        channels=channels_of(reduce(add, channels)) if channels and len({(c.dimension, c.rr.size) for c in channels}) == 1 else None,
        probe=probe_of(probed, probes, measures, bool(_coupling(tally)), seed) if probed else None,
        streams=streams_of(calls, probes, tally.eps) if any(c.streams for c in calls) else None,
        undefined=undefined,
    )


def _trend(batches: Sequence[Calls]) -> tuple[float | None, ...]:
    """λ̂ of each call over all batches; None where it is not defined."""
    return tuple(_lam_of([c for c in calls if c is not None]) for calls in zip_longest(*batches))


def _lam_of(calls: Sequence[SkipSums]) -> float | None:
    pairs = [(c.sr, c.rr) for c in calls if c.sr is not None and c.rr is not None]
    rr = sum(_sum(r) for _, r in pairs)
    return finite(sum(_sum(s) for s, _ in pairs) / rr) if rr > 0 else None


def _depth(rows: Sequence[Row], node: object) -> int:
    sequence = node.meta.get("seq")  # type: ignore[attr-defined]
    return 0 if sequence is None else depth_of(rows, sequence)


_FIELDS = (
    "lam", "lam_low", "lam_high", "n_eff", "lam_full", "misfit", "gain", "gain_low", "gain_high", "branch_gain", "total_gain", "cos_skip_branch", "bound_holds",
    "ledger_error",
)  # fmt: skip
_INTERVALS = ("lam_low", "lam_high", "gain_low", "gain_high")


def _measure(tally: SkipTally, calls: list[SkipSums], seed: int) -> tuple[Measures, dict[str, str]]:
    measures: Measures = dict.fromkeys(_FIELDS)
    if not calls:
        return measures, dict.fromkeys(_FIELDS, "no gradient arrived at the join or at the fork, or its path could not be replayed (the notes say so)")
    undefined: dict[str, str] = {}
    gg, ss, ff, tt, sf, rest = (sum(_sum(getattr(c, k)) for c in calls) for k in ("gg", "ss", "ff", "tt", "sf", "ledger"))
    if not math.isfinite(gg + ss + ff + tt):
        return measures, dict.fromkeys(_FIELDS, "the gradient at the join or the fork is not finite")
    g, s, f, t = (math.sqrt(x) for x in (gg, ss, ff, tt))
    silent = "the gradient at the join is exactly 0"
    _put(measures, undefined, "gain", s / g if g > 0 else None, silent)
    _put(measures, undefined, "branch_gain", f / g if g > 0 else None, silent)
    _put(measures, undefined, "total_gain", t / g if g > 0 else None, silent)
    _put(measures, undefined, "cos_skip_branch", _clip(sf / (s * f)) if s * f > 0 else None, "the skip or the branch sends back exactly 0")
    _put(measures, undefined, "bound_holds", bool(t >= s * (1 - 1e-12)), "")
    _put(measures, undefined, "ledger_error", math.sqrt(rest) / max(t, s, f) if max(t, s, f) > 0 else 0.0, "")
    if tally.entangled:
        measures.update(branch_gain=None, cos_skip_branch=None)
        undefined |= dict.fromkeys(("branch_gain", "cos_skip_branch"), "the skip and the branch leave the fork by one edge: a split, or a mixture of streams")
    _put_lambda(measures, undefined, tally, calls)
    _put_intervals(measures, undefined, tally, seed)
    return measures, undefined


def _put(measures: Measures, undefined: dict[str, str], name: str, value: float | bool | None, reason: str) -> None:
    measures[name] = value
    if value is None:
        undefined[name] = reason


def _put_lambda(measures: Measures, undefined: dict[str, str], tally: SkipTally, calls: list[SkipSums]) -> None:
    calls = [c for c in calls if c.rr is not None]  # a packed sequence narrows the batch at some steps of the loop
    if not calls:
        fork, join = tally.shapes
        if tally.fields["form"] == "concat":
            reason = "a concatenation: the join is wider than the fork; the gain is defined"
        elif fork != join:
            reason = f"fork {fork} and join {join} differ in shape; the gain is defined"
        else:
            reason = "the path does not keep the coordinates; the gain is defined"
        undefined |= dict.fromkeys(("lam", "lam_full", "misfit"), reason)
        return
    rr, sr, ss = (sum(_sum(getattr(c, k)) for c in calls) for k in ("rr", "sr", "ss"))
    if not rr > 0:
        undefined |= dict.fromkeys(("lam", "lam_full", "misfit"), "the gradient at the join is exactly 0")
        return
    lam = sr / rr
    full = [c.full for c in calls if c.full is not None]
    measures["lam"] = lam
    whole = sum(_sum(x) for x in full) / rr if len(full) == len(calls) else None if tally.gated else lam
    _put(measures, undefined, "lam_full", whole, "the gate of an interpolation weighs the branch as well: its own derivative is not the skip's alone")
    _put(measures, undefined, "misfit", min(1.0, math.sqrt(misfit_squared(calls, lam) / ss)) if ss > 0 else None, "the skip sends back exactly 0")


def _put_intervals(measures: Measures, undefined: dict[str, str], tally: SkipTally, seed: int) -> None:
    """Intervals over samples; over whole batches, where samples are coupled or not told apart and there are enough of them."""
    gg, lost = tally.per_sample("gg"), _coupling(tally)
    if lost:
        gg = tally.per_batch("gg")
        if gg.size < FEWEST_BATCHES:
            undefined |= dict.fromkeys((*_INTERVALS, "n_eff"), f"{lost}; --batches {FEWEST_BATCHES} or more gives one over batches")
            return
    _put(measures, undefined, "n_eff", float(gg.sum() ** 2 / (gg**2).sum()) if gg.sum() > 0 else None, "the gradient at the join is exactly 0")
    if measures["gain"] is None:
        undefined |= dict.fromkeys(_INTERVALS, "the gradient at the join is exactly 0")
        return
    if np.count_nonzero(gg) < 2:
        undefined |= dict.fromkeys(_INTERVALS, "one sample alone carries the gradient: it has nothing to be compared with")
        return
    units = tally.per_batch if lost else tally.per_sample
    ss = units("ss")
    if ss.size == gg.size:
        measures["gain_low"], measures["gain_high"] = gain_interval(ss, gg, seed)
    else:
        undefined |= dict.fromkeys(("gain_low", "gain_high"), "the skip's gradient is not told apart by samples")
    if measures["lam"] is None:
        undefined |= dict.fromkeys(("lam_low", "lam_high"), "λ is not defined")
        return
    measures["lam_low"], measures["lam_high"] = interval(units("sr"), units("rr"), seed)


def _coupling(tally: SkipTally) -> str:
    """Why the samples of a batch are no units of their own; nothing where they are."""
    fork, join = tally.shapes
    if any(op in _BATCH_NORMS for op in tally.fields["path_ops"]):
        return "batch norm on the skip couples the samples: an interval over samples does not apply"
    if tally.samples < 2:
        return "the batch has one sample"
    if all(c.gg.size < 2 for calls in tally.read for c in calls):
        return f"the batch dimension does not survive: fork {fork}, join {join}"
    if any(len({c.gg.size for c in calls}) > 1 for calls in tally.read):
        return "the calls of one batch differ in how many samples they have"
    return ""


def _add_highway(measures: Measures, undefined: dict[str, str], deepest: Deepest | None, read: bool) -> None:
    if deepest is None:
        reason = (
            "it is on no highway: concatenations, detached skips and second operands carry none" if read else "no gradient arrived, or it could not be replayed"
        )
        measures.update(highway_gain=None, highway_share=None)
        undefined |= dict.fromkeys(("highway_gain", "highway_share"), reason)
        return
    silent = "the gradient at the highway's last join is exactly 0" if deepest.top == 0 else "the gradient on the highway is not finite"
    _put(measures, undefined, "highway_gain", finite(math.sqrt(deepest.hh / deepest.top)) if deepest.top > 0 else None, silent)
    share = finite(deepest.ht / deepest.tt) if deepest.tt > 0 else None
    still = "the total gradient at the fork is exactly 0" if deepest.tt == 0 else "the gradient on the highway is not finite"
    _put(measures, undefined, "highway_share", share, still)


def _shape(node: object) -> str:
    return str(list(node.meta["shape"]))  # type: ignore[attr-defined]


def _sum(array: Floats | None) -> float:
    return 0.0 if array is None else float(np.sum(array))


def _clip(cosine: float) -> float:
    return max(-1.0, min(1.0, cosine))
