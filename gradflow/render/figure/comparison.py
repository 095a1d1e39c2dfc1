"""Two reports over each other: the highways of loops, the gain of the layers with the other highways, and λ, before and after. The older one is grey."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure

from gradflow.alignment import Alignment
from gradflow.bands import fluctuation
from gradflow.difference import LAMBDA, Difference
from gradflow.numbers import decades, number
from gradflow.records import Report
from gradflow.render import summary
from gradflow.render.figure import PanelName, ThemeName, bounds, calls, header, lambdas, loops, marks, panels, roads
from gradflow.render.figure.canvas import save
from gradflow.render.figure.labels import Label
from gradflow.render.figure.layout import Drawing, laid_out
from gradflow.render.figure.marks import Drawn, Key, Point, Range
from gradflow.render.figure.skips import last_depth, places, size
from gradflow.render.figure.text import short
from gradflow.render.figure.theme import THEMES, Theme, applied, dress

_ORDER = ("new", "worse", "gone", "better")


def render(before: Report, after: Report, found: Difference, *, theme: ThemeName = ThemeName.LIGHT, ending: str = ".png", dpi: int = 150) -> bytes:
    """What changed as a picture 9 inches wide; the same reports give the same bytes.

    Args:
        found: `difference(before, after)`.
        theme: its colours.
        ending: ".png", ".svg" or ".pdf".
        dpi: pixels per inch of a PNG.
    """
    with applied(THEMES[theme]):
        return save(figure(before, after, found, theme=theme, dpi=dpi), ending)


def figure(before: Report, after: Report, found: Difference, *, theme: ThemeName = ThemeName.LIGHT, dpi: int = 150) -> Figure:
    """The figure that `render` saves, laid out."""
    colors = THEMES[theme]
    align = Alignment({layer.name: layer.type for layer in before.layers}, {layer.name: layer.type for layer in after.layers})
    old = moved(before, after, align)
    deeper = max(before, after, key=lambda report: len(report.layers))
    shown: list[Drawing] = []
    if loops.highways(before) or loops.highways(after):
        shown.append((partial(_calls, old=before, new=after, theme=colors), panels.height_of(PanelName.CALLS, after)))
    shown += [(partial(_layers, old=old, new=after, theme=colors), panels.height_of(PanelName.LAYERS, deeper))]
    if before.skips or after.skips:
        shown.append((partial(_lambdas, old=old, new=after, align=align, theme=colors), panels.height_of(PanelName.LAMBDA, deeper)))
    with applied(colors):
        return laid_out(partial(_header, before=before, after=after, found=found, theme=colors), shown, colors, dpi)


def moved(before: Report, after: Report, align: Alignment) -> Report:
    """The older report on the newer one's axis of depth: a layer that both have at the depth that it has now, one that is gone beside the one before it."""
    now = {layer.name: layer.depth for layer in after.layers}
    at, places = 0, {}
    for layer in before.layers:
        at = now.get(align(layer.name) or layer.name, at)
        places[layer.depth] = at
    end = max([at, *now.values()]) + 1

    def place(depth: int) -> int:
        return places.get(depth, end)

    return replace(
        before,
        layers=tuple(replace(layer, depth=place(layer.depth)) for layer in before.layers),
        skips=tuple(replace(s, fork_depth=place(s.fork_depth), join_depth=max(place(s.join_depth), place(s.fork_depth))) for s in before.skips),
    )


def _layers(axes: Axes, old: Report, new: Report, theme: Theme) -> Drawn:
    """Gains and highways of both, the older ones hollow and grey."""
    dress(axes, theme)
    both = (old, new)
    road = [height for report in both for height in roads.heights(report)]
    logs = [decades(layer.gain) for report in both for layer in report.layers]
    floor = None in road or any(layer.gain == 0 for report in both for layer in report.layers)
    alarming = [bounds.bounds_of(report, fluctuation(report.layers)) for report in both]
    limits = bounds.widened(marks.span_of([v for v in (*logs, *road) if v is not None], floor=floor), alarming[1])
    marks.decade_axis(axes, limits, theme, bins=6)
    marks.at_one(axes, 0, theme)
    for report, color, hollow in ((old, theme.grey, True), (new, theme.stages[0], False)):
        known = [Point(x.depth, log, color) for x in report.layers if (log := decades(x.gain)) is not None]
        marks.spread(axes, known, theme, 0.7 * marks.size_of(len(known)), hollow=hollow)
        marks.edge(axes, [x.depth for x in report.layers if x.gain == 0], limits.floor, "v", color, theme.paper if hollow else "")
        for highway in roads.measured(report):
            roads.line(axes, highway, report, limits, theme.grey if hollow else theme.ink, marks.DASHED if hollow else "solid")
    _depth_axis(axes, old, new)
    keys: list[Key] = [(marks.dot(theme.grey, hollow=theme.paper), "before"), (marks.dot(theme.stages[0]), "after")]
    keys += [(marks.stroke(theme.grey, 2.0, marks.DASHED), "highway before")] if roads.measured(old) else []
    keys += [(marks.stroke(theme.ink, 2.0), "highway after")] if roads.measured(new) else []
    labels = [*_named(new, limits, "after", theme.stages[0], theme), *_named(old, limits, "before", theme.grey, theme)]
    captions = [replace(c, text=f"{word}: {c.text}") for report, word in ((old, "before"), (new, "after")) for c in roads.captions(report)]
    captions += bounds.draw(axes, new, limits, alarming[1], theme, floor=floor)
    if bounds.are_apart(*alarming):
        captions += bounds.draw(axes, old, limits, alarming[0], theme, floor=floor, of="before: ")
    quantity = "‖∂L/∂layer‖ ÷ ‖∂L/∂output‖"
    return Drawn(title="Gradient gain of each layer, before and after", quantity=quantity, keys=keys, labels=labels, captions=captions)


