"""The rules as text: `gradflow rule`, and docs/rules.md."""

from __future__ import annotations

from gradflow.rules.rule import Rule
from gradflow.rules.table import RULES


def listing() -> str:
    """One line per rule: code, name, the worst severity, what it looks at."""
    return "".join(f"{rule.code}  {rule.severities[0]:7}  {rule.name:24}{rule.what}\n" for rule in RULES.values())


def entry(rule: Rule) -> str:
    """All that is to be said of one rule, in markdown."""
    return (
        f"## {rule.code} {rule.name}\n\n"
        f"**What it does.** {rule.what}\n\n"
        f"**Why is this bad?** {rule.why}\n\n"
        f"**Example.**\n\n```py\n{rule.example}\n```\n\n"
        f"**Fix.** {rule.fix}\n\n"
        f"**Limits.** {limits(rule)}.\n"
    )


def limits(rule: Rule) -> str:
    """`warning below 0.001, error below 1e-06`, or the severity that it has without."""
    side = "below" if rule.below else "above"
    found = [f"{severity} {side} {limit:g}" for severity, limit in (("note", rule.note), ("warning", rule.warning), ("error", rule.error)) if limit is not None]
    return ", ".join(found) or f"none ({rule.severity_without_limit})"
