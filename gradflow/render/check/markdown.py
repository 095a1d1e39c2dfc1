"""GitHub-flavoured markdown, for a step's summary or a pull request: a table of the targets, then what is wrong with each.

Names stand in `<code>` elements with every significant character as an entity: no emphasis, emoji, mention or cell border is read out of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gradflow.blocks import called
from gradflow.records import Checks, Finding, Outcome, Severity, Trouble, verdict
from gradflow.render import folding, summary
from gradflow.render.check import words
from gradflow.render.markdown.escape import code, escape
from gradflow.render.names import clean, place

_STATES = {"passed": "✅ passed", "failed": "❌ failed", "broken": "💥 broken"}
_MARKS: Mapping[Severity, str] = {"error": "❌", "warning": "⚠️", "info": "ℹ️"}
MOST_NAMES = 8


def render(checks: Checks) -> str:
    """The whole run; targets that passed have a row in the table and, where they have warnings, a closed section."""
    head = f"## gradflow check: {words.tally(checks)}\n"
    rows = ["| target | state | verdict | severity | worst finding | silenced |", "| --- | --- | --- | ---: | --- | --- |", *map(_row, checks.outcomes)]
    sections = [_section(o, words.groups([f for f in words.counting(o) if f.severity != "info"])) for o in checks.outcomes]
    notes = "".join(f"- {escape(clean(note))}\n" for note in checks.notes)
    blocks = [head, "".join(f"{row}\n" for row in rows) if checks.outcomes else "", *sections, f"**Notes**\n\n{notes}" if notes else ""]
    return "\n".join(block for block in blocks if block)


def _row(outcome: Outcome) -> str:
    if outcome.trouble:
        facts = ["", "", escape(clean(f"{outcome.trouble.kind}: {outcome.trouble.fact}")), ""]
    else:
        facts = [verdict(words.own(outcome)), words.decades(outcome), escape(words.worst(outcome)), escape(words.silenced(outcome))]
    return f"| {' | '.join([code(outcome.target), _STATES[outcome.state], *facts])} |"


def _section(outcome: Outcome, groups: Sequence[Sequence[Finding]]) -> str:
    if outcome.trouble:
        return _folded(outcome, outcome.trouble.kind, _trouble(outcome.trouble))
    if not groups:
        return ""
    body = "".join(map(_entry, groups))
    report = words.report(outcome)
    step = f"\n**Next step.** {escape(summary.next_step(report))}\n" if report else ""
    return _folded(outcome, verdict(words.own(outcome)), body + step)


def _folded(outcome: Outcome, what: str, body: str) -> str:
    opened = "" if outcome.state == "passed" else " open"
    return f"<details{opened}><summary>{code(outcome.target)}: {escape(clean(what))}</summary>\n\n{body}\n</details>\n"


def _trouble(trouble: Trouble) -> str:
    told = f"{escape(clean(trouble.fact))} {escape(clean(trouble.remedy))}\n"
    lines = [escape(line) for line in trouble.detail.splitlines()]
    return told + (f"\n<pre>{'&#10;'.join(lines)}</pre>\n" if lines else "")


def _entry(group: Sequence[Finding]) -> str:
    first = group[0]
    names = folding.pattern(dict.fromkeys(f.where for f in group))
    more = summary.more(len(names) - MOST_NAMES)
    times = f" ×{len(group)}" if len(group) > 1 else ""
    shown = ", ".join(code(called(name)) for name in names[:MOST_NAMES])
    same = len({f.message for f in group}) == 1
    told = clean(first.message) if same else summary.told(first)
    lines = [f"- {_MARKS[first.severity]} **{first.severity} {escape(words.title(first.rule))}**{times} {shown}{more}"]
    lines += [escape(told + summary.limits(group))]
    lines += [f"*Fix:* {escape(clean(first.fix))}"] if first.fix else []
    lines += [f"*At:* {code(place(first.location))}"] if first.location else []
    return "<br>\n  ".join(lines) + "\n"
