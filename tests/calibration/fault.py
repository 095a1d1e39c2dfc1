"""What a planted fault is, and whether gradflow catches it: by the right rule, at the right place."""

from __future__ import annotations

import fnmatch
import linecache
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

import gradflow
from gradflow.records import Finding, Report, Severity

_RANK: dict[Severity, int] = {"info": 0, "warning": 1, "error": 2}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One network with a fault in it, and what must be said of it.

    Attributes:
        group, name: as they stand in docs/calibration.md.
        build: the model and its batch.
        rule: the code of the rule that must catch it.
        where: shell pattern that the finding's `where` must match.
        line: text of the source line that the finding must point to; "" where any will do.
        told: words that its message must have: what it must blame.
        severity: what the finding must be at least.
        options: of `gradflow.profile`, besides the model and the inputs.
    """

    group: str
    name: str
    build: Callable[[], tuple[nn.Module, Tensor]]
    rule: str
    where: str
    line: str = ""
    told: str = ""
    severity: Severity = "error"
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.group}: {self.name}"

    def report(self, seed: int = 0) -> Report:
        """The network as it is built from `seed`, profiled."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, inputs = self.build()
        return gradflow.profile(model, inputs, **self.options)

    def caught(self, report: Report) -> Finding | None:
        """The finding that catches the fault, worst first; None where it slips through."""
        return next((f for f in report.findings if self._fits(f)), None)

    def _fits(self, finding: Finding) -> bool:
        at = finding.location
        right_line = not self.line or (at is not None and self.line in linecache.getline(at.file, at.line))
        here = finding.rule == self.rule and fnmatch.fnmatchcase(finding.where, self.where)
        return here and right_line and self.told in finding.message and _RANK[finding.severity] >= _RANK[self.severity]
