"""One panel of a report for a user's own figure."""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

from matplotlib.axes import Axes

from gradflow.errors import UsageError
from gradflow.records import Report
from gradflow.render.figure import PanelName, ThemeName, keys, labels, page
from gradflow.render.figure.canvas import renderer
from gradflow.render.figure.panels import DEPTH, show
from gradflow.render.figure.theme import THEMES

_DPI = 100
Name = TypeVar("Name", bound=Enum)


def plot(report: Report, ax: Axes | None = None, *, panel: str = "layers", theme: str = "light") -> Axes:
    """Draw one panel of a report; `gradflow plot FILE --panel` draws the same into a file.

    Args:
        report: what was measured.
        ax: the axes to draw on, with a title, a key and names; their size should be settled before, for names are placed by it. None makes a figure of its
            own, which is `.figure` of what is returned.
        panel: "layers", "skips", "lambda", "shares" or "updates".
        theme: "light" or "dark", for axes on a light or a dark figure: the figure's own colour is left to whoever made it.

    Returns:
        The axes. No setting of matplotlib's is changed, and no figure is registered with pyplot.

    Raises:
        UsageError: there is no such panel or theme, or `report` is none.
    """
    if not isinstance(report, Report):
        raise UsageError(option="report", value=type(report).__name__, expected="a Report; Report.from_json reads one that was stored as JSON")
    name, chosen = _named("panel", panel, PanelName), _named("theme", theme, ThemeName)
    if ax is None:
        return page.figure(report, theme=chosen, panels=(name,), dpi=_DPI).axes[0]
    colors = THEMES[chosen]
    drawn = show(ax, report, name, colors)
    if not ax.axison:
        return ax
    for text in (ax.set_title(drawn.title, loc="left"), ax.set_ylabel(drawn.quantity), ax.set_xlabel(DEPTH)):
        keys.plain(text, colors)
    fig = ax.figure.figure
    if (engine := fig.get_layout_engine()) is not None:
        engine.execute(fig)  # names are placed by what the axes measure: they should have their size
    measure = renderer(fig)
    labels.place(ax, measure, drawn.labels, colors, keys.draw_box(ax, drawn.keys, measure, colors))
    return ax


def _named(option: str, value: str, names: type[Name]) -> Name:
    try:
        return names(value)
    except ValueError as error:
        raise UsageError(option=option, value=value, expected="one of " + ", ".join(str(n.value) for n in names)) from error
