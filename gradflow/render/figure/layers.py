"""The panel of layers: gradient gain against depth, the band of fluctuation behind it and the highways over it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from matplotlib.axes import Axes

from gradflow.bands import fluctuation
from gradflow.numbers import decades, number
from gradflow.records import Finding, Layer, Report, Severity
from gradflow.render.figure import bounds, marks, roads
from gradflow.render.figure.labels import Label
from gradflow.render.figure.marks import Drawn, Key, Point, Range, rule_name
from gradflow.render.figure.stages import colors_of
from gradflow.render.figure.text import short
from gradflow.render.figure.theme import Theme
from gradflow.render.summary import alarms

_LOGITS = re.compile(r"(^|[._])(to_)?(q|k|query|key)(_proj|_lin)?$")
UPDATES = "GF111"  # is about weights: the panel of updates names it


def draw(axes: Axes, report: Report, theme: Theme) -> Drawn:
    """Draws the layers."""
    logs = [log for layer in report.layers if (log := decades(layer.gain)) is not None]
    road, bands = [*roads.heights(report), *roads.identities(report)], fluctuation(report.layers)
    floor = None in road or any(not layer.gain for layer in report.layers)
    widest = max(bands)
    limits = marks.span_of([*logs, *(h for h in road if h is not None)], floor=floor, around=(-widest, 0.0, widest))
    known = any(layer.gain is not None for layer in report.layers)
    alarming = bounds.bounds_of(report, bands) if known else []
    limits = bounds.widened(limits, alarming)
    marks.decade_axis(axes, limits, theme, bins=6)
    marks.at_one(axes, 0, theme)
    keys = _points(axes, report.layers, bounds.quiet(report, alarming), theme)
    keys += _band(axes, report.layers, bands, theme) if known else []
    keys += roads.draw(axes, report, limits, theme) + _edge(axes, report.layers, limits, theme)
    captions = [*roads.captions(report), *bounds.draw(axes, report, limits, alarming, theme, floor=floor)]
    found = _found(report)
    ringed = _ringed(found, limits)
    marks.rings(axes, ringed, theme, 55)
    keys += marks.ring_keys(ringed, theme)
    labels = roads.signs(report, limits, theme) + _named(found, limits, theme) + _noted(report, limits, theme)
    return Drawn(title="Gradient gain of each layer, input to output", quantity="‖∂L/∂layer‖ ÷ ‖∂L/∂output‖", keys=keys, labels=labels, captions=captions)


def _points(axes: Axes, layers: Sequence[Layer], quiet: Collection[str], theme: Theme) -> list[Key]:
    """Layers with weights are large, those without small; a faint line joins them in order. Hollow are those named by `quiet`, which lie where others alarm."""
    logs = {layer.name: log for layer in layers if (log := decades(layer.gain)) is not None}
    colors, keys = colors_of(layers, theme, logs)
    known = [(layer, Point(layer.depth, logs[layer.name], colors[layer.name])) for layer in layers if layer.name in logs]
    axes.plot([p.x for _, p in known], [p.y for _, p in known], color=theme.faint, linewidth=0.8 if len(layers) < 400 else 0.4, zorder=1.5)
    size = marks.size_of(len(layers))
    for hollow in (False, True):
        shown = [(layer, p) for layer, p in known if (layer.name in quiet) == hollow]
        marks.spread(axes, [p for layer, p in shown if not layer.parameters], theme, size * 0.35, hollow=hollow)
        marks.spread(axes, [p for layer, p in shown if layer.parameters], theme, size, hollow=hollow)
    return keys + ([(marks.dot(theme.grey, hollow=theme.paper), f"no alarm: {_why(quiet)} ({len(quiet)})")] if quiet else [])


def _why(quiet: Collection[str]) -> str:
    """Why those layers are no alarm, as far as it can be told: attention's logits are small at any usual initialisation, and queries and keys with them."""
    logits = sum(bool(_LOGITS.search(name)) for name in quiet)
    if logits == len(quiet):
        return "queries and keys, small by attention's initialisation; a skip leads around"
    return "a skip leads around" + (", as around queries and keys" if logits else "")


