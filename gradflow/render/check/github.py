"""Workflow commands of GitHub Actions: each line one annotation, at the user's file and line where that is in the repository.

A step shows ten errors and ten warnings and drops the rest, so findings of one rule at one line are one annotation, and notes are left out unless asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gradflow.records import Checks, Finding, Outcome, Severity
from gradflow.render.check import places, words

_COMMANDS: Mapping[Severity, str] = {"error": "error", "warning": "warning", "info": "notice"}
_DATA = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_PROPERTY = {**_DATA, ":": "%3A", ",": "%2C"}


def render(checks: Checks, *, infos: bool = False, root: Path | None = None) -> str:
    """One command per group of findings, per broken target and per note of the run; empty where there is nothing to say.

    Args:
        checks: what to show.
        infos: whether notes among the findings are annotations too.
        root: of the repository; by default it is looked for from the current directory upward.
    """
    base = root or places.root()
    lines: list[str] = []
    for outcome in checks.outcomes:
        lines += _broken(outcome, base)
        lines += [_finding(group, outcome, base) for group in words.groups(words.counting(outcome)) if infos or group[0].severity != "info"]
    lines += [_command("notice", note, title="gradflow") for note in checks.notes]
    return "".join(f"{line}\n" for line in lines)


def escape_data(text: str) -> str:
    """`text` as the message of a command."""
    return _escape(text, _DATA)


def escape_property(text: str) -> str:
    """`text` as the value of a command's property."""
    return _escape(text, _PROPERTY)


def _escape(text: str, table: Mapping[str, str]) -> str:
    return "".join(table.get(c, c) for c in words.visible(text, keep="\n\t"))


def _finding(group: Sequence[Finding], outcome: Outcome, base: Path) -> str:
    first = group[0]
    message = words.told(group)
    if first.fix:
        message += f"\nFix: {first.fix}"
    if first.location and places.relative(first.location.file, base) is None:
        message += f"\nAt: {first.location}"
    message += f"\nTarget: {outcome.target}"
    return _command(_COMMANDS[first.severity], message, place=places.anchor(first.location, outcome, base), title=words.title(first.rule))


def _broken(outcome: Outcome, base: Path) -> list[str]:
    if outcome.trouble is None:
        return []
    message = f"{words.broken(outcome.trouble)}\nTarget: {outcome.target}"
    return [_command("error", message, place=places.anchor(None, outcome, base), title=f"gradflow {outcome.trouble.kind}")]


def _command(name: str, message: str, *, place: tuple[str, int] | None = None, title: str) -> str:
    known = {"file": place[0], "line": str(place[1]), "title": title} if place else {"title": title}
    properties = ",".join(f"{key}={escape_property(value)}" for key, value in known.items())
    return f"::{name} {properties}::{escape_data(message)}"
