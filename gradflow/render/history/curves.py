"""The panels of curves against step: the loss, the λ of every skip, the gain of every highway."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import FuncFormatter

from gradflow.numbers import number
from gradflow.records import History, Turn
from gradflow.render.figure.canvas import renderer
from gradflow.render.figure.marks import DASHED, Key, at_one, decade_axis, dot, edge, span_of, stroke
from gradflow.render.figure.text import glyphs, power, width_of
from gradflow.render.figure.theme import Theme
from gradflow.render.history import grid, words
from gradflow.render.names import keep_end

_WIDE = 50.0  # ratio of the largest to the least, from which on an axis is logarithmic
_SAID = 9.0  # points: what is said of a gap
_NAMED = 4  # curves that the key names
Curve = Sequence[float | None]


def loss(axes: Axes, history: History, theme: Theme) -> list[Key]:
    """The loss of the profiled batches; its key is that of the line that every panel has where the run turned."""
    values = _numbers([entry.loss for entry in history.entries])
    axes.plot(values, color=theme.ink, linewidth=1.3, marker=_mark(values), markersize=2.6)
    known = values[np.isfinite(values)]
    if known.size and known.min() > 0 and known.max() / known.min() > _WIDE:
        axes.set_yscale("log", subs=[])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: power(math.log10(value))))
    axes.margins(y=0.15)
    color, turned = _turn(history, theme)
    return [(stroke(color, 1.4), f"turns {'sick' if turned.verdict == 'sick' else 'to warnings'}\nat step {turned.step:,}")] if turned else []


def lambdas(axes: Axes, history: History, theme: Theme) -> list[Key]:
    """λ of each skip, the first dark and the last light (the other way round on dark paper); a ring where the skip has a finding."""
    curves = _aligned([entry.lams for entry in history.entries], len(history.skips))
    shown = [i for i, curve in enumerate(curves) if any(v is not None for v in curve)]
    axes.axhline(1, color=theme.grey, linewidth=1.0, linestyle=DASHED, zorder=1)
    for i in shown:
        _curve(axes, _numbers(curves[i]), _shade(i, len(curves), theme), len(shown))
    known = [v for i in shown for v in curves[i] if v is not None]
    low, high = min([*known, 1.0]), max([*known, 1.0])
    spare = 0.08 * (high - low) if high - low > 0.1 else 0.06
    axes.set_ylim(low - spare, high + spare)
    if max(map(abs, known), default=0) > _WIDE:
        axes.set_yscale("symlog", linthresh=1.0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 3)))
    _gaps(axes, history, [curves[i] for i in shown], theme)
    ringed = _rings(axes, history, curves, theme)
    keys: list[Key] = [(stroke(theme.grey, 1.0, DASHED), "λ = 1")]
    keys += [(stroke(_shade(i, len(curves), theme)), _named(history.skips[i].id, curves[i])) for i in _farthest(curves, shown)]
    return keys + ringed


def is_flat(history: History) -> bool:
    """Whether every λ is 1 at every step, so that its panel has nothing to show but that."""
    return all(abs(lam - 1) < 1e-3 for entry in history.entries for lam in entry.lams if lam is not None)


def highways(axes: Axes, history: History, theme: Theme) -> list[Key]:
    """The gain of each highway, in decades; what is exactly 0 is a triangle at the lower edge."""
    rows = grid.decades([entry.highway_gains for entry in history.entries])
    finite = rows[np.isfinite(rows)]
    limits = span_of(finite.tolist(), floor=bool(np.isneginf(rows).any()))
    at_one(axes, 0.0, theme)
    curves = _aligned([entry.highway_gains for entry in history.entries], len(history.highways))
    for i, row in enumerate(rows):
        _curve(axes, np.where(np.isneginf(row), math.nan, row), _shade(i, len(rows), theme), len(rows))
        edge(axes, np.flatnonzero(np.isneginf(row)).tolist(), limits.floor, "v", _shade(i, len(rows), theme))
    decade_axis(axes, limits, theme, bins=3)
    _gaps(axes, history, curves, theme)
    zero: list[Key] = [(dot(theme.ink, "v"), "exactly 0")] if np.isneginf(rows).any() else []
    shown = _farthest(curves, range(len(rows)))
    return zero + [(stroke(_shade(i, len(rows), theme)), _named(_ends(history.highways[i]), curves[i], 14)) for i in shown]


def turn(axes: Axes, history: History, theme: Theme) -> None:
    """A line before the column in which the run turned; none where it began so."""
    color, turned = _turn(history, theme)
    if turned is not None:
        axes.axvline(next(i for i, entry in enumerate(history.entries) if entry.step == turned.step) - 0.5, color=color, linewidth=1.4, zorder=5)


def _turn(history: History, theme: Theme) -> tuple[str, Turn | None]:
    turned = words.turn(history)
    if turned is None or turned.step == history.entries[0].step:
        return "", None
    return theme.alarm["error" if turned.verdict == "sick" else "warning"], turned


def _gaps(axes: Axes, history: History, curves: Sequence[Curve], theme: Theme) -> None:
    """Grey where no curve has a value, and why, where there is room to say it."""
    for first, last in grid.gaps(curves):
        axes.axvspan(first - 0.5, last + 0.5, color=theme.faint, linewidth=0, zorder=0.9)
        said = words.silent(history, first, last)
        share = (last + 1 - first) / len(history.entries)
        if width_of(said, renderer(axes.figure.figure), FontProperties(size=_SAID)) < 0.95 * share * axes.get_window_extent().width:
            middle = ((first + last) / 2, 0.5)
            axes.annotate(said, middle, xycoords=("data", "axes fraction"), fontsize=_SAID, color=theme.ink, ha="center", va="center", zorder=6, bbox={
                "boxstyle": "round,pad=0.25", "facecolor": theme.paper, "edgecolor": "none", "alpha": 0.9,
            })  # fmt: skip


def _curve(axes: Axes, values: grid.Grid, color: str, many: int) -> None:
    axes.plot(values, color=color, linewidth=1.5 if many <= 12 else 0.9, alpha=1.0 if many <= 12 else 0.75, zorder=2, marker=_mark(values), markersize=2.6)


def _mark(values: grid.Grid) -> str:
    """A mark at each value, where there are so few that a line alone would hide how few, or one that stands alone."""
    return "o" if np.isfinite(values).sum() <= 40 else ""


def _rings(axes: Axes, history: History, curves: Sequence[Curve], theme: Theme) -> list[Key]:
    """Rings on the values of skips that have a finding; beyond a hundred, rings at equal distances stand for all."""
    index = {skip.id: i for i, skip in enumerate(history.skips)}
    keys: list[Key] = []
    for severity in ("warning", "error"):
        at = [
            (column, value)
            for column, entry in enumerate(history.entries)
            for noted in entry.findings
            if noted.severity == severity and noted.where in index and (value := curves[index[noted.where]][column]) is not None
        ]
        shown = at[:: max(1, len(at) // 100)]
        axes.scatter([x for x, _ in shown], [y for _, y in shown], s=16, facecolors="none", edgecolors=theme.alarm[severity], linewidths=1.0, zorder=4)
        keys += [(dot(theme.alarm[severity], hollow=theme.paper), severity)] if at else []
    return keys


def _farthest(curves: Sequence[Curve], among: Sequence[int]) -> list[int]:
    """The curves whose last value is farthest from 1, in the order of depth; none that is 1."""
    off = {i: _distance(value) for i in among if (value := _end(curves[i])) is not None}
    return sorted(sorted((i for i in off if off[i] > 1e-6), key=lambda i: -off[i])[:_NAMED])


def _distance(value: float | None) -> float:
    """In decades from 1; infinite for what is 0 or has changed its sign."""
    return abs(math.log10(value)) if value is not None and value > 0 else math.inf


def _end(curve: Curve) -> float | None:
    return next((v for v in reversed(curve) if v is not None), None)


def _named(name: str, curve: Curve, width: int = 11) -> str:
    """The end of a name, which tells it from its neighbours, and the curve's last value."""
    return f"{keep_end(glyphs(name), width)}  {number(_end(curve), 3)}"


def _ends(highway: str) -> str:
    """`blocks.0 … 5` of `blocks.0 … blocks.5`: from its first skip to its last, without the modules that both are in."""
    first, _, last = highway.partition(" … ")
    shared = [a == b for a, b in zip(first.split(".")[:-1], last.split(".")[:-1], strict=False)]
    inside = ".".join(last.split(".")[[*shared, False].index(False) :])
    return f"{first} … {inside}" if last else first


def _aligned(rows: Sequence[Curve], many: int) -> list[Curve]:
    """One curve over the steps for each skip or highway."""
    return [[row[i] for row in rows] for i in range(many)]


def _numbers(values: Curve) -> grid.Grid:
    return np.array([math.nan if v is None else v for v in values], dtype=float)


def _shade(i: int, many: int, theme: Theme) -> str:
    share = i / max(many - 1, 1)
    return to_hex(matplotlib.colormaps["viridis"](1 - 0.75 * share if theme.is_dark else 0.85 * share))
