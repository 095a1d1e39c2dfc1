"""The panel of shares: which of branch and skip carries the gradient at each fork, and whether they pull one way."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradflow.numbers import number
from gradflow.records import Report, Skip
from gradflow.render.figure import alarmed, marks
from gradflow.render.figure.marks import Drawn, Key
from gradflow.render.figure.skips import places, size
from gradflow.render.figure.theme import Theme

_OPPOSED = -0.5  # a cosine that is told
_SCALE = (-1.0, -0.5, 0.0, 0.5, 1.0)  # cosines whose colours the key shows


def draw(axes: Axes, report: Report, theme: Theme) -> Drawn:
    """Branch over skip, ‖f‖/‖s‖, coloured by cos(s, f): above 1 the branch carries more of the gradient, below 1 the skip does."""
    ratios, at_x = [(s, _ratio(s)) for s in report.skips], places(axes, report)
    known = [(s, r) for s, r in ratios if r is not None and math.isfinite(r)]
    limits = marks.span_of([r for _, r in known], floor=any(r is None or r == -math.inf for _, r in ratios))
    marks.decade_axis(axes, limits, theme)
    marks.at_one(axes, 0, theme)
    axes.axhspan(0, limits.high, color=theme.grey, alpha=0.09, linewidth=0, zorder=0.3)
    grey = [(at_x[s.id], r) for s, r in known if s.cos_skip_branch is None]
    axes.scatter([x for x, _ in grey], [r for _, r in grey], s=size(report.skips), facecolors="none", edgecolors=theme.grey, linewidths=0.9, zorder=3)
    marks.edge(axes, [at_x[s.id] for s, r in ratios if r == -math.inf], limits.floor, "v", theme.ink)
    marks.edge(axes, [at_x[s.id] for s, r in ratios if r == math.inf], limits.ceiling, "^", theme.ink)
    marks.edge(axes, [at_x[s.id] for s, r in ratios if r is None], limits.floor, "x", theme.grey)
    colored = [(at_x[s.id], r, s.cos_skip_branch) for s, r in known if s.cos_skip_branch is not None]
    axes.scatter(
        [x for x, _, _ in colored], [r for _, r, _ in colored], s=size(report.skips), c=[cosine for _, _, cosine in colored], cmap=theme.cosines, vmin=-1,
        vmax=1, edgecolors=theme.grey, linewidths=0.4, zorder=3,
    )  # fmt: skip
    keys = _keys([r for _, r in ratios], cosines=bool(colored), unknown=bool(grey), theme=theme)
    heights = {s.id: (at_x[s.id], limits.floor if r is None else min(max(r, limits.floor), limits.ceiling)) for s, r in ratios}
    at, labels = alarmed.alarms_of(report, heights, _said, theme, branches=True)
    marks.rings(axes, at, theme, size(report.skips) * 2.4)
    return Drawn(title="Branch against skip", quantity="‖f‖ ÷ ‖s‖", keys=[*keys, *marks.ring_keys(at, theme)], labels=labels)


def _said(skip: Skip) -> str:
    ratio, against = _ratio(skip), skip.cos_skip_branch
    if ratio is None or ratio == math.inf:
        return "not defined" if ratio is None else "its skip carries 0"
    times = f"× {number(10 ** min(ratio, 300.0), 3)}"
    return f"{times}, cos {number(against, 2)}" if against is not None and against <= _OPPOSED else times


def _keys(ratios: Sequence[float | None], cosines: bool, unknown: bool, theme: Theme) -> list[Key]:
    keys: list[Key] = [(marks.area(theme.grey, 0.15), "the branch carries more of the gradient")]
    if cosines:
        scale = tuple(Line2D([], [], color=theme.cosines((c + 1) / 2), marker="o", markersize=5, linestyle="") for c in _SCALE)
        keys.append((scale, "cos(skip, branch): −1 opposed, 0, +1 aligned"))
    keys += [(marks.dot(theme.grey, hollow=theme.paper), "no cosine")] if unknown else []
    counts = ((-math.inf, "v", "branch carries 0"), (math.inf, "^", "skip carries 0"))
    keys += [(marks.dot(theme.ink, marker), f"{name} ({ratios.count(r)})") for r, marker, name in counts if r in ratios]
    nothing = ratios.count(None)
    return keys + ([(marks.dot(theme.grey, "x"), f"not defined ({nothing})")] if nothing else [])


def _ratio(skip: Skip) -> float | None:
    """log10 of ‖f‖/‖s‖; infinite where one of them is 0, None where unknown or both are."""
    if skip.gain is None or skip.branch_gain is None or not (skip.gain or skip.branch_gain):
        return None
    if not skip.gain or not skip.branch_gain:
        return math.inf if skip.branch_gain else -math.inf
    return math.log10(skip.branch_gain) - math.log10(skip.gain)
