"""The run as text for people: a line per target, then each failed one as `gradflow profile` opens it, warnings of others in short, errors, notes, the tally."""

from __future__ import annotations

from collections.abc import Mapping

from rich.text import Text

from gradflow.numbers import number
from gradflow.records import Checks, Outcome, verdict
from gradflow.render import findings, opening, summary, tables
from gradflow.render.check import words
from gradflow.render.columns import GAP, Column, filled, lay_out, printed, wrap
from gradflow.render.names import clean, shorten

NARROWEST = 60
_INDENT = 6
_STYLES: Mapping[str, str] = {"passed": "bold green", "failed": "bold red", "broken": "bold magenta"}


def render(checks: Checks, *, width: int = 80, color: bool = False, unfold: bool = False, links: bool = False) -> str:
    """The run as text.

    Args:
        checks: what to show.
        width: no line is longer, in terminal cells; at least 60.
        color: whether escape codes may be written; without it there are none, links neither.
        unfold: whether every finding gets an entry of its own.
        links: whether locations are hyperlinks (OSC 8).
    """
    view = tables.View(width=max(width, NARROWEST), unfold=unfold, links=links and color)
    blocks = [_targets(checks, view), *(_details(outcome, view) for outcome in checks.outcomes), _closing(checks, view)]
    return printed([line for i, block in enumerate(b for b in blocks if b) for line in ([Text("")] if i else []) + block], view.width, color)


def _targets(checks: Checks, view: tables.View) -> list[Text]:
    outcomes = checks.outcomes
    if not outcomes:
        return []
    columns = [
        Column(header="state", cells=[o.state.upper() for o in outcomes], rank=0, right=False, styles=[_STYLES[o.state] for o in outcomes]),
        Column(header="target", cells=[clean(o.target) for o in outcomes], rank=1, right=False, floor=16),
        Column(header="verdict", cells=["–" if o.report is None else verdict(words.own(o)) for o in outcomes], rank=2, right=False),
        Column(header="severity", cells=[words.decades(o) or "–" for o in outcomes], rank=5),
        Column(header="worst finding", cells=[_worst(o) for o in outcomes], rank=4, right=False, floor=14),
        Column(header="silenced", cells=[words.silenced(o) for o in outcomes], rank=3, right=False),
        Column(header="time", cells=[f"{number(round(o.seconds, 2), 3)} s" for o in outcomes], rank=6),
    ]
    shown = filled(columns)
    fits = sum(c.natural + GAP for c in shown) - GAP <= view.width
    return lay_out(shown if fits else shown[:-1], view.width)[0]  # the time goes before a name is shortened


def _worst(outcome: Outcome) -> str:
    return clean(outcome.trouble.kind) if outcome.trouble else words.worst(outcome)


def _details(outcome: Outcome, view: tables.View) -> list[Text]:
    """Of a failed target its opening and the findings that count, of one that passed its warnings in short, of a broken one the error."""
    head = wrap(Text(clean(outcome.target), style="bold underline"), view.width)
    report, counting = words.report(outcome), words.counting(outcome)
    if outcome.state == "passed":
        warned = [f for f in counting if f.severity != "info"]
        return [*head, *(line for entry in findings.entries(warned, view.unfold) for line in _brief(entry, view))] if warned else []
    if outcome.trouble is None and report is not None:
        return [*head, *opening.lines(report, view), Text(""), *findings.lines(counting, view)]
    assert outcome.trouble is not None
    lines = [*head, *wrap(Text(clean(outcome.trouble.fact), style="bold red"), view.width, _INDENT, "error")]
    lines += wrap(Text(clean(outcome.trouble.remedy)), view.width, _INDENT, "fix") if outcome.trouble.remedy else []
    for line in outcome.trouble.detail.splitlines():
        lines += wrap(Text(words.visible(line.expandtabs())), view.width, _INDENT) or [Text("")]
    return lines


def _brief(entry: findings.Entry, view: tables.View) -> list[Text]:
    """One line where that is wide enough: the rule, how often, its names folded, and the place."""
    line = Text.assemble((f"{entry.severity} {entry.rule}", findings.COLORS[entry.severity]), (f" ×{entry.times}" if entry.times > 1 else "", "bold"))
    where = Text("")
    if entry.locations:
        where = Text.assemble("  ", findings.located(entry.locations[0], view), entry.elsewhere)
    line.append("  " + shorten(summary.listed(entry.names), max(view.width - line.cell_len - where.cell_len - 4, 12)))
    return wrap(line.append_text(where), view.width, 2)


def _closing(checks: Checks, view: tables.View) -> list[Text]:
    lines: list[Text] = []
    for note in checks.notes:
        lines += wrap(Text(clean(note)), view.width, _INDENT, "note")
    quiet = [o for o in checks.outcomes if o.state == "passed" and any(f.severity == "warning" for f in o.findings)]
    if quiet:
        found = sum(f.severity == "warning" for o in quiet for f in o.findings)
        told = f"{summary.plural(found, 'warning')} in targets that passed: gradflow rule CODE explains them, --fail-on warning fails on them."
        lines += wrap(Text(told), view.width, _INDENT, "note")
    return lines + wrap(Text(words.tally(checks), style="bold"), view.width)
