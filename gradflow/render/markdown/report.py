"""A Report as the comment on a pull request: verdict, what stands out and the next step in sight, every table behind a fold.

Elements and entities are those that GitHub and GitLab let through; nothing in it is read from a name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from gradflow.blocks import called
from gradflow.difference import Difference
from gradflow.numbers import defined, number, span, sparkline
from gradflow.records import Location, Report, Severity, Verdict
from gradflow.render import difference, findings, headline, measures, summary, tables
from gradflow.render.check.words import title
from gradflow.render.columns import Column
from gradflow.render.markdown.escape import code, escape
from gradflow.render.names import clean, place

WIDTH = 100
_BARS = 60
_MOST_NAMES = 8
_VERDICTS: Mapping[Verdict, str] = {"sick": "❌", "warnings": "⚠️", "healthy": "✅"}
_SEVERITIES: Mapping[Severity, str] = {"error": "❌", "warning": "⚠️", "info": "ℹ️"}
_STYLES: Mapping[str, str] = {"red": "❌ ", "yellow": "⚠️ ", "": ""}
_KINDS: Mapping[Severity, str] = {"error": "error", "warning": "warning", "info": "note"}
Source = Callable[[Location | None], str | None]


def render(report: Report, *, source: Source, unfold: bool = False, against: Difference | None = None) -> str:
    """The report as GitHub-flavoured markdown.

    Args:
        source: the link of a location, None where it has none.
        unfold: whether every layer, skip and finding gets a row of its own.
        against: what changed from an older report, to be told as well.
    """
    view = tables.View(width=WIDTH, unfold=unfold, links=True, url=source)
    head = f"## {_VERDICTS[report.verdict]} gradflow: {code(report.target.model_class)} {_words(report)}, {escape(summary.verdict(report))}\n"
    blocks = [
        head,
        _standing_out(report, source),
        _sparkline(report),
        _changed(against) if against is not None else "",
        _findings(report, view),
        *(_table(table) for table in tables.every(report, view)),
        _run(report),
    ]
    return "\n".join(block for block in blocks if block)


def _words(report: Report) -> str:
    """`is sick (1 error, 28 warnings)`."""
    counts = Counter(f.severity for f in report.findings)
    told = ", ".join(summary.plural(counts[kind], word) for kind, word in _KINDS.items() if counts[kind])
    verdict = {"sick": "is sick", "warnings": "has warnings", "healthy": "is healthy"}[report.verdict]
    return f"{verdict} ({told})" if told else verdict


def _standing_out(report: Report, source: Source) -> str:
    """The opening's entries as a table of two columns; what was profiled stands at the end of the page."""
    rows = []
    for entry in headline.entries(report):
        if entry.label == "target":
            continue
        name = f"{code(entry.name)} " if entry.name else ""
        text = f"**{escape(entry.text)}**" if entry.tone == "step" else escape(entry.text)
        rows.append(f"| {entry.label} | {name}{text}{_at(entry.location, source, ' · ')} |\n")
    return "| | |\n| --- | --- |\n" + "".join(rows)


def _sparkline(report: Report) -> str:
    gains = [layer.gain for layer in report.layers]
    if not any(gains):
        return ""
    return f"Gradient gain over depth: input <code>{sparkline(gains, _BARS)}</code> output, {span([g for g in defined(gains) if g], 3)}, log\n"


def _changed(found: Difference) -> str:
    word = "Worse than" if found.worse else "No worse than"
    lines = [escape(line) for line in difference.render(found, width=WIDTH).splitlines()]
    opened = " open" if found.worse else ""
    facts = f"{code(found.before.spec)} before: verdict {found.before.verdict}, severity {number(found.before.severity, 3)}"
    return f"<details{opened}><summary>{word} {facts}</summary>\n\n<pre>{'&#10;'.join(lines)}</pre>\n\n</details>\n"


def _findings(report: Report, view: tables.View) -> str:
    if not report.findings:
        return ""
    return "### Findings\n\n" + "".join(_finding(entry, view.url) for entry in findings.entries(report.findings, view.unfold))


def _finding(entry: findings.Entry, source: Source) -> str:
    names = ", ".join(code(called(name)) for name in entry.names[:_MOST_NAMES])
    more = summary.more(len(entry.names) - _MOST_NAMES)
    times = f" ×{entry.times}" if entry.times > 1 else ""
    lines = [f"- {_SEVERITIES[entry.severity]} **{escape(title(entry.rule))}**{times} {names}{more}", escape(entry.message)]
    lines += [f"*Fix:* {escape(entry.fix)}"] if entry.fix else []
    if entry.locations:
        lines.append(f"*At:* {_at(entry.locations[0], source)}{entry.elsewhere}")
    return "<br>".join(lines) + "\n"


def _table(table: tables.Table) -> str:
    """One table behind its heading; numbers to the right, names as code."""
    body = ""
    if table.columns:
        rows = range(len(table.columns[0].cells))
        cells = [[_heading(c) for c in table.columns], ["---:" if c.right else "---" for c in table.columns]]
        cells += [[_cell(c, row) for c in table.columns] for row in rows]
        body = "".join(f"| {' | '.join(row)} |\n" for row in cells) + "\n"
    notes = "".join(f"- {escape(note)}\n" for note in [*table.notes, *table.dashes(())])
    return _folded(f"{table.title}: {escape(table.count)}", body + notes)


def _heading(column: Column) -> str:
    return escape(column.header)


def _cell(column: Column, row: int) -> str:
    text = column.cells[row]
    if column.header == "location":
        link = column.links[row] if column.links else None
        return (f"[{code(text)}]({link})" if link else code(text)) if text else ""
    mark = _STYLES.get(column.styles[row], "") if column.styles else ""
    return mark + code(text) if column.rank == 0 else escape(text)


def _at(location: Location | None, source: Source, before: str = "") -> str:
    if location is None:
        return ""
    link = source(location)
    shown = code(place(location))
    return before + (f"[{shown}]({link})" if link else shown)


def _run(report: Report) -> str:
    run, environment = report.run, report.environment
    shares = measures.samples(report)
    facts = [*summary.target(report), *([f"share {shares}"] if shares else []), *(f"note: {clean(note)}" for note in run.notes)]
    facts.append(f"forward {number(run.forward_s, 3)} s, backward {number(run.backward_s, 3)} s, analysis {number(run.analysis_s, 3)} s")
    facts.append(f"gradflow {report.gradflow_version}, torch {environment.torch}, python {environment.python}, {environment.platform}")
    return _folded("Run", "".join(f"- {escape(clean(fact))}\n" for fact in facts))


def _folded(heading: str, body: Sequence[str] | str) -> str:
    return f"<details><summary>{heading}</summary>\n\n{body}\n</details>\n"
