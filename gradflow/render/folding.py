"""Repeated blocks folded into one row. Knows names and numbers, nothing of gradients.

Two rows fold where their names differ by one index, their keys are equal and their numbers agree; so a fold hides no odd one out.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from gradflow.blocks import Token, tokens

_BARE = "bare"
_NAMED = "named"
_SHORTEST = {_BARE: 2, _NAMED: 3}


@dataclass(frozen=True, kw_only=True)
class Item:
    """One row before folding.

    Attributes:
        key: what must be equal, such as the kind.
        near: numbers that must all agree within 10 % (or 0.05).
        drift: numbers that may drift along the blocks, by less than a factor of 10 from one block to the next.
    """

    name: str
    key: Hashable
    near: tuple[float | None, ...] = ()
    drift: tuple[float | None, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows folded into one: `members` are their positions in the input, in order."""

    name: str
    members: tuple[int, ...]


@dataclass(frozen=True)
class _Row:
    tokens: tuple[Token, ...]
    members: tuple[int, ...]

    def without(self, position: int) -> tuple[Token, ...]:
        return (*self.tokens[:position], *self.tokens[position + 1 :])

    def index(self, position: int) -> int:
        token = self.tokens[position]
        assert isinstance(token, int)
        return token


def fold(items: Sequence[Item]) -> list[Group]:
    """`items` as groups, each item in exactly one, ordered by first member."""
    rows = [_Row(tokens(item.name), (i,)) for i, item in enumerate(items)]
    deepest = max((len(row.tokens) for row in rows), default=0)
    for style in (_BARE, _NAMED):
        for position in reversed(range(deepest)):
            rows = _fold_at(rows, items, position, style)
    return [Group(name="".join(map(str, row.tokens)), members=tuple(sorted(row.members))) for row in sorted(rows, key=lambda r: min(r.members))]


def pattern(names: Iterable[str]) -> list[str]:
    """`names` as the fewest folded names, whatever their numbers."""
    return [group.name for group in fold([Item(name=name, key=None) for name in names])]


def _style(row: _Row, position: int) -> str | None:
    """How the token at `position` can fold: a bare index (`.0.`), a numbered name (`layer1`), or not at all."""
    if position >= len(row.tokens) or not isinstance(row.tokens[position], int):
        return None
    before = str(row.tokens[position - 1])
    return _BARE if before in ("", ".") or before.endswith(".") else _NAMED


def _fold_at(rows: list[_Row], items: Sequence[Item], position: int, style: str) -> list[_Row]:
    folded: list[_Row] = []
    families: dict[Hashable, list[_Row]] = {}
    for row in rows:
        if _style(row, position) == style:
            families.setdefault((row.without(position), items[row.members[0]].key), []).append(row)
        else:
            folded.append(row)
    for family in families.values():
        ordered = sorted(family, key=lambda row: row.index(position))
        folded += itertools.chain.from_iterable(_merge(run, position, style) for run in _runs(ordered, items, position))
    return folded


def _runs(family: list[_Row], items: Sequence[Item], position: int) -> list[list[_Row]]:
    """Cuts a family, ordered by index, into runs with one stride in which the numbers agree."""
    runs: list[list[_Row]] = []
    for row in family:
        run = runs[-1] if runs else []
        step = row.index(position) - run[-1].index(position) if run else 0
        if run and step > 0 and _agree(run, row, items):
            stride = run[1].index(position) - run[0].index(position) if len(run) > 1 else step
            if step == stride:
                run.append(row)
                continue
            if len(run) == 2 and stride > step:
                runs[-1:] = [run[:1], [run[1], row]]
                continue
        runs.append([row])
    return runs


def _merge(run: list[_Row], position: int, style: str) -> list[_Row]:
    first, last = run[0].index(position), run[-1].index(position)
    stride = (last - first) // max(len(run) - 1, 1)
    if len(run) < (_SHORTEST[style] if stride <= 1 else 3):
        return run
    text = f"[{first}-{last}]" if stride == 1 else f"[{first},{first + stride},{last if len(run) == 3 else f'…,{last}'}]"
    tokens = (*run[0].tokens[:position], text, *run[0].tokens[position + 1 :])
    return [_Row(tokens, tuple(itertools.chain.from_iterable(row.members for row in run)))]


def _agree(run: list[_Row], row: _Row, items: Sequence[Item]) -> bool:
    drifts = zip(items[run[-1].members[0]].drift, items[row.members[0]].drift, strict=True)
    if not all(_follows(before, after) for before, after in drifts):
        return False
    both = (*(m for r in run for m in r.members), *row.members)
    return all(_near([items[m].near[i] for m in both]) for i in range(len(items[row.members[0]].near)))


def _follows(before: float | None, after: float | None) -> bool:
    if not before or not after:
        return before == after
    return 0.1 <= abs(before) / abs(after) <= 10 if abs(after) >= 1e-290 else abs(before) < 1e-289


def _near(values: list[float | None]) -> bool:
    defined = [v for v in values if v is not None]
    if len(defined) < len(values):
        return not defined
    low, high = min(defined), max(defined)
    return high / 2 - low / 2 <= max(0.05 * max(abs(low), abs(high)), 0.025) and (low == 0) == (high == 0)
