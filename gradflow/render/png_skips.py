"""The panels of skips: arcs from fork to join, λ, and skip against branch. Draws on the axes it is given; depth is the x axis of all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gradflow.records import Report, Skip
from gradflow.render import folding
from gradflow.render.numbers import decades
from gradflow.render.png_layers import ALARM, NAMED, Range, decade_axis, dot, legend, rings, span_of
from gradflow.render.png_text import FAINT, GREY, INK, short
from gradflow.render.summary import alarms

KINDS = {
    "identity": "#0072B2", "scaled": "#56B4E9", "gated": "#CC79A7", "projection": "#E69F00", "pooled": "#999999",
    "norm": "#8C6D1F", "dropout": "#7F3C8D", "concat": "#009E73", "detached": "#1b1b1b", "streams": "#CC79A7",
}  # fmt: skip
SKIP, BRANCH = "#0072B2", "#D55E00"


def middle(skip: Skip) -> float:
    """Where a skip stands on the depth axis: under the top of its arc."""
    return (skip.fork_depth + skip.join_depth) / 2 - 0.5


def arcs(axes: Axes, skips: Sequence[Skip]) -> None:
    """One arc per skip, coloured by kind, as wide as its gain is large; short ones are drawn over long ones."""
    ordered = sorted(skips, key=lambda s: s.fork_depth - s.join_depth)
    longest = max(s.join_depth - s.fork_depth for s in ordered)
    turn = np.linspace(0, np.pi, 40)
    paths = []
    for s in ordered:
        reach = max(s.join_depth - s.fork_depth, 0.2)
        height = math.sqrt(reach / max(longest, 0.2))
        paths.append(np.column_stack([middle(s) - reach / 2 * np.cos(turn), height * np.sin(turn)]))
    crowded = float(np.clip(60 / len(ordered), 0.35, 1.0))
    widths = [_width(s.gain) * crowded for s in ordered]
    colors = [KINDS[s.kind] for s in ordered]
    styles: list[object] = [(0, (1, 1)) if not s.gain else "solid" for s in ordered]
    axes.add_collection(LineCollection(paths, colors=colors, linewidths=widths, linestyles=styles, alpha=0.85 if len(ordered) < 120 else 0.55))
    axes.set_ylim(0, 1.08)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    counts = Counter(s.kind for s in skips)
    handles = [(Line2D([], [], color=KINDS[kind], linewidth=2), f"{kind} ({n})") for kind, n in counts.most_common()]
    if any(not s.gain for s in skips):
        handles.append((Line2D([], [], color=GREY, linewidth=1.5, linestyle=(0, (1, 1))), "gain 0 or unknown"))
    legend(axes, handles)


def _width(gain: float | None) -> float:
    log = decades(gain)
    return 1.2 if log is None else float(np.clip(2.0 + 1.0 * log, 0.5, 4.0))


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """How λ is put on its axis: as it is, or as log10 where it spans decades; signs and zeros of a log axis are drawn at the bottom edge."""

    log: bool
    limits: Range

    def __call__(self, value: float) -> float:
        if not self.log:
            return value
        return math.log10(value) if value > 0 else self.limits.floor


def lambdas(axes: Axes, report: Report) -> list[tuple[float, float, str]]:
    """λ of each skip with its interval; where λ is undefined its gain, hollow. Returns the points to name, worst first."""
    values = [v for s in report.skips for v in (s.lam, s.lam_low, s.lam_high, s.gain if s.lam is None else None) if v is not None]
    scale = _scale(values)
    if scale.log:
        decade_axis(axes, scale.limits)
    else:
        axes.set_ylim(scale.limits.low, scale.limits.high)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, min_n_ticks=2))
        axes.axhline(1, color=GREY, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
        axes.grid(axis="y", color=FAINT, linewidth=0.5)
    size = _size(report.skips)
    known = [(s, s.lam_low, s.lam_high) for s in report.skips if s.lam_low is not None and s.lam_high is not None]
    colors = [KINDS[s.kind] for s, _, _ in known]
    axes.vlines([middle(s) for s, _, _ in known], [scale(v) for _, v, _ in known], [scale(v) for _, _, v in known], colors, linewidth=1.6, alpha=0.5, zorder=2)
    _dots(axes, [(s, scale(s.lam)) for s in report.skips if s.lam is not None], size, filled=True)
    hollow = [(s, scale(s.gain)) for s in report.skips if s.lam is None and s.gain is not None]
    _dots(axes, hollow, size, filled=False)
    axes.set_ylabel("λ")
    legend(axes, _lambda_handles(report, hollow=bool(hollow), edge=scale.log and any(v <= 0 for v in values)))
    return _alarms(axes, report, scale)


def _lambda_handles(report: Report, hollow: bool, edge: bool) -> list[tuple[Line2D, str]]:
    nothing = sum(s.lam is None and s.gain is None for s in report.skips)
    handles = [(dot(GREY), "λ of the skip")] if any(s.lam is not None for s in report.skips) else []
    if any(s.lam_low is not None and s.lam_high is not None and s.lam_high - s.lam_low > 0.01 * abs(s.lam_high) for s in report.skips):
        handles.append((Line2D([], [], color=GREY, linewidth=1.6, alpha=0.5), "95 % over samples"))
    handles += [(dot(GREY, filled=False), "λ undefined:\ngain ‖s‖/‖g‖")] if hollow else []
    handles += [(dot("white"), f"no λ, no gain ({nothing})")] if nothing else []
    handles += [(dot("white"), "0 or less: at the edge")] if edge else []
    return [*handles, (Line2D([], [], color=GREY, linewidth=1.0, linestyle=(0, (4, 3))), "1: passes all")]


def _scale(values: Sequence[float]) -> _Scale:
    sizes = [abs(v) for v in values if v]
    if sizes and (max(sizes) > 30 or min(sizes) < 0.03) and max(sizes) > 0 and sum(v > 0 for v in values) >= len(values) / 2:
        wide = max(sizes) > 30 or min(v for v in map(abs, values)) == 0 or max(sizes) / min(sizes) > 30
        if wide:
            return _Scale(log=True, limits=span_of([math.log10(v) for v in values if v > 0], floor=any(v <= 0 for v in values)))
    low, high = min([0.0, *values]), max([1.0, *values])
    margin = 0.1 * (high - low)
    return _Scale(log=False, limits=Range(low=low - margin, high=high + 1.5 * margin))


def _size(skips: Sequence[Skip]) -> float:
    return float(np.clip(1500 / max(len(skips), 1), 8, 30))


def _dots(axes: Axes, points: Sequence[tuple[Skip, float]], size: float, filled: bool) -> None:
    colors = [KINDS[s.kind] for s, _ in points]
    face = colors if filled else "white"
    axes.scatter([middle(s) for s, _ in points], [y for _, y in points], s=size, facecolors=face, edgecolors=colors, linewidths=0.9, zorder=3)


def _alarms(axes: Axes, report: Report, scale: _Scale) -> list[tuple[float, float, str]]:
    """Rings the skips that findings name; returns the worst of each rule with its name, or the folded names where one rule hits many."""
    owners = {s.name: s for s in reversed(report.skips)} | {s.id: s for s in report.skips}
    by_rule: dict[str, dict[str, Skip]] = {}
    marked: dict[str, list[tuple[float, float]]] = {}
    for f in alarms(report):
        skip = owners.get(f.where)
        value = None if skip is None else skip.lam if skip.lam is not None else skip.gain
        if skip is not None and value is not None:
            by_rule.setdefault(f.rule, {})[skip.id] = skip
            marked.setdefault(ALARM[f.severity], []).append((middle(skip), scale(value)))
    for color, at in marked.items():
        rings(axes, [x for x, _ in at], [y for _, y in at], color, _size(report.skips) * 2.4)
    points = []
    for rule, named in list(by_rule.items())[:NAMED]:
        worst = next(iter(named.values()))
        times = f" ×{len(named)}" if len(named) > 1 else ""
        height = scale(worst.lam if worst.lam is not None else worst.gain or 0.0)
        points.append((middle(worst), height, f"{rule}{times}  {short(folding.pattern(named)[0], 26)}"))
    return points


def shares(axes: Axes, skips: Sequence[Skip]) -> PathCollection | None:
    """Branch over skip, ‖f‖/‖s‖, coloured by cos(s, f): above 1 the branch carries more of the gradient, below 1 the skip does."""
    ratios = [(s, _ratio(s)) for s in skips]
    logs = [r for _, r in ratios if r is not None and math.isfinite(r)]
    limits = span_of(logs, floor=any(r == -math.inf for _, r in ratios))
    decade_axis(axes, limits)
    axes.axhspan(limits.low, 0, color=SKIP, alpha=0.07, linewidth=0, zorder=0)
    axes.axhspan(0, limits.high, color=BRANCH, alpha=0.07, linewidth=0, zorder=0)
    known = [(s, r) for s, r in ratios if r is not None and math.isfinite(r)]
    grey = [(middle(s), r) for s, r in known if s.cos_skip_branch is None]
    axes.scatter([x for x, _ in grey], [r for _, r in grey], s=_size(skips), c=GREY, edgecolors=INK, linewidths=0.4, zorder=3)
    closed = [middle(s) for s, r in ratios if r == -math.inf]
    axes.plot(closed, [limits.floor] * len(closed), linestyle="", marker="v", color=INK, markersize=5, zorder=3)
    dead = [middle(s) for s, r in ratios if r == math.inf]
    axes.plot(dead, [limits.high - (limits.floor - limits.low)] * len(dead), linestyle="", marker="^", color=INK, markersize=5, zorder=3)
    axes.set_ylabel("‖branch‖ ÷ ‖skip‖")
    colored = [(s, r) for s, r in known if s.cos_skip_branch is not None]
    if not colored:
        return None
    cosines = [s.cos_skip_branch or 0.0 for s, _ in colored]
    return axes.scatter(
        [middle(s) for s, _ in colored], [r for _, r in colored], s=_size(skips), c=cosines, cmap="PuOr", vmin=-1, vmax=1, edgecolors=INK, linewidths=0.4,
        zorder=3,
    )  # fmt: skip


def edge_handles(skips: Sequence[Skip]) -> list[tuple[Line2D, str]]:
    """Legend entries of the panel of shares: its two halves, and what it draws at its edges or not at all."""
    ratios = [_ratio(s) for s in skips]
    halves = [(Line2D([], [], color=c, alpha=0.25, linewidth=6), t) for c, t in ((BRANCH, "above 1: the branch"), (SKIP, "below 1: the skip"))]
    counts = ((-math.inf, "v", "branch 0"), (math.inf, "^", "skip 0"))
    handles = [(dot(INK, marker), f"{name} ({ratios.count(r)})") for r, marker, name in counts if r in ratios]
    unknown = sum(r is None for r in ratios)
    return halves + handles + ([(dot("white"), f"unknown ({unknown})")] if unknown else [])


def _ratio(skip: Skip) -> float | None:
    """log10 of ‖f‖/‖s‖; infinite where one of them is 0, None where unknown or both are."""
    if skip.gain is None or skip.branch_gain is None or not (skip.gain or skip.branch_gain):
        return None
    if not skip.gain or not skip.branch_gain:
        return math.inf if skip.branch_gain else -math.inf
    return math.log10(skip.branch_gain) - math.log10(skip.gain)
