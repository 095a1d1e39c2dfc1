"""Arcs from forks to joins, drawn to the left of the rows as a version history draws its branches.

A lane belongs to one fork: it opens at the fork's row, lets out at every join, and closes at the last. Short arcs lie next to the rows, long ones outside.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text

# Where an arc begins, ends or lets out: (it comes from above, it goes on below, a line comes from the left) -> glyph. A line always leaves to the right.
_GLYPHS = {
    (False, True, False): "┌", (True, False, False): "└", (True, True, False): "├",
    (False, True, True): "┬", (True, False, True): "┴", (True, True, True): "┼",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Arc:
    """A fork's lane: from the row `start` to the rows `stops`, all of one kind."""

    start: int
    stops: tuple[int, ...]
    kind: str

    @property
    def end(self) -> int:
        """The row of the last join."""
        return self.stops[-1]


@dataclass(frozen=True, kw_only=True)
class Gutter:
    """`lanes[0]` lies next to the rows; `left_out` counts the arcs that found no lane."""

    lanes: Sequence[Sequence[Arc]]
    left_out: int


def arcs(ends: Sequence[tuple[int, int, str]]) -> list[Arc]:
    """One arc for each fork and kind, from (row of the fork, row of the join, kind); what lies within one row is not drawn."""
    stops: dict[tuple[int, str], set[int]] = {}
    for fork, join, kind in ends:
        if join > fork:
            stops.setdefault((fork, kind), set()).add(join)
    return [Arc(start=start, stops=tuple(sorted(joins)), kind=kind) for (start, kind), joins in stops.items()]


def lay(found: Sequence[Arc], most: int) -> Gutter:
    """The arcs in at most `most` lanes, shortest first, each in the first lane that is free from its start to its end (an end may touch a start)."""
    lanes: list[list[Arc]] = []
    left_out = 0
    for arc in sorted(found, key=lambda a: (a.end - a.start, a.start)):
        for lane in lanes:
            i = bisect_left(lane, arc.start, key=lambda a: a.start)
            if (i == 0 or lane[i - 1].end <= arc.start) and (i == len(lane) or lane[i].start >= arc.end):
                lane.insert(i, arc)
                break
        else:
            if len(lanes) == most:
                left_out += 1
            else:
                lanes.append([arc])
    return Gutter(lanes=lanes, left_out=left_out)


def draw(gutter: Gutter, rows: int, styles: Mapping[str, str]) -> list[Text]:
    """One text of two cells per lane for each row, the longest arcs on the left."""
    drawn = []
    pointers = [0] * len(gutter.lanes)
    for row in range(rows):
        line = Text()
        reached = ""  # the style of the line that comes from the left
        for lane in reversed(range(len(gutter.lanes))):
            arcs_here = gutter.lanes[lane]
            while pointers[lane] < len(arcs_here) and arcs_here[pointers[lane]].end < row:
                pointers[lane] += 1
            reached = _cell(line, arcs_here[pointers[lane] : pointers[lane] + 2], row, reached, styles)
        drawn.append(line)
    return drawn


def _cell(line: Text, near: Sequence[Arc], row: int, reached: str, styles: Mapping[str, str]) -> str:
    """Append one lane's two cells; returns the style of the line that leaves it to the right, or nothing."""
    here = [arc for arc in near if arc.start <= row <= arc.end]
    event = [arc for arc in here if row == arc.start or row in arc.stops]
    up, down = any(arc.start < row for arc in here), any(arc.end > row for arc in here)
    style = styles.get((event or here)[-1].kind, "") if here else reached
    if event:
        glyph = _GLYPHS[up, down, bool(reached)]
    elif here:
        glyph = "┼" if reached else "╎" if here[0].kind == "detached" else "│"
    else:
        glyph = "─" if reached else " "
    line.append(glyph, style)
    onward = style if event else reached
    line.append("─" if onward else " ", onward)
    return onward
