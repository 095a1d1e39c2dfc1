"""The panel of the trend: λ of a loop's skip at each of its calls."""

from __future__ import annotations

from matplotlib.axes import Axes

from gradflow.numbers import span
from gradflow.records import Report, Severity, Skip
from gradflow.render.figure import lambdas, loops, marks
from gradflow.render.figure.labels import Label
from gradflow.render.figure.marks import CALLS, DASHED, Drawn, Key, rule_name, subject
from gradflow.render.figure.theme import Theme
from gradflow.render.summary import alarms

_CROWD = 12  # lines: more are thin


def draw(axes: Axes, report: Report, theme: Theme) -> Drawn:
    """A line for each skip of a loop, the first call at the left."""
    skips = loops.skips(report)
    scale = lambdas.scale_of([v for s in skips for v in s.trend if v is not None])
    lambdas.draw_axis(axes, scale, theme)
    colors = loops.colors_of(report, theme)
    for s in skips:
        ys = [float("nan") if v is None else scale(v) for v in s.trend]
        marker, width = ("o", 1.2) if len(ys) < 16 else ("", 1.2 if len(skips) <= _CROWD else 0.6)
        axes.plot(range(1, len(ys) + 1), ys, color=colors[s.id], linewidth=width, marker=marker, markersize=3.5, alpha=0.9, zorder=2.6)
    keys: list[Key] = [*loops.keys_of([(s.id, colors[s.id]) for s in skips], 1.2), (marks.stroke(theme.grey, 1.0, DASHED), "1: passes all")]
    return Drawn(title="λ of each call", quantity="Σ⟨s,g⟩ ÷ Σ⟨g,g⟩", keys=keys, labels=_labels(report, skips, scale, theme), along=CALLS)


def _labels(report: Report, skips: list[Skip], scale: lambdas.Scale, theme: Theme) -> list[Label]:
    """Of each rule the skips with the smallest and largest λ, named at the call where that of the worst is farthest from 1."""
    owners = {s.name: s for s in reversed(skips)} | {s.id: s for s in skips}
    by_rule: dict[tuple[str, Severity], dict[str, Skip]] = {}
    places: dict[str, str] = {}
    for f in alarms(report):
        if subject(f.rule) == "skip" and f.where in owners:
            by_rule.setdefault((f.rule, f.severity), {})[owners[f.where].id] = owners[f.where]
            places.setdefault(owners[f.where].id, marks.line_of(f.location))
    labels = []
    for (rule, severity), hit in list(by_rule.items())[: marks.NAMED]:
        worst = next(iter(hit.values()))
        value, call = max(((v, i) for i, v in enumerate(worst.trend, 1) if v is not None), key=lambda known: abs(known[0] - 1))
        said = span([v for s in hit.values() for v in s.trend], 3)
        text = f"{rule_name(rule, len(hit))}: {marks.folded(worst.id, list(hit))}, λ {said}"
        labels.append(Label(x=call, y=scale(value), text=text, color=theme.alarm[severity], place=places[worst.id]))
    return labels
