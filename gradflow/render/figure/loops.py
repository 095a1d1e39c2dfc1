"""What of a report is a loop's: it is told call by call, on an axis of its own, and not between two layers of the axis of depth."""

from __future__ import annotations

from gradflow.records import Highway, Report, Skip
from gradflow.render.figure.marks import Key, stroke
from gradflow.render.figure.text import short
from gradflow.render.figure.theme import Theme

_NAMED = 6  # loops that the keys name


def highways(report: Report) -> list[Highway]:
    """Those that a loop makes."""
    return [h for h in report.highways if h.turns > 1]


def skips(report: Report) -> list[Skip]:
    """Those whose λ is known of several calls."""
    return [s for s in report.skips if sum(v is not None for v in s.trend) > 1]


def last_call(report: Report) -> int:
    """How many calls the axis of calls has."""
    return max([1, *(h.turns for h in highways(report)), *(len(s.trend) for s in skips(report))])


def colors_of(report: Report, theme: Theme) -> dict[str, str]:
    """A colour for each loop, by the id of a skip; those beyond the theme's colours are grey."""
    ids = dict.fromkeys([*(s.id for s in skips(report)), *(h.skips[0] for h in highways(report))])
    return {name: theme.stages[i] if i < len(theme.stages) else theme.grey for i, name in enumerate(ids)}


def keys_of(names: list[tuple[str, str]], width: float) -> list[Key]:
    """The keys of lines (name, colour), the first few of them."""
    keys: list[Key] = [(stroke(color, width), short(name, 26)) for name, color in names[:_NAMED]]
    return keys + ([(stroke(names[_NAMED][1], width), f"{len(names) - _NAMED} more")] if len(names) > _NAMED else [])
