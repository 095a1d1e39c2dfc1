"""What the panels share: axes in decades, marks, their keys. Draws on the axes it is given."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from gradflow.records import Finding, Location, Report, Severity
from gradflow.render import folding
from gradflow.render.figure.labels import Caption, Label
from gradflow.render.figure.text import glyphs, power, short
from gradflow.render.figure.theme import Theme
from gradflow.rules import RULES

NAMED = 4  # findings of so many rules are named on a panel
DEPTH = "depth: layers in the order of the forward pass"
CALLS = "call: the first at the left; the gradient comes from the right"
Dashes = tuple[float, tuple[float, float]] | Literal["solid"]
DASHED: Dashes = (0, (4, 3))
DOTTED: Dashes = (0, (1, 1.4))
_PAIR = 26  # letters of two names that both stand in a label
_CROWD = 300  # points; beyond it they are folded
_COLUMNS = 180
_FOLDED = 12.0  # square points: the mark of a column
Key = tuple[Artist | tuple[Artist, ...], str]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What is to be said around a panel.

    Attributes:
        title: what it shows.
        quantity: what its y axis measures.
        keys: mark and meaning.
        labels: the points to name, worst first.
        captions: what is written along lines.
        along: the name of its x axis; panels with the same one share it.
    """

    title: str
    quantity: str = ""
    keys: Sequence[Key] = ()
    labels: Sequence[Label] = ()
    captions: Sequence[Caption] = ()
    along: str = DEPTH


@dataclass(frozen=True, kw_only=True)
class Range:
    """An axis in decades: its limits, and the heights at which zeros and unmeasured values are marked."""

    low: float
    high: float

    @property
    def floor(self) -> float:
        """Where a value of 0 is drawn: at the bottom edge."""
        return self.low + 0.05 * (self.high - self.low)

    @property
    def ceiling(self) -> float:
        """Where what is infinite is drawn: at the top edge."""
        return self.high - 0.05 * (self.high - self.low)


@dataclass(frozen=True)
class Point:
    """A value on the axis of depth, with the end points of its interval, if it has one."""

    x: float
    y: float
    color: str
    low: float = field(default=float("nan"))
    high: float = field(default=float("nan"))


def span_of(logs: Sequence[float], least: float = 2.0, floor: bool = False, around: Sequence[float] = (0.0,)) -> Range:
    """Limits around `logs` and `around` (the reference at 1), at least `least` decades; with `floor` there is room for zeros beneath."""
    low, high = min([*around, *logs], default=0.0), max([*around, *logs], default=0.0)
    spare = max(least - (high - low), 0) / 2
    margin = 0.06 * max(high - low, least)
    low, high = low - spare - margin, high + spare + margin
    return Range(low=low - (0.14 * (high - low) if floor else 0), high=high)


def decade_axis(axes: Axes, limits: Range, theme: Theme, bins: int = 5) -> None:
    """A y axis in log10, ticks at whole powers of ten."""
    axes.set_ylim(limits.low, limits.high)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=bins, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: power(value)))
    axes.grid(axis="y", color=theme.faint, linewidth=0.5)


def at_one(axes: Axes, height: float, theme: Theme) -> None:
    """The line at 1."""
    axes.axhline(height, color=theme.grey, linewidth=1.0, linestyle=DASHED, zorder=1)


def size_of(count: int) -> float:
    """The area of a mark among so many, in square points."""
    return float(np.clip(2400 / max(count, 1), 7, 26))


def spread(axes: Axes, points: Sequence[Point], theme: Theme, size: float, hollow: bool = False) -> None:
    """Marks points with their intervals. A crowd is folded into columns: a bar from its least to its largest, a mark at its median."""
    crowd = len(points) > _CROWD
    shown = columns(points) if crowd else points
    size = max(size, _FOLDED) if crowd else size
    ranged = [p for p in shown if p.high > p.low]
    axes.vlines([p.x for p in ranged], [p.low for p in ranged], [p.high for p in ranged], [p.color for p in ranged], linewidth=1.4, alpha=0.45, zorder=2.4)
    colors = [p.color for p in shown]
    face = theme.paper if hollow else colors
    axes.scatter([p.x for p in shown], [p.y for p in shown], s=size, facecolors=face, edgecolors=colors, linewidths=0.9 if hollow else 0, zorder=3)


