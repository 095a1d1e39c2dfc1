"""The panel of λ: what each skip passes on of the gradient, with its interval, and the line at 1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradflow.numbers import number
from gradflow.records import Report, Skip
from gradflow.render.figure import alarmed, marks, trunk
from gradflow.render.figure.labels import Label
from gradflow.render.figure.marks import DASHED, Drawn, Key, Point, Range
from gradflow.render.figure.skips import places, size
from gradflow.render.figure.text import short
from gradflow.render.figure.theme import Theme

_WIDE = 30.0  # a factor: λ that lie farther apart are put on a logarithmic axis


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How λ is put on its axis: as it is, or as log10 where it spans decades; negative values and zeros of a log axis stand at the bottom edge."""

    log: bool
    limits: Range

    def __call__(self, value: float) -> float:
        if not self.log:
            return value
        return math.log10(value) if value > 0 else self.limits.floor

    def at_the_edge(self, value: float) -> bool:
        """Whether it has no place on the axis."""
        return self.log and value <= 0


def draw(axes: Axes, report: Report, theme: Theme) -> Drawn:
    """λ of each skip; where λ is undefined its gain, hollow."""
    values = [v for s in report.skips for v in (s.lam, s.lam_low, s.lam_high, s.gain if s.lam is None else None) if v is not None]
    scale = scale_of(values, unknown=any(_value(s) is None for s in report.skips))
    draw_axis(axes, scale, theme)
    at_x = places(axes, report)
    inside = [s for s in report.skips if (value := _value(s)) is not None and not scale.at_the_edge(value)]
    points = [_point(s, at_x[s.id], scale, theme) for s in inside if s.lam is not None]
    marks.spread(axes, points, theme, size(report.skips))
    hollow = [Point(at_x[s.id], scale(s.gain), theme.kinds[s.kind]) for s in inside if s.lam is None and s.gain is not None]
    marks.spread(axes, hollow, theme, size(report.skips), hollow=True)
    edge = _edge(axes, report, at_x, scale, theme)
    heights = {s.id: scale(value) for s in report.skips if (value := _value(s)) is not None}
    at, labels = alarmed.alarms_of(report, {name: (at_x[name], y) for name, y in heights.items()}, _said, theme, branches=False)
    labels += trunk.signs(report, scale(1.0), theme) + _noted(report, at_x, scale, theme)
    marks.rings(axes, at, theme, size(report.skips) * 2.4)
    keys = _keys(report, theme, hollow=bool(hollow)) + edge + marks.ring_keys(at, theme)
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


def scale_of(values: Sequence[float], *, unknown: bool = False) -> Scale:
    """A log axis where the values, most of them positive, spread over more than a factor of 30; `unknown` keeps the bottom edge free for what has no value."""
    sizes = [abs(v) for v in values if v]
    spans = bool(sizes) and (max(sizes) > _WIDE or min(sizes) < 1 / _WIDE) and (max(sizes) > _WIDE or 0 in values or max(sizes) / min(sizes) > _WIDE)
    if spans and sum(v > 0 for v in values) >= len(values) / 2:
        return Scale(log=True, limits=marks.span_of([math.log10(v) for v in values if v > 0], floor=unknown or any(v <= 0 for v in values)))
    low, high = min([0.0, *values]), max([1.0, *values])
    margin = 0.1 * (high - low)
    return Scale(log=False, limits=Range(low=low - margin * (2 if unknown else 1), high=high + 1.5 * margin))


def _point(skip: Skip, x: float, scale: Scale, theme: Theme) -> Point:
    assert skip.lam is not None
    ends = () if skip.lam_low is None or skip.lam_high is None else (scale(skip.lam_low), scale(skip.lam_high))
    return Point(x, scale(skip.lam), theme.kinds[skip.kind], *ends)


def _value(skip: Skip) -> float | None:
    return skip.lam if skip.lam is not None else skip.gain


def _edge(axes: Axes, report: Report, at_x: Mapping[str, float], scale: Scale, theme: Theme) -> list[Key]:
    """Marks at the bottom edge for what has no place on the axis, hollow where it is a gain."""
    known = [(s, value) for s in report.skips if (value := _value(s)) is not None]
    below = [(at_x[s.id], theme.kinds[s.kind], "" if s.lam is not None else theme.paper) for s, value in known if scale.at_the_edge(value)]
    for x, color, hollow in below:
        marks.edge(axes, [x], scale.limits.floor, "v", color, hollow)
    nothing = [at_x[s.id] for s in report.skips if _value(s) is None]
    marks.edge(axes, nothing, scale.limits.floor, "x", theme.grey)
    keys: list[Key] = [(marks.dot(theme.grey, "v"), f"0 or less: at the edge ({len(below)})")] if below else []
    return keys + ([(marks.dot(theme.grey, "x"), f"neither λ nor gain is defined ({len(nothing)})")] if nothing else [])


def _keys(report: Report, theme: Theme, hollow: bool) -> list[Key]:
    keys: list[Key] = [(marks.dot(theme.grey), "λ of the skip")] if any(s.lam is not None for s in report.skips) else []
    if any(s.lam_low is not None and s.lam_high is not None and s.lam_high - s.lam_low > 0.01 * abs(s.lam_high) for s in report.skips):
        bar = marks.stroke(theme.grey, 1.6)
        bar.set_alpha(0.5)
        keys.append((bar, "its 95 % interval over samples"))
    keys += [(marks.dot(theme.grey, hollow=theme.paper), "λ undefined: gain ‖s‖/‖g‖")] if hollow else []
    return [*keys, (marks.stroke(theme.grey, 1.0, DASHED), "1: passes all")]


def _noted(report: Report, at_x: Mapping[str, float], scale: Scale, theme: Theme) -> list[Label]:
    """The skip that the worst note is about, where nothing alarms and the note counts."""
    note = marks.worst_note(report)
    skip = None if note is None or not note.decades or marks.subject(note.rule) != "skip" else alarmed.owners(report).get(note.where)
    if note is None or skip is None or (skip.lam is None and skip.gain is None):
        return []
    text = f"noted: {note.rule} {short(skip.id, 30)}, {_said(skip)}"
    return [Label(x=at_x[skip.id], y=_height(skip, scale), text=text, color=theme.alarm["info"])]


def _said(skip: Skip) -> str:
    return f"λ {number(skip.lam, 3)}" if skip.lam is not None else f"gain {number(skip.gain, 3)}"


def _height(skip: Skip, scale: Scale) -> float:
    return scale(skip.lam if skip.lam is not None else skip.gain or 0.0)
