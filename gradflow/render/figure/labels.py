"""Names on a panel: each where there is room, none over another. Knows pixels and points, nothing of reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.collections import PathCollection
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from gradflow.render.figure.theme import Theme

SIZE = 8.0  # points
_RADII = (14, 24, 38, 56, 80, 110, 150)  # points from what is named to its name
_DEAR = 40.0  # what a file and line beside a name may cost: about four drawn points covered
Points = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Label:
    """The name of the point (x, y) in data coordinates.

    Attributes:
        color: that of the mark around the point.
        place: a file and line, said where there is room.
        width: in data coordinates; words that are no wider stand on the point itself, plain. 0 for a name beside it.
    """

    x: float
    y: float
    text: str
    color: str
    place: str = ""
    width: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What is written along the line through (xs, ys) in data coordinates: above it or below, where it covers least, best at the right; `short` where all of it
    would cover something."""

    xs: Sequence[float]
    ys: Sequence[float]
    text: str
    above: bool
    short: str = ""


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


def place(
    axes: Axes, renderer: RendererBase, labels: Sequence[Label], theme: Theme, taken: Sequence[Bbox] = (), captions: Sequence[Caption] = ()
) -> list[Annotation]:
    """Names points where there is room: inside the axes, clear of each other, of the words there and of the boxes `taken`, on as few drawn points as can be.

    A label for which there is no room is left out; so the worst should come first. Captions come last.
    """
    words = [text.get_window_extent(renderer) for text in axes.texts]
    room = _Room(inside=axes.get_window_extent(renderer), drawn=drawn_points(axes), taken=[*taken, *words])
    point = float(np.asarray(renderer.points_to_pixels(1.0)).item())
    placed = []
    for one in labels:
        if one.width and _stands(axes, renderer, one, theme, room):
            continue
        found = [
            (text, *best)
            for text in ([f"{one.text} · {one.place}"] if one.place else []) + [one.text]
            if (best := _best(axes, renderer, one, text, room, point))
        ]
        if not found:
            continue
        text, _, (dx, dy), box = found[0] if found[0][1] <= found[-1][1] + _DEAR else found[-1]
        at_x, at_y = axes.transData.transform((one.x, one.y))
        room.take(box, _line(float(at_x), float(at_y), dx, dy))
        note = axes.annotate(
            text, (one.x, one.y), xytext=(dx / point, dy / point), textcoords="offset points", fontsize=SIZE, color=theme.ink, parse_math=False, zorder=9,
            annotation_clip=False, va="center", ha="center",
            arrowprops={"arrowstyle": "-", "color": one.color, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 3},
            bbox={"boxstyle": "round,pad=0.25", "facecolor": theme.paper, "edgecolor": one.color, "linewidth": 0.9, "alpha": 0.95},
        )  # fmt: skip
        placed.append(note)
    for caption in captions:
        if not _written(axes, renderer, caption, theme, room) and caption.short:
            _written(axes, renderer, replace(caption, text=caption.short, short=""), theme, room)
    return placed


def _written(axes: Axes, renderer: RendererBase, caption: Caption, theme: Theme, room: _Room) -> bool:
    """Writes a caption, or nothing where there is no room, or where it has shorter words and would cover something; returns whether it did."""
    left, right = caption.xs[0], caption.xs[-1]
    best: tuple[float, Annotation, Bbox] | None = None
    for share in np.linspace(1, 0, 21):
        note = axes.annotate(
            caption.text, (left + share * (right - left), caption.ys[0]), xytext=(0, 2 if caption.above else -2), textcoords="offset points",
            ha="right" if share > 0.5 else "left", va="bottom" if caption.above else "top", fontsize=SIZE - 0.5, color=theme.grey, parse_math=False, zorder=8,
        )  # fmt: skip
        box = _on_the_line(axes, renderer, note, caption)
        spare = box.height / 3  # but towards the line itself
        around = Bbox.from_extents(box.x0 - spare, box.y0 - spare * (not caption.above), box.x1 + spare, box.y1 + spare * caption.above)
        hidden = covered(around, room.drawn)
        cost = float(hidden) + (1 - share) / 10
        if not room.fits(box) or (hidden and caption.short) or (best is not None and cost >= best[0]):
            note.remove()
            continue
        if best is not None:
            best[1].remove()
        best = cost, note, box
    if best is not None:
        room.taken.append(best[2])
    return best is not None


def _on_the_line(axes: Axes, renderer: RendererBase, note: Annotation, caption: Caption) -> Bbox:
    """Moves a caption clear of its line over all its width; returns its box in pixels."""
    box = note.get_window_extent(renderer)
    ends = axes.transData.inverted().transform([(box.x0, box.y0), (box.x1, box.y0)])[:, 0]
    heights = np.interp(np.linspace(ends[0], ends[1], 20), caption.xs, caption.ys)
    note.xy = (note.xy[0], float(heights.max() if caption.above else heights.min()))
    return note.get_window_extent(renderer)


def _best(axes: Axes, renderer: RendererBase, one: Label, text: str, room: _Room, point: float) -> tuple[float, tuple[float, float], Bbox] | None:
    """(cost, offset in pixels, box) of the best place for the label's words; None where there is none."""
    words = _extent(axes, renderer, one, text).padded(3.5 * point)
    at_x, at_y = axes.transData.transform((one.x, one.y))
    return min(_candidates(float(at_x), float(at_y), words, point, room), default=None, key=lambda found: found[0])


def _extent(axes: Axes, renderer: RendererBase, one: Label, text: str) -> Bbox:
    note = axes.text(one.x, one.y, text, fontsize=SIZE, va="center", ha="center", parse_math=False)
    box = note.get_window_extent(renderer)
    note.remove()
    return box


def _stands(axes: Axes, renderer: RendererBase, one: Label, theme: Theme, room: _Room) -> bool:
    """Writes the label on its point, if it is no wider than it may be there and covers no other."""
    box = _extent(axes, renderer, one, one.text)
    (left, _), (right, _) = axes.transData.transform([(one.x - one.width / 2, one.y), (one.x + one.width / 2, one.y)])
    if box.x0 < left or box.x1 > right or any(box.overlaps(other) for other in room.taken):
        return False
    axes.text(one.x, one.y, one.text, fontsize=SIZE, color=theme.ink, va="center", ha="center", parse_math=False, zorder=9)
    room.taken.append(box)
    return True


def _candidates(x: float, y: float, words: Bbox, point: float, room: _Room) -> list[tuple[float, tuple[float, float], Bbox]]:
    """(cost, offset in pixels, box) of each place around the pixel (x, y) in which a label of the size of `words` fits."""
    found = []
    for radius in _RADII:
        for angle in range(0, 360, 15):
            dx = math.cos(math.radians(angle)) * (radius * point + words.width / 2)
            dy = math.sin(math.radians(angle)) * radius * point
            left = float(np.clip(x + dx - words.width / 2, room.inside.x0, max(room.inside.x0, room.inside.x1 - words.width)))
            dx = left + words.width / 2 - x
            box = Bbox.from_bounds(left, y + dy - words.height / 2, words.width, words.height)
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
