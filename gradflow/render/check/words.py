"""What every format of `gradflow check` says alike: tallies, names, the text of findings. Escapes are each format's own."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from gradflow.blocks import called
from gradflow.numbers import number
from gradflow.records import GRAVITY, Checks, Finding, Outcome, Report, Trouble, verdict
from gradflow.render import folding, names, summary
from gradflow.rules import RULES, severity

MANY = 3  # how many names a sentence lists
visible = names.visible


def tally(checks: Checks) -> str:
    """`20 targets: 17 passed, 2 failed, 1 broken; silenced findings (known: 24, by comments: 6); exit 3`."""
    states = [o.state for o in checks.outcomes]
    found = [f"{states.count(state)} {state}" for state in ("passed", "failed", "broken") if state in states]
    left_out = silenced(*checks.outcomes)
    parts = [", ".join(found) or "nothing to check", *([f"silenced findings ({left_out})"] if left_out else []), f"exit {checks.exit_code}"]
    return f"{summary.plural(len(states), 'target')}: {'; '.join(parts)}"


def counting(outcome: Outcome) -> list[Finding]:
    """The findings that count, worst first, those that are equally bad by their depth."""
    return _ordered(outcome.findings, outcome.report)


def own(outcome: Outcome) -> list[Finding]:
    """What is the matter with the model: the findings that count, then those that are known; what a comment silences is none. Empty of a broken target."""
    return [*counting(outcome), *_ordered([s.finding for s in outcome.silenced if s.by == "baseline"], outcome.report)]


def report(outcome: Outcome) -> Report | None:
    """The report with the model's own findings, verdict and severity; None of a broken target."""
    findings = own(outcome)
    return outcome.report and dataclasses.replace(outcome.report, findings=tuple(findings), verdict=verdict(findings), severity=severity(findings))


def _ordered(findings: Sequence[Finding], report: Report | None) -> list[Finding]:
    """Extents that print alike are alike, whatever the rounding of a float says; of one rule the finding nearest the input is then the first."""
    if report is None:
        return []
    depths = {name: layer.depth for name, layer in summary.owners(report).items()}
    depths |= {skip.id: skip.fork_depth for skip in report.skips}
    depths |= {highway.name: min((depths.get(skip, 0) for skip in highway.skips), default=0) for highway in report.highways}
    first: dict[tuple[str, float], int] = {}
    for i, finding in enumerate(findings):
        first.setdefault((finding.rule, round(finding.decades, 2)), i)
    return sorted(findings, key=lambda f: (-GRAVITY[f.severity], first[f.rule, round(f.decades, 2)], depths.get(f.where, len(depths))))


def fails(finding: Finding, checks: Checks) -> bool:
    """Whether the finding is at or above `fail_on`."""
    return GRAVITY[finding.severity] >= GRAVITY[checks.fail_on]


def title(code: str) -> str:
    """`GF201 attenuating-skip`; the code alone where no rule has it."""
    return f"{code} {RULES[code].name}" if code in RULES else code


def groups(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Findings of one rule and severity at one line of source together, ordered by the first of each."""
    found: dict[object, list[Finding]] = {}
    for finding in findings:
        found.setdefault((finding.rule, finding.severity, finding.location), []).append(finding)
    return list(found.values())


def told(group: Sequence[Finding]) -> str:
    """One group as a sentence, names as they are: `layer1.[0-17] (×18): the skip passes half [0.5, limit 0.95]`."""
    first = group[0]
    names = [called(name) for name in folding.pattern(dict.fromkeys(f.where for f in group))]
    times = f" (×{len(group)})" if len(group) > 1 else ""
    head = "" if len(group) == 1 and summary.named(first.where, first.message) else f"{', '.join(names[:MANY])}{summary.more(len(names) - MANY)}{times}: "
    other = "" if len({f.message for f in group}) == 1 else "" if summary.named(first.where, first.message) else f"{called(first.where)}: "
    return head + other + first.message + summary.limits(group)


def worst(outcome: Outcome) -> str:
    """`GF201 attenuating-skip ×54`: the worst finding's rule and how many of it, of those that count where one does, else of those that are known; of notes
    the one that counts most, as one; empty where none does."""
    findings = next((found for found in (counting(outcome), own(outcome)) if any(f.severity != "info" for f in found)), own(outcome))
    first = next((f for f in findings if f.severity != "info"), None)
    if first is None:
        counted = max((f for f in findings if f.decades), key=lambda f: f.decades, default=None)
        return f"{title(counted.rule)} (note)" if counted else ""
    times = sum(f.rule == first.rule and f.severity == first.severity for f in findings)
    return title(first.rule) + (f" ×{times}" if times > 1 else "")


def decades(outcome: Outcome) -> str:
    """The model's own severity, as printed; empty of a broken target."""
    return "" if outcome.report is None else number(severity(own(outcome)), 3)


def silenced(*outcomes: Outcome) -> str:
    """`known: 24, by comments: 6`: how many findings do not count, and why; empty where every one does."""
    by = Counter(s.by for outcome in outcomes for s in outcome.silenced)
    return ", ".join(f"{how}: {times}" for times, how in ((by["baseline"], "known"), (by["ignored"], "by comments")) if times)


def broken(trouble: Trouble) -> str:
    """The error as lines: fact, remedy, detail."""
    return "\n".join(part for part in (trouble.fact, trouble.remedy, trouble.detail) if part)
