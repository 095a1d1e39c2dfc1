"""What the panels of skips share, and the first of them: arcs from fork to join."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from gradflow.records import Report, Skip
from gradflow.render.figure import marks
from gradflow.render.figure.marks import DOTTED, Drawn, Key
from gradflow.render.figure.theme import Theme
from gradflow.render.numbers import decades
from gradflow.render.summary import plural


def middle(skip: Skip) -> float:
    """Where a skip stands on the depth axis: under the top of its arc."""
    return (skip.fork_depth + skip.join_depth) / 2 - 0.5


def size(skips: Sequence[Skip]) -> float:
    """The area of the mark of a skip, in square points."""
    return float(np.clip(1500 / max(len(skips), 1), 8, 30))


def arcs(axes: Axes, report: Report, theme: Theme) -> Drawn:
    """One arc per skip, coloured by kind, as wide as its gain is large; short ones are drawn over long ones."""
    ordered = sorted(report.skips, key=lambda s: s.fork_depth - s.join_depth)
    longest = max(s.join_depth - s.fork_depth for s in ordered)
    turn = np.linspace(0, np.pi, 40 if len(ordered) < 200 else 16)
    paths = []
    for s in ordered:
        reach = max(s.join_depth - s.fork_depth, 0.2)
        height = math.sqrt(reach / max(longest, 0.2))
        paths.append(np.column_stack([middle(s) - reach / 2 * np.cos(turn), height * np.sin(turn)]))
    crowded = float(np.clip(60 / len(ordered), 0.22, 1.0))
    widths = [_width(s.gain) * crowded for s in ordered]
    styles: list[object] = [DOTTED if not s.gain else "solid" for s in ordered]
    colors = [theme.kinds[s.kind] for s in ordered]
    axes.add_collection(LineCollection(paths, colors=colors, linewidths=widths, linestyles=styles, alpha=0.85 if len(ordered) < 120 else 0.6))
    axes.set_ylim(0, 1.08)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    return Drawn(title=f"{plural(len(ordered), 'skip connection')}, fork to join", quantity="as wide as the gain", keys=_keys(report.skips, theme))


def _keys(skips: Sequence[Skip], theme: Theme) -> list[Key]:
    counts = Counter(s.kind for s in skips)
    keys: list[Key] = [(marks.stroke(theme.kinds[kind], 2.2), f"{kind} ({n})") for kind, n in counts.most_common()]
    if any(not s.gain for s in skips):
        keys.append((marks.stroke(theme.grey, 1.5, DOTTED), "gain 0 or unknown"))
    return keys


def _width(gain: float | None) -> float:
    log = decades(gain)
    return 1.2 if log is None else float(np.clip(2.0 + 1.0 * log, 0.5, 4.0))
