"""What `gradflow check` found: one outcome for each target, and what was left out of account on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gradflow.codec import Document
from gradflow.records.base import Location, Severity
from gradflow.records.report import Finding, Report

CHECKS_SCHEMA = "gradflow/checks/v1"

State = Literal["passed", "failed", "broken"]


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Why a target could not be profiled.

    Attributes:
        kind: class of the error, e.g. "TargetFileError".
        fact, remedy, detail: its text.
        exit_code: 2 where the target, the input or the usage is wrong, 3 where the model itself failed.
    """

    kind: str
    fact: str
    remedy: str
    detail: str
    exit_code: int


@dataclass(frozen=True, kw_only=True)
class Silenced:
    """A finding that fails no target, and why: "baseline" (it is known), "ignored" (a comment in the source)."""

    finding: Finding
    by: Literal["baseline", "ignored"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One target.

    Attributes:
        target: as it was given, with its arguments where they tell it from another.
        state: "passed", "failed" with a finding at or above `fail_on`, "broken" where there is no report.
        findings: those that count, worst first: of the rules selected, neither silenced nor in the baseline.
        silenced: the others of the rules selected.
        report: with all findings of the model, whether they count or not; None where there is a trouble.
        trouble: None where there is a report.
        exit_code: of this target alone.
        seconds: it took.
        listed: the line of the configuration that names the target; None where that is not known, or none does.
    """

    target: str
    state: State
    findings: Sequence[Finding]
    silenced: Sequence[Silenced]
    report: Report | None
    trouble: Trouble | None
    exit_code: int
    seconds: float
    listed: Location | None = None


@dataclass(frozen=True, kw_only=True)
class Checks(Document):
    """One run of `gradflow check`.

    Attributes:
        outcomes: in the order in which the targets were given.
        fail_on: the least severity that fails a target.
        notes: on the run as a whole: unused ignore comments, baseline entries that are gone.
        exit_code: the worst of the outcomes' (3, 2, 1, 0).
    """

    gradflow_version: str
    outcomes: Sequence[Outcome]
    fail_on: Severity
    exit_code: int
    notes: Sequence[str] = ()
    schema: str = CHECKS_SCHEMA
