"""The measured highways over the gain of the layers, on the same scale, and what they would carry if every skip were the identity. Those of loops have a
panel of their own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from matplotlib.axes import Axes

from gradflow.numbers import decades, number
from gradflow.records import Highway, Report
from gradflow.render.figure.labels import Label
from gradflow.render.figure.marks import DOTTED, Dashes, Key, Range, line_of, rule_name, stroke, subject
from gradflow.render.figure.theme import Theme
from gradflow.render.summary import alarms, plural, worst_highway

_APART = math.log10(2)  # decades: the identity counterfactual is shown where it differs by more


def along_depth(report: Report) -> list[Highway]:
    """Those that no loop makes."""
    return [h for h in report.highways if h.turns == 1]


def heights(report: Report) -> Iterator[float | None]:
    """The decades of all that is drawn here; None for what is 0."""
    for highway in along_depth(report):
        for gain in (1.0, *highway.fork_gains, *([highway.identity_gain] if differs(highway) else [])):
            yield None if gain is None else height_of(highway, gain)


def height_of(highway: Highway, gain: float) -> float | None:
    """Decades of a gain on the highway, measured as the layers are: against the model's output."""
    log, top = decades(gain), decades(highway.top_gain if highway.top_gain is not None else 1.0)
    return None if log is None else log + (top or 0.0)


def differs(highway: Highway) -> bool:
    """Whether the highway would carry twice as much, or half, if its skips were the identity."""
    if highway.gain is None or highway.identity_gain is None:
        return False
    gain, identity = decades(highway.gain), decades(highway.identity_gain)
    return gain is not identity if gain is None or identity is None else abs(gain - identity) >= _APART


def draw(axes: Axes, report: Report, limits: Range, theme: Theme) -> list[Key]:
    """All highways, and their counterfactuals where these say something else."""
    drawn = [(highway, forks) for highway in along_depth(report) if (forks := line(axes, highway, report, limits, theme.ink))]
    keys: list[Key] = [(stroke(theme.ink, 2.0), "highway: the skips alone")] if drawn else []
    for highway, forks in drawn:
        if differs(highway) and highway.identity_gain is not None:
            ends = [_drawn(highway, highway.identity_gain, limits), _drawn(highway, 1.0, limits)]
            axes.plot([forks[0], forks[-1]], ends, color=theme.ink, linewidth=1.2, linestyle=DOTTED, zorder=2.5)
            axes.scatter(forks[:1], ends[:1], s=28, marker="D", facecolors=theme.paper, edgecolors=theme.ink, linewidths=1.2, zorder=5)
    if any(differs(highway) for highway, _ in drawn):
        keys.append((stroke(theme.ink, 1.2, DOTTED, "D", theme.paper), "highway with λ = 1"))
    return keys


def line(axes: Axes, highway: Highway, report: Report, limits: Range, color: str, dashes: Dashes = "solid") -> list[float]:
    """The gradient at each fork with every branch cut, up to the last join, where it is the whole gradient. Returns where they stand; none is no highway."""
    forks = _forks(highway, report)
    if not forks:
        return []
    xs = [*forks, max(s.join_depth for s in report.skips if s.id in highway.skips) - 0.5]
    ys = [_drawn(highway, gain, limits) for gain in (*highway.fork_gains[: len(forks)], 1.0)]
    axes.plot(xs, ys, color=color, linewidth=2.0, linestyle=dashes, zorder=2.6, alpha=0.9)
    return xs


def _forks(highway: Highway, report: Report) -> list[float]:
    """Where its forks stand on the axis of depth, nearest the input first; the calls of a loop one after another from fork to join."""
    places = {s.id: (s.fork_depth - 0.5, float(s.join_depth - s.fork_depth)) for s in report.skips}
    calls, seen, forks = Counter(highway.skips), Counter[str](), []
    for name, _ in zip(highway.skips, highway.fork_gains, strict=False):
        if name in places:
            fork, reach = places[name]
            forks.append(fork + reach * seen[name] / calls[name])
            seen[name] += 1
    return forks


def _drawn(highway: Highway, gain: float, limits: Range) -> float:
    height = height_of(highway, gain)
    return limits.floor if height is None else height


def _ends(highway: Highway) -> str:
    """`, from 0.25 to 0.02`: what it goes from and to on the panel's axis, where that does not begin at 1."""
    top = decades(highway.top_gain) if highway.top_gain is not None else 0.0
    if highway.gain is None or highway.top_gain is None or top is None or abs(top) < _APART:
        return ""
    return f", from {number(highway.top_gain, 3)} to {number(highway.gain * highway.top_gain, 3)}"


def signs(report: Report, limits: Range, theme: Theme) -> list[Label]:
    """Names the first fork of the worst highway, where it or its counterfactual is a decade away from 1 or from the other."""
    highway = worst_highway(replace(report, highways=along_depth(report)))
    forks = [] if highway is None else _forks(highway, report)
    if highway is None or highway.gain is None or not forks:
        return []
    x, found = forks[0], [f for f in alarms(report) if f.where == highway.name and subject(f.rule) == "highway"]
    color = theme.alarm[found[0].severity] if found else theme.grey
    log = decades(highway.gain)
    labels = []
    if found or log is None or abs(log) >= 1:
        name = rule_name(found[0].rule) if found else "highway"
        text = f"{name}: × {number(highway.gain, 3)} along its {plural(len(highway.skips), 'skip')}{_ends(highway)}"
        place = line_of(found[0].location) if found else ""
        labels.append(Label(x=x, y=_drawn(highway, highway.fork_gains[0], limits), text=text, color=color, place=place))
    if differs(highway) and highway.identity_gain is not None:
        text = f"the highway alone with λ = 1, all else as it is: × {number(highway.identity_gain, 3)}"
        labels.append(Label(x=x, y=_drawn(highway, highway.identity_gain, limits), text=text, color=theme.grey))
    return labels
