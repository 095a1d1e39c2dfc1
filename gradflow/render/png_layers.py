"""The panel of layers: gradient gain against depth, with the measured highway over it. Draws on the axes it is given."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from gradflow.records import Highway, Layer, Report
from gradflow.render import folding
from gradflow.render.numbers import decades, number
from gradflow.render.png_text import FAINT, GREY, INK, power, short
from gradflow.render.summary import alarms, plural, worst_highway

# Okabe and Ito's palette without its black and yellow, which the marks and the paper have.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
HIGHWAY = "#1b1b1b"
ALARM = {"error": "#D55E00", "warning": "#E69F00"}
NAMED = 4
OTHER = "other stages"


@dataclass(frozen=True, kw_only=True)
class Range:
    """An axis in decades: its limits, and the heights at which zeros and unmeasured values are marked."""

    low: float
    high: float

    @property
    def floor(self) -> float:
        """Where a value of 0 is drawn: at the bottom edge."""
        return self.low + 0.035 * (self.high - self.low)


def span_of(logs: Sequence[float], least: float = 2.0, floor: bool = False) -> Range:
    """Limits around `logs` and 0 (the reference at 1), at least `least` decades; with `floor` there is room for zeros beneath."""
    low, high = min([0.0, *logs]), max([0.0, *logs])
    spare = max(least - (high - low), 0) / 2
    margin = 0.06 * max(high - low, least)
    low, high = low - spare - margin, high + spare + margin
    return Range(low=low - (0.12 * (high - low) if floor else 0), high=high)


def decade_axis(axes: Axes, limits: Range) -> None:
    """A y axis in log10, ticks at whole powers of ten, a line at 1."""
    axes.set_ylim(limits.low, limits.high)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: power(value)))
    axes.grid(axis="y", color=FAINT, linewidth=0.5)
    axes.axhline(0, color=GREY, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)


def draw(axes: Axes, report: Report) -> list[tuple[float, float, str]]:
    """Draws the layers; returns the points to name (x, y, text), worst first."""
    stages = _stages(report.layers)
    logs = [log for layer in report.layers if (log := decades(layer.gain)) is not None]
    road = [log for h in report.highways for g in (1.0, *h.fork_gains) if (log := _road_height(h, g)) is not None]
    odd = any(not layer.gain for layer in report.layers) or any(g == 0 for h in report.highways for g in h.fork_gains)
    limits = span_of(logs + road, floor=odd)
    decade_axis(axes, limits)
    axes.axhspan(-1, 1, color="#009E73", alpha=0.07, linewidth=0, zorder=0)
    handles = _points(axes, report.layers, stages) + _edge(axes, report.layers, limits) + _highways(axes, report, limits) + _alarms(axes, report, limits)
    handles.append((Line2D([], [], color=GREY, linewidth=1.0, linestyle=(0, (4, 3))), "gain 1 (band: within 10×)"))
    legend(axes, handles)
    axes.set_ylabel("‖∂L/∂layer‖ ÷ ‖∂L/∂output‖")
    return _road_sign(report, limits) + _named(report, limits)


def legend(axes: Axes, handles: Sequence[tuple[Line2D, str]], top: float = 1.02) -> None:
    """A legend in the gutter to the right of the axes. Texts are set afterwards, so that no name is parsed or skipped for its underscore."""
    if not handles:
        return
    box = axes.legend(
        [h for h, _ in handles], ["x"] * len(handles), loc="upper left", bbox_to_anchor=(1.01, top), borderaxespad=0, frameon=False, handlelength=1.4,
        labelspacing=0.35,
    )  # fmt: skip
    for text, (_, name) in zip(box.get_texts(), handles, strict=True):
        text.set_parse_math(False)
        text.set_text(name)


def dot(color: str, marker: str = "o", filled: bool = True) -> Line2D:
    """A legend entry for a marker."""
    return Line2D([], [], color=color, marker=marker, markersize=5, linestyle="", markerfacecolor=color if filled else "white")


def rings(axes: Axes, xs: Sequence[float], ys: Sequence[float], color: str, size: float) -> None:
    """Marks points with findings: a ring around each, or where there are many a halo behind them, so that the points are still seen."""
    if len(xs) <= 60:
        axes.scatter(xs, ys, s=size, facecolors="none", edgecolors=color, linewidths=1.2, zorder=6)
    else:
        axes.scatter(xs, ys, s=max(size, 40), color=color, alpha=0.35, linewidths=0, zorder=2.2)


def _stages(layers: Sequence[Layer]) -> dict[str, str]:
    """Layer name to stage: the shortest prefix that tells layers apart; where there are too many, numbered ones are one, then the rarest are."""
    paths = {layer.name: layer.name.split(".") for layer in layers}
    depth = 1
    while depth < 4 and len({tuple(p[:depth]) for p in paths.values()}) == 1 and len({tuple(p[: depth + 1]) for p in paths.values()}) <= len(PALETTE):
        depth += 1
    stages = {name: ".".join(path[:depth]) for name, path in paths.items()}
    if len(set(stages.values())) > len(PALETTE):
        stages = {name: re.sub(r"(?<![^.])\d+(?![^.])", "*", stage) for name, stage in stages.items()}
    common = [stage for stage, _ in Counter(stages.values()).most_common()]
    kept = common if len(common) <= len(PALETTE) else common[: len(PALETTE) - 1]
    return {name: stage if stage in kept else OTHER for name, stage in stages.items()}


def _points(axes: Axes, layers: Sequence[Layer], stages: dict[str, str]) -> list[tuple[Line2D, str]]:
    names = list(dict.fromkeys(stages.values()))
    colors = {name: PALETTE[i] for i, name in enumerate(n for n in names if n != OTHER)} | {OTHER: GREY}
    points = [(layer, log) for layer in layers if (log := decades(layer.gain)) is not None]
    size = float(np.clip(2400 / max(len(layers), 1), 5, 26))
    axes.plot([layer.depth for layer, _ in points], [log for _, log in points], color=FAINT, linewidth=0.8 if len(layers) < 400 else 0.4, zorder=2)
    for owns, scale in ((False, 0.35), (True, 1.0)):
        some = [(layer, log) for layer, log in points if bool(layer.parameters) == owns]
        shades = [colors[stages[layer.name]] for layer, _ in some]
        axes.scatter([layer.depth for layer, _ in some], [log for _, log in some], s=size * scale, c=shades, linewidths=0, zorder=3)
    shown = [n for n in names if len(names) > 1]
    return [(dot(colors[n]), short(n, 18)) for n in shown]


def _edge(axes: Axes, layers: Sequence[Layer], limits: Range) -> list[tuple[Line2D, str]]:
    """Markers at the bottom edge for what has no logarithm."""
    handles = []
    kinds = (
        ("v", INK, True, "exactly 0", [x.depth for x in layers if x.gain == 0 and not x.closed_by]),
        ("v", INK, False, "0: closed at the start", [x.depth for x in layers if x.gain == 0 and x.closed_by]),
        ("x", GREY, True, "not measured", [x.depth for x in layers if x.gain is None]),
    )
    for marker, color, filled, name, depths in kinds:
        if depths:
            face, size = color if filled else "white", 5 if len(depths) < 200 else 3
            axes.plot(depths, [limits.floor] * len(depths), linestyle="", marker=marker, color=color, markerfacecolor=face, markersize=size, zorder=4)
            handles.append((dot(color, marker, filled), f"{name} ({len(depths)})"))
    return handles


def _highways(axes: Axes, report: Report, limits: Range) -> list[tuple[Line2D, str]]:
    """The gradient at each fork with every branch cut, from the last join on, where it is the whole gradient; on the layers' scale."""
    skips = {s.id: s for s in report.skips}
    drawn = False
    for highway in report.highways:
        forks = [(skips[i].fork_depth - 0.5, gain) for i, gain in zip(highway.skips, highway.fork_gains, strict=False) if i in skips]
        if not forks:
            continue
        ends = max(skips[i].join_depth for i in highway.skips if i in skips) - 0.5
        points = sorted([*forks, (ends, 1.0)])
        heights = [limits.floor if (log := _road_height(highway, gain)) is None else log for _, gain in points]
        axes.plot([x for x, _ in points], heights, color=HIGHWAY, linewidth=1.8, zorder=2.5, alpha=0.85)
        drawn = True
    return [(Line2D([], [], color=HIGHWAY, linewidth=1.8), "highway: skips alone")] if drawn else []


