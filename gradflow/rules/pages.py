"""The rules as markdown: docs/rules.md, and the help of SARIF."""

from __future__ import annotations

from gradflow.numbers import number
from gradflow.rules.rule import Rule


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
    """`warning below 0.001, error below 1e-6`, or the severity that it has without; and from when on a finding is worse, where that is not as of most."""
    side = "below" if rule.below else "above"
    every = (("note", rule.note), ("warning", rule.warning), ("error", rule.error))
    found = [f"{severity} {side} {number(limit)}" for severity, limit in every if limit is not None]
    if not found:
        return f"none ({rule.severity_without_limit})"
    worse = "" if rule.tolerance == Rule.tolerance else f"; {number(rule.tolerance)} decades more than before are worse"
    return ", ".join(found) + worse
