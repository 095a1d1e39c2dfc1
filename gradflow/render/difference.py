"""A Difference as text for people: whether it got worse, then the findings, then what changed in skips, highways and layers, repeated blocks folded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.style import Style
from rich.text import Text

from gradflow.blocks import called
from gradflow.difference import Difference, FindingChange, NumberChange, Part, Side, WordChange
from gradflow.numbers import number, span
from gradflow.render.columns import printed, wrap
from gradflow.render.folding import Item, fold, pattern
from gradflow.render.names import clean, link, place
from gradflow.render.summary import listed, more, named, plural

_NARROWEST = 60
_INDENT = 10
_MOST_ROWS = 30
_GAINS = frozenset({"gain", "total_gain"})
Change = NumberChange | WordChange
_STYLES = {"new": "bold red", "worse": "bold red", "better": "bold green", "gone": "bold green", "added": "green", "removed": "yellow", "changed": "cyan"}
_WORDS = {"lam": "λ", "closed_by": "closed by", "bypassed_layers": "layers bypassed", "trunk_ops": "trunk", "total_gain": "gain with branches",
          "unreached": "unreached parameters", "frozen": "frozen parameters"}  # fmt: skip


def render(found: Difference, *, width: int = 80, color: bool = False, unfold: bool = False, links: bool = False) -> str:
    """The difference as text.

    Args:
        width: no line is longer, in terminal cells; at least 60.
        color: whether escape codes may be written.
        unfold: whether every finding, layer and skip gets a line of its own.
        links: whether places are hyperlinks (OSC 8); without `color` there are none.
    """
    width = max(width, _NARROWEST)
    blocks = [
        _opening(found, width),
        _findings(found.findings, width, unfold, links and color),
        *(_part(title, part, width, unfold) for title, part in (("Skips", found.skips), ("Highways", found.highways), ("Layers", found.layers))),
    ]
    return printed([line for i, block in enumerate(b for b in blocks if b) for line in ([Text("")] if i else []) + block], width, color)


def _opening(found: Difference, width: int) -> list[Text]:
    before, after = found.before, found.after
    severities = _arrow(number(before.severity, 3), number(after.severity, 3))
    said = f"verdict {_arrow(before.verdict, after.verdict)}, severity {severities}"
    if found.worse:
        word, style = " WORSE ", "bold white on red"
    else:
        word, style = (" BETTER " if _better(found) else " NO WORSE " if _changes(found) else " NO CHANGE "), "bold white on green"
    return [Text.assemble((word, style), "  ", said), *_side("before", before, width), *_side("after", after, width)]


def _side(label: str, side: Side, width: int) -> list[Text]:
    facts = (clean(side.spec), *([clean(side.model_class)] if side.model_class != side.spec else []))
    counted = (plural(side.layers, "layer"), plural(side.skips, "skip"), plural(side.highways, "highway"))
    return wrap(Text(" · ".join((*facts, *counted))), width, _INDENT, f"  {label}")


def _better(found: Difference) -> bool:
    """Whether an error or a warning is gone or less, of what did not get worse."""
    return any(f.change in ("better", "gone") and f.severity_before != "info" for f in found.findings)


def _changes(found: Difference) -> bool:
    return bool(found.findings) or any(part.added or part.removed or part.words or part.numbers for part in (found.layers, found.skips, found.highways))


def _findings(found: Sequence[FindingChange], width: int, unfold: bool, links: bool) -> list[Text]:
    """One entry for all findings of one rule of which the same is to be said."""
    groups: dict[object, list[FindingChange]] = {}
    for i, change in enumerate(found):
        kind = (change.change, change.rule, change.severity_before, change.severity_after)
        groups.setdefault(i if unfold else kind, []).append(change)
    return [line for group in groups.values() for line in _finding(group, width, links)]


def _finding(group: Sequence[FindingChange], width: int, links: bool) -> list[Text]:
    first = group[0]
    told = clean(first.message) if named(first.where, first.message) else f"{called(clean(first.where))}: {clean(first.message)}"
    head = f"{_severity(group)} {first.rule}"
    if len(group) > 1:
        head += f" ×{len(group)} {listed(pattern(dict.fromkeys(c.where for c in group)))}:"
    words = Text(clean(f"{head} {told}"))
    places = list(dict.fromkeys(c.location for c in group if c.location is not None))
    if places:
        words.append(" (", style="dim")
        words.append(place(places[0]), style=Style(dim=True, link=link(places[0]) if links else None))
        words.append(f"{more(len(places) - 1, 'place')})", style="dim")
    return _labelled(first.change, words, width)


def _severity(group: Sequence[FindingChange]) -> str:
    first = group[0]
    if first.severity_before is None or first.severity_after is None:
        return first.severity_after or first.severity_before or ""
    before, after = span([c.decades_before for c in group], 3), span([c.decades_after for c in group], 3)
    return f"{_arrow(first.severity_before, first.severity_after)}, {_arrow(before, after)} decades:"


def _part(title: str, part: Part, width: int, unfold: bool) -> list[Text]:
    """A heading that counts, then one line for all names that have one and the same to say."""
    changed: dict[str, list[Change]] = {}
    every: Sequence[Change] = [*part.words, *part.numbers]
    for change in every:
        changed.setdefault(change.name, []).append(change)
    if not (part.added or part.removed or changed):
        return []
    counted = Counter({"added": len(part.added), "removed": len(part.removed), "changed": len(changed)})
    lines = [Text(f"{title}  " + ", ".join(f"{n} {word}" for word, n in counted.items() if n), style="bold")]
    told: list[tuple[str, str, str]] = []
    for word, names in (("added", part.added), ("removed", part.removed)):
        told += [(word, name, "") for name in (names if unfold else pattern(names))]
    rows, hidden = _rows(changed, unfold)
    told += [("changed", name, _said([changed[member] for member in members])) for name, members in rows]
    for word, name, said in told:
        lines += _labelled(word, Text(f"{called(clean(name))}{f'  {said}' if said else ''}"), width)
    return lines + ([Text(f"  {plural(hidden, 'more row')}, all of which changed less: --all shows every row", style="dim")] if hidden else [])


def _rows(changed: Mapping[str, Sequence[Change]], unfold: bool) -> tuple[list[tuple[str, list[str]]], int]:
    """Each row's name and members, and how many rows are not shown: of too many those stay whose numbers changed most."""
    names = list(changed)
    if unfold:
        return [(name, [name]) for name in names], 0
    rows = [(group.name, [names[i] for i in group.members]) for group in fold([_item(name, changed[name]) for name in names])]
    order = sorted(rows, key=lambda row: -max(_extent(c) for name in row[1] for c in changed[name]))
    kept = {name for name, _ in order[:_MOST_ROWS]}
    return [row for row in rows if row[0] in kept], max(0, len(rows) - _MOST_ROWS)