def _road_height(highway: Highway, gain: float) -> float | None:
    """Decades of a gain on the highway, measured as the layers are: against the model's output."""
    log, top = decades(gain), decades(highway.top_gain if highway.top_gain is not None else 1.0)
    return None if log is None else log + (top or 0.0)


def _road_sign(report: Report, limits: Range) -> list[tuple[float, float, str]]:
    """Names the first fork of the worst highway where it is more than a decade away from 1."""
    highway, forks = worst_highway(report), {s.id: s.fork_depth - 0.5 for s in report.skips}
    if highway is None or highway.gain is None or not highway.fork_gains or highway.skips[0] not in forks:
        return []
    log = decades(highway.gain)
    if log is not None and abs(log) < 1:
        return []
    rules = sorted({f.rule for f in alarms(report) if f.where == highway.name})
    text = " ".join([*rules, f"highway of {plural(len(highway.skips), 'skip')}: gain {number(highway.gain, 4)}"])
    height = _road_height(highway, highway.gain)
    return [(forks[highway.skips[0]], limits.floor if height is None else height, text)]


def _height(layer: Layer, limits: Range) -> float:
    log = decades(layer.gain)
    return limits.floor if log is None else log


def _alarms(axes: Axes, report: Report, limits: Range) -> list[tuple[Line2D, str]]:
    severities = {layer.name: severity for layer, _, severity in reversed(_found(report))}
    for severity, color in ALARM.items():
        some = [layer for layer in report.layers if severities.get(layer.name) == severity]
        rings(axes, [x.depth for x in some], [_height(x, limits) for x in some], color, 55)
    return [(dot(ALARM[s], "o", filled=False), f"{s} ({n})") for s, n in Counter(severities.values()).items()]


def _found(report: Report) -> list[tuple[Layer, str, str]]:
    """(layer, rule, severity) of the alarms on layers and on their parameters, worst first."""
    owners = {p.name: layer for layer in report.layers for p in layer.parameters} | {layer.name: layer for layer in report.layers}
    return [(owners[f.where], f.rule, f.severity) for f in alarms(report) if f.where in owners]


def _named(report: Report, limits: Range) -> list[tuple[float, float, str]]:
    """The worst few layers: of each rule the worst, or all of them under one folded name where one rule hits many."""
    by_rule: dict[str, list[Layer]] = {}
    for layer, rule, _ in _found(report):
        by_rule.setdefault(rule, []).append(layer)
    points = []
    for rule, layers in list(by_rule.items())[:NAMED]:
        worst = layers[0]
        text = f"{short(worst.name, 26)}: {_gain(worst)}"
        if len(layers) > 1:
            text = f"{rule} ×{len(layers)}  {short(folding.pattern(x.name for x in layers)[0], 26)}, worst {_gain(worst)}"
        points.append((float(worst.depth), _height(worst, limits), text if len(layers) > 1 else f"{rule}  {text}"))
    return points


def _gain(layer: Layer) -> str:
    return "not measured" if layer.gain is None else f"gain {number(layer.gain, 3)}"
