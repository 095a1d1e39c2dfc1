"""What every format of `gradflow check` says alike: tallies, names, the text of findings. Escapes are each format's own."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from gradflow.records import Checks, Finding, Outcome, Report, Severity, Trouble, verdict
from gradflow.render import folding, summary
from gradflow.render.numbers import number
from gradflow.rules import RULES, severity

RANK: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}
MANY = 3  # how many names a sentence lists


def tally(checks: Checks) -> str:
    """`20 targets: 17 passed, 2 failed, 1 broken; silenced findings: 24 baseline, 6 comment; exit 3`."""
    states = [o.state for o in checks.outcomes]
    found = [f"{states.count(state)} {state}" for state in ("passed", "failed", "broken") if state in states]
    left_out = silenced(*checks.outcomes)
    parts = [", ".join(found) or "nothing to check", *([f"silenced findings: {left_out}"] if left_out else []), f"exit {checks.exit_code}"]
    return f"{summary.plural(len(states), 'target')}: {'; '.join(parts)}"


def counted(outcome: Outcome) -> Report | None:
    """The report as if it had found what counts and nothing else; None of a broken target."""
    report, findings = outcome.report, outcome.findings
    return report and dataclasses.replace(report, findings=tuple(findings), verdict=verdict(findings), severity=severity(findings))


def fails(finding: Finding, checks: Checks) -> bool:
    """Whether the finding is at or above `fail_on`."""
    return RANK[finding.severity] <= RANK[checks.fail_on]


def title(code: str) -> str:
    """`GF201 attenuating-skip`; the code alone where no rule has it."""
    return f"{code} {RULES[code].name}" if code in RULES else code


def groups(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Findings of one rule and severity at one line of source together, ordered by the first of each."""
    found: dict[object, list[Finding]] = {}
    for finding in findings:
        found.setdefault((finding.rule, finding.severity, finding.location), []).append(finding)
    return list(found.values())


def where(finding: Finding) -> str:
    """The name, of the model itself too."""
    return finding.where or "(the model itself)"


def told(group: Sequence[Finding]) -> str:
    """One group as a sentence, names as they are: `layer1.[0-17] (×18): the skip passes half [0.5, limit 0.95]`."""
    first = group[0]
    names = [name or "(the model itself)" for name in folding.pattern(dict.fromkeys(f.where for f in group))]
    more = f" and {len(names) - MANY} more" if len(names) > MANY else ""
    times = f" (×{len(group)})" if len(group) > 1 else ""
    head = "" if len(group) == 1 and summary.named(first.where, first.message) else f"{', '.join(names[:MANY])}{more}{times}: "
    other = "" if len({f.message for f in group}) == 1 else "" if summary.named(first.where, first.message) else f"{where(first)}: "
    return head + other + first.message + summary.limits(group)


def worst(findings: Sequence[Finding]) -> str:
    """`GF201 attenuating-skip ×54`: the first finding's rule and how many of it; of notes the one that counts most, as one; empty where nothing counts."""
    first = next((f for f in findings if f.severity != "info"), None)
    if first is None:
        counted = max((f for f in findings if f.decades), key=lambda f: f.decades, default=None)
        return f"{title(counted.rule)} (note)" if counted else ""
    times = sum(f.rule == first.rule and f.severity == first.severity for f in findings)
    return title(first.rule) + (f" ×{times}" if times > 1 else "")


def decades(outcome: Outcome) -> str:
    """The severity of what counts, as printed; empty of a broken target."""
    return "" if outcome.report is None else number(severity(outcome.findings), 3)


def silenced(*outcomes: Outcome) -> str:
    """`24 baseline, 6 comment`: how many findings do not count, by which; empty where every one does."""
    by = Counter(s.by for outcome in outcomes for s in outcome.silenced)
    return ", ".join(f"{times} {how}" for times, how in ((by["baseline"], "baseline"), (by["ignored"], "comment")) if times)


def broken(trouble: Trouble) -> str:
    """The error as lines: fact, remedy, detail."""
    return "\n".join(part for part in (trouble.fact, trouble.remedy, trouble.detail) if part)


def visible(text: str, keep: str = "") -> str:
    """`text` with control characters and lone surrogates as their Python escapes, but for those in `keep`; all else stays itself."""
    return "".join(c if c in keep or not _hidden(c) else c.encode("unicode_escape").decode() for c in text)


def _hidden(c: str) -> bool:
    code = ord(c)
    return code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000 or code in (0x2028, 0x2029, 0xFFFE, 0xFFFF)
