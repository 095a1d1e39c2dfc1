"""Where an alarm would begin in the panel of layers: the limits of vanishing and exploding gradients as the report was judged by them."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from gradflow.numbers import decades, number
from gradflow.records import Finding, Layer, Report
from gradflow.render.figure.labels import Caption
from gradflow.render.figure.marks import Dashes, Range
from gradflow.render.figure.text import power
from gradflow.render.figure.theme import Theme
from gradflow.rules import RULES, Rule

_RULES = (("GF102", "exploding", "above"), ("GF101", "vanishing", "below"))
_NEAR = 0.3  # of the panel's decades: a limit that lies no farther outside is drawn
_DASHES: Dashes = (0, (2, 2))
_SAME = 1e-3  # decades


def widened(limits: Range, report: Report, bands: Sequence[float]) -> Range:
    """The axis with room for the limits that lie near it."""
    low, high = limits.low, limits.high
    reach, spare = _NEAR * (high - low), 0.07 * (high - low)
    for code, _, _ in _RULES:
        edges = _edges(code, report, bands)
        if edges and limits.high - spare < max(edges) <= limits.high + reach:
            high = max(high, max(edges) + spare)
        if edges and limits.low - reach <= min(edges) < limits.low + spare:
            low = min(low, min(edges) - spare)
    return Range(low=low, high=high)


def draw(axes: Axes, report: Report, limits: Range, foot: float, bands: Sequence[float], theme: Theme) -> list[Caption]:
    """Each limit as a dashed line, with what is to be written along it; where it lies outside what is to be written at the edge.
    `foot` is the lower edge of what is free for words."""
    xs = [layer.depth for layer in report.layers]
    captions = []
    for code, word, side in _RULES:
        edges = _edges(code, report, bands)
        if not edges:
            continue
        below, (size, widest) = RULES[code].below, _sizes(edges)
        what, arrow = word + (" on the trunk" if below and report.skips else ""), "↓" if below else "↑"
        if limits.low < min(edges) and max(edges) < limits.high:
            axes.plot(
                [xs[0] - 0.5, *xs, xs[-1] + 0.5], [edges[0], *edges, edges[-1]], color=theme.alarm["warning"], linewidth=1.0, linestyle=_DASHES, zorder=1.4
            )
            captions.append(Caption(xs=xs, ys=edges, text=f"alarm: {what} {side} {size} {arrow}", above=not below))
        else:
            edge = foot if below else limits.high
            captions.append(Caption(xs=xs, ys=[edge] * len(xs), text=f"{what} from {size}{widest} on {arrow}", above=below))
    return captions


def _sizes(edges: Sequence[float]) -> tuple[str, str]:
    """The limit at the output, and in brackets where it is widest if the band makes that another power of ten."""
    first, last = edges[-1], max(edges, key=abs)
    size = power(first) if abs(first - round(first)) < 0.1 else number(10.0**first, 2)
    return size, "" if abs(last - first) < 0.5 else f" ({power(last)} where the band is widest)"


def _edges(code: str, report: Report, bands: Sequence[float]) -> list[float]:
    """The limit at each layer, in decades: the rule's first one, moved as the report's findings say that it was, and wider by the band. Empty where the report
    was judged by another limit that it does not tell, or not by this rule at all."""
    rule = RULES.get(code)
    if rule is None or rule.first is None or not report.layers:
        return []
    judged = {layer.name: (layer, band) for layer, band in zip(report.layers, bands, strict=True) if not rule.below or not _bypassed(layer, report)}
    moves = [m for f in report.findings if f.rule == code and f.where in judged and (m := _moved(f, rule, judged[f.where][1])) is not None]
    sign, first = -1.0 if rule.below else 1.0, (decades(rule.first) or 0.0) + (moves[0] if moves else 0.0)
    named = {f.where for f in report.findings if f.rule in (code, "GF105", "GF108")}
    broken = [layer for layer, band in judged.values() if layer.gain and layer.name not in named and sign * (_log(layer) - first) > band + _SAME]
    return [] if broken else [first + sign * band for band in bands]


def _log(layer: Layer) -> float:
    return decades(layer.gain) or 0.0


def _moved(finding: Finding, rule: Rule, band: float) -> float | None:
    """By how many decades the limit that a finding broke lies from the rule's own, the nearest that it may be; notes are told without the band."""
    own = {"info": (rule.note,), "warning": (rule.warning, rule.error), "error": (rule.error,)}[finding.severity]
    allowance = 0.0 if finding.severity == "info" else -band if rule.below else band
    broken = decades(finding.limit)
    moves = [] if broken is None else [broken - allowance - log for limit in own if (log := decades(limit)) is not None]
    return min(moves, key=lambda moved: abs(moved) >= _SAME, default=None)


def _bypassed(layer: Layer, report: Report) -> bool:
    """Whether a skip leads around it: what vanishes is allowed more there."""
    return any(s.fork_depth <= layer.depth < s.join_depth for s in report.skips)