def _calls(axes: Axes, old: Report, new: Report, theme: Theme) -> Drawn:
    """What the loops bring back to each call, before and after."""
    dress(axes, theme)
    both = [([calls.way_of(h, report) for h in loops.highways(report)], report) for report in (old, new)]
    limits = calls.span_of([way for ways, _ in both for way in ways])
    marks.decade_axis(axes, limits, theme)
    marks.at_one(axes, 0, theme)
    keys: list[Key] = []
    labels: list[Label] = []
    for (ways, report), color, dashes, word in zip(both, (theme.grey, theme.stages[0]), (marks.DASHED, "solid"), ("before", "after"), strict=True):
        for way in ways:
            calls.line(axes, way, limits, color, dashes)
        keys += [(marks.stroke(color, 2.0, dashes), word)] if ways else []
        labels = [replace(sign, text=f"{word}: {sign.text}", color=color) for sign in calls.signs(ways, report, limits, theme)] + labels
    panels.call_axis(axes, max(loops.last_call(old), loops.last_call(new)))
    keys += calls.ends([way for ways, _ in both for way in ways], new, theme)
    return Drawn(title="Through the calls, before and after", quantity="‖h‖ ÷ ‖g at the loop's end‖", keys=keys, labels=labels, along=marks.CALLS)


def _named(report: Report, limits: Range, word: str, color: str, theme: Theme) -> list[Label]:
    """What was worst: the first fork of the worst highway, and a layer that has an alarm."""
    labels = [replace(sign, text=f"{word}: {sign.text}", color=color) for sign in roads.signs(report, limits, theme)[:1]]
    layer = summary.worst_layer(report)
    if layer is not None and layer.gain is not None:
        height = decades(layer.gain)
        text = f"{word}: {short(layer.name, 26)}, gain {number(layer.gain, 3)}"
        labels.append(Label(x=layer.depth, y=limits.floor if height is None else height, text=text, color=color))
    return labels


def _lambdas(axes: Axes, old: Report, new: Report, align: Alignment, theme: Theme) -> Drawn:
    """λ of both; a line joins the two of a skip that both have."""
    dress(axes, theme)
    values = [s.lam for report in (old, new) for s in report.skips if s.lam is not None]
    scale = lambdas.scale_of(values)
    lambdas.draw_axis(axes, scale, theme)
    _depth_axis(axes, old, new)
    at_old, at_new = places(axes, old), places(axes, new)
    for report, at, hollow in ((old, at_old, True), (new, at_new, False)):
        points = [Point(at[s.id], scale(s.lam), theme.grey if hollow else theme.kinds[s.kind]) for s in report.skips if s.lam is not None]
        marks.spread(axes, points, theme, size(report.skips), hollow=hollow)
    now = {s.id: s for s in new.skips}
    pairs = [(s, now[name]) for s in old.skips if (name := align(s.id)) in now]
    changed = [(a, b, a.lam, b.lam) for a, b in pairs if a.lam is not None and b.lam is not None and abs(a.lam - b.lam) > LAMBDA]
    for was, skip, lam, new_lam in changed:
        axes.plot([at_old[was.id], at_new[skip.id]], [scale(lam), scale(new_lam)], color=theme.grey, linewidth=0.9, alpha=0.7, zorder=2.2)
    keys: list[Key] = [(marks.dot(theme.grey, hollow=theme.paper), "before"), (marks.dot(theme.stages[0]), "after, coloured by kind")]
    keys += [(marks.stroke(theme.grey, 0.9), f"changed ({len(changed)})")] if changed else []
    return Drawn(title="λ of each skip, before and after", quantity="Σ⟨s,g⟩ ÷ Σ⟨g,g⟩", keys=keys)


def _depth_axis(axes: Axes, old: Report, new: Report) -> None:
    panels.depth_axis(axes, max(last_depth(old), last_depth(new)))


def _header(renderer: RendererBase, width: float, *, before: Report, after: Report, found: Difference, theme: Theme) -> header.Header:
    """Both verdicts, and which findings came and went."""
    severities = f"severity {number(before.severity, 3)} → {number(after.severity, 3)}"
    paragraphs = [
        (_changes(found), 10.5, "bold", theme.ink, 3),
        (f"before: {_facts(before)}", 8.0, "normal", theme.grey, 2),
        (f"after: {_facts(after)}", 8.0, "normal", theme.grey, 2),
    ]
    return header.Header(
        verdict=after.verdict, word=f"{before.verdict.upper()} → {after.verdict.upper()}", name=after.target.model_class, facts=severities,
        lines=header.lines_of(paragraphs, renderer, header.room(renderer, width)),
    )  # fmt: skip


def _changes(found: Difference) -> str:
    counts = Counter((f.change, f.rule) for f in found.findings if {f.severity_before, f.severity_after} & {"error", "warning"})
    words = [f"{change}: {', '.join(marks.rule_name(r, n) for (c, r), n in counts.items() if c == change)}" for change in _ORDER]
    told = "; ".join(w for w in words if not w.endswith(": "))
    return f"Findings {told}." if told else "No alarm came, went, or changed."


def _facts(report: Report) -> str:
    counted = (summary.plural(len(report.layers), "layer"), summary.plural(len(report.skips), "skip"), summary.plural(len(report.highways), "highway"))
    return " · ".join([*summary.target(report)[1:], *counted])
