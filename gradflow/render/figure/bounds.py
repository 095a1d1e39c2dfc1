"""Where an alarm would begin in the panel of layers: the limits of vanishing and exploding gradients as the report was judged by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes

from gradflow.numbers import decades, number
from gradflow.records import Finding, Layer, Report
from gradflow.render.figure.labels import Caption
from gradflow.render.figure.marks import Dashes, Range
from gradflow.render.figure.text import power
from gradflow.render.figure.theme import Theme
from gradflow.rules import RULES, Rule

_RULES = (("GF102", "exploding"), ("GF101", "vanishing"))
_NEAR = 0.3  # of the panel's decades: a limit that lies no farther outside is drawn
_WORDS = 0.11  # of the panel's decades: the room for words along a limit
_DASHES: Dashes = (0, (2, 2))
_SAME = 1e-3  # decades
_BENT = 0.1  # decades: less is told as one number


@dataclass(frozen=True, kw_only=True)
class Bound:
    """Where alarms of one rule begin: `edges`, in decades, at each layer; beyond them is above or below by `below`."""

    code: str
    word: str
    below: bool
    edges: Sequence[float]


def bounds_of(report: Report, bands: Sequence[float]) -> list[Bound]:
    """Those that the report was judged by, as far as it tells: it holds its limits, or an earlier version wrote it and its findings say them."""
    found = [Bound(code=code, word=word, below=RULES[code].below, edges=_edges(code, report, bands)) for code, word in _RULES]
    return [bound for bound in found if bound.edges]


def are_apart(one: Sequence[Bound], other: Sequence[Bound]) -> bool:
    """Whether two reports were judged by other limits; the band is not one."""
    first, second = ({bound.code: bound.edges[-1] for bound in bounds} for bounds in (one, other))
    return first.keys() != second.keys() or any(abs(first[code] - second[code]) > _SAME for code in first)


def quiet(report: Report, bounds: Sequence[Bound]) -> frozenset[str]:
    """The layers below the bound of what vanishes that are no alarm because a skip leads around them: that bound is the trunk's."""
    below = next((bound.edges for bound in bounds if bound.below), None)
    if below is None:
        return frozenset()
    named = {f.where for f in report.findings if f.rule == "GF101" and f.severity != "info"}
    under = [layer for layer, edge in zip(report.layers, below, strict=True) if layer.gain and _log(layer) < edge - _SAME and not layer.closed_by]
    return frozenset(layer.name for layer in under if layer.name not in named and _bypassed(layer, report))


def widened(limits: Range, bounds: Sequence[Bound]) -> Range:
    """The axis with room for the limits that lie near it."""
    low, high = limits.low, limits.high
    reach, spare = _NEAR * (high - low), _WORDS * (high - low)
    for edges in (bound.edges for bound in bounds):
        if limits.high - spare < max(edges) <= limits.high + reach:
            high = max(high, max(edges) + spare)
        if limits.low - reach <= min(edges) < limits.low + spare:
            low = min(low, min(edges) - spare)
    return Range(low=low, high=high)


def draw(axes: Axes, report: Report, limits: Range, bounds: Sequence[Bound], theme: Theme, *, floor: bool, of: str = "") -> list[Caption]:
    """Each limit as a dashed line, with what is to be written along it; where it lies outside what is to be written at the edge.

    Args:
        floor: whether there are marks at the lower edge.
        of: which of two reports it is, where it is to be told; the line of the older one is grey.
    """
    foot = limits.floor + 0.04 * (limits.high - limits.low) if floor else limits.low
    xs, captions = sorted(layer.depth for layer in report.layers), []
    for bound in bounds:
        edges, below = bound.edges, bound.below
        what = f"{of}{bound.word}{' on the trunk' if below and report.skips else ''}"
        size, wider, arrow = _size(edges[-1]), _wider(edges), "↓" if below else "↑"
        if limits.low < min(edges) and max(edges) < limits.high:
            color = theme.grey if of else theme.alarm["warning"]
            axes.plot([xs[0] - 0.5, *xs, xs[-1] + 0.5], [edges[0], *edges, edges[-1]], color=color, linewidth=1.0, linestyle=_DASHES, zorder=1.4)
            said = f"alarm: {what} {'below' if below else 'above'} {size}"
            captions.append(Caption(xs=xs, ys=edges, text=f"{said}{wider} {arrow}", above=not below, short=f"{said} at the output {arrow}" if wider else ""))
        else:
            edge = foot if below else limits.high
            said = f"{what} from {size}"
            captions.append(Caption(xs=xs, ys=[edge] * len(xs), text=f"{said} on{wider} {arrow}", above=below, short=f"{said} on {arrow}" if wider else ""))
    return captions


def _size(log: float) -> str:
    return power(log) if abs(log - round(log)) < 0.02 else number(float(f"{10.0**log:.1e}"), 2)


def _wider(edges: Sequence[float]) -> str:
    """By how much the band of fluctuation moves the limit on the way to the input, where a line can be seen to bend."""
    return "" if abs(edges[0] - edges[-1]) < _BENT else f", widened by the band to {_size(edges[0])} at the input"


def _edges(code: str, report: Report, bands: Sequence[float]) -> list[float]:
    """The first limit at each layer, in decades, wider by the band. Empty where there is none, or the report was not judged by this rule. What an earlier
    version wrote holds no limits: there it is the table's, moved as the findings say that it was, and empty where it was another that they do not tell."""
    rule = _rule(code, report)
    if rule is None or rule.first is None or not report.layers:
        return []
    if report.limits is not None:
        log = decades(rule.first)
        return [] if log is None else [log + (-band if rule.below else band) for band in bands]
    judged = {layer.name: (layer, band) for layer, band in zip(report.layers, bands, strict=True) if not rule.below or not _bypassed(layer, report)}
    moves = [m for f in report.findings if f.rule == code and f.where in judged and (m := _moved(f, rule, judged[f.where][1])) is not None]
    sign, first = -1.0 if rule.below else 1.0, (decades(rule.first) or 0.0) + (moves[0] if moves else 0.0)
    named = {f.where for f in report.findings if f.rule in (code, "GF105", "GF108")}
    broken = [layer for layer, band in judged.values() if layer.gain and layer.name not in named and sign * (_log(layer) - first) > band + _SAME]
    return [] if broken else [first + sign * band for band in bands]


def _rule(code: str, report: Report) -> Rule | None:
    """With the limits that the report holds; None where it was not judged by that rule, and as the table has it where the report does not say."""
    if report.limits is None:
        return RULES[code]
    held = report.limits.get(code)
    return None if held is None else replace(RULES[code], warning=held.warning, error=held.error, note=held.note)


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
