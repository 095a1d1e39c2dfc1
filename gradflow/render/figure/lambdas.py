"""The panel of λ: what each skip passes on of the gradient, with its interval, and the line at 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradflow.records import Report, Severity, Skip
from gradflow.render.figure import marks
from gradflow.render.figure.labels import Label
from gradflow.render.figure.marks import DASHED, Drawn, Key, Point, Range, rule_name
from gradflow.render.figure.skips import middle, size
from gradflow.render.figure.theme import Theme
from gradflow.render.numbers import number
from gradflow.render.summary import alarms

_TRENDS = 40  # skips: of more there is no room for the λ of each call
_WIDE = 30.0  # a factor: λ that lie farther apart are put on a logarithmic axis


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How λ is put on its axis: as it is, or as log10 where it spans decades; negative values and zeros of a log axis are drawn at the bottom edge."""

    log: bool
    limits: Range

    def __call__(self, value: float) -> float:
        if not self.log:
            return value
        return math.log10(value) if value > 0 else self.limits.floor


def draw(axes: Axes, report: Report, theme: Theme) -> Drawn:
    """λ of each skip; where λ is undefined its gain, hollow."""
    values = [v for s in report.skips for v in (s.lam, s.lam_low, s.lam_high, *_trend(s, report.skips), s.gain if s.lam is None else None) if v is not None]
    scale = scale_of(values)
    draw_axis(axes, scale, theme)
    points = [_point(s, scale, theme) for s in report.skips if s.lam is not None]
    marks.spread(axes, points, theme, size(report.skips))
    hollow = [Point(middle(s), scale(s.gain), theme.kinds[s.kind]) for s in report.skips if s.lam is None and s.gain is not None]
    marks.spread(axes, hollow, theme, size(report.skips), hollow=True)
    trends = _trends(axes, report.skips, scale, theme)
    at, labels = _alarms(report, scale, theme)
    marks.rings(axes, at, theme, size(report.skips) * 2.4)
    keys = _keys(report, theme, hollow=bool(hollow), edge=scale.log and any(v <= 0 for v in values)) + trends + marks.ring_keys(at, theme)
    return Drawn(title="λ: what each skip passes on of the gradient", quantity="Σ⟨s,g⟩ ÷ Σ⟨g,g⟩", keys=keys, labels=labels)


def draw_axis(axes: Axes, scale: Scale, theme: Theme) -> None:
    """The y axis of λ and the line at 1."""
    if scale.log:
        marks.decade_axis(axes, scale.limits, theme)
    else:
        axes.set_ylim(scale.limits.low, scale.limits.high)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, min_n_ticks=2))
        axes.grid(axis="y", color=theme.faint, linewidth=0.5)
    marks.at_one(axes, scale(1.0), theme)


def scale_of(values: Sequence[float]) -> Scale:
    """A log axis where the values, most of them positive, spread over more than a factor of 30."""
    sizes = [abs(v) for v in values if v]
    spans = bool(sizes) and (max(sizes) > _WIDE or min(sizes) < 1 / _WIDE) and (max(sizes) > _WIDE or 0 in values or max(sizes) / min(sizes) > _WIDE)
    if spans and sum(v > 0 for v in values) >= len(values) / 2:
        return Scale(log=True, limits=marks.span_of([math.log10(v) for v in values if v > 0], floor=any(v <= 0 for v in values)))
    low, high = min([0.0, *values]), max([1.0, *values])
    margin = 0.1 * (high - low)
    return Scale(log=False, limits=Range(low=low - margin, high=high + 1.5 * margin))


def _point(skip: Skip, scale: Scale, theme: Theme) -> Point:
    assert skip.lam is not None
    ends = () if skip.lam_low is None or skip.lam_high is None else (scale(skip.lam_low), scale(skip.lam_high))
    return Point(middle(skip), scale(skip.lam), theme.kinds[skip.kind], *ends)


