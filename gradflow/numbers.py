"""Numbers as people read them, in messages, notes and on every page alike. Pure functions from floats to text; never rounds a number that is not 1 to "1"."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

UNDEFINED = "–"
BARS = "▁▂▃▄▅▆▇█"
_ONE = 1e-9


def number(value: float | None, digits: int = 4) -> str:
    """`value` with 3 to 4 significant digits: 0.5, 1, 5.55e-17; None is an en dash. Only what is within 1e-9 of 1 prints as 1.

    Args:
        digits: one fewer where there is an exponent.
    """
    if value is None:
        return UNDEFINED
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    magnitude = abs(value)
    if abs(magnitude - 1) <= _ONE:
        return "1" if value > 0 else "-1"
    if not 1e-3 <= magnitude < 1e5:
        mantissa, exponent = f"{value:.{digits - 2}e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"
    if magnitude >= 10**digits:
        return f"{value:.0f}"
    while abs(float(f"{value:.{digits}g}")) == 1:
        digits += 1
    return f"{value:.{digits}g}"


def span(values: Iterable[float | None], digits: int = 4) -> str:
    """The smallest and largest of `values` as `min–max`, or one number where both print the same; None where none is defined."""
    known = defined(values)
    if not known:
        return UNDEFINED
    low, high = number(min(known), digits), number(max(known), digits)
    if low == high:
        return low
    return f"{low}–{high}" if min(known) >= 0 else f"{low} to {high}"


def percent(values: Iterable[float | None]) -> str:
    """Shares in [0, 1] as percentages: 0 %, 37 %, 0.2–99.9 %. A share below 1 never prints as 100 %."""
    known = defined(values)
    if not known:
        return UNDEFINED
    low, high = _percent(min(known)), _percent(max(known))
    return f"{low} %" if low == high else f"{low}–{high} %"


def _percent(share: float) -> str:
    if share in (0.0, 1.0):
        return str(int(100 * share))
    if share < 5e-4:
        return "<0.1"
    return f"{min(100 * share, 99.9):.0f}" if 0.01 <= share <= 0.99 else f"{min(100 * share, 99.9):.1f}"


def count(value: int) -> str:
    """A count of scalars: 999, 27.3k, 1.73M, 7.24B."""
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * unit:
            return f"{value / unit:#.3g}".rstrip(".") + name
    return str(value)


def decades(value: float | None) -> float | None:
    """log10 of |value|; None where it is undefined or 0."""
    return None if value is None or value == 0 else math.log10(abs(value))


def sparkline(gains: Sequence[float | None], width: int) -> str:
    """log10 of `gains` as bars at most `width` wide, over at least two decades; a column of zeros is `0`, one that was not measured `?`.

    Where several gains share a column, the one farthest from 1 stands for them.
    """
    columns = min(width, len(gains))
    bins = [gains[i * len(gains) // columns : (i + 1) * len(gains) // columns] for i in range(columns)]
    heights = [_extreme(b) for b in bins]
    logs = [h for h in heights if isinstance(h, float)]
    if not logs:
        return "".join(str(h) for h in heights)
    middle, reach = (min(logs) + max(logs)) / 2, max(max(logs) - min(logs), 2.0)
    low = middle - reach / 2
    return "".join(h if isinstance(h, str) else BARS[min(7, int(8 * (h - low) / reach))] for h in heights)


def bars(values: Sequence[float | None], width: int, low: float | None = None) -> str:
    """The values as bars at most `width` wide, from `low` (or the smallest) to the largest; a column is the mean of its values, `?` where none is defined."""
    columns = min(width, len(values))
    bins = [defined(values[i * len(values) // columns : (i + 1) * len(values) // columns]) for i in range(columns)]
    means = [sum(b) / len(b) if b else None for b in bins]
    floor = min(defined(means)) if low is None else low
    reach = max(defined(means)) - floor or 1.0
    return "".join("?" if m is None else BARS[min(7, int(8 * (m - floor) / reach))] for m in means)


def defined(values: Iterable[float | None]) -> list[float]:
    """Those that are not None."""
    return [v for v in values if v is not None]


def _extreme(gains: Sequence[float | None]) -> float | str:
    logs = [log for log in map(decades, gains) if log is not None]
    if logs:
        return max(logs, key=abs)
    return "0" if any(g == 0 for g in gains) else "?"
