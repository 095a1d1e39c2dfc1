"""What a notebook and `print` show of a report. Records know no renderer: `import gradflow` gives `Report` these views, each of which imports its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gradflow.records import Report


def _text(report: Report) -> str:
    from gradflow.render import opening

    return opening.text(report)


def _html(report: Report) -> str:
    from gradflow.render.notebook import html

    return html.render(report)


def _png(report: Report) -> bytes:
    from gradflow.render.figure import page

    return page.render(report)


VIEWS: Mapping[str, Callable[[Report], object]] = {"text/plain": _text, "text/html": _html, "image/png": _png}
