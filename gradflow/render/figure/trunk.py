"""What lies on the trunk between the sums of a highway, where it acts on the gradient in every block: with λ = 1 on each skip the gradient is lost there."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradflow.numbers import number
from gradflow.records import Finding, Highway, Report
from gradflow.render.figure.labels import Label
from gradflow.render.figure.marks import Key, dot
from gradflow.render.figure.roads import along_depth, differs, trunk_of
from gradflow.render.figure.theme import Theme
from gradflow.render.summary import alarms

_STRUCTURE = "GF205"
_HIGH = 0.3  # of the panel: a mark
_CROWD = 100  # marks: more are thin


def draw(axes: Axes, report: Report, theme: Theme) -> list[Key]:
    """A bar between each two sums of a highway on whose trunk something lies in every block."""
    counts = Counter[tuple[str, str]]()
    for highway in _acted_on(report):
        at, alarm = between(highway, report), _alarm(highway, report)
        color = theme.grey if alarm is None else theme.alarm[alarm.severity]
        width = 2.6 if len(at) <= _CROWD else 0.8
        axes.vlines(at, 0, _HIGH, color=color, linewidth=width, zorder=3, transform=axes.get_xaxis_transform())
        counts[color, trunk_of(highway)] += len(at)
    return [(_bar(color), f"{ops} on the trunk, between the sums ({count})") for (color, ops), count in counts.items()]


def _bar(color: str) -> Line2D:
    """The key of a bar, as wide as one."""
    handle = dot(color, "|")
    handle.set(markersize=9, markeredgewidth=2.6)
    return handle


def between(highway: Highway, report: Report) -> list[float]:
    """Where the trunk runs between two sums, on the axis of depth; not where a transition between two stages does, or what lies there is not what the highway
    has on its trunk on either side."""
    known = {s.id: s for s in report.skips}
    segments = [(k, segment.ops, segment.skips) for k, segment in enumerate(highway.segments)] or [(0, highway.trunk_ops, highway.skips)]
    passed = [(known[name], k, {*highway.trunk_ops}.intersection(ops)) for k, ops, names in segments for name in names if name in known]
    found = []
    for (low, i, before), (high, k, after) in pairwise(passed):
        if before & after and k - i <= 1 and low.join_depth <= high.fork_depth:
            found.append((low.join_depth + high.fork_depth) / 2 - 0.5)
    return found


def signs(report: Report, height: float, theme: Theme) -> list[Label]:
    """Of the worst highway that λ = 1 would not mend, what does it; at that height of the panel of λ."""
    for highway in _acted_on(report):
        alarm, at = _alarm(highway, report), between(highway, report)
        if alarm is None or differs(highway) or not at:
            continue
        text = f"not λ but {trunk_of(highway)}, between the sums: highway × {number(highway.gain, 3)}"
        return [Label(x=at[len(at) // 2], y=height, text=text, color=theme.alarm[alarm.severity])]
    return []


def _acted_on(report: Report) -> list[Highway]:
    found = {f.where for f in report.findings if f.rule == _STRUCTURE}
    return [highway for highway in along_depth(report) if highway.name in found and highway.trunk_ops and between(highway, report)]


def _alarm(highway: Highway, report: Report) -> Finding | None:
    return next((f for f in alarms(report) if f.where == highway.name and f.rule in ("GF206", "GF207")), None)
