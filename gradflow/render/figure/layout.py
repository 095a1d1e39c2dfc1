"""Where panels, titles and keys stand on a page. Lengths in points but for the figure's own inches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from gradflow.render.figure import header, keys, labels
from gradflow.render.figure.canvas import renderer
from gradflow.render.figure.marks import Drawn, Key
from gradflow.render.figure.text import width_of
from gradflow.render.figure.theme import Theme

WIDTH = 9.0  # inches: at GitHub's 900 pixels a point of type is 1.4 pixels
_LEFT, _RIGHT, _TOP = 44.0, 10.0, 8.0  # from the edges to the axes and the first title
_TITLE, _ABOVE, _BELOW, _AXIS, _SENTENCE = 16.0, 4.0, 13.0, 30.0, 16.0  # a title, around a panel, what the last one's axis takes, a sentence
_SIZE = 10.0  # of a title
Heading = Callable[[RendererBase, float], header.Header]
Drawing = tuple[Callable[[Axes], Drawn], float]


@dataclass(frozen=True, kw_only=True)
class _Placed:
    axes: Axes
    drawn: Drawn
    rows: Sequence[Sequence[tuple[Key, float]]]
    height: float
    last: bool = False  # before a panel of another axis, or none

    @property
    def above(self) -> float:
        """Title and keys."""
        return (_TITLE if self.drawn.title else 0) + keys.ROW * len(self.rows) + _ABOVE

    @property
    def below(self) -> float:
        """The space to the next panel, and the axis where it is the last over it."""
        return _BELOW + (_AXIS if self.last and self.axes.axison else 0)


def laid_out(heading: Heading | None, drawings: Sequence[Drawing], theme: Theme, dpi: int) -> Figure:
    """A figure 9 inches wide: a header, and the panels under each other, those of one x axis over one.

    Args:
        heading: makes the header for what measures texts and the width of the page; None for none.
        drawings: what draws each panel, and its height in inches.
    """
    fig = Figure(figsize=(WIDTH, 10), dpi=dpi)
    measure = renderer(fig)
    head = None if heading is None else heading(measure, 72 * WIDTH)
    placed = _placed(fig, drawings, measure)
    top = _TOP + sum(p.above + p.height + p.below for p in placed)
    fig.set_size_inches(WIDTH, (top + (0 if head is None else head.height)) / 72)
    _lay_out(fig, placed, top - _TOP, measure, theme)
    if head is not None:
        header.draw(fig, head, measure, theme)
    for p in placed:
        labels.place(p.axes, measure, p.drawn.labels, theme, captions=p.drawn.captions)
    return fig


def _placed(fig: Figure, drawings: Sequence[Drawing], measure: RendererBase) -> list[_Placed]:
    placed: list[_Placed] = []
    for draw, inches in drawings:
        axes = fig.add_axes((0, 0, 1, 1))
        drawn = draw(axes)
        height = 72 * inches if axes.axison else _SENTENCE * sum(1 + text.get_text().count("\n") for text in axes.texts)
        placed.append(_Placed(axes=axes, drawn=drawn, rows=keys.rows(drawn.keys, measure, 72 * WIDTH - _LEFT - _RIGHT), height=height))
    axes_of = {i: p.drawn.along for i, p in enumerate(placed) if p.axes.axison}  # a sentence has none
    return [replace(p, last=next((along for k, along in axes_of.items() if k > i), "") != p.drawn.along) for i, p in enumerate(placed)]


def _lay_out(fig: Figure, placed: Sequence[_Placed], top: float, measure: RendererBase, theme: Theme) -> None:
    """Puts panels, titles and keys in their places, from `top` down; in points from the lower edge."""
    width, height = (72 * float(v) for v in fig.get_size_inches())
    for p in placed:
        y = top
        if p.drawn.title:
            _title(fig, p.drawn, y - _TITLE / 2, measure, theme)
            y -= _TITLE
        for row in p.rows:
            keys.draw_row(fig, p.axes, row, _LEFT, y - keys.ROW / 2, theme)
            y -= keys.ROW
        top -= p.above + p.height
        p.axes.set_position((_LEFT / width, top / height, 1 - (_LEFT + _RIGHT) / width, p.height / height))
        p.axes.tick_params(axis="x", labelbottom=p.last, length=3 if p.last else 0)
        if p.last and p.axes.axison:
            p.axes.set_xlabel(p.drawn.along, color=theme.ink)
        top -= p.below


def _title(fig: Figure, drawn: Drawn, y: float, measure: RendererBase, theme: Theme) -> None:
    """What a panel shows, and of what quantity."""
    width, height = (72 * float(v) for v in fig.get_size_inches())
    fig.text(_LEFT / width, y / height, drawn.title, fontsize=_SIZE, fontweight="bold", color=theme.ink, va="center_baseline", parse_math=False)
    after = _LEFT + width_of(drawn.title, measure, FontProperties(size=_SIZE, weight="bold")) / float(measure.points_to_pixels(1.0)) + 9  # type: ignore[arg-type]
    fig.text(after / width, y / height, drawn.quantity, fontsize=8.5, color=theme.grey, va="center_baseline", parse_math=False)
