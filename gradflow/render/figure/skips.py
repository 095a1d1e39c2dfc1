"""What the panels of skips share, and the first of them: arcs from fork to join."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from gradflow.numbers import decades, span
from gradflow.records import Report, Skip
from gradflow.render.figure import marks, trunk
from gradflow.render.figure.labels import Label
from gradflow.render.figure.marks import DOTTED, Drawn, Key
from gradflow.render.figure.theme import Theme
from gradflow.render.summary import alarms, plural

_ARCS, _RUN = 60, 4  # of more skips runs are folded; fewer in a row are arcs
_GAP = 3  # layers between two skips: so many end a run
_OPEN = 8  # runs that may go on at one depth
_LIKE = math.log10(2)  # decades
_LIFT = 0.25
_TALL = 0.35  # of the panel: a shape that has room for a word
_WIDEST = 0.06  # of the axis: what marks of one place take side by side
_NESTED = 0.5  # layers: middles that are no farther apart are one place


def middle(skip: Skip) -> float:
    """Where a skip stands on the depth axis: under the top of its arc."""
    return (skip.fork_depth + skip.join_depth) / 2 - 0.5


def size(skips: Sequence[Skip]) -> float:
    """The area of the mark of a skip, in square points."""
    return float(np.clip(1500 / max(len(skips), 1), 8, 30))


def places(axes: Axes, report: Report) -> dict[str, float]:
    """Where the mark of each skip, by its id, stands on the depth axis: under the top of its arc, or at the arc's end where it leads around others, whose marks
    stand between; those of one place side by side."""
    room = math.sqrt(size(report.skips)) * 1.3 * axes.figure.dpi / 72 * last_depth(report) / max(axes.bbox.width, 1.0)
    around = _around(report.skips)
    at = {s.id: s.join_depth - 0.5 if s.id in around else middle(s) for s in report.skips}
    ordered = sorted(report.skips, key=lambda s: (at[s.id], s.fork_depth - s.join_depth))
    groups: list[list[Skip]] = []
    for s in ordered:
        first = groups[-1][0] if groups else s
        together = at[s.id] - at[first.id] <= _NESTED and (s.join_depth > first.fork_depth or s.join_depth == first.join_depth)
        if groups and together:
            groups[-1].append(s)
        else:
            groups.append([s])
    found: dict[str, float] = {}
    for group in groups:
        centre = sum(at[s.id] for s in group) / len(group)
        apart = min(room, _WIDEST * last_depth(report) / len(group))
        found |= {s.id: centre + (i - (len(group) - 1) / 2) * apart if len(group) > 1 else at[s.id] for i, s in enumerate(group)}
    return found


def _around(skips: Sequence[Skip]) -> set[str]:
    """Those that lead around others, as across a U-Net, where none crosses another."""
    ordered = sorted(skips, key=lambda s: (s.fork_depth, -s.join_depth))
    crossing, found = _crossing(skips), set[str]()
    for s, inner in reversed([*pairwise(ordered)]):  # the first that starts inside, if any does, ends inside as well where nothing crosses
        alike = (s.fork_depth, s.join_depth) == (inner.fork_depth, inner.join_depth)
        if crossing.isdisjoint((s.id, inner.id)) and inner.fork_depth < s.join_depth and (inner.id in found or not alike):
            found.add(s.id)
    return found


def last_depth(report: Report) -> int:
    """How many layers the axis of depth has."""
    return max([len(report.layers), *(s.join_depth for s in report.skips)])


def arcs(axes: Axes, report: Report, theme: Theme) -> Drawn:
    """One arc per skip, coloured by kind, as wide as its gain is large; short ones are drawn over long ones. Of many, runs of like skips are one shape,
    if most of the skips are in runs."""
    chains = _chains(report.skips)
    single = sorted((s for run in chains if len(run) < _RUN for s in run), key=lambda s: s.fork_depth - s.join_depth)
    longest = max(0.2, *(s.join_depth - s.fork_depth for s in report.skips))
    turn = np.linspace(0, np.pi, 40 if len(single) < 200 else 16)
    paths, seen, top = [], Counter[tuple[int, int]](), 1.0
    for s in single:
        lift = 1 + _LIFT * seen[s.fork_depth, s.join_depth]  # of several over one stretch each is seen
        seen[s.fork_depth, s.join_depth] += 1
        reach = max(s.join_depth - s.fork_depth, 0.2)
        height = lift * math.sqrt(reach / longest)
        top = max(top, height)
        paths.append(np.column_stack([middle(s) - reach / 2 * np.cos(turn), height * np.sin(turn)]))
    crowded = float(np.clip(60 / max(len(single), 1), 0.22, 1.0))
    widths = [_width(s.gain) * crowded for s in single]
    styles: list[object] = [DOTTED if not s.gain else "solid" for s in single]
    colors = [theme.kinds[s.kind] for s in single]
    axes.add_collection(LineCollection(paths, colors=colors, linewidths=widths, linestyles=styles, alpha=0.85 if len(single) < 120 else 0.6))
    dead = _cut(axes, [(path, s) for path, s in zip(paths, single, strict=True) if s.gain == 0], report, theme)
    labels = [_folded(axes, run, longest, theme) for run in chains if len(run) >= _RUN]
    axes.set_ylim(0, 1.08 * top)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    keys = _keys(report.skips, theme) + dead + trunk.draw(axes, report, theme)
    title = f"{plural(len(report.skips), 'skip connection')}, fork to join"
    return Drawn(title=title, quantity="as wide as the gain", keys=keys, labels=sorted(labels, key=lambda one: -one.width))


def _cut(axes: Axes, dead: Sequence[tuple[NDArray[np.float64], Skip]], report: Report, theme: Theme) -> list[Key]:
    """A cross on the top of each arc that nothing comes back along, in the colour of its alarm, if it has one."""
    alarmed = {f.where: theme.alarm[f.severity] for f in reversed(alarms(report)) if marks.subject(f.rule) == "skip"}
    for path, s in dead:
        color = alarmed.get(s.id, alarmed.get(s.name, theme.kinds[s.kind]))
        size_of = 9 if len(dead) <= _ARCS else 4
        top = [middle(s)], [path[:, 1].max()]
        axes.plot(*top, linestyle="", marker="X", markersize=size_of, color=color, markeredgecolor=theme.paper, zorder=4)
    return [(marks.dot(theme.grey, "X"), f"nothing comes back ({len(dead)})")] if dead else []


def _chains(skips: Sequence[Skip]) -> list[list[Skip]]:
    found = runs(skips) if len(skips) > _ARCS else []
    in_runs = sum(len(run) for run in found if len(run) >= _RUN)
    return found if 2 * in_runs > len(skips) else [[s] for s in skips]


def runs(skips: Sequence[Skip]) -> list[list[Skip]]:
    """Skips in runs of like ones that follow each other: each starts where the last has ended or two layers later, is of its kind, and passes on as
    much as the first of the run, within a factor of 2. Skips that cross others, as in a dense block, are none's."""
    found: list[list[Skip]] = []
    crossing = _crossing(skips)
    for s in sorted(skips, key=lambda s: (s.fork_depth, s.join_depth)):
        run = None if s.id in crossing else next((r for r in reversed(found[-_OPEN:]) if r[0].id not in crossing and _follows(s, r)), None)
        if run is None:
            found.append([s])
        else:
            run.append(s)
    return found


