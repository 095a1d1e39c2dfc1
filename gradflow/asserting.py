"""`gradflow.assert_healthy`: a profile as an assertion, for tests. Its failure is a text for people; the report is what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from torch import nn

from gradflow.assembly import Amp
from gradflow.errors import UsageError
from gradflow.ignoring import apply_comments
from gradflow.profiling import profile
from gradflow.records import Finding, Report, verdict
from gradflow.render import summary
from gradflow.render.columns import printed
from gradflow.render.findings import lines
from gradflow.render.names import clean
from gradflow.render.tables import View
from gradflow.rules import RULES, choose, severity

_WIDTH = 100
_FAILING: Mapping[str, frozenset[str]] = {"error": frozenset({"error"}), "warning": frozenset({"error", "warning"})}


def assert_healthy(
    model: nn.Module,
    inputs: object,
    targets: object | None = None,
    loss: str | Callable[..., object] | None = None,
    *,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    limits: Mapping[str, float] | None = None,
    fail_on: Literal["error", "warning"] = "error",
    seed: int = 0,
    amp: Amp | None = None,
    evaluate: bool = False,
    batches: int = 1,
    probes: int = 0,
    spectrum: bool = False,
) -> Report:
    """Profile `model` as `gradflow.profile` does, and raise where it is not healthy.

    Args:
        model, inputs, targets, loss, seed, amp, evaluate, batches, probes, spectrum: as for `gradflow.profile`.
        select, ignore: rules by code, beginning of a code ("GF2") or name.
        limits: a rule's code or name -> where its first limit is moved to.
        fail_on: the least severity that fails.

    Returns:
        The report, with the findings that count: a comment `# gradflow: ignore[GF203]` in the source silences one here as it does for `gradflow check`.

    Raises:
        AssertionError: there are findings at or above `fail_on`; the message shows them.
        errors.UsageError: there is no such rule, limit or severity.
        errors.GradflowError: as `gradflow.profile`.
    """
    __tracebackhide__ = True
    if fail_on not in _FAILING:
        raise UsageError(option="fail_on", value=fail_on, expected='"error" or "warning"')
    rules = choose(
        RULES, [select] if isinstance(select, str) else select, [ignore] if isinstance(ignore, str) else ignore, limits, ("select", "ignore", "limits")
    )
    report = profile(
        model, inputs, targets, loss, seed=seed, amp=amp, evaluate=evaluate, batches=batches, probes=probes, spectrum=spectrum, rules=rules
    )  # fmt: skip
    counted, silenced, _ = apply_comments(report.findings, report, rules)
    report = replace(report, findings=counted, verdict=verdict(counted), severity=severity(counted))
    failing = [finding for finding in counted if finding.severity in _FAILING[fail_on]]
    if failing:
        raise AssertionError(_message(report, failing, len(silenced)))
    return report


def _message(report: Report, failing: Sequence[Finding], silenced: int) -> str:
    """The verdict, each finding with its place, its fix and its line, and how many are not shown."""
    head = f"the gradient flow of {clean(report.target.model_class)} is not healthy: {report.verdict}, {summary.verdict(report)}"
    left = len(report.findings) - len(failing)
    more = [*([f"{summary.plural(left, 'lesser finding')} not shown"] if left else []), *([f"{silenced} silenced by comments"] if silenced else [])]
    shown = printed(lines(failing, View(width=_WIDTH, unfold=False, links=False)), _WIDTH, color=False)
    return f"{head}\n\n{shown.rstrip()}" + (f"\n({', '.join(more)})" if more else "")
