"""Names on a panel: each where there is room, none over another. Knows pixels and points, nothing of reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.collections import PathCollection
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from gradflow.render.figure.theme import Theme

SIZE = 8.0  # points
_RADII = (14, 24, 38, 56, 80, 110, 150)  # points from what is named to its name
Points = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Label:
    """The name of the point (x, y) in data coordinates; `color` is that of the mark around it."""

    x: float
    y: float
    text: str
    color: str


@dataclass
class _Room:
    """Where labels may stand, in pixels: inside the axes, off the other labels, best off the drawn points and the lines to other labels."""

    inside: Bbox
    drawn: Points
    taken: list[Bbox]

    def take(self, box: Bbox, line: Points) -> None:
        self.taken.append(box)
        self.drawn = np.concatenate([self.drawn, line])

    def cost(self, box: Bbox, line: Points, point: float) -> float:
        crossed = sum(covered(other, line) > 0 for other in self.taken)
        return 10.0 * covered(box.padded(3 * point), self.drawn) + 150.0 * crossed

    def fits(self, box: Bbox) -> bool:
        inside = self.inside
        within = box.x0 >= inside.x0 and box.x1 <= inside.x1 and box.y0 >= inside.y0 and box.y1 <= inside.y1
        return within and not any(box.overlaps(other) for other in self.taken)


def place(axes: Axes, renderer: RendererBase, labels: Sequence[Label], theme: Theme, taken: Sequence[Bbox] = ()) -> list[Annotation]:
    """Names points where there is room: inside the axes, clear of each other and of the boxes `taken`, on as few drawn points as can be.

    A label for which there is no room is left out; so the worst should come first.
    """
    room = _Room(inside=axes.get_window_extent(renderer), drawn=drawn_points(axes), taken=list(taken))
    point = float(np.asarray(renderer.points_to_pixels(1.0)).item())
    placed = []
    for one in labels:
        note = axes.annotate(
            one.text, (one.x, one.y), xytext=(0, 0), textcoords="offset points", fontsize=SIZE, color=theme.ink, parse_math=False, zorder=9,
            annotation_clip=False, va="center", ha="center",
            arrowprops={"arrowstyle": "-", "color": one.color, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 3},
            bbox={"boxstyle": "round,pad=0.25", "facecolor": theme.paper, "edgecolor": one.color, "linewidth": 0.9, "alpha": 0.95},
        )  # fmt: skip
        words = Text.get_window_extent(note, renderer).padded(3.5 * point)  # of the words alone: an annotation's own extent holds its arrow too
        at_x, at_y = axes.transData.transform((one.x, one.y))
        best = min(_candidates(float(at_x), float(at_y), words, point, room), default=None, key=lambda found: found[0])
        if best is None:
            note.remove()
            continue
        _, (dx, dy), box = best
        note.set_position((dx / point, dy / point))
        room.take(box, _line(float(at_x), float(at_y), dx, dy))
        placed.append(note)
    return placed


def _candidates(x: float, y: float, words: Bbox, point: float, room: _Room) -> list[tuple[float, tuple[float, float], Bbox]]:
    """(cost, offset in pixels, box) of each place around the pixel (x, y) in which a label of the size of `words` fits."""
    found = []
    for radius in _RADII:
        for angle in range(0, 360, 15):
            dx = math.cos(math.radians(angle)) * (radius * point + words.width / 2)
            dy = math.sin(math.radians(angle)) * radius * point
            box = Bbox.from_bounds(x + dx - words.width / 2, y + dy - words.height / 2, words.width, words.height)
            if room.fits(box):
                found.append((room.cost(box, _line(x, y, dx, dy), point) + radius, (dx, dy), box))
    return found


def _line(x: float, y: float, dx: float, dy: float) -> Points:
    """Points on the way from what is named to its name; [12, 2]."""
    way = np.linspace(0, 1, 12)
    return np.column_stack([x + dx * way, y + dy * way])


def covered(box: Bbox, drawn: Points) -> int:
    """How many of the pixels `drawn`, [n, 2], lie in the box."""
    return int(np.sum((drawn[:, 0] > box.x0) & (drawn[:, 0] < box.x1) & (drawn[:, 1] > box.y0) & (drawn[:, 1] < box.y1)))


def drawn_points(axes: Axes) -> Points:
    """The pixels of all points and line vertices on the axes, lines filled in between; [n, 2]."""
    found = [np.zeros((0, 2))]
    for collection in axes.collections:
        if isinstance(collection, PathCollection):
            found.append(axes.transData.transform(np.asarray(collection.get_offsets(), dtype=float).reshape(-1, 2)))
    for line in axes.lines:
        if line.get_transform() == axes.transData:
            path = axes.transData.transform(np.asarray(line.get_xydata(), dtype=float))
            found += [start + np.linspace(0, 1, _steps(start, end))[:, None] * (end - start) for start, end in pairwise(path)]
    points = np.concatenate(found)
    return points[np.isfinite(points).all(axis=1)]


def _steps(start: Points, end: Points) -> int:
    """So many that a long line has a point every dozen pixels, and one of a thousand short ones has its ends."""
    length = float(np.hypot(*(end - start)))
    return int(np.clip(length / 12, 2, 200)) if math.isfinite(length) else 2