def _trend(skip: Skip, skips: Sequence[Skip]) -> list[float]:
    return [v for v in skip.trend if v is not None] if len(skips) <= _TRENDS else []


def _trends(axes: Axes, skips: Sequence[Skip], scale: Scale, theme: Theme) -> list[Key]:
    """The λ of each call from left to right, first call first, around the skip's mark."""
    drawn = [s for s in skips if len(_trend(s, skips)) > 1]
    places = sorted({middle(s) for s in drawn})
    reach = 0.45 * min([after - before for before, after in pairwise(places)], default=1.0)
    for s in drawn:
        xs = np.linspace(middle(s) - reach, middle(s) + reach, len(s.trend))
        ys = [float("nan") if v is None else scale(v) for v in s.trend]
        axes.plot(xs, ys, color=theme.kinds[s.kind], linewidth=0.9, alpha=0.75, zorder=2.2)
    return [(marks.stroke(theme.grey, 0.9), "λ of each call, the first at the left")] if drawn else []


def _keys(report: Report, theme: Theme, hollow: bool, edge: bool) -> list[Key]:
    nothing = sum(s.lam is None and s.gain is None for s in report.skips)
    keys: list[Key] = [(marks.dot(theme.grey), "λ of the skip")] if any(s.lam is not None for s in report.skips) else []
    if any(s.lam_low is not None and s.lam_high is not None and s.lam_high - s.lam_low > 0.01 * abs(s.lam_high) for s in report.skips):
        bar = marks.stroke(theme.grey, 1.6)
        bar.set_alpha(0.5)
        keys.append((bar, "its 95 % interval over samples"))
    keys += [(marks.dot(theme.grey, hollow=theme.paper), "λ undefined: gain ‖s‖/‖g‖")] if hollow else []
    keys += [(marks.dot(theme.paper), f"no λ, no gain ({nothing})")] if nothing else []
    keys += [(marks.dot(theme.paper), "0 or less: at the edge")] if edge else []
    return [*keys, (marks.stroke(theme.grey, 1.0, DASHED), "1: passes all")]


def _alarms(report: Report, scale: Scale, theme: Theme) -> tuple[dict[Severity, list[tuple[float, float]]], list[Label]]:
    """Rings for the skips that findings name, and of each rule the worst with its name, or the folded names where one rule hits many."""
    owners = {s.name: s for s in reversed(report.skips)} | {s.id: s for s in report.skips}
    by_rule: dict[tuple[str, Severity], dict[str, Skip]] = {}
    worst_of: dict[str, tuple[Severity, tuple[float, float]]] = {}
    for f in alarms(report):
        skip = owners.get(f.where) if marks.subject(f.rule) == "skip" else None
        value = None if skip is None else skip.lam if skip.lam is not None else skip.gain
        if skip is not None and value is not None:
            by_rule.setdefault((f.rule, f.severity), {})[skip.id] = skip
            worst_of.setdefault(skip.id, (f.severity, (middle(skip), scale(value))))
    at: dict[Severity, list[tuple[float, float]]] = {"error": [], "warning": []}
    for severity, point in worst_of.values():
        at[severity].append(point)
    labels = [_label(rule, severity, hit, scale, theme) for (rule, severity), hit in list(by_rule.items())[: marks.NAMED]]
    return at, labels


def _label(rule: str, severity: Severity, hit: dict[str, Skip], scale: Scale, theme: Theme) -> Label:
    worst = next(iter(hit.values()))
    said = f"λ {number(worst.lam, 3)}" if worst.lam is not None else f"gain {number(worst.gain, 3)}"
    text = f"{rule_name(rule, len(hit))}: {marks.folded(worst.id, list(hit))}, {'first ' if len(hit) > 1 else ''}{said}"
    height = scale(worst.lam if worst.lam is not None else worst.gain or 0.0)
    return Label(x=middle(worst), y=height, text=text, color=theme.alarm[severity])
