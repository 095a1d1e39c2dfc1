"""Text on a figure: glyphs that the font has, lines that fit, labels that do not collide. Knows pixels, nothing of reports.

Every text is drawn with `parse_math=False`, so a dollar sign in a name is a dollar sign.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.collections import PathCollection
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from gradflow.render.names import clean, shorten

INK, GREY, FAINT = "#1b1b1b", "#6b6b6b", "#d8d8d8"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
Points = npt.NDArray[np.float64]


@cache
def _has_glyph(character: str) -> bool:
    return bool(get_font(findfont(FontProperties())).get_char_index(ord(character)))


def glyphs(text: str) -> str:
    """`text` on one line, with U+FFFD for what the figure's font cannot draw."""
    return "".join(c if _has_glyph(c) else "�" for c in clean(text))


def short(name: str, width: int) -> str:
    """A name for a label, shortened in the middle to `width` characters."""
    return shorten(glyphs(name) or "(the model itself)", width)


def power(exponent: float) -> str:
    """10 to a whole power, in Unicode superscripts: `10⁻¹⁷`; 1 for exponent 0."""
    whole = round(exponent)
    return {0: "1", 1: "10", -1: "0.1"}.get(whole, "10" + str(whole).translate(_SUPERSCRIPTS))


def fill(text: str, renderer: RendererBase, font: FontProperties, width: float, most: int) -> list[str]:
    """`text` broken into at most `most` lines of at most `width` pixels; the last ends with an ellipsis where some is left out."""
    lines, line = [], ""
    for word in glyphs(text).split(" "):
        longer = f"{line} {word}".strip()
        if line and _width(longer, renderer, font) > width:
            lines.append(line)
            longer = word
        line = longer
    lines.append(line)
    if len(lines) > most:
        lines[most - 1 :] = [lines[most - 1] + " …"]
    return [_cut(line, renderer, font, width) for line in lines]


def _cut(line: str, renderer: RendererBase, font: FontProperties, width: float) -> str:
    while len(line) > 1 and _width(line, renderer, font) > width:
        line = shorten(line, max(1, int(len(line) * 0.95)))
    return line


def _width(text: str, renderer: RendererBase, font: FontProperties) -> float:
    return float(renderer.get_text_width_height_descent(text, font, False)[0])


@dataclass(frozen=True)
class _Room:
    """Where labels may stand, in pixels: inside the axes, off the other labels, best off the drawn points."""

    inside: Bbox
    drawn: Points
    taken: list[Bbox]

    def fits(self, box: Bbox) -> bool:
        inside = self.inside
        within = box.x0 >= inside.x0 and box.x1 <= inside.x1 and box.y0 >= inside.y0 and box.y1 <= inside.y1
        return within and not any(box.overlaps(other) for other in self.taken)


def label(axes: Axes, renderer: RendererBase, anchors: Sequence[tuple[float, float, str]], size: float) -> list[Annotation]:
    """Names points (x, y, text) in data coordinates where there is room: inside the axes, clear of each other, on as few drawn points as can be.

    A label for which there is no room is left out.
    """
    room = _Room(inside=axes.get_window_extent(renderer), drawn=_drawn(axes), taken=[])
    point = float(np.asarray(renderer.points_to_pixels(1.0)).item())
    placed = []
    for x, y, text in anchors:
        note = axes.annotate(
            text, (x, y), xytext=(0, 0), textcoords="offset points", fontsize=size, color=INK, parse_math=False, zorder=9, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 3}, va="center", ha="center",
            bbox={"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        )  # fmt: skip
        words = Text.get_window_extent(note, renderer).padded(3)  # of the words alone: an annotation's own extent holds its arrow too
        at_x, at_y = axes.transData.transform((x, y))
        best = min(_candidates(float(at_x), float(at_y), words, point, room), default=None, key=lambda found: found[0])
        if best is None:
            note.remove()
            continue
        _, (dx, dy), box = best
        note.set_position((dx / point, dy / point))
        room.taken.append(box)
        placed.append(note)
    return placed


def _candidates(x: float, y: float, words: Bbox, point: float, room: _Room) -> list[tuple[float, tuple[float, float], Bbox]]:
    """(cost, offset in pixels, box) of each place around the pixel (x, y) in which a label of the size of `words` fits."""
    found = []
    for radius in (14, 24, 38, 56, 80, 110):
        for angle in range(0, 360, 15):
            dx = math.cos(math.radians(angle)) * (radius * point + words.width / 2)
            dy = math.sin(math.radians(angle)) * radius * point
            box = Bbox.from_bounds(x + dx - words.width / 2, y + dy - words.height / 2, words.width, words.height)
            if room.fits(box):
                found.append((10.0 * _covered(box.padded(5 * point), room.drawn) + radius, (dx, dy), box))
    return found


def _covered(box: Bbox, drawn: Points) -> int:
    return int(np.sum((drawn[:, 0] > box.x0) & (drawn[:, 0] < box.x1) & (drawn[:, 1] > box.y0) & (drawn[:, 1] < box.y1)))


def _drawn(axes: Axes) -> Points:
    """The pixels of all points and line vertices on the axes, lines filled in between."""
    found = [np.zeros((0, 2))]
    for collection in axes.collections:
        if isinstance(collection, PathCollection):
            found.append(axes.transData.transform(np.asarray(collection.get_offsets(), dtype=float).reshape(-1, 2)))
    for line in axes.lines:
        if line.get_transform() == axes.transData:
            path = axes.transData.transform(np.asarray(line.get_xydata(), dtype=float))
            steps = np.linspace(0, 1, 8)[:, None]
            found += [start + steps * (end - start) for start, end in pairwise(path)]
    points = np.concatenate(found)
    return points[np.isfinite(points).all(axis=1)]
