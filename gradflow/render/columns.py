"""A table that fits its width: the least important columns go first, then names shorten; numbers are never cut."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import StringIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.style import Style
from rich.text import Text

from gradflow.render.names import keep_end, shorten

GAP = 2
_LINK_ID = re.compile(r"\x1b\]8;id=[^;]*;")  # rich draws it at random


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column.

    Attributes:
        cells: one text per row.
        rank: importance, 0 is the most; the highest rank is dropped first.
        floor: the width to which the cells may be shortened; None where they must stay whole.
        tail: whether a shortened cell keeps its end (a file and line) rather than both its ends (a name).
        styles: one rich style per row, or none.
        links: one URL per row, or none.
    """

    header: str
    cells: Sequence[str]
    rank: int
    right: bool = True
    floor: int | None = None
    tail: bool = False
    styles: Sequence[str] = ()
    links: Sequence[str | None] = ()

    @property
    def natural(self) -> int:
        """The width in which nothing is shortened."""
        return max(map(cell_len, (self.header, *self.cells)))

    @property
    def least(self) -> int:
        """The narrowest that the column can be."""
        return self.natural if self.floor is None else min(self.natural, max(self.floor, cell_len(self.header)))


def filled(columns: Sequence[Column]) -> list[Column]:
    """Those that say something of any row."""
    return [column for column in columns if any(column.cells)]


def lay_out(columns: Sequence[Column], width: int) -> tuple[list[Text], list[str]]:
    """The table as lines of at most `width` cells, its header first, and the headers of the columns that did not fit."""
    shown = sorted(columns, key=lambda c: c.rank)
    while len(shown) > 1 and sum(c.least for c in shown) + GAP * (len(shown) - 1) > width:
        shown.pop()
    kept = [c for c in columns if c in shown]
    widths = _widths(kept, width)
    lines = [_line([(c, c.header, w, "bold", None) for c, w in zip(kept, widths, strict=True)])]
    for row in range(len(columns[0].cells)):
        cells = [(c, c.cells[row], w, c.styles[row] if c.styles else "", c.links[row] if c.links else None) for c, w in zip(kept, widths, strict=True)]
        lines.append(_line(cells))
    return lines, [c.header for c in columns if c not in kept]


def _widths(columns: Sequence[Column], width: int) -> list[int]:
    widths = [c.natural for c in columns]
    excess = sum(widths) + GAP * (len(columns) - 1) - width
    for i in sorted(range(len(columns)), key=lambda i: -columns[i].rank):
        cut = max(0, min(excess, widths[i] - columns[i].least))
        widths[i] -= cut
        excess -= cut
    return [min(w, width) for w in widths]


def _line(cells: Sequence[tuple[Column, str, int, str, str | None]]) -> Text:
    line = Text(no_wrap=True)
    for column, content, width, style, url in cells:
        text = keep_end(content, width) if column.tail else shorten(content, width)
        room = " " * max(0, width - cell_len(text))
        line.append(room if column.right else "")
        line.append(text, Style.parse(style) + Style(link=url) if url else style or None)
        line.append(("" if column.right else room) + " " * GAP)
    line.rstrip()
    return line


@cache
def _console() -> Console:
    """What rich asks for tab stops and the like while it wraps; nothing is printed on it."""
    return Console(file=StringIO(), width=80, _environ={})


def wrap(text: Text, width: int, indent: int = 0, label: str = "") -> list[Text]:
    """`text` wrapped at `width` behind a hanging indent, `label` in front of its first line."""
    lines = text.wrap(_console(), max(width - indent, 10))
    out = []
    for i, line in enumerate(lines):
        line.rstrip()
        out.append(Text.assemble((set_cell_size(label if i == 0 else "", indent), "bold" if label and i == 0 else ""), line))
    return out


def printed(lines: Sequence[Text], width: int, color: bool) -> str:
    """The lines as one text, with escape codes only where `color` says so; the same lines give the same text."""
    out = StringIO()
    console = Console(
        file=out, width=width, force_terminal=color, color_system="standard" if color else None, legacy_windows=False, no_color=not color,
        highlight=False, markup=False, emoji=False, soft_wrap=True, _environ={},
    )  # fmt: skip
    for line in lines:
        console.print(line, overflow="ignore", no_wrap=True, crop=False)
    return _LINK_ID.sub("\x1b]8;;", out.getvalue())
