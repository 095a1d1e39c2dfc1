"""The rules as text for people: `gradflow rule`. Wrapped and in colour on a terminal, plain elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from gradflow.render.columns import GAP, printed, wrap
from gradflow.render.findings import COLORS
from gradflow.rules import Rule
from gradflow.rules.pages import limits

NARROWEST = 60
_LABEL = 10
_INDENT = 16


def listing(rules: Sequence[Rule], *, width: int | None, color: bool = False) -> str:
    """Each rule with its code, its worst severity, its name and what it looks at.

    Args:
        rules: what to list.
        width: no line is longer, at least 60; None for a line each, however long.
        color: whether escape codes may be written.
    """
    room = max(width or 0, NARROWEST)
    longest = max(len(rule.name) for rule in rules) + GAP
    lines: list[Text] = []
    for rule in rules:
        worst = rule.severities[0]
        head = Text.assemble((rule.code, "bold"), "  ", (f"{worst:7}", COLORS[worst]), "  ", (rule.name.ljust(longest), "bold"))
        if width is None:
            lines.append(head + Text(rule.what))
        else:
            head.rstrip()
            lines += [head, *wrap(Text(rule.what), room, _INDENT)]
    return printed(lines, room, color)


def entries(rules: Sequence[Rule], *, width: int, color: bool = False) -> str:
    """All that is to be said of each rule, no line longer than `width`, which is at least 60, but for those of its example."""
    width = max(width, NARROWEST)
    lines: list[Text] = []
    for rule in rules:
        lines += [Text("")] if lines else []
        lines += _entry(rule, width)
    return printed(lines, width, color)


def _entry(rule: Rule, width: int) -> list[Text]:
    lines = [Text.assemble((rule.code, COLORS[rule.severities[0]]), (f" {rule.name}", "bold")), Text("")]
    lines += [*_told("What", rule.what, width), *_told("Why", rule.why, width)]
    example = rule.example.splitlines()
    lines += [Text.assemble((("Example" if i == 0 else "").ljust(_LABEL), "bold"), (line, "cyan")) for i, line in enumerate(example)]
    return [*lines, *_told("Fix", rule.fix, width), *_told("Limits", limits(rule), width)]


def _told(label: str, text: str, width: int) -> list[Text]:
    return wrap(Text(text), width, _LABEL, label)
