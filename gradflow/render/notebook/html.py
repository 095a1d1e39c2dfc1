"""A Report as HTML for a notebook: what the terminal's opening says, the gain over depth as a drawing, and findings and tables behind folds.

It brings its style along, runs no script and fetches nothing. Text takes the page's own colour, so that light and dark pages are alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape as entities

from gradflow.records import Location, Report, Severity, Verdict
from gradflow.render import findings, headline, measures, summary, tables
from gradflow.render.columns import Column
from gradflow.render.names import clean, place, visible
from gradflow.render.notebook import curve
from gradflow.render.numbers import number

_WIDTH = 100
_EVERY_ROW = 1_000_000  # a fold scrolls: no row of the folded tables is left out
_COLORS: Mapping[Verdict, str] = {"sick": "#c62828", "warnings": "#b26a00", "healthy": "#2e7d32"}
_MARKS: Mapping[Severity, str] = {"error": "bad", "warning": "weak", "info": "note"}
_STYLES: Mapping[str, str] = {"red": "bad", "yellow": "weak", "": ""}
_CSS = """
.gradflow { color: inherit; font-size: 13px; line-height: 1.45; max-width: 72em; }
.gradflow code { background: none; color: inherit; padding: 0; font-size: 12px; }
.gradflow .verdict { color: #fff; border-radius: 3px; padding: 1px 7px; font-weight: 600; }
.gradflow table { border-collapse: collapse; margin: 4px 0; color: inherit; }
.gradflow table td, .gradflow table th { text-align: right; padding: 1px 10px 1px 0; background: none; color: inherit; border: 0; vertical-align: top; }
.gradflow table .left { text-align: left; }
.gradflow table tr { background: none; border-top: 1px solid rgba(128, 128, 128, .25); }
.gradflow .rows { overflow: auto; max-height: 32em; }
.gradflow .rows td, .gradflow th { white-space: nowrap; }
.gradflow summary { cursor: pointer; font-weight: 600; }
.gradflow .said { opacity: .72; margin: 2px 0; }
.gradflow .bad, .gradflow .weak, .gradflow .note { border-left: 3px solid #e53935; padding-left: 6px; }
.gradflow .weak { border-color: #fb8c00; }
.gradflow .note { border-color: #039be5; }
.gradflow ul { list-style: none; margin: 4px 0; padding: 0; }
.gradflow li { margin: 6px 0; }
"""


def render(report: Report) -> str:
    """The report as one `<div>`; every name in it is text."""
    view = tables.View(width=_WIDTH, unfold=False, links=False, most_rows=_EVERY_ROW)
    name = f"<b>{_text(report.target.model_class)}</b>"
    badge = f'<span class="verdict" style="background:{_COLORS[report.verdict]}">{report.verdict.upper()}</span>'
    parts = [
        f"<style>{_CSS}</style>",
        f"<p>{badge} {name} {_text(summary.verdict(report))}</p>",
        _opening(report),
        curve.draw(report),
        _findings(report),
        *(_table(table) for table in tables.every(report, view)),
        _run(report),
    ]
    return f'<div class="gradflow">{"".join(parts)}</div>'


def _text(text: str) -> str:
    return entities(visible(clean(text)))


def _opening(report: Report) -> str:
    rows = []
    for entry in headline.entries(report):
        name = f"<code>{_text(entry.name)}</code> " if entry.name else ""
        text = f"<b>{_text(entry.text)}</b>" if entry.tone == "step" else _text(entry.text)
        rows.append(f'<tr><th class="left">{entry.label}</th><td class="left">{name}{text}{_at(entry.location)}</td></tr>')
    return f"<table>{''.join(rows)}</table>"


def _at(location: Location | None) -> str:
    """The place as text: what a notebook shows may not open files."""
    return f' <code class="said">{_text(place(location))}</code>' if location else ""


def _findings(report: Report) -> str:
    if not report.findings:
        return ""
    entries = "".join(_finding(entry) for entry in findings.entries(report.findings))
    return _folded("Findings", str(len(report.findings)), f"<ul>{entries}</ul>", opened=report.verdict != "healthy")


def _finding(entry: findings.Entry) -> str:
    times = f" ×{entry.times}" if entry.times > 1 else ""
    fix = f"<br><b>Fix:</b> {_text(entry.fix)}" if entry.fix else ""
    more = f" and {summary.plural(len(entry.locations) - 1, 'more place')}" if len(entry.locations) > 1 else ""
    at = f"<br>{_at(entry.locations[0])}{more}" if entry.locations else ""
    head = f"<b>{entry.severity} {_text(entry.rule)}{times}</b> <code>{_text(summary.listed(entry.names))}</code>"
    return f'<li class="{_MARKS[entry.severity]}">{head}<br>{_text(entry.message)}{fix}{at}</li>'


def _table(table: tables.Table) -> str:
    body = ""
    if table.columns:
        heads = "".join(f"<th{_side(c)}>{_text(c.header)}</th>" for c in table.columns)
        rows = "".join(f"<tr>{_row(table.columns, i)}</tr>" for i in range(len(table.columns[0].cells)))
        body = f'<div class="rows"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    notes = "".join(f'<p class="said">{_text(note)}</p>' for note in [*table.notes, *table.dashes(())])
    return _folded(table.title, table.count, body + notes)


def _row(columns: Sequence[Column], row: int) -> str:
    cells = []
    for column in columns:
        text = _text(column.cells[row])
        mark = _STYLES.get(column.styles[row], "") if column.styles else ""
        marked = f' class="{mark}"' if mark else ""
        named = f"<code{marked}>{text}</code>" if column.rank == 0 or column.tail else text
        cells.append(f"<td{_side(column)}>{named}</td>")
    return "".join(cells)


def _side(column: Column) -> str:
    return "" if column.right else ' class="left"'


def _run(report: Report) -> str:
    run, environment = report.run, report.environment
    shares = measures.samples(report)
    facts = [*([f"share {shares}"] if shares else []), *run.notes]
    facts.append(f"forward {number(run.forward_s, 3)} s, backward {number(run.backward_s, 3)} s, analysis {number(run.analysis_s, 3)} s")
    facts.append(f"gradflow {report.gradflow_version}, torch {environment.torch}, python {environment.python}")
    return "".join(f'<p class="said">{_text(fact)}</p>' for fact in facts)


def _folded(title: str, count: str, body: str, *, opened: bool = False) -> str:
    return f"<details{' open' if opened else ''}><summary>{_text(title)} {_text(count)}</summary>{body}</details>"
