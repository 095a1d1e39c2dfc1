"""The gain of every layer over depth as an SVG drawing in the page's own colour; layers with an alarm are marked, and a layer's name shows under the mouse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape as entities

from gradflow.records import Layer, Report
from gradflow.render.names import clean, visible
from gradflow.render.numbers import decades, number
from gradflow.render.summary import alarms

_WIDTH, _HEIGHT = 800, 150
_LEFT, _TOP, _BOTTOM = 52, 10, 20
_MOST_NAMED = 400  # layers that show their names: a drawing of thousands of marks is slow
_LEAST_DECADES = 2.0
_MOST_LINES = 6


def draw(report: Report) -> str:
    """log10 of each layer's gain, input to the left; layers that receive exactly 0 stand on the lower edge. Empty where no gain is defined."""
    logs = [decades(layer.gain) for layer in report.layers]
    defined = [log for log in logs if log is not None]
    if not defined:
        return ""
    middle, reach = (max(defined) + min(defined)) / 2, max(max(defined) - min(defined), _LEAST_DECADES)
    low = middle - reach / 2

    def y(log: float) -> float:
        return _TOP + (1 - (log - low) / reach) * (_HEIGHT - _TOP - _BOTTOM)

    def x(i: int) -> float:
        return _LEFT + (i + 0.5) / len(logs) * (_WIDTH - _LEFT - 10)

    lines = "".join(_gridline(power, y(power)) for power in _powers(low, low + reach))
    curves = "".join(_polyline([(x(i), y(log)) for i, log in run]) for run in _runs(logs))
    alarmed = {f.where for f in alarms(report)}
    marks = "".join(
        _mark(layer, x(i), _HEIGHT - _BOTTOM if log is None else y(log), len(logs) <= _MOST_NAMED, _is_alarmed(layer, alarmed))
        for i, (layer, log) in enumerate(zip(report.layers, logs, strict=True))
        if log is not None or layer.gain == 0
    )
    ends = (("start", _LEFT, "input"), ("middle", (_LEFT + _WIDTH - 10) / 2, "gradient gain of each layer, log scale"), ("end", _WIDTH - 10, "output"))
    axis = "".join(_label(at, _HEIGHT - 4, text, anchor) for anchor, at, text in ends)
    style = f'style="max-width:{_WIDTH}px;width:100%;height:auto;display:block"'
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" {style} role="img" aria-label="gradient gain over depth">{lines}{curves}{marks}{axis}</svg>'


def _powers(low: float, high: float) -> range:
    first, last = math.ceil(low), math.floor(high)
    return range(first, last + 1, max(1, math.ceil((last - first + 1) / _MOST_LINES)))


def _gridline(power: int, height: float) -> str:
    line = f'<line x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{height:.1f}" y2="{height:.1f}" stroke="currentColor" stroke-opacity="{0.5 if power == 0 else 0.15}"/>'
    return line + _label(_LEFT - 6, height + 4, "1" if power == 0 else f"1e{power}", "end")


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="11" fill="currentColor">{entities(text)}</text>'


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


def _mark(layer: Layer, x: float, y: float, named: bool, alarmed: bool) -> str:
    if not named and not alarmed:
        return ""
    name = entities(visible(clean(f"{layer.name or '(the model itself)'} ({layer.type}): gain {number(layer.gain)}")))
    color = ' fill="#e53935"' if alarmed else ' fill="currentColor"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3 if alarmed else 2}"{color}><title>{name}</title></circle>'


def _is_alarmed(layer: Layer, alarmed: set[str]) -> bool:
    return layer.name in alarmed or any(p.name in alarmed for p in layer.parameters)
