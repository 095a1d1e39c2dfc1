"""A Report as text for people. Verdict, what stands out and the next step come before any table; no name is read as markup."""

from __future__ import annotations

from rich.text import Text

from gradflow.numbers import number
from gradflow.records import Report
from gradflow.render import findings, measures, opening, tables
from gradflow.render.columns import lay_out, printed, wrap
from gradflow.render.names import clean

NARROWEST = 60
_INDENT = 7


def render(report: Report, *, width: int = 80, color: bool = False, unfold: bool = False, links: bool = False) -> str:
    """The report as text.

    Args:
        report: what to show.
        width: no line is longer, in terminal cells; at least 60.
        color: whether escape codes may be written; without it there are none, links neither.
        unfold: whether every layer, skip and finding gets a row of its own.
        links: whether locations are hyperlinks (OSC 8).
    """
    width = max(width, NARROWEST)
    view = tables.View(width=width, unfold=unfold, links=links and color)
    blocks = [
        opening.lines(report, view),
        findings.lines(report.findings, view),
        *(_table(table, width) for table in tables.every(report, view)),
        _closing(report, view),
    ]
    return printed([line for i, block in enumerate(b for b in blocks if b) for line in ([Text("")] if i else []) + block], width, color)


def _table(table: tables.Table, width: int) -> list[Text]:
    """Heading, table, and notes on what is undefined, dropped or cut."""
    lines, dropped = lay_out(table.columns, width - 2) if table.columns else ([], [])
    notes = [*table.notes, *table.dashes(dropped), *([f"not shown at this width: {', '.join(dropped)}"] if dropped else [])]
    heading = f"{table.title}  {table.count}{' (--all unfolds them)' if table.folded else ''}"
    out = [Text(heading, style="bold underline"), *(Text("  ") + line for line in lines)]
    for note in notes:
        out += wrap(Text(note, style="dim" if table.columns else ""), width, 2)
    return out


def _closing(report: Report, view: tables.View) -> list[Text]:
    run, environment = report.run, report.environment
    shares = measures.samples(report)
    lines = wrap(Text(shares), view.width, _INDENT, "share") if shares else []
    for note in run.notes:
        lines += wrap(Text(clean(note)), view.width, _INDENT, "note")
    times = f"forward {number(run.forward_s, 3)} s, backward {number(run.backward_s, 3)} s, analysis {number(run.analysis_s, 3)} s"
    versions = f"gradflow {report.gradflow_version}, torch {environment.torch}, python {environment.python}"
    return lines + wrap(Text(clean(f"{times} · {versions}"), style="dim"), view.width)
