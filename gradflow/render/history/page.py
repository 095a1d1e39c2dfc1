"""A training run's history on one page: when it turned sick and where, the gain over depth and step, and the skips' λ over the same steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator

from gradflow.records import Entry, History
from gradflow.render import summary
from gradflow.render.figure import ThemeName, canvas
from gradflow.render.figure.header import Line, lines_of
from gradflow.render.figure.keys import say
from gradflow.render.figure.marks import Key
from gradflow.render.figure.text import short, width_of
from gradflow.render.figure.theme import THEMES, Theme, applied, dress
from gradflow.render.history import curves, grid, heat, words

WIDTH = 9.0  # inches
_LEFT, _RIGHT = 1.52, 1.5  # inches beside the panels, for names and keys
_TITLE, _GAP, _STRIP, _FOOT = 0.28, 0.14, 0.1, 0.45
_BADGE, _LEADING = 38, 5.0  # points: the verdict's own line, and what a line takes beside its type


@dataclass(frozen=True, kw_only=True)
class _Panel:
    height: float  # inches
    title: str
    draw: Callable[[Axes], Sequence[Key]]


def render(history: History, ending: str = ".png", *, dark: bool = False, dpi: int = 150) -> bytes:
    """The history as a picture, 9 inches wide, in the format of `ending`; the same history gives the same bytes.

    Cells are folded where there are more than pixels: each shows the value farthest from gain 1 that it stands for.
    """
    theme = THEMES[ThemeName.DARK if dark else ThemeName.LIGHT]
    with applied(theme):
        return canvas.save(_figure(history, theme, dpi), ending)


def figure(history: History, *, dark: bool = False, dpi: int = 150) -> Figure:
    """The figure that `render` saves."""
    theme = THEMES[ThemeName.DARK if dark else ThemeName.LIGHT]
    with applied(theme):
        return _figure(history, theme, dpi)


def _figure(history: History, theme: Theme, dpi: int) -> Figure:
    fig = Figure(figsize=(WIDTH, 10), dpi=dpi)
    lines = _lines(history, canvas.renderer(fig), 0.976 * fig.bbox.width, theme)
    head = (_BADGE + sum(line.size + _LEADING for line in lines)) / 72 + 0.06
    panels = _panels(history, theme)
    middle = heat.height_of(len(history.layers))
    height = head + 2 * _TITLE + _STRIP + middle + sum(p.height + _TITLE + _GAP for p in panels) + _FOOT
    fig.set_size_inches(WIDTH, height)
    top = height - head
    loss, *rest = panels
    top = _curves(fig, top, height, loss, history, theme)
    top = _heat(fig, top, height, middle, history, theme, last=not rest)
    for panel in rest:
        top = _curves(fig, top, height, panel, history, theme, last=panel is rest[-1])
    _header(fig, history, lines, theme)
    return fig


def _panels(history: History, theme: Theme) -> list[_Panel]:
    """The loss, which stands above the heat map, and what stands below it."""

    def loss(axes: Axes) -> Sequence[Key]:
        curves.loss(axes, history, theme)
        return ()

    found = [_Panel(height=0.62, title="Loss of the profiled batches", draw=loss)]
    without = sum(all(entry.lams[i] is None for entry in history.entries) for i in range(len(history.skips)))
    if len(history.skips) > without:
        some = f" ({without} more have none)" if without else ""
        title = f"λ of {summary.plural(len(history.skips) - without, 'skip')}{some}"
        found.append(_Panel(height=0.5 if curves.is_flat(history) else 1.35, title=title, draw=lambda axes: curves.lambdas(axes, history, theme)))
    if any(gain is not None for entry in history.entries for gain in entry.highway_gains):
        found.append(_Panel(height=0.95, title="Gain of the highways", draw=lambda axes: curves.highways(axes, history, theme)))
    return found


def _place(fig: Figure, top: float, height: float, inches: float) -> Axes:
    """Axes of so many inches below `top` (inches from the page's foot)."""
    return fig.add_axes((_LEFT / WIDTH, (top - inches) / height, (WIDTH - _LEFT - _RIGHT) / WIDTH, inches / height))


def _curves(fig: Figure, top: float, height: float, panel: _Panel, history: History, theme: Theme, last: bool = False) -> float:
    axes = _place(fig, top - _TITLE, height, panel.height)
    dress(axes, theme)
    axes.set_title(panel.title, fontsize=10, fontweight="bold", loc="left", color=theme.ink, pad=5, parse_math=False)
    axes.grid(axis="y", color=theme.faint, linewidth=0.5)
    _key(axes, panel.draw(axes), theme)
    axes.set_xlim(-0.5, len(history.entries) - 0.5)
    _steps(axes, history.entries, theme, shown=last)
    return top - _TITLE - panel.height - _GAP


def _heat(fig: Figure, top: float, height: float, middle: float, history: History, theme: Theme, last: bool) -> float:
    strip = _place(fig, top - _TITLE, height, _STRIP)
    axes = _place(fig, top - _TITLE - _STRIP, height, middle)
    dress(axes, theme)
    scale = heat.draw(axes, strip, history, theme)
    axes.tick_params(axis="y", length=2)
    axes.grid(visible=False)
    title = f"Gradient gain of {summary.plural(len(history.layers), 'layer')}, input at the top"
    strip.set_title(title, fontsize=10, fontweight="bold", loc="left", color=theme.ink, pad=4)
    _steps(axes, history.entries, theme, shown=last)
    keys = heat.keys(history, theme)
    tall = min(max(middle - 0.45 - 0.19 * len(keys), 0.5), 2.2)
    bar = fig.add_axes(((WIDTH - _RIGHT + 0.14) / WIDTH, (top - _TITLE - _STRIP - 0.2 - tall) / height, 0.13 / WIDTH, tall / height))
    heat.color_bar(fig, bar, scale, theme)
    _key(axes, keys, theme, loc="lower left", at=(1.015, -0.02))
    return top - _TITLE - _STRIP - middle - _GAP


def _steps(axes: Axes, entries: Sequence[Entry], theme: Theme, shown: bool) -> None:
    """Ticks at round steps where the steps are even, at columns where they are not."""
    steps = [entry.step for entry in entries]
    if len(steps) > 1 and grid.is_even(steps) and steps[1] > steps[0]:
        apart = steps[1] - steps[0]
        ticks = [t for t in MaxNLocator(nbins=8, integer=True).tick_values(steps[0], steps[-1]) if steps[0] <= t <= steps[-1]]
        at, names = [(t - steps[0]) / apart for t in ticks], [f"{t:,.0f}" for t in ticks]
        label = f"training step, profiled every {apart:,}" if apart > 1 else "training step"
    else:
        at = sorted({round(i * (len(steps) - 1) / 8) for i in range(9)})
        names, label = [f"{steps[round(i)]:,}" for i in at], "training step, one column for each that was profiled"
    axes.xaxis.set_major_locator(FixedLocator(at))
    axes.set_xticks(at, names if shown else [""] * len(at))
    axes.tick_params(axis="x", length=3 if shown else 0)
    if shown:
        axes.set_xlabel(label, color=theme.ink)


def _key(
    axes: Axes, keys: Sequence[Key], theme: Theme, loc: Literal["upper left", "lower left"] = "upper left", at: tuple[float, float] = (1.015, 1.04)
) -> None:
    """A key to the right of the panel."""
    if not keys:
        return
    box = axes.legend(
        [handle for handle, _ in keys], ["x"] * len(keys), loc=loc, bbox_to_anchor=at, borderaxespad=0, frameon=False, handlelength=1.1,
        handletextpad=0.5, labelspacing=0.3, fontsize=7.5,
    )  # fmt: skip
    say(box, keys, theme)


def _lines(history: History, renderer: RendererBase, width: float, theme: Theme) -> list[Line]:
    """The lines under the verdict: what was wrong first, what to do, what was watched."""
    following = words.next_step(history)
    paragraphs = [
        (words.sentence(history), 10.5, "bold", theme.ink, 2),
        *([(f"Next: {following}", 9.5, "normal", theme.ink, 2)] if following else []),
        (words.facts(history), 8.5, "normal", theme.grey, 2),
    ]
    return lines_of(paragraphs, renderer, width)


def _header(fig: Figure, history: History, lines: Sequence[Line], theme: Theme) -> None:
    """The gravest verdict on its colour, the model and its course, then `lines`."""
    point = 1 / 72 / fig.get_figheight()
    worst = history.worst
    assert worst is not None  # a history has an entry
    face, ink = theme.verdict[worst.verdict]
    fig.add_artist(Rectangle((0, 1 - 4 * point), 1, 4 * point, transform=fig.transFigure, color=face, linewidth=0))
    y = 1 - 20 * point
    verdict = worst.verdict.upper()
    fig.text(
        0.018, y, verdict, fontsize=14, fontweight="bold", color=ink, va="center", parse_math=False,
        bbox={"boxstyle": "round,pad=0.3", "facecolor": face, "edgecolor": "none"},
    )  # fmt: skip
    measure = canvas.renderer(fig)
    right = 0.018 + width_of(verdict, measure, FontProperties(size=14, weight="bold")) / fig.bbox.width + 0.03
    title = f"{short(history.target.model_class, 32)}    {words.title(history)}"
    fig.text(right, y, title, fontsize=12, fontweight="bold", color=theme.ink, va="center", parse_math=False)
    y -= (_BADGE - 20) * point
    for line in lines:
        at = y - line.size / 2 * point
        fig.text(0.012, at, line.text, fontsize=line.size, fontweight=line.weight, color=line.color, va="center", parse_math=False)
        y -= (line.size + _LEADING) * point
