"""One panel of a report for a user's own figure."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure, SubFigure

from gradflow.errors import UsageError
from gradflow.records import Report
from gradflow.render.figure import PanelName, ThemeName, keys, labels, named, page
from gradflow.render.figure.canvas import renderer
from gradflow.render.figure.panels import show
from gradflow.render.figure.theme import THEMES, Theme

_DPI = 100
_PAINTED, _DARK = 0.5, 0.45  # opacity from which a figure has a colour of its own; brightness below which light ink is read better


def plot(report: Report, ax: Axes | None = None, *, panel: str = "layers", theme: str = "light") -> Axes:
    """Draw one panel of a report; `gradflow plot FILE --panel` draws the same into a file.

    Args:
        report: what was measured.
        ax: the axes to draw on, with a title, a key and names; their size should be settled before, for names are placed by it. None makes a figure of its
            own, which is `.figure` of what is returned.
        panel: "calls", "trend", "layers", "skips", "lambda", "shares" or "updates".
        theme: "light" or "dark", the colours of the panel inside the axes. The figure's own colour is left to whoever made it, and what stands on it (title,
            ticks, names of the axes) is in the ink that can be read there.

    Returns:
        The axes. No setting of matplotlib's is changed, and no figure is registered with pyplot.

    Raises:
        UsageError: there is no such panel or theme, or `report` is none.
    """
    if not isinstance(report, Report):
        raise UsageError(option="report", value=type(report).__name__, expected="a Report; Report.from_json reads one that was stored as JSON")
    name, chosen = named("panel", panel, PanelName), named("theme", theme, ThemeName)
    if ax is None:
        return page.figure(report, theme=chosen, panels=(name,), dpi=_DPI).axes[0]
    colors, outside = THEMES[chosen], _outside(ax, chosen)
    drawn = show(ax, report, name, colors)
    if not ax.axison:
        for text in ax.texts:  # the sentence stands on the figure
            text.set_color(outside.ink)
        return ax
    title = ax.set_title(drawn.title, loc="left")
    for text in (title, ax.set_ylabel(drawn.quantity), ax.set_xlabel(drawn.along)):
        keys.plain(text, outside)
    ax.tick_params(colors=outside.grey, labelcolor=outside.ink)
    fig = ax.figure.figure
    if (engine := fig.get_layout_engine()) is not None:
        engine.execute(fig)  # names are placed by what the axes measure: they should have their size
    measure = renderer(fig)
    if title.get_window_extent(measure).width > ax.get_window_extent(measure).width:
        title.set_text(drawn.title.partition(":")[0])
    labels.place(ax, measure, drawn.labels, colors, keys.draw_box(ax, drawn.keys, measure, colors), drawn.captions)
    return ax


def _outside(ax: Axes, chosen: ThemeName) -> Theme:
    """The theme whose ink can be read on what lies around the axes: the nearest part of the figure that is painted, else the paper of the chosen theme."""
    part: Figure | SubFigure = ax.figure
    while to_rgba(part.get_facecolor())[3] < _PAINTED and part.figure is not part:
        part = part.figure
    red, green, blue, opaque = to_rgba(part.get_facecolor())
    if opaque < _PAINTED:
        return THEMES[chosen]
    return THEMES[ThemeName.DARK if 0.2126 * red + 0.7152 * green + 0.0722 * blue < _DARK else ThemeName.LIGHT]
