"""Names of modules: that of the model itself, and of repeated blocks which numbers can be another's after blocks came or went. Pure text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_INDEX = re.compile(r"\d+(?![0-9A-Za-z_])")
_TO = " … "  # a highway is named by its first skip and its last
Token = str | int


def called(name: str) -> str:
    """The name as a sentence has it: that of the model itself is empty."""
    return name or "(the model itself)"


def tokens(name: str) -> tuple[Token, ...]:
    """`layer1.0.conv` -> ("layer", 1, ".", 0, ".conv"). A number with a leading zero is text: it could not be printed back."""
    found: list[Token] = []
    end = 0
    for match in _INDEX.finditer(name):
        if str(int(match[0])) == match[0]:
            found += [name[end : match.start()], int(match[0])]
            end = match.end()
    return (*found, name[end:])


def counts(names: Iterable[str]) -> dict[str, int]:
    """How many blocks there are of each pattern: `{"layer*": 4, "layer*.*": 16}` for a ResNet-50, sorted."""
    seen: dict[str, set[tuple[Token, ...]]] = {}
    for end in {end for name in names for end in name.split(_TO)}:
        parts = tokens(end)
        for i, part in enumerate(parts):
            if isinstance(part, int):
                seen.setdefault(_pattern(parts[: i + 1]), set()).add(parts[: i + 1])
    return {pattern: len(seen[pattern]) for pattern in sorted(seen)}


def grown(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """By how many blocks each pattern grew (negative: shrank); those that did not are left out."""
    return {p: by for p in (*before, *after) if (by := after.get(p, 0) - before.get(p, 0))}


def renumbered(old: str, new: str, growth: Mapping[str, int]) -> bool:
    """Whether `new` can be what `old` was called before blocks came or went: one number of it moved, the way in which its pattern grew and no farther.

    Args:
        growth: see `grown`. Where it is empty no name is another's.
    """
    ends = list(zip(old.split(_TO), new.split(_TO), strict=False))
    return old.count(_TO) == new.count(_TO) and old != new and all(a == b or _moved(tokens(a), tokens(b), growth) for a, b in ends)


def _moved(old: tuple[Token, ...], new: tuple[Token, ...], growth: Mapping[str, int]) -> bool:
    apart = [i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b]
    if len(old) != len(new) or len(apart) != 1:
        return False
    a, b = old[apart[0]], new[apart[0]]
    if not (isinstance(a, int) and isinstance(b, int)):
        return False
    by = growth.get(_pattern(old[: apart[0] + 1]), 0)
    return min(by, 0) <= b - a <= max(by, 0)


def _pattern(parts: tuple[Token, ...]) -> str:
    return "".join("*" if isinstance(part, int) else part for part in parts)
