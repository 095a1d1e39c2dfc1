"""What a notebook shows of a report. Records know no renderer: `import gradflow` gives `Report` these views, and each imports its own when it is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gradflow.records import Report


def _html(report: Report) -> str:
    from gradflow.render.notebook import html

    return html.render(report)


def _png(report: Report) -> bytes:
    from gradflow.render.figure import page

    return page.render(report)


VIEWS: Mapping[str, Callable[[Report], object]] = {"text/html": _html, "image/png": _png}
