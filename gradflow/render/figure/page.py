"""A Report as one picture: what is wrong with the model, and where. Uses matplotlib's objects, never pyplot, so it leaves no global state behind."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from matplotlib.figure import Figure

from gradflow.records import Report
from gradflow.render.figure import PanelName, ThemeName, header
from gradflow.render.figure.canvas import save
from gradflow.render.figure.layout import laid_out
from gradflow.render.figure.panels import height_of, show, wanted
from gradflow.render.figure.theme import THEMES, applied


def render(report: Report, *, theme: ThemeName = ThemeName.LIGHT, panels: Sequence[PanelName] = (), ending: str = ".png", dpi: int = 150) -> bytes:
    """The report as a picture 9 inches wide; the same report gives the same bytes.

    Args:
        theme: its colours.
        panels: those to draw, without the header; none for the whole page.
        ending: ".png", ".svg" or ".pdf".
        dpi: pixels per inch of a PNG.
    """
    with applied(THEMES[theme]):
        return save(figure(report, theme=theme, panels=panels, dpi=dpi), ending)


def figure(report: Report, *, theme: ThemeName = ThemeName.LIGHT, panels: Sequence[PanelName] = (), dpi: int = 150) -> Figure:
    """The figure that `render` saves, laid out."""
    chosen = THEMES[theme]
    names = list(dict.fromkeys(panels)) or wanted(report)
    with applied(chosen):
        heading = None if panels else partial(header.of_report, report, theme=chosen)
        return laid_out(heading, [(partial(show, report=report, name=name, theme=chosen), height_of(name, report)) for name in names], chosen, dpi)
