"""Alarms on skips: a ring around each mark, and of each rule the worst with its name; those about branches in the panel of shares, the others in that of λ."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gradflow.records import Finding, Report, Severity, Skip
from gradflow.render.figure import loops, marks
from gradflow.render.figure.labels import Label
from gradflow.render.figure.marks import rule_name
from gradflow.render.figure.theme import Theme
from gradflow.render.summary import alarms

_BRANCHES = frozenset({"GF209", "GF210", "GF211", "GF212"})


def alarms_of(
    report: Report, places: Mapping[str, tuple[float, float]], said: Callable[[Skip], str], theme: Theme, *, branches: bool
) -> tuple[dict[Severity, list[tuple[float, float]]], list[Label]]:
    """Where rings stand, and names: of each rule the worst skip, or the folded names of many; those of loops are named by the panel of the trend.

    Args:
        places: the mark of each skip on the axes, by its id.
        said: what is said of a skip beside its name.
        branches: whether those about branches are meant, or those about skips.
    """
    known, told = owners(report), {s.id for s in loops.skips(report)}
    by_rule: dict[tuple[str, Severity], dict[str, Finding]] = {}
    worst_of: dict[str, tuple[Severity, tuple[float, float]]] = {}
    for f in alarms(report):
        skip = known.get(f.where) if marks.subject(f.rule) == "skip" and (f.rule in _BRANCHES) == branches else None
        if skip is not None and skip.id in places:
            worst_of.setdefault(skip.id, (f.severity, places[skip.id]))
            if skip.id not in told:
                by_rule.setdefault((f.rule, f.severity), {}).setdefault(skip.id, f)
    at: dict[Severity, list[tuple[float, float]]] = {"error": [], "warning": []}
    for severity, point in worst_of.values():
        at[severity].append(point)
    skips = {s.id: s for s in report.skips}
    return at, [_label(hit, skips[next(iter(hit))], places, said, theme) for hit in list(by_rule.values())[: marks.NAMED]]


def owners(report: Report) -> dict[str, Skip]:
    """The skip of each id and of each name."""
    return {s.name: s for s in reversed(report.skips)} | {s.id: s for s in report.skips}


def _label(hit: Mapping[str, Finding], worst: Skip, places: Mapping[str, tuple[float, float]], said: Callable[[Skip], str], theme: Theme) -> Label:
    first, (x, y) = hit[worst.id], places[worst.id]
    text = f"{rule_name(first.rule, len(hit))}: {marks.folded(worst.id, list(hit))}, {'first ' if len(hit) > 1 else ''}{said(worst)}"
    return Label(x=x, y=y, text=text, color=theme.alarm[first.severity], place=marks.line_of(first.location or worst.location))