def _band(axes: Axes, layers: Sequence[Layer], bands: Sequence[float], theme: Theme) -> list[Key]:
    xs = [layers[0].depth - 0.5, *(layer.depth for layer in layers), layers[-1].depth + 0.5]
    ys = [bands[0], *bands, bands[-1]]
    axes.fill_between(xs, [-y for y in ys], ys, color=theme.band, alpha=0.13, linewidth=0, zorder=0.5)
    return [(marks.area(theme.band, 0.3), "what chance explains (2σ)")]


def _edge(axes: Axes, layers: Sequence[Layer], limits: Range, theme: Theme) -> list[Key]:
    keys: list[Key] = []
    kinds = (
        ("v", theme.ink, "", "exactly 0", [x.depth for x in layers if x.gain == 0 and not x.closed_by]),
        ("v", theme.ink, theme.paper, "0: closed at the start", [x.depth for x in layers if x.gain == 0 and x.closed_by]),
        ("x", theme.grey, "", "not measured", [x.depth for x in layers if x.gain is None]),
    )
    for marker, color, hollow, name, depths in kinds:
        if depths:
            marks.edge(axes, depths, limits.floor, marker, color, hollow)
            keys.append((marks.dot(color, marker, hollow), f"{name} ({len(depths)})"))
    return keys


def _height(layer: Layer, limits: Range) -> float:
    log = decades(layer.gain)
    return limits.floor if log is None else log


def _found(report: Report) -> list[tuple[Layer, Finding]]:
    """(layer, finding) of the alarms on layers and on their parameters, worst first."""
    owners = _owners(report)
    return [(owners[f.where], f) for f in alarms(report) if f.where in owners and f.rule != UPDATES and marks.subject(f.rule) == "layer"]


def _ringed(found: Sequence[tuple[Layer, Finding]], limits: Range) -> dict[Severity, list[tuple[float, float]]]:
    """Each layer once, by the worst that was found of it."""
    worst = {layer.name: (layer, f.severity) for layer, f in reversed(found)}
    at: dict[Severity, list[tuple[float, float]]] = {"error": [], "warning": []}
    for layer, severity in worst.values():
        at[severity].append((layer.depth, _height(layer, limits)))
    return at


def _named(found: Sequence[tuple[Layer, Finding]], limits: Range, theme: Theme) -> list[Label]:
    """Of each rule the worst layer, or where one rule hits many all of them under one folded name."""
    by_rule: dict[str, list[tuple[Layer, Finding]]] = {}
    for layer, f in found:
        by_rule.setdefault(f.rule, []).append((layer, f))
    labels = []
    for rule, hit in list(by_rule.items())[: marks.NAMED]:
        worst, first = hit[0]
        names = list(dict.fromkeys(x.name for x, _ in hit))
        name = marks.folded(worst.name, names)
        text = f"{rule_name(rule, len(names))}: {name}, {'worst ' if len(names) > 1 else ''}{_gain(worst)}"
        place = marks.line_of(first.location or worst.location)
        labels.append(Label(x=worst.depth, y=_height(worst, limits), text=text, color=theme.alarm[first.severity], place=place))
    return labels


def _noted(report: Report, limits: Range, theme: Theme) -> list[Label]:
    """The name of the layer that the worst note is about, where nothing alarms and the note counts."""
    note = marks.worst_note(report)
    layer = None if note is None or not note.decades or marks.subject(note.rule) != "layer" else _owners(report).get(note.where)
    if note is None or layer is None:
        return []
    return [Label(x=layer.depth, y=_height(layer, limits), text=f"noted: {short(layer.name, 30)}, {_gain(layer)}", color=theme.alarm["info"])]


def _owners(report: Report) -> dict[str, Layer]:
    """The layer of each layer's and parameter's name."""
    return {p.name: layer for layer in report.layers for p in layer.parameters} | {layer.name: layer for layer in report.layers}


def _gain(layer: Layer) -> str:
    return "not measured" if layer.gain is None else f"gain {number(layer.gain, 3)}"
