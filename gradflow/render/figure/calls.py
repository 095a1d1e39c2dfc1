"""The panel of calls: what the skip of a loop alone brings back of the gradient to each call, from the last call to the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from gradflow.numbers import decades, number
from gradflow.records import Highway, Report
from gradflow.render.figure import loops, marks
from gradflow.render.figure.labels import Label
from gradflow.render.figure.marks import CALLS, DOTTED, Dashes, Drawn, Key, Range, rule_name, subject
from gradflow.render.figure.text import short
from gradflow.render.figure.theme import Theme
from gradflow.render.summary import alarms

_TITLE = "Through the calls: what the skip alone brings back to each call"
_SMALLEST = {"float16": 2.0**-14, "bfloat16": 2.0**-126, "float32": 2.0**-126, "float64": 2.0**-1022}  # with full precision
_NAMED = 6


@dataclass(frozen=True, kw_only=True)
class Way:
    """The highway of a loop along its calls, the last call first; the gradient at the loop's end is 1.

    Attributes:
        xs, gains: the calls, and what comes back to them, as far as it is measured.
        lost: the last call that nothing that could be measured comes back to; None where all calls get some.
        zero: the last call that gets exactly 0; None where none does.
    """

    name: str
    skip: str
    xs: Sequence[float]
    gains: Sequence[float]
    lost: float | None
    zero: float | None


def way_of(highway: Highway, report: Report) -> Way:
    """The way of a loop's highway. It ends where the norm falls below the smallest number that the run's type holds with full precision: what is left of it
    farther on is the type's rounding and no gradient."""
    count, calls = len(highway.fork_gains), highway.turns
    xs = [1 + i * calls / count for i in range(count)]
    measured = next((i for i in reversed(range(count)) if not highway.fork_gains[i] > _least(highway, report)), -1)
    zero = next((i for i in reversed(range(count)) if highway.fork_gains[i] == 0), None)
    kept = range(count - 1, measured, -1)
    return Way(
        name=highway.name, skip=highway.skips[0], xs=[calls + 1.0, *(xs[i] for i in kept)], gains=[1.0, *(highway.fork_gains[i] for i in kept)],
        lost=xs[measured] if measured >= 0 else None, zero=None if zero is None else xs[zero],
    )  # fmt: skip


def _least(highway: Highway, report: Report) -> float:
    """The smallest gain of the highway that the run's type holds with full precision; 0 where that cannot be told."""
    output = next((layer.grad_norm / layer.gain for layer in report.layers if layer.grad_norm and layer.gain), 0.0)
    top = output * (highway.top_gain or 0.0)
    smallest = _SMALLEST.get(report.environment.dtype, 0.0)
    return smallest / top if top > smallest else 0.0


def draw(axes: Axes, report: Report, theme: Theme) -> Drawn:
    """One line for each loop, against the gradient at its end; exact zeros and what is too small for the run's type are at the lower edge, not measured."""
    ways = [way_of(h, report) for h in loops.highways(report)]
    limits = span_of(ways)
    marks.decade_axis(axes, limits, theme)
    marks.at_one(axes, 0, theme)
    colors = loops.colors_of(report, theme)
    for way in ways:
        line(axes, way, limits, colors[way.skip])
    keys = loops.keys_of([(way.name, colors[way.skip]) for way in ways], 2.0)
    keys.append((marks.stroke(theme.grey, 1.0, marks.DASHED), "1: all of it comes back"))
    return Drawn(
        title=_TITLE, quantity="‖h‖ ÷ ‖g at the loop's end‖", keys=keys + ends(ways, report, theme), labels=signs(ways, report, limits, theme), along=CALLS
    )


def span_of(ways: Sequence[Way]) -> Range:
    """The limits of the axis, with room for what is lost."""
    logs = [log for way in ways for gain in way.gains if (log := decades(gain)) is not None]
    return marks.span_of(logs, floor=any(way.lost is not None for way in ways))


def line(axes: Axes, way: Way, limits: Range, color: str, dashes: Dashes = "solid") -> None:
    """The way, and a dotted fall to the lower edge where it ends before the first call."""
    logs = [log for gain in way.gains if (log := decades(gain)) is not None]
    axes.plot(way.xs, logs, color=color, linewidth=2.0, linestyle=dashes, marker="o" if len(logs) < 16 else "", markersize=3.5, zorder=2.6)
    end = way.lost if way.zero is None else way.zero
    if end is not None:
        axes.plot([way.xs[-1], end], [logs[-1], limits.floor], color=color, linewidth=1.2, linestyle=DOTTED, zorder=2.5)
        marks.edge(axes, [end], limits.floor, "v", color, color if way.zero is not None else to_hex(axes.get_facecolor()))


def ends(ways: Sequence[Way], report: Report, theme: Theme) -> list[Key]:
    """What the lower edge means."""
    fallen = [way for way in ways if way.lost is not None]
    keys: list[Key] = [(marks.stroke(theme.grey, 1.2, DOTTED), f"too small for {report.environment.dtype}")] if fallen else []
    zeros = sum(way.zero is not None for way in fallen)
    return keys + ([(marks.dot(theme.grey, "v"), f"exactly 0 from there on ({zeros})")] if zeros else [])


def signs(ways: Sequence[Way], report: Report, limits: Range, theme: Theme) -> list[Label]:
    """Names each loop at its end, those with a finding first."""
    found = {f.where: f for f in reversed(alarms(report)) if subject(f.rule) == "highway"}
    labels = []
    places = {way.name: _end(way, limits) for way in ways}
    for way in sorted(ways, key=lambda w: (w.name not in found, places[w.name][0], -places[w.name][1]))[:_NAMED]:
        finding = found.get(way.name)
        color = theme.grey if finding is None else theme.alarm[finding.severity]
        name = short(way.name, 30) if finding is None else f"{rule_name(finding.rule)}: {short(way.name, 30)}"
        x, y = places[way.name]
        place = "" if finding is None else marks.line_of(finding.location)
        labels.append(Label(x=x, y=y, text=f"{name}, {_told(way, report)}", color=color, place=place))
    return labels


def _end(way: Way, limits: Range) -> tuple[float, float]:
    end = way.lost if way.zero is None else way.zero
    return (way.xs[-1], decades(way.gains[-1]) or 0.0) if end is None else (end, limits.floor)


def _told(way: Way, report: Report) -> str:
    if way.zero is not None:
        return f"exactly 0 before call {int(way.zero) + 1}"
    if way.lost is not None:
        return f"too small for {report.environment.dtype} before call {int(way.lost) + 1}"
    return f"× {number(way.gains[-1], 3)} at call 1"
