"""The frozen records of a report. Imports no torch.

A measured value that is not defined is None, and its field's name stands in the record's `undefined` with the reason; the two can never disagree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal

from gradflow import codec

SCHEMA = "gradflow/report/v1"

Severity = Literal["error", "warning", "info"]
Verdict = Literal["healthy", "warnings", "sick"]
Form = Literal["add", "concat"]
Kind = Literal["identity", "scaled", "gated", "projection", "pooled", "norm", "dropout", "concat", "detached", "streams"]
Status = Literal["measured", "frozen", "unreached"]


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """A record whose optional fields are each either a finite number or have a reason.

    Raises:
        ValueError: a None without a reason, a reason without a None, or a number that strict JSON cannot hold.
    """

    optional: ClassVar[frozenset[str]] = frozenset()

    undefined: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = {f.name for f in fields(self) if f.name in self.optional and getattr(self, f.name) is None}
        if missing != set(self.undefined):
            raise ValueError(f"{type(self).__name__}: None in {sorted(missing)}, but reasons for {sorted(self.undefined)}")
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{type(self).__name__}.{f.name} is {value}: give None and a reason")


@dataclass(frozen=True, kw_only=True)
class Location:
    """A line of the user's source."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where the profile ran. `dtype` is the parameters' (e.g. "float32"), `amp` the autocast dtype or None."""

    torch: str
    python: str
    platform: str
    device: str
    dtype: str
    amp: str | None
    seed: int
    world_size: int = 1


@dataclass(frozen=True, kw_only=True)
class Target:
    """What was profiled. `parameters` and `trainable_parameters` count scalars."""

    spec: str
    model_class: str
    parameters: int
    trainable_parameters: int


@dataclass(frozen=True, kw_only=True)
class Input:
    """One tensor of the batch. `source` says where it came from ("model file", "--input", "timm default_cfg, drawn at random with seed 0", …)."""

    name: str
    dtype: str
    shape: Sequence[int]
    source: str


@dataclass(frozen=True, kw_only=True)
class Loss(_Measured):
    """The scalar that was differentiated. `source` says how it was chosen and what in it was drawn at random."""

    optional = frozenset({"value"})

    name: str
    value: float | None
    source: str


@dataclass(frozen=True, kw_only=True)
class Run:
    """One profile. Times are in seconds; `notes` say what was inferred, assumed or could not be seen."""

    mode: Literal["train", "eval"]
    inputs: Sequence[Input]
    loss: Loss
    batches: int
    forward_s: float
    backward_s: float
    analysis_s: float
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Parameter(_Measured):
    """One parameter: `weight_norm` = ‖W‖, `grad_norm` = ‖∇W‖, `update_ratio` = ‖∇W‖/‖W‖ (no learning rate in it)."""

    optional = frozenset({"weight_norm", "grad_norm", "update_ratio"})

    name: str
    shape: Sequence[int]
    status: Status
    weight_norm: float | None
    grad_norm: float | None
    update_ratio: float | None


@dataclass(frozen=True, kw_only=True)
class Layer(_Measured):
    """One layer: a module that owns parameters or is a leaf, all its calls merged.

    Attributes:
        depth: position in the order of first calls, 0 is nearest the input.
        location: the user's line that calls the layer.
        output_shape: of its last call's first output.
        grad_norm: ‖∂L/∂output‖ over the whole batch and all calls.
        grad_rms: grad_norm / √count.
        gain: grad_norm / ‖∂L/∂(model output)‖.
        zero_fraction: share of output-gradient elements that are exactly 0.
        nonfinite: how many of them are inf or nan.
        fp16_underflow: share of the nonzero elements that round to 0 in float16.
        closed_by: what closes every path from here to the loss: the name of a parameter that is zero or, as a LayerScale, small, or "stochastic depth"
            where it dropped the branch for the whole batch; "" where a path is open.
    """

    optional = frozenset({"grad_norm", "grad_rms", "gain", "zero_fraction", "nonfinite", "fp16_underflow"})

    name: str
    type: str
    calls: int
    depth: int
    location: Location | None
    output_shape: Sequence[int]
    grad_norm: float | None
    grad_rms: float | None
    gain: float | None
    zero_fraction: float | None
    nonfinite: int | None
    fp16_underflow: float | None
    closed_by: str = ""
    parameters: Sequence[Parameter] = ()


@dataclass(frozen=True, kw_only=True)
class Skip(_Measured):
    """One skip connection, all its calls merged; g, s, f, t as in docs/quantities.md.

    Attributes:
        id: unique in the report: `name`, and a number where one module holds several.
        name: module path in which the join happens.
        fork, join: names of the two nodes in the lifted torch.fx graph.
        fork_depth, join_depth: number of layers that ran before the fork and before the join: positions on the depth axis.
        form: how the join combines its operands.
        path_ops: the operators on the skip path from the fork to the join; empty for a bare identity.
        branch: module path of the bypassed branch.
        location: the user's line of the join.
        bypassed_layers: weighted layers on the longest path through the branch.
        lam: λ̂ = Σ⟨s,g⟩/Σ⟨g,g⟩, the pooled least-squares scalar, with g in the fork's layout, over the calls where it is defined.
        lam_low, lam_high: 95 % bootstrap interval of `lam` over samples.
        n_eff: (Σw)²/Σw² with w = ‖gᵢ‖² over samples i.
        lam_full: λ̂ of the path with its gates differentiated as well; equals `lam` where nothing gates.
        misfit: ‖s − λ̂g‖/‖s‖.
        gain: ‖s‖/‖g‖.
        branch_gain: ‖f‖/‖g‖.
        total_gain: ‖t‖/‖g‖.
        cos_skip_branch: cos(s, f).
        bound_holds: whether ‖t‖ ≥ ‖s‖.
        highway_gain: ‖h at the fork‖/‖g at the highway's last join‖.
        highway_share: ⟨h,t⟩/‖t‖² at the fork.
        ledger_error: ‖t − (s + f + others)‖/‖t‖.
        trend: `lam` of each call, first call first, where there are several; null where that call's is not defined.
    """

    optional = frozenset({
        "lam", "lam_low", "lam_high", "n_eff", "lam_full", "misfit", "gain", "branch_gain", "total_gain", "cos_skip_branch", "bound_holds",
        "highway_gain", "highway_share", "ledger_error",
    })  # fmt: skip

    id: str
    name: str
    fork: str
    join: str
    fork_depth: int
    join_depth: int
    form: Form
    kind: Kind
    path_ops: Sequence[str]
    branch: str
    location: Location | None
    calls: int
    bypassed_layers: int
    lam: float | None
    lam_low: float | None
    lam_high: float | None
    n_eff: float | None
    lam_full: float | None
    misfit: float | None
    gain: float | None
    branch_gain: float | None
    total_gain: float | None
    cos_skip_branch: float | None
    bound_holds: bool | None
    highway_gain: float | None
    highway_share: float | None
    ledger_error: float | None
    trend: Sequence[float | None] = ()


@dataclass(frozen=True, kw_only=True)
class Highway(_Measured):
    """Skips linked by the trunk between them, measured by replay with every branch cut.

    Attributes:
        skips: ids of its skips, nearest the input first.
        trunk_ops: operators that lie on the trunk between two joins (a ReLU or a norm after the sum, a strided convolution), without repeats.
        product_of_lambdas: ∏λ̂, undefined where one λ̂ is.
        gain: ‖h at the first fork‖/‖g at the last join‖.
        total_gain: ‖t at the first fork‖/‖g at the last join‖: what really arrives there, branches included.
        top_gain: ‖g at the last join‖/‖∂L/∂(model output)‖: times a fork's gain it compares with the layers' gains.
        fork_gains: ‖h at each fork‖/‖g at the last join‖, aligned with `skips`.
    """

    optional = frozenset({"product_of_lambdas", "gain", "total_gain", "top_gain"})

    name: str
    skips: Sequence[str]
    trunk_ops: Sequence[str]
    product_of_lambdas: float | None
    gain: float | None
    total_gain: float | None
    top_gain: float | None
    fork_gains: Sequence[float]


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
class Finding(_Measured):
    """One thing that is wrong or worth knowing.

    Attributes:
        rule: code of the rule, e.g. "GF101".
        where: name of the layer, skip, highway or parameter.
        value, limit: the measured value and the limit that it broke.
        decades: how far beyond the limit, in powers of ten (0 for a note).
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


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that one profile found; every output format is a view of it.

    Attributes:
        opaque: what could not be seen; empty where everything was.
        findings: worst first.
        verdict: "sick" with an error-level finding, "warnings" with a warning, else "healthy".
        severity: decades of gradient lost or gained beyond the limits; 0 when nothing is wrong.
    """

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
    schema: str = SCHEMA

    def to_json(self) -> str:
        """The report as strict JSON (no NaN, no Infinity), two-space indented."""
        return codec.dumps(self)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read back what `to_json` wrote; the result equals the original.

        Raises:
            ValueError: the text is not JSON or not a report of this schema.
        """
        return codec.loads(cls, text, SCHEMA)
