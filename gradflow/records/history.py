"""The history of a training run: what is kept of each of its profiles, small enough to keep for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gradflow.codec import Document
from gradflow.records.base import VERDICTS, Kind, Location, Measured, Severity, Verdict
from gradflow.records.report import Finding
from gradflow.records.run import Environment, Target

HISTORY_SCHEMA = "gradflow/history/v1"


@dataclass(frozen=True, kw_only=True)
class LayerTrack:
    """A layer that was seen at any step; depth and location as in the report in which it was called and lay deepest."""

    name: str
    type: str
    depth: int
    location: Location | None


@dataclass(frozen=True, kw_only=True)
class SkipTrack:
    """A skip that was seen at any step; depths, kind and location as in the report in which it lay deepest."""

    id: str
    kind: Kind
    fork_depth: int
    join_depth: int
    location: Location | None


@dataclass(frozen=True, kw_only=True)
class Noted:
    """A finding of one step: the rule's code, and the name of the layer, skip, highway or parameter. Where the verdict changed `turns` has its text."""

    rule: str
    severity: Severity
    where: str


@dataclass(frozen=True, kw_only=True)
class Entry(Measured):
    """One profile of the run. A sequence's value is null where the step has none: not called, not measured, not defined.

    Attributes:
        step: of the training run, before which the batch was profiled.
        loss: of the profiled batch.
        gains: of each of the history's layers, ‖∂L/∂output‖/‖∂L/∂(model output)‖.
        update_ratios: of each layer, ‖∇W‖/‖W‖ over all its measured parameters together; no learning rate in it.
        lams: λ̂ of each of the history's skips.
        skip_gains: ‖s‖/‖g‖ of each skip.
        highway_gains: of each of the history's highways.
        findings: worst first.
        seconds: that the profile took.
    """

    optional = frozenset({"loss"})

    step: int
    loss: float | None
    verdict: Verdict
    severity: float
    gains: Sequence[float | None]
    update_ratios: Sequence[float | None]
    lams: Sequence[float | None]
    skip_gains: Sequence[float | None]
    highway_gains: Sequence[float | None]
    findings: Sequence[Noted]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A step whose verdict is another than that of the entry before, the first being held against "healthy".

    Attributes:
        finding: the worst of that step, whole; null where the verdict turned healthy.
    """

    step: int
    verdict: Verdict
    finding: Finding | None


@dataclass(frozen=True, kw_only=True)
class Missed:
    """A step whose profile failed, after an earlier one had succeeded: the training went on."""

    step: int
    reason: str


@dataclass(frozen=True, kw_only=True, repr=False)
class History(Document):
    """What was measured of one model at several steps of its training.

    Attributes:
        environment, target, mode: as in the first report.
        layers: every layer that was seen, nearest the input first.
        skips: every skip that was seen, nearest the input first.
        highways: names of the highways that were seen.
        entries: one for each profile, in the order of the run; their sequences are aligned with `layers`, `skips` and `highways`.
        turns: where the verdict changed, in the order of the run.
        missed: steps that were to be profiled and could not be.
    """

    gradflow_version: str
    environment: Environment
    target: Target
    mode: Literal["train", "eval"]
    layers: Sequence[LayerTrack]
    skips: Sequence[SkipTrack]
    highways: Sequence[str]
    entries: Sequence[Entry]
    turns: Sequence[Turn] = ()
    missed: Sequence[Missed] = ()
    schema: str = HISTORY_SCHEMA

    def __repr__(self) -> str:
        steps = f", steps {self.entries[0].step} to {self.entries[-1].step}, at worst {self.worst.verdict}" if self.worst else ""
        return f"<History of {self.target.model_class}: profiles {len(self.entries)}{steps}>"

    @property
    def first_sick(self) -> Entry | None:
        """The first entry whose verdict is "sick"."""
        return next((entry for entry in self.entries if entry.verdict == "sick"), None)

    @property
    def worst(self) -> Entry | None:
        """The first of the entries with the gravest verdict, and of these with the highest severity."""
        return max(self.entries, key=lambda entry: (VERDICTS.index(entry.verdict), entry.severity), default=None)
