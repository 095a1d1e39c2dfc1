"""A training run's history on one page: when it turned sick and where, the gain over depth and step, and the skips' λ over the same steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import FixedLocator, MaxNLocator

from gradflow.records import Entry, History
from gradflow.render import summary
from gradflow.render.figure import ThemeName, canvas, header
from gradflow.render.figure.keys import say
from gradflow.render.figure.layout import WIDTH
from gradflow.render.figure.marks import Key
from gradflow.render.figure.text import width_of
from gradflow.render.figure.theme import THEMES, Theme, applied, dress
from gradflow.render.history import curves, grid, heat, words

_LEFT, _RIGHT = 1.52, 1.5  # inches beside the panels, for names and keys
_TITLE, _GAP, _STRIP, _FOOT = 0.28, 0.14, 0.1, 0.45
_SIZE = 10.0  # points: of a title


@dataclass(frozen=True, kw_only=True)
class _Panel:
    height: float  # inches
    title: str
    quantity: str
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
    measure = canvas.renderer(fig)
    head = _header(history, measure, theme)
    panels = _panels(history, theme)
    middle = heat.height_of(len(history.layers))
    height = head.height / 72 + 2 * _TITLE + _STRIP + middle + sum(p.height + _TITLE + _GAP for p in panels) + _FOOT
    fig.set_size_inches(WIDTH, height)
    top = height - head.height / 72
    loss, *rest = panels
    top = _curves(fig, top, height, loss, history, theme)
    top = _heat(fig, top, height, middle, history, theme, last=not rest)
    for panel in rest:
        top = _curves(fig, top, height, panel, history, theme, last=panel is rest[-1])
    header.draw(fig, head, measure, theme)
    return fig


def _panels(history: History, theme: Theme) -> list[_Panel]:
    """The loss, which stands above the heat map, and what stands below it."""

    found = [_Panel(height=0.62, title="Loss", quantity="of the profiled batches", draw=lambda axes: curves.loss(axes, history, theme))]
    without = sum(all(entry.lams[i] is None for entry in history.entries) for i in range(len(history.skips)))
    if len(history.skips) > without:
        some = f" ({without} more have none)" if without else ""
        title = f"λ of {summary.plural(len(history.skips) - without, 'skip')}{some}"
        height = 0.5 if curves.is_flat(history) else 1.35
        found.append(_Panel(height=height, title=title, quantity="Σ⟨s,g⟩ ÷ Σ⟨g,g⟩", draw=lambda axes: curves.lambdas(axes, history, theme)))
    if any(gain is not None for entry in history.entries for gain in entry.highway_gains):
        found.append(
            _Panel(height=0.95, title="Gain of the highways", quantity="what the skips alone pass on", draw=lambda axes: curves.highways(axes, history, theme))
        )
    return found


def _place(fig: Figure, top: float, height: float, inches: float) -> Axes:
    """Axes of so many inches below `top` (inches from the page's foot)."""
    return fig.add_axes((_LEFT / WIDTH, (top - inches) / height, (WIDTH - _LEFT - _RIGHT) / WIDTH, inches / height))


def _curves(fig: Figure, top: float, height: float, panel: _Panel, history: History, theme: Theme, last: bool = False) -> float:
    axes = _place(fig, top - _TITLE, height, panel.height)
    dress(axes, theme)
    _title(axes, panel.title, panel.quantity, theme)
    axes.grid(axis="y", color=theme.faint, linewidth=0.5)
    _key(axes, panel.draw(axes), theme)
    axes.set_xlim(-0.5, len(history.entries) - 0.5)
    curves.turn(axes, history, theme)
    _steps(axes, history.entries, theme, shown=last)
    return top - _TITLE - panel.height - _GAP


def _title(axes: Axes, title: str, quantity: str, theme: Theme, pad: float = 5.0) -> None:
    """What a panel shows, and of what quantity."""
    axes.set_title(title, fontsize=_SIZE, fontweight="bold", loc="left", color=theme.ink, pad=pad, parse_math=False)
    fig = axes.figure.figure
    after = width_of(title, canvas.renderer(fig), FontProperties(size=_SIZE, weight="bold")) * 72 / fig.dpi + 9
    axes.annotate(
        quantity, (0, 1), (after, pad), xycoords="axes fraction", textcoords="offset points", fontsize=8.5, color=theme.grey, parse_math=False,
        va="baseline", annotation_clip=False,
    )  # fmt: skip


def _heat(fig: Figure, top: float, height: float, middle: float, history: History, theme: Theme, last: bool) -> float:
    strip = _place(fig, top - _TITLE, height, _STRIP)
    axes = _place(fig, top - _TITLE - _STRIP, height, middle)
    dress(axes, theme)
    scale = heat.draw(axes, strip, history, theme)
    axes.tick_params(axis="y", length=2)
    axes.grid(visible=False)
    _title(strip, f"Gradient gain of {summary.plural(len(history.layers), 'layer')}, input at the top", "‖∂L/∂layer‖ ÷ ‖∂L/∂output‖", theme, pad=4)
    _steps(axes, history.entries, theme, shown=last)
    keys = heat.keys(history, theme)
    tall = min(max(middle - 0.57 - 0.19 * len(keys), 0.5), 2.2)
    bar = fig.add_axes(((WIDTH - _RIGHT + 0.14) / WIDTH, (top - _TITLE - _STRIP - 0.32 - tall) / height, 0.13 / WIDTH, tall / height))
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
        [handle for handle, _ in keys], ["x"] * len(keys), loc=loc, bbox_to_anchor=at, borderaxespad=0, frameon=False, handlelength=1.6,
        handletextpad=0.5, labelspacing=0.3, fontsize=7.5,
    )  # fmt: skip
    say(box, keys, theme)


def _header(history: History, renderer: RendererBase, theme: Theme) -> header.Header:
    """The gravest verdict and the course of the run; under it what was wrong first, what to do, what was watched."""
    worst, following = history.worst, words.next_step(history)
    assert worst is not None  # a history has an entry
    paragraphs = [
        (words.sentence(history), 10.5, "bold", theme.ink, 3),
        *([(f"Next: {following}", 9.5, "normal", theme.ink, 2)] if following else []),
        (words.facts(history), 8.0, "normal", theme.grey, 2),
        *([(often, 8.0, "normal", theme.grey, 2)] if (often := words.often(history)) else []),
    ]
    lines = header.lines_of(paragraphs, renderer, header.room(renderer, 72 * WIDTH))
    return header.Header(verdict=worst.verdict, word=worst.verdict.upper(), name=history.target.model_class, facts=words.title(history), lines=lines)