def _item(name: str, changes: Sequence[Change]) -> Item:
    """Rows fold where the same fields changed: gains along the blocks may drift, words and other numbers agree."""
    drifting = [c for c in changes if isinstance(c, NumberChange) and c.field in _GAINS]
    alike = [c for c in changes if isinstance(c, NumberChange) and c.field not in _GAINS]
    words = tuple((c.before, c.after) for c in changes if isinstance(c, WordChange))
    ways = tuple((c.before or 0.0) < (c.after or 0.0) for c in drifting)
    return Item(
        name=name,
        key=(tuple(c.field for c in changes), words, ways, changes[0].was == changes[0].name),
        near=tuple(v for c in alike for v in (c.before, c.after)),
        drift=tuple(v for c in drifting for v in (c.before, c.after)),
    )


def _extent(change: Change) -> float:
    """How much it changed: a number's decades; anything that is not a change of size counts more than any of these."""
    if isinstance(change, WordChange) or not change.before or not change.after:
        return math.inf
    return abs(math.log10(abs(change.before)) - math.log10(abs(change.after)))


def _said(members: Sequence[Sequence[Change]]) -> str:
    """`kind identity → scaled, λ 1 → 0.9`, of several members the range of each number."""
    parts = []
    for same in zip(*members, strict=True):
        before, after = ([c.before for c in same], [c.after for c in same])
        parts.append(f"{_WORDS.get(same[0].field, same[0].field)} {_arrow(_values(before), _values(after))}")
    renamed = [changes[0].was for changes in members if changes[0].was != changes[0].name]
    return ", ".join(parts) + (f" (was {listed(pattern(renamed))})" if renamed else "")


def _values(values: Sequence[str | float | None]) -> str:
    """A word that all share, or the range of the numbers."""
    words = [v for v in values if isinstance(v, str)]
    if words:
        return clean(words[0]) or "nothing"
    return span([v for v in values if not isinstance(v, str)], 4 if len(values) == 1 else 3)


def _arrow(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"


def _labelled(word: str, text: Text, width: int) -> list[Text]:
    """`text` behind a hanging indent with a word in front that says what happened."""
    first, *rest = wrap(text, width, _INDENT)
    head = Text.assemble("  ", (f"{word:<{_INDENT - 2}}", _STYLES[word]), first[_INDENT:])
    return [head, *rest]
