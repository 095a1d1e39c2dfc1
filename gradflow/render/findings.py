"""The findings of a report: those of one rule fold into one entry, with the fix and the place; as facts, and as lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.style import Style
from rich.text import Text

from gradflow.records import Finding, Location, Severity
from gradflow.render import folding, summary, tables
from gradflow.render.columns import wrap
from gradflow.render.names import clean, link, place, shorten

COLORS: Mapping[str, str] = {"error": "bold red", "warning": "bold yellow", "info": "bold cyan"}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Findings of one rule and severity.

    Attributes:
        times: how many they are.
        names: where, folded.
        message: of the first of them, with the values of all and the limits that they broke.
        locations: of all, without repeats.
    """

    rule: str
    severity: Severity
    times: int
    names: Sequence[str]
    message: str
    fix: str
    locations: Sequence[Location]

    @property
    def elsewhere(self) -> str:
        """How many places there are beside the first: ` and 3 more places`."""
        return summary.more(len(self.locations) - 1, "place")


def entries(findings: Sequence[Finding], unfold: bool = False) -> list[Entry]:
    """The findings in their order, those of one rule and severity as one unless `unfold`."""
    groups: dict[object, list[Finding]] = {}
    for i, finding in enumerate(findings):
        groups.setdefault(i if unfold else (finding.rule, finding.severity), []).append(finding)
    return [_entry(group) for group in groups.values()]


def _entry(group: Sequence[Finding]) -> Entry:
    first = group[0]
    same = len({f.message for f in group}) == 1
    return Entry(
        rule=first.rule,
        severity=first.severity,
        times=len(group),
        names=folding.pattern(dict.fromkeys(f.where for f in group)),
        message=(clean(first.message) if same else summary.told(first)) + summary.limits(group),
        fix=clean(first.fix),
        locations=list(dict.fromkeys(f.location for f in group if f.location)),
    )


def lines(findings: Sequence[Finding], view: tables.View) -> list[Text]:
    """The findings in their order; those of one rule and severity fold into one entry. Nothing where there is none."""
    shown = [Text(f"Findings  {len(findings)}", style="bold underline")] if findings else []
    for entry in entries(findings, view.unfold):
        shown += _lines(entry, view)
    return shown


def located(location: Location | None, view: tables.View) -> Text:
    """`file:line`, dim, and a hyperlink where the view has links."""
    return Text(place(location), style=Style(dim=True, link=link(location) if view.links else None))


def _lines(entry: Entry, view: tables.View) -> list[Text]:
    head = Text.assemble((f"{entry.severity} {entry.rule}", COLORS[entry.severity]))
    head.append(f" ×{entry.times}" if entry.times > 1 else "", style="bold")
    head.append("  " + summary.listed([shorten(n, view.width - 8) for n in entry.names]))
    shown = wrap(head, view.width, 2)
    body = [Text(entry.message), Text.assemble(("Fix: ", "bold"), entry.fix) if entry.fix else Text("")]
    if entry.locations:
        body.append(Text.assemble(located(entry.locations[0], view), entry.elsewhere))
    for part in body:
        shown += wrap(part, view.width, 6) if part else []
    return shown
