"""The measured highways over the gain of the layers, on the same scale, and what they would carry if every skip were the identity. Those of loops have a
panel of their own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from matplotlib.axes import Axes

from gradflow.numbers import decades, number
from gradflow.records import Highway, Report
from gradflow.render.figure.labels import Caption, Label
from gradflow.render.figure.marks import DOTTED, Dashes, Key, Range, line_of, rule_name, stroke, subject
from gradflow.render.figure.text import glyphs, short
from gradflow.render.figure.theme import Theme
from gradflow.render.summary import alarms, plural, worst_highway

_STARVED = "GF206"
_OPS = 3  # that are named
_APART = math.log10(2)  # decades: the identity counterfactual is shown where it differs by more


def along_depth(report: Report) -> list[Highway]:
    """Those that no loop makes."""
    return [h for h in report.highways if h.turns == 1]


def measured(report: Report) -> list[Highway]:
    """Those along the depth whose gain is defined: the others have no line."""
    return [h for h in along_depth(report) if h.gain is not None]


def heights(report: Report) -> Iterator[float | None]:
    """The decades of the lines; None for what is 0."""
    for highway in measured(report):
        for gain in (1.0, *highway.fork_gains[routed_past(highway, report) :]):
            yield height_of(highway, gain)


def identities(report: Report) -> Iterator[float | None]:
    """The decades of the counterfactuals that are drawn; None for what is 0."""
    for highway in measured(report):
        if differs(highway) and highway.identity_gain is not None:
            yield height_of(highway, highway.identity_gain)


def routed_past(highway: Highway, report: Report) -> int:
    """How many of its first forks a highway does not reach because the architecture routes the gradient past them: a note says so, and no alarm."""
    if not any(f.rule == _STARVED and f.severity == "info" and f.where == highway.name for f in report.findings):
        return 0
    return next((i for i, gain in enumerate(highway.fork_gains) if gain), len(highway.fork_gains))


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
    drawn = [(highway, forks) for highway in measured(report) if (forks := line(axes, highway, report, limits, theme.ink))]
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
    """The gradient at each fork with every branch cut, up to the last join, where it is the whole gradient; where it is routed past the first forks, from
    the first that it reaches. Returns where they stand; none is no highway."""
    past = routed_past(highway, report)
    forks = _forks(highway, report)[past:]
    if not forks:
        return []
    xs = [*forks, max(s.join_depth for s in report.skips if s.id in highway.skips) - 0.5]
    ys = [_drawn(highway, gain, limits) for gain in (*highway.fork_gains[past : past + len(forks)], 1.0)]
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


def trunk_of(highway: Highway) -> str:
    """The operators on its trunk, the first few of them."""
    shown = [glyphs(op) for op in highway.trunk_ops[:_OPS]]
    return ", ".join([*shown, "…"] if len(highway.trunk_ops) > _OPS else shown)


def _cause(highway: Highway) -> str:
    """`, by layer_norm on its trunk, not by λ`: where λ = 1 would change nothing; else the counterfactual says it."""
    known = highway.identity_gain is not None and not differs(highway)
    return f", by {trunk_of(highway)} on its trunk, not by λ" if known and highway.trunk_ops else ""


def signs(report: Report, limits: Range, theme: Theme) -> list[Label]:
    """Names the first fork of the worst highway, where it or its counterfactual is a decade away from 1 or from the other."""
    highway = worst_highway(replace(report, highways=measured(report)))
    forks = [] if highway is None else _forks(highway, report)
    if highway is None or highway.gain is None or not forks:
        return []
    if past := routed_past(highway, report):
        return _ended(highway, forks, past, limits, theme)
    x, found = forks[0], [f for f in alarms(report) if f.where == highway.name and subject(f.rule) == "highway"]
    color = theme.alarm[found[0].severity] if found else theme.grey
    log = decades(highway.gain)
    labels = []
    if found or log is None or abs(log) >= 1:
        name = rule_name(found[0].rule) if found else "highway"
        text = f"{name}: × {number(highway.gain, 3)} along its {plural(len(highway.skips), 'skip')}{_ends(highway)}{_cause(highway) if found else ''}"
        place = line_of(found[0].location) if found else ""
        labels.append(Label(x=x, y=_drawn(highway, highway.fork_gains[0], limits), text=text, color=color, place=place))
    if differs(highway) and highway.identity_gain is not None:
        text = f"the highway alone with λ = 1, all else as it is: × {number(highway.identity_gain, 3)}"
        labels.append(Label(x=x, y=_drawn(highway, highway.identity_gain, limits), text=text, color=theme.grey))
    return labels


def _ended(highway: Highway, forks: Sequence[float], past: int, limits: Range, theme: Theme) -> list[Label]:
    """Says at the end of a line that stops before the first fork why it does."""
    if past >= len(forks):
        return []
    text = f"no alarm: from here on the gradient is routed past the highway's other {plural(past, 'skip')}"
    return [Label(x=forks[past], y=_drawn(highway, highway.fork_gains[past], limits), text=text, color=theme.grey)]


def captions(report: Report) -> list[Caption]:
    """Words where a highway has no line, along the line at 1: its gain is undefined, or it ends before its last skip."""
    found: dict[str, list[Highway]] = {}
    for highway in along_depth(report):
        if highway.gain is None:
            found.setdefault(f"gain undefined: {highway.undefined.get('gain', 'not told')}", []).append(highway)
        elif highway.fork_gains and routed_past(highway, report) == len(highway.fork_gains):
            found.setdefault("no alarm: the gradient is routed past it", []).append(highway)
    return [caption for words, of in found.items() if (caption := _caption(words, of, report)) is not None]


def _caption(words: str, of: Sequence[Highway], report: Report) -> Caption | None:
    on = {name for highway in of for name in highway.skips}
    xs = sorted(depth - 0.5 for s in report.skips if s.id in on for depth in (s.fork_depth, s.join_depth))
    who = f"{len(of)} highways" if len(of) > 1 else "highway" if len(along_depth(report)) == 1 else f"highway {short(of[0].name, 30)}"
    return Caption(xs=xs, ys=[0.0] * len(xs), text=f"{who}: {words}", above=True) if xs else None
