"""The report: everything that one profile found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from gradflow.codec import Document
from gradflow.numbers import number
from gradflow.records.base import Location, Measured, Severity, Verdict
from gradflow.records.highways import Highway
from gradflow.records.layers import Layer
from gradflow.records.run import Environment, Run, Target
from gradflow.records.skips import Skip

SCHEMA = "gradflow/report/v1"


@dataclass(frozen=True, kw_only=True)
class Opaque:
    """A part of the model that is one operator of the tape: skips and layers inside it are not seen; what enters and leaves it is measured.

    Attributes:
        name: module path in which it runs.
        operator: the tape's name of it, or the class of a custom autograd.Function.
        reason: what it is.
        fix: how to see inside.
        calls: how many of it the forward made.
        parameters: names of the parameters that feed it or are used inside it.
        location: the user's line that calls it, or where its function is defined.
    """

    name: str
    operator: str
    reason: str
    fix: str
    calls: int
    parameters: Sequence[str]
    location: Location | None


@dataclass(frozen=True, kw_only=True)
class Nonfinite:
    """The first operation that made an infinity or NaN, of those that reach the loss or a gradient.

    Attributes:
        operator: its name ("sqrt"), "input", "parameter" or "buffer" where the model was given it, or "sum" where finite gradients add up to one.
        module: path of the module in which it ran; "(Net)" is the model itself, of that class, "loss" what runs after it.
        phase: whether it came up on the way to the loss or on the way back.
        location: the user's line; None where torch's own code ran, as in a bare nn.Sequential.
        what: what was made of what, in words.
        batch: in which batch, counted from 0.
    """

    operator: str
    module: str
    phase: Literal["forward", "backward"]
    location: Location | None
    what: str
    batch: int = 0


@dataclass(frozen=True, kw_only=True)
class Finding(Measured):
    """One thing that is wrong or worth knowing.

    Attributes:
        rule: code of the rule, e.g. "GF101".
        where: name of the layer, skip, highway or parameter.
        value, limit: the measured value and the limit that it broke.
        decades: how far beyond the limit, in powers of ten; 0 for a note, but for those whose rule has a limit of notes.
        location: the user's line to look at: where the layer or skip is called, or where what is to blame for it stands.
        caused_by: `where` of the finding that explains this one and is told before it; null where none does.
    """

    optional = frozenset({"value", "limit"})

    rule: str
    severity: Severity
    where: str
    value: float | None
    limit: float | None
    decades: float
    message: str
    fix: str
    location: Location | None
    caused_by: str | None = None


def verdict(findings: Iterable[Finding]) -> Verdict:
    """ "sick" with an error, "warnings" with a warning, else "healthy"."""
    severities = {f.severity for f in findings}
    return "sick" if "error" in severities else "warnings" if "warning" in severities else "healthy"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The values beyond which a rule finds an error, a warning or a note, before any allowance for fluctuation or branches; null where it has no such limit."""

    warning: float | None = None
    error: float | None = None
    note: float | None = None


class _Printer(Protocol):
    def text(self, text: str) -> None: ...


@dataclass(frozen=True, kw_only=True, repr=False)
class Report(Document):
    """Everything that one profile found; every output format is a view of it.

    Attributes:
        opaque: what could not be seen; empty where everything was.
        nonfinite: where infinities and NaN come from; None where there are none, or where it could not be told.
        findings: worst first.
        verdict: "sick" with an error-level finding, "warnings" with a warning, else "healthy".
        severity: a number that ranks models: the decades of the finding that counts most, 0 where none counts (docs/calibration.md).
        limits: what it was judged by: of each rule that was selected, by its code, the limits in force; null in a report that an earlier version wrote.
        views: by MIME type what a notebook and `print` show of a report; `gradflow` fills it in, since records know no renderer.
    """

    views: ClassVar[Mapping[str, Callable[[Report], object]]] = {}

    gradflow_version: str
    environment: Environment
    target: Target
    run: Run
    layers: Sequence[Layer]
    skips: Sequence[Skip]
    highways: Sequence[Highway]
    findings: Sequence[Finding]
    verdict: Verdict
    severity: float
    opaque: Sequence[Opaque] = ()
    nonfinite: Nonfinite | None = None
    limits: Mapping[str, Limits] | None = None
    schema: str = SCHEMA

    def __str__(self) -> str:
        """The first screen of the terminal's report; `to_json` has everything."""
        return str(self._shown("text/plain") or repr(self))

    def __repr__(self) -> str:
        counts = f"layers {len(self.layers)}, skips {len(self.skips)}, findings {len(self.findings)}"
        return f"<Report of {self.target.model_class}: {self.verdict}, severity {number(self.severity, 3)}; {counts}>"

    def _repr_pretty_(self, printer: _Printer, cycle: bool) -> None:
        """For IPython in a terminal."""
        printer.text(str(self))

    def _repr_html_(self) -> object:
        """For Jupyter; None without a view, which then shows the plain text."""
        return self._shown("text/html")

    def _repr_png_(self) -> object:
        return self._shown("image/png")

    def _shown(self, kind: str) -> object:
        return self.views[kind](self) if kind in self.views else None
