"""The gain of every layer over depth, and what the skips alone pass on, in the page's own colour. Layers with an alarm are coloured, and show their names under
the mouse.

Lines are SVG. Marks and words are empty elements over it that the style sheet fills from their attributes: a page that does not trust the notebook strips both
the drawing and the style, and would show every word of an SVG as running text.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from html import escape as entities

from gradflow.blocks import called
from gradflow.numbers import decades, number
from gradflow.records import GRAVITY, Highway, Layer, Report, Severity
from gradflow.render.names import clean, visible
from gradflow.render.summary import alarms

_WIDTH, _HEIGHT = 800, 150
_LEFT, _TOP, _BOTTOM = 52, 10, 20
_MOST_NAMED = 400  # layers that show their names: a drawing of thousands of marks is slow
_LEAST_DECADES = 2.0
_MOST_LINES = 6
_SAID, _ALONE = "gradient gain of each layer, log scale", "; thick: what the skips alone pass on"
_ALARMS: Mapping[Severity, str] = {"error": "#e53935", "warning": "#fb8c00"}


def draw(report: Report) -> str:
    """log10 of each layer's gain, input to the left; what is exactly 0 stands on the lower edge. Empty where no gain is defined."""
    logs = [decades(layer.gain) for layer in report.layers]
    if all(log is None for log in logs):
        return ""
    ways = [(highway.name, _way(highway, report)) for highway in report.highways if len({*highway.skips}) == len(highway.skips)]
    defined = [log for log in (*logs, *(log for _, way in ways for _, log in way)) if log is not None]
    middle, reach = (max(defined) + min(defined)) / 2, max(max(defined) - min(defined), _LEAST_DECADES)
    low = middle - reach / 2

    def y(log: float | None) -> float:
        if log is None:
            return _HEIGHT - _BOTTOM
        return _TOP + (1 - (log - low) / reach) * (_HEIGHT - _TOP - _BOTTOM)

    def x(i: float) -> float:
        return _LEFT + (i + 0.5) / len(logs) * (_WIDTH - _LEFT - 10)

    alarmed = {f.where: f.severity for f in reversed(alarms(report))}
    powers = _powers(low, low + reach)
    lines = "".join(_gridline(power, y(power)) for power in powers)
    lines += "".join(_polyline([(x(i), y(log)) for i, log in run]) for run in _runs(logs))
    lines += "".join(_highway([(x(i), y(log)) for i, log in way], alarmed.get(name)) for name, way in ways if way)
    words = "".join(_word("tick", _LEFT - 6, y(power), "1" if power == 0 else f"1e{power}") for power in powers)
    middle_x, said = (_LEFT + _WIDTH - 10) / 2, _SAID + (_ALONE if any(way for _, way in ways) else "")
    words += "".join(
        _word(kind, at, _HEIGHT - 8, text) for kind, at, text in (("start", _LEFT, "input"), ("", middle_x, said), ("tick", _WIDTH - 10, "output"))
    )
    marks = "".join(
        _mark(layer, x(i), y(log), len(logs) <= _MOST_NAMED, _alarm(layer, alarmed))
        for i, (layer, log) in enumerate(zip(report.layers, logs, strict=True))
        if log is not None or layer.gain == 0
    )
    svg = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" style="width:100%;height:auto;display:block" aria-hidden="true">{lines}</svg>'
    return f'<div class="plot" role="img" aria-label="gradient gain over depth">{svg}{words}{marks}</div>'


def _way(highway: Highway, report: Report) -> list[tuple[float, float | None]]:
    """(position among the layers, decades) of each fork of a highway, and of its last join; None for what is 0."""
    skips, depths, top = {skip.id: skip for skip in report.skips}, [layer.depth for layer in report.layers], decades(highway.top_gain)
    known = [(skips[name], decades(gain)) for name, gain in zip(highway.skips, highway.fork_gains, strict=False) if name in skips]
    if not known or top is None:
        return []
    forks = [(bisect_left(depths, skip.fork_depth) - 0.5, None if log is None else log + top) for skip, log in known]
    return [*forks, (bisect_left(depths, max(skip.join_depth for skip, _ in known)) - 0.5, top)]


def _powers(low: float, high: float) -> range:
    first, last = math.ceil(low), math.floor(high)
    return range(first, last + 1, max(1, math.ceil((last - first + 1) / _MOST_LINES)))


def _gridline(power: int, height: float) -> str:
    return f'<line x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{height:.1f}" y2="{height:.1f}" stroke="currentColor" stroke-opacity="{0.5 if power == 0 else 0.15}"/>'


def _at(x: float, y: float) -> str:
    return f'style="left:{100 * x / _WIDTH:.2f}%;top:{100 * y / _HEIGHT:.2f}%"'


def _word(kind: str, x: float, y: float, text: str) -> str:
    """A word about (x, y); one of the kind "tick" ends there, one of the kind "start" begins there."""
    return f'<span class="word {kind}" data-word="{entities(text)}" {_at(x, y)}></span>'


def _runs(logs: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """Neighbours that have a gain above 0, so that no line is drawn over what was not measured."""
    runs: list[list[tuple[int, float]]] = [[]]
    for i, log in enumerate(logs):
        if log is None:
            runs.append([])
        else:
            runs[-1].append((i, log))
    return [run for run in runs if len(run) > 1]


def _polyline(points: Sequence[tuple[float, float]]) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="currentColor" stroke-width="1.2"/>'


def _highway(points: Sequence[tuple[float, float]], alarm: Severity | None) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    stroke = f'stroke="{_ALARMS[alarm]}" stroke-opacity="0.8"' if alarm else 'stroke="currentColor" stroke-opacity="0.3"'
    return f'<polyline points="{path}" fill="none" stroke-width="4" {stroke}/>'


def _mark(layer: Layer, x: float, y: float, named: bool, alarm: Severity | None) -> str:
    if not named and alarm is None:
        return ""
    name = entities(visible(clean(f"{called(layer.name)} ({layer.type}): gain {number(layer.gain)}")))
    return f'<i class="mark {alarm or ""}" title="{name}" {_at(x, y)}></i>'


def _alarm(layer: Layer, alarmed: Mapping[str, Severity]) -> Severity | None:
    """The worst alarm of a layer or its parameters."""
    found = {alarmed[name] for name in (layer.name, *(p.name for p in layer.parameters)) if name in alarmed}
    return max(found, key=lambda severity: GRAVITY[severity], default=None)
