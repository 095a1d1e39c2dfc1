"""The panel of updates: ‖∇W‖/‖W‖ of each matrix. One learning rate moves them all, so what lies far from the median does not train as the others do."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from matplotlib.axes import Axes

from gradflow.numbers import decades, number
from gradflow.records import Layer, Parameter, Report, Severity
from gradflow.render.figure import marks
from gradflow.render.figure.labels import Label
from gradflow.render.figure.layers import UPDATES
from gradflow.render.figure.marks import DASHED, Drawn, Key, Point, rule_name
from gradflow.render.figure.stages import colors_of
from gradflow.render.figure.text import short
from gradflow.render.figure.theme import Theme
from gradflow.render.summary import alarms

_TITLE = "Weight updates: how fast each matrix moves"


def draw(axes: Axes, report: Report, theme: Theme) -> Drawn:
    """The ratio of each matrix at the depth of its layer, and the median of those that no zero-initialised scale closes."""
    owned = matrices(report)
    known = [(layer, p, log) for layer, p in owned if (log := decades(p.update_ratio)) is not None]
    colors, keys = colors_of(report.layers, theme, {layer.name for layer, _, _ in known})
    usual = decades(median(usuals)) if (usuals := [p.update_ratio for layer, p, _ in known if p.update_ratio and not layer.closed_by]) else None
    limits = marks.span_of([log for _, _, log in known], floor=len(known) < len(owned), around=() if usual is None else (usual,))
    marks.decade_axis(axes, limits, theme)
    marks.spread(axes, [Point(layer.depth, log, colors[layer.name]) for layer, _, log in known], theme, marks.size_of(len(owned)))
    if usual is not None:
        axes.axhline(usual, color=theme.grey, linewidth=1.0, linestyle=DASHED, zorder=1)
        keys = [*keys, (marks.stroke(theme.grey, 1.0, DASHED), f"median {number(10**usual, 3)}")]
    keys = keys + _edge(axes, owned, limits, theme)
    at, labels = _alarms(report, {p.name: (layer.depth, log) for layer, p, log in known}, usual, theme)
    marks.rings(axes, at, theme, 55)
    return Drawn(title=_TITLE, quantity="‖∇W‖ ÷ ‖W‖", keys=[*keys, *marks.ring_keys(at, theme)], labels=labels)


def matrices(report: Report) -> list[tuple[Layer, Parameter]]:
    """The matrices and kernels with their layers."""
    return [(layer, p) for layer in report.layers for p in layer.parameters if len(p.shape) > 1]


def _edge(axes: Axes, owned: Sequence[tuple[Layer, Parameter]], limits: marks.Range, theme: Theme) -> list[Key]:
    """Matrices without a ratio: those that stand still, those that are frozen, those of which it is not defined."""
    kinds = (
        ("v", theme.ink, "exactly 0", [layer.depth for layer, p in owned if p.update_ratio == 0]),
        ("_", theme.grey, "frozen", [layer.depth for layer, p in owned if p.update_ratio is None and p.status == "frozen"]),
        ("x", theme.grey, "not defined", [layer.depth for layer, p in owned if p.update_ratio is None and p.status != "frozen"]),
    )
    for marker, color, _, depths in kinds:
        marks.edge(axes, depths, limits.floor, marker, color)
    return [(marks.dot(color, marker), f"{name} ({len(depths)})") for marker, color, name, depths in kinds if depths]


def _alarms(
    report: Report, places: dict[str, tuple[int, float]], usual: float | None, theme: Theme
) -> tuple[dict[Severity, list[tuple[float, float]]], list[Label]]:
    """Rings and names for the matrices that GF111 names."""
    at: dict[Severity, list[tuple[float, float]]] = {"error": [], "warning": []}
    labels = []
    for f in alarms(report):
        if f.rule == UPDATES and f.where in places:
            x, y = places[f.where]
            at[f.severity].append((x, y))
            apart = "" if usual is None else f", {number(10 ** min(abs(y - usual), 300), 3)} times {'faster' if y > usual else 'slower'}"
            labels.append(
                Label(x=x, y=y, text=f"{rule_name(f.rule)}: {short(f.where, 30)}{apart}", color=theme.alarm[f.severity], place=marks.line_of(f.location))
            )
    return at, labels
