"""The panel of depth against step: the gain of every layer as a colour, what was found as marks, the verdict of each step above."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator

from gradflow.records import VERDICTS, History, LayerTrack
from gradflow.render.figure.canvas import renderer
from gradflow.render.figure.marks import Key
from gradflow.render.figure.text import power, short, width_of
from gradflow.render.figure.theme import Theme
from gradflow.render.history import grid, words
from gradflow.render.names import keep_end

ROWS, COLUMNS = 400, 600  # cells; beyond them blocks are folded, that none is lost between two pixels
_NAMED = 36  # layers whose names stand beside their rows
_SAID = 10.0  # points: what is said of what is dark
_APART = 6.5  # points between two marks
_LEAST, _MOST = 2, 6  # decades of the colour scale, either way
# Blue for what vanishes, orange for what explodes: apart for every kind of colour blindness, and in grey by how far they are from the middle.
_COLORS = {False: ("#08306b", "#3f8fc5", "#f5f5f3", "#f0883e", "#7a2600"), True: ("#a8d8ff", "#2f7fc1", "#2b323c", "#cf5f14", "#ffd0a3")}


def height_of(layers: int) -> float:
    """Inches: a row for each layer while there is room."""
    return float(np.clip(0.17 * layers, 1.5, 4.8))


def draw(axes: Axes, strip: Axes, history: History, theme: Theme) -> ScalarMappable:
    """Draw the panel and the strip of verdicts; returns what a colour bar is made of."""
    values = grid.folded(grid.decades([entry.gains for entry in history.entries]), ROWS, COLUMNS)
    finite = np.abs(values[np.isfinite(values)])
    reach = int(np.clip(np.ceil(finite.max(initial=0.0)), _LEAST, _MOST))
    scale = ScalarMappable(Normalize(-reach, reach), LinearSegmentedColormap.from_list("gain", _COLORS[theme.is_dark]))
    pixels = np.array(scale.to_rgba(np.nan_to_num(values, nan=0.0, neginf=0.0)))
    pixels[np.isneginf(values)] = (*to_rgb(theme.ink), 1.0)
    pixels[np.isnan(values)] = 0.0
    width, height = len(history.entries), len(history.layers)
    axes.patch.set(facecolor=theme.paper, hatch="////", edgecolor=theme.faint, linewidth=0)
    axes.imshow(pixels, extent=(-0.5, width - 0.5, height - 0.5, -0.5), aspect="auto", interpolation="nearest", zorder=1)
    _marks(axes, history, theme)
    _dark(axes, history, theme)
    _rows(axes, history.layers)
    colors = np.array([to_rgb(theme.verdict[v][0]) for v in VERDICTS])
    strip.imshow(colors[grid.gravest(grid.verdicts(history.entries), 1, COLUMNS)], extent=(-0.5, width - 0.5, 0, 1), aspect="auto", interpolation="nearest")
    strip.axis("off")
    strip.text(1.021, 0.5, "verdict", transform=strip.transAxes, fontsize=7.5, color=theme.ink, va="center")
    return scale


def _marks(axes: Axes, history: History, theme: Theme) -> None:
    """A cross for an error, a point for a warning: one for each cell where cells are large, else one for each block of a mark's size."""
    found = grid.marks(history)
    box = axes.get_window_extent()
    points = 72 / axes.figure.dpi
    rows, columns = (max(1, int(length * points / _APART)) for length in (box.height, box.width))
    coarse = grid.gravest(found, rows, columns)
    tall, wide = found.shape[0] / coarse.shape[0], found.shape[1] / coarse.shape[1]
    halo: list[AbstractPathEffect] = [withStroke(linewidth=2.2, foreground=theme.paper)]
    for level, marker, size in ((grid.WARNING, ".", 9.0), (grid.ERROR, "x", 11.0)):
        at = np.argwhere(coarse == level)
        shown = axes.scatter(
            (at[:, 1] + 0.5) * wide - 0.5,
            (at[:, 0] + 0.5) * tall - 0.5,
            s=size,
            marker=marker,
            color=theme.ink,
            linewidths=1.0 if marker == "x" else 0,
            zorder=3,
        )
        shown.set_path_effects(halo)


def _dark(axes: Axes, history: History, theme: Theme) -> None:
    """In the midst of what stays exactly 0 to the end, from when on and where, if there is room to say it."""
    found = grid.dark(np.isneginf(grid.decades([entry.gains for entry in history.entries])))
    if found is None:
        return
    rows, columns = found
    between = [keep_end(short(history.layers[row].name, 60), 30) for row in (rows[0], rows[-1])]
    lines = [f"exactly 0 {words.stretch(history.entries, columns[0], columns[-1])}", " to ".join(dict.fromkeys(between))]
    box, fig = axes.get_window_extent(), axes.figure.figure
    measure, font = renderer(fig), FontProperties(size=_SAID, weight="bold")
    wide = max(width_of(line, measure, font) for line in lines) / len(columns) * len(history.entries)
    if wide < 0.95 * box.width and 2.0 * _SAID * len(lines) / 72 * fig.dpi < box.height * len(rows) / len(history.layers):
        middle = (columns[0] + columns[-1]) / 2, (rows[0] + rows[-1]) / 2
        axes.text(*middle, "\n".join(lines), fontsize=_SAID, fontweight="bold", color=theme.paper, ha="center", va="center", zorder=4, parse_math=False)


def _rows(axes: Axes, layers: Sequence[LayerTrack]) -> None:
    """Names beside the rows: all of them, or every second, third … one, that they can be read."""
    axes.set_ylim(len(layers) - 0.5, -0.5)
    at = range(0, len(layers), -(-len(layers) // _NAMED))
    axes.set_yticks(at, [keep_end(short(layers[i].name, 60), 22) for i in at], parse_math=False, fontsize=7.0)


def color_bar(fig: Figure, axes: Axes, scale: ScalarMappable, theme: Theme) -> None:
    """The scale of the gain, in powers of ten, to the right of the panel."""
    bar = fig.colorbar(scale, cax=axes, extend="both", extendfrac=0.04)
    bar.locator = MaxNLocator(nbins=6, integer=True)
    bar.formatter = FuncFormatter(lambda value, _: power(value))
    bar.update_ticks()
    bar.outline.set_edgecolor(theme.grey)
    axes.tick_params(colors=theme.grey, labelcolor=theme.ink, length=2)
    axes.set_title("gain", fontsize=8, color=theme.ink, pad=9, loc="left", fontweight="normal")


def keys(history: History, theme: Theme) -> list[Key]:
    """What the marks and the cells beyond the scale mean, of those that there are."""
    values, found = grid.decades([entry.gains for entry in history.entries]), grid.marks(history)
    rows: list[tuple[bool, Key]] = [
        (bool((found == grid.ERROR).any()), (Line2D([], [], color=theme.ink, marker="x", markersize=4, linestyle=""), "error")),
        (bool((found == grid.WARNING).any()), (Line2D([], [], color=theme.ink, marker=".", markersize=4, linestyle=""), "warning")),
        (bool(np.isneginf(values).any()), (Patch(facecolor=theme.ink), "exactly 0")),
        (bool(np.isnan(values).any()), (Patch(facecolor=theme.paper, hatch="////", edgecolor=theme.faint), "not finite, or\nnot measured")),
    ]
    return [key for there, key in rows if there]
