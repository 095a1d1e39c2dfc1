"""One number that ranks reports, in decades of gradient lost or gained. Calibrated on networks that were trained: docs/calibration.md."""

from __future__ import annotations

from collections.abc import Iterable

from gradflow.records import Finding
from gradflow.rules.rule import MOST_DECADES
from gradflow.rules.table import RULES


def severity(findings: Iterable[Finding]) -> float:
    """The decades of the finding that counts most, `MOST_DECADES` at most, and 0 where none counts: `Rule.most` says how much one of its rule adds at most."""
    return max((min(f.decades, RULES[f.rule].most if f.rule in RULES else MOST_DECADES) for f in findings), default=0.0)
