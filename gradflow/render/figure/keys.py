"""Keys: what the marks of a panel mean, in lines above it on a page, or in one box on axes of a user's. No name in them is parsed or skipped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend import Legend
from matplotlib.legend_handler import HandlerTuple
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from gradflow.render.figure.labels import covered, drawn_points
from gradflow.render.figure.marks import Key
from gradflow.render.figure.text import width_of
from gradflow.render.figure.theme import Theme

SIZE = 8.0  # points
ROW = 12.5  # points: the height of a line of keys
_HANDLE, _SCALE, _PAD, _APART = 1.5, 4.5, 0.45, 1.5  # in type sizes: a mark, a row of marks, what is beside one, and between two keys
_CORNERS = (1, 2, 4, 3, 9, 8)  # of matplotlib: upper right, upper left, lower right, lower left, upper centre, lower centre


def rows(keys: Sequence[Key], renderer: RendererBase, width: float) -> list[list[tuple[Key, float]]]:
    """The keys in lines at most `width` points wide, each with its distance from the left."""
    point = float(renderer.points_to_pixels(1.0))  # type: ignore[arg-type]
    lines: list[list[tuple[Key, float]]] = []
    at = width
    for key in keys:
        wide = SIZE * (_handle(key) + _PAD) + width_of(key[1], renderer, FontProperties(size=SIZE)) / point
        if not lines or at + wide > width:
            lines.append([])
            at = 0.0
        lines[-1].append((key, at))
        at += wide + SIZE * _APART
    return lines


def draw_row(fig: Figure, axes: Axes, row: Sequence[tuple[Key, float]], left: float, y: float, theme: Theme) -> None:
    """One line of keys on a page; `left` and `y`, its middle, in points from the figure's lower left corner."""
    width, height = (72 * float(v) for v in fig.get_size_inches())
    for key, at in row:
        box = Legend(
            axes, [key[0]], ["x"], loc="center left", bbox_to_anchor=((left + at) / width, y / height), bbox_transform=fig.transFigure, borderaxespad=0,
            borderpad=0, frameon=False, handlelength=_handle(key), handletextpad=_PAD, fontsize=SIZE, handler_map={tuple: HandlerTuple(ndivide=None, pad=0)},
        )  # fmt: skip
        say(box, [key], theme)
        axes.add_artist(box)


def draw_box(axes: Axes, keys: Sequence[Key], renderer: RendererBase, theme: Theme) -> list[Bbox]:
    """All keys in the corner of the axes where they cover least; returns the box's place in pixels, if there is one."""
    if not keys:
        return []
    box = Legend(
        axes, [handle for handle, _ in keys], ["x"] * len(keys), loc=_CORNERS[0], fontsize="x-small", frameon=True, facecolor=theme.paper,
        edgecolor=theme.faint, framealpha=0.8, handler_map={tuple: HandlerTuple(ndivide=None)},
    )  # fmt: skip
    say(box, keys, theme)
    axes.add_artist(box)
    words = [text.get_window_extent(renderer).corners() for text in axes.texts]
    drawn, places = np.concatenate([drawn_points(axes), *words]), []
    for corner in _CORNERS:
        box.set_loc(corner)
        places.append(box.get_window_extent(renderer))
    best = min(range(len(places)), key=lambda i: covered(places[i], drawn))
    box.set_loc(_CORNERS[best])
    return [places[best]]


def _handle(key: Key) -> float:
    return _SCALE if isinstance(key[0], tuple) else _HANDLE


def say(box: Legend, keys: Sequence[Key], theme: Theme) -> None:
    """Sets the texts of a box that was made without them, so that no name is parsed or skipped for its underscore."""
    for text, (_, name) in zip(box.get_texts(), keys, strict=True):
        plain(text, theme)
        text.set_text(name)


def plain(text: Text, theme: Theme) -> None:
    """Makes a text mean itself: neither mathematics nor TeX, in the theme's ink."""
    text.set_parse_math(False)
    text.set_usetex(False)
    text.set_color(theme.ink)
