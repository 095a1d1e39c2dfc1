"""How a report opens on a terminal: the verdict, then what stands out, what to do next, and the gain over depth, before any table."""

from __future__ import annotations

from collections.abc import Mapping

from rich.text import Text

from gradflow.numbers import defined, span, sparkline
from gradflow.records import Report
from gradflow.render import headline, summary, tables
from gradflow.render.columns import printed, wrap
from gradflow.render.findings import located
from gradflow.render.names import clean, shorten

STYLES: Mapping[str, str] = {"sick": "bold white on red", "warnings": "bold black on yellow", "healthy": "bold white on green"}
_TONES: Mapping[str, str] = {"": "", "incomplete": "yellow", "step": "bold"}
_LABEL = 15


def lines(report: Report, view: tables.View, *, options: bool = True) -> list[Text]:
    """The verdict, then one entry each on the target, coverage, the worst, the next step, and the gain over depth.

    Args:
        options: whether the reader sits at the command line.
    """
    name = shorten(clean(report.target.model_class), view.width // 2)
    verdict = Text.assemble((f" {report.verdict.upper()} ", STYLES[report.verdict]), "  ", (name, "bold"))
    verdict.append(f"  {summary.verdict(report)}")
    shown = [verdict]
    for entry in headline.entries(report, options=options):
        shown += wrap(_body(entry, view), view.width, _LABEL, entry.label)
    return shown + _sparkline(report, view)


def text(report: Report, *, width: int = 80) -> str:
    """The opening alone, without colour, no line of it longer than `width` or ended by a line break."""
    return printed(lines(report, tables.View(width=width, unfold=False, links=False), options=False), width, color=False).rstrip()


def _body(entry: headline.Entry, view: tables.View) -> Text:
    text = Text(f"{entry.name}: {entry.text}" if entry.name else entry.text, style=_TONES[entry.tone])
    if entry.location is not None:
        text.append("  ")
        text.append_text(located(entry.location, view))
    return text


def _sparkline(report: Report, view: tables.View) -> list[Text]:
    gains = [layer.gain for layer in report.layers]
    scale = f" {span([g for g in defined(gains) if g], 3)}"
    bars = sparkline(gains, view.width - _LABEL - len(scale) - 14)
    return [Text.assemble(("gain (log)".ljust(_LABEL), "bold"), f"input {bars} output{scale}")] if any(gains) else []