def _crossing(skips: Sequence[Skip]) -> set[str]:
    """Those that start inside another and end outside it, and those that they cross."""
    ordered = sorted(skips, key=lambda s: s.fork_depth)
    forks = [s.fork_depth for s in ordered]
    found: set[str] = set()
    for s in ordered:
        inside = ordered[bisect_right(forks, s.fork_depth) : bisect_left(forks, s.join_depth)]
        crossed = [t.id for t in inside if t.join_depth > s.join_depth]
        found.update(crossed, [s.id] if crossed else [])
    return found


def _follows(skip: Skip, run: Sequence[Skip]) -> bool:
    first, last = run[0], run[-1]
    apart = skip.fork_depth - last.join_depth
    log, other = decades(skip.gain), decades(first.gain)
    like = skip.gain == first.gain if log is None or other is None else abs(log - other) <= _LIKE
    return 0 <= apart < max(1, min(_GAP, last.join_depth - last.fork_depth)) and skip.kind == first.kind and like


def _folded(axes: Axes, run: Sequence[Skip], longest: float, theme: Theme) -> Label:
    """Draws a run as one flat arc from its first fork to its last join, with its first and its last skip at the ends; returns what stands in it."""
    color, width = theme.kinds[run[0].kind], _width(run[0].gain)
    left, right = run[0].fork_depth - 0.5, run[-1].join_depth - 0.5
    height = math.sqrt(max(0.2, *(s.join_depth - s.fork_depth for s in run)) / longest)
    rise = min(max(s.join_depth - s.fork_depth for s in run), right - left) / 2
    turn = np.linspace(0, np.pi / 2, 20)
    xs = np.concatenate([left + rise * (1 - np.cos(turn)), right - rise * (1 - np.cos(turn[::-1]))])
    ys = height * np.concatenate([np.sin(turn), np.sin(turn[::-1])])
    axes.fill_between(xs, ys, color=color, alpha=0.16, linewidth=0, zorder=1.2)
    axes.plot(xs, ys, color=color, linewidth=width, linestyle="solid" if run[0].gain else DOTTED, alpha=0.85, zorder=1.3)
    text = f"{len(run)} × {run[0].kind}, gain {span([s.gain for s in run], 3)}"
    return Label(x=(left + right) / 2, y=height / 2 if height > _TALL else height, text=text, color=color, width=right - left)


def _keys(skips: Sequence[Skip], theme: Theme) -> list[Key]:
    counts = Counter(s.kind for s in skips)
    passing = {s.kind for s in skips if s.gain}
    keys: list[Key] = [(marks.stroke(theme.kinds[kind], 2.2, "solid" if kind in passing else DOTTED), f"{kind} ({n})") for kind, n in counts.most_common()]
    if any(s.gain is None for s in skips):
        keys.append((marks.stroke(theme.grey, 1.5, DOTTED), "gain not defined"))
    return keys


def _width(gain: float | None) -> float:
    log = decades(gain)
    return 1.8 if log is None else float(np.clip(2.0 + 1.0 * log, 0.5, 4.0))
