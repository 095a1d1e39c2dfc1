"""What a finding counts: the one number that ranks reports, in decades of gradient lost or gained, and the order in which findings are told. The number is
calibrated on networks that were trained: docs/calibration.md."""

from __future__ import annotations

from collections.abc import Iterable

from gradflow.records import GRAVITY, Finding
from gradflow.rules.rule import MOST_DECADES
from gradflow.rules.table import RULES


def counted(finding: Finding) -> float:
    """The decades that a finding adds to the severity of a report: its own, and no more than `Rule.most` of its rule."""
    return min(finding.decades, RULES[finding.rule].most if finding.rule in RULES else MOST_DECADES)


def severity(findings: Iterable[Finding]) -> float:
    """The decades of the finding that counts most, `MOST_DECADES` at most, and 0 where none counts."""
    return max(map(counted, findings), default=0.0)


def rank(finding: Finding) -> tuple[int, bool, bool, float]:
    """A key that puts the worst first: by severity; then a severed skip, the cause of others; then what counts in the severity of the report before what does
    not, so that no one gate's λ is told before the highway that it starves; then by decades beyond the limit."""
    return -GRAVITY[finding.severity], finding.rule != "GF208", counted(finding) == 0, -finding.decades


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings in the order in which a report tells them: by `rank`, but what explains another finding right before it where it would come later."""
    order = sorted(findings, key=rank)
    told: dict[int, Finding] = {}
    for finding in order:
        cause = next((f for f in order if f.where == finding.caused_by and f.caused_by is None), finding)
        for one in (cause, finding):
            told.setdefault(id(one), one)
    return tuple(told.values())