def columns(points: Sequence[Point]) -> list[Point]:
    """The points in at most 180 columns of equal width, those of one colour in one; each has the median of its values and reaches over all of them."""
    left = min(p.x for p in points)
    width = (max(p.x for p in points) - left) / _COLUMNS or 1.0
    stacks: dict[tuple[int, str], list[Point]] = {}
    for p in points:
        stacks.setdefault((min(int((p.x - left) / width), _COLUMNS - 1), p.color), []).append(p)
    return [_column(stack, color) for (_, color), stack in stacks.items()]


def _column(stack: Sequence[Point], color: str) -> Point:
    ends = [v for p in stack for v in (p.y, p.low, p.high) if not math.isnan(v)]
    return Point(float(np.median([p.x for p in stack])), float(np.median([p.y for p in stack])), color, min(ends), max(ends))


def edge(axes: Axes, xs: Sequence[float], height: float, marker: str, color: str, hollow: str = "") -> None:
    """Marks at the edge for what has no logarithm."""
    size = 5 if len(xs) < 200 else 3
    axes.plot(xs, [height] * len(xs), linestyle="", marker=marker, color=color, markerfacecolor=hollow or color, markersize=size, zorder=4)


def rings(axes: Axes, at: Mapping[Severity, Sequence[tuple[float, float]]], theme: Theme, size: float) -> None:
    """Marks points with findings: a ring around each that is an error, a square where it is a warning; a halo behind them where there are many."""
    for severity, points in at.items():
        xs, ys = [x for x, _ in points], [y for _, y in points]
        marker, color = _SHAPES[severity], theme.alarm[severity]
        if len(points) <= 60:
            axes.scatter(xs, ys, s=size, marker=marker, facecolors="none", edgecolors=color, linewidths=1.2, zorder=6)
        else:
            axes.scatter(xs, ys, s=max(size, 45), marker=marker, color=color, alpha=0.18, linewidths=0, zorder=2.2)


def ring_keys(at: Mapping[Severity, Sequence[tuple[float, float]]], theme: Theme) -> list[Key]:
    """How many points each kind of ring marks."""
    return [(dot(theme.alarm[s], _SHAPES[s], theme.paper), f"{s} ({len(points)})") for s, points in at.items() if points]


_SHAPES: Mapping[Severity, str] = {"error": "o", "warning": "s", "info": "D"}


def dot(color: str, marker: str = "o", hollow: str = "") -> Line2D:
    """The key of a mark; `hollow` is the colour of its inside."""
    return Line2D([], [], color=color, marker=marker, markersize=5, linestyle="", markerfacecolor=hollow or color)


def stroke(color: str, width: float = 1.8, dashes: Dashes = "solid", marker: str = "", hollow: str = "") -> Line2D:
    """The key of a line."""
    return Line2D([], [], color=color, linewidth=width, linestyle=dashes, marker=marker, markersize=4.5, markerfacecolor=hollow or color)


def area(color: str, alpha: float) -> Patch:
    """The key of a shaded area."""
    return Patch(facecolor=color, alpha=alpha, linewidth=0)


def subject(code: str) -> Literal["layer", "skip", "highway"]:
    """What a rule is about. A name does not say: the carry of a cell, its highway and the cell itself have one name."""
    return "highway" if code in ("GF205", "GF206", "GF207") else "skip" if code.startswith("GF2") else "layer"


def worst_note(report: Report) -> Finding | None:
    """The note that counts most, where nothing alarms; beside alarms notes stay quiet."""
    notes = [f for f in report.findings if f.severity == "info"]
    return max(notes, key=lambda f: f.decades) if notes and len(notes) == len(report.findings) else None


def line_of(location: Location | None) -> str:
    """`model.py:13`, for a label; the header has the folders."""
    return "" if location is None else glyphs(f"{PurePath(location.file).name}:{location.line}")


def folded(worst: str, names: Sequence[str]) -> str:
    """The one name, or many as the first folded name of theirs, for a label."""
    if len(names) == 1:
        return short(worst, 30)
    first, *more = folding.pattern(names)
    if len(more) == 1 and len(first) + len(more[0]) <= _PAIR:
        return short(f"{first}, {more[0]}", 30)
    return short(first, 26) + (" and others" if more else "")


def rule_name(code: str, times: int = 1) -> str:
    """`GF101 vanishing gradient`, and how many times it was found if more than once; the code alone of a rule that this version does not know."""
    name = f"{code} {re.sub('(?<!non)-', ' ', RULES[code].name)}" if code in RULES else code
    return f"{name} ×{times}" if times > 1 else name
