"""A Report as HTML for a notebook: what the terminal's opening says, the gain over depth as a drawing, and findings and tables behind folds.

It brings its style along, runs no script and fetches nothing. Text takes the page's own colour, so that light and dark pages are alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape as entities

from gradflow.numbers import number
from gradflow.records import Location, Report, Severity, Verdict
from gradflow.render import findings, headline, measures, summary, tables
from gradflow.render.columns import Column
from gradflow.render.names import clean, place, visible
from gradflow.render.notebook import curve

_WIDTH = 100
_EVERY_ROW = 1_000_000  # a fold scrolls: no row of the folded tables is left out
_COLORS: Mapping[Verdict, str] = {"sick": "#c62828", "warnings": "#b26a00", "healthy": "#2e7d32"}
_MARKS: Mapping[Severity, str] = {"error": "bad", "warning": "weak", "info": "note"}
_STYLES: Mapping[str, str] = {"red": "bad", "yellow": "weak", "": ""}
_CSS = """
.gradflow { color: inherit; font-size: 13px; line-height: 1.45; max-width: 72em; }
.gradflow.gradflow code { background: none; color: inherit; padding: 0; font-size: 12px; }
.gradflow.gradflow table { border-collapse: collapse; margin: 4px 0; color: inherit; }
.gradflow.gradflow table td, .gradflow.gradflow table th {
  text-align: right; padding: 1px 10px 1px 0; background: none; color: inherit; border: 0; vertical-align: top; white-space: nowrap;
}
.gradflow.gradflow table.opening td { white-space: normal; }
.gradflow.gradflow table tr { background: none; border-top: 1px solid rgba(128, 128, 128, .25); }
.gradflow .rows { overflow: auto; max-height: 32em; }
.gradflow summary { cursor: pointer; font-weight: 600; }
.gradflow .said { opacity: .72; margin: 2px 0; }
.gradflow .finding { margin: 6px 0; }
.gradflow .bad, .gradflow .weak, .gradflow .note { border-left: 3px solid #e53935; padding-left: 6px; }
.gradflow .weak { border-color: #fb8c00; }
.gradflow .note { border-color: #039be5; }
.gradflow .plot { position: relative; max-width: 800px; margin: 6px 0; font-size: 11px; }
.gradflow .plot .word, .gradflow .plot .mark { position: absolute; transform: translate(-50%, -50%); }
.gradflow .plot .word { white-space: nowrap; }
.gradflow .plot .tick { transform: translate(-100%, -50%); }
.gradflow .plot .start { transform: translate(0, -50%); }
.gradflow .plot .word::before { content: attr(data-word); }
.gradflow .plot .mark { width: 4px; height: 4px; border-radius: 50%; background: currentColor; }
.gradflow .plot .error, .gradflow .plot .warning { width: 6px; height: 6px; background: #e53935; }
.gradflow .plot .warning { background: #fb8c00; }
"""
_LEFT = ' style="text-align:left"'  # with the element: a page that strips the style sheet keeps it


def render(report: Report) -> str:
    """The report as one `<div>`; every name in it is text."""
    view = tables.View(width=_WIDTH, unfold=False, links=False, most_rows=_EVERY_ROW)
    name = f"<b>{_text(report.target.model_class)}</b>"
    badge = f'<b style="background-color:{_COLORS[report.verdict]};color:#fff;padding:1px 7px;border-radius:3px">{report.verdict.upper()}</b>'
    parts = [
        f"<style>{_CSS}</style>",
        f"<p>{badge} {name} {_text(summary.verdict(report))}</p>",
        _headline(report),
        _opening(report),
        curve.draw(report),
        _findings(report),
        *(_table(table) for table in tables.every(report, view)),
        _run(report),
    ]
    return f'<div class="gradflow">{"".join(parts)}</div>'


def _text(text: str) -> str:
    return entities(visible(clean(text)))


def _headline(report: Report) -> str:
    """The worst alarm as a sentence, and its place."""
    alarms = summary.alarms(report)
    return f"<p><b>{_text(summary.told(alarms[0]))}</b>{_at(alarms[0].location)}</p>" if alarms else ""


def _opening(report: Report) -> str:
    rows = []
    for entry in headline.entries(report):
        name = f"<code>{_text(entry.name)}</code>: " if entry.name else ""
        text = f"<b>{_text(entry.text)}</b>" if entry.tone == "step" else _text(entry.text)
        rows.append(f"<tr><th{_LEFT}>{entry.label}</th><td{_LEFT}>{name}{text}{_at(entry.location)}</td></tr>")
    return f'<table class="opening">{"".join(rows)}</table>'


def _at(location: Location | None) -> str:
    """The place as text: what a notebook shows may not open files."""
    return f' <code class="said">{_text(place(location))}</code>' if location else ""


def _findings(report: Report) -> str:
    if not report.findings:
        return ""
    entries = "".join(_finding(entry) for entry in findings.entries(report.findings))
    return _folded("Findings", str(len(report.findings)), entries, opened=report.verdict != "healthy")


def _finding(entry: findings.Entry) -> str:
    times = f" ×{entry.times}" if entry.times > 1 else ""
    fix = f"<br><b>Fix:</b> {_text(entry.fix)}" if entry.fix else ""
    at = f"<br>{_at(entry.locations[0])}{entry.elsewhere}" if entry.locations else ""
    head = f"<b>{entry.severity} {_text(entry.rule)}{times}</b> <code>{_text(summary.listed(entry.names))}</code>"
    return f'<p class="finding {_MARKS[entry.severity]}">{head}<br>{_text(entry.message)}{fix}{at}</p>'


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
    return "" if column.right else _LEFT


def _run(report: Report) -> str:
    run, environment = report.run, report.environment
    shares = measures.samples(report)
    facts = [*([f"share {shares}"] if shares else []), *run.notes]
    facts.append(f"forward {number(run.forward_s, 3)} s, backward {number(run.backward_s, 3)} s, analysis {number(run.analysis_s, 3)} s")
    facts.append(f"gradflow {report.gradflow_version}, torch {environment.torch}, python {environment.python}")
    return "".join(f'<p class="said">{_text(fact)}</p>' for fact in facts)


def _folded(title: str, count: str, body: str, *, opened: bool = False) -> str:
    return f"<details{' open' if opened else ''}><summary>{_text(title)} {_text(count)}</summary>{body}</details>"
