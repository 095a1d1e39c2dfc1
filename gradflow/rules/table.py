"""Each rule once. Limits are relative to the model's own output gradient; REFERENCES for what other tools use stand in docs/rules.md."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gradflow.records import Severity

MOST_DECADES = 30.0


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule.

    Attributes:
        code, name: as printed, e.g. GF101 vanishing-gradient.
        warning, error: the measured value beyond which it is a finding of that severity; None where it never is one.
        below: whether values below the limits break the rule, or values above.
        why: what the finding means for training.
        fix: the next step.
    """

    code: str
    name: str
    warning: float | None = None
    error: float | None = None
    below: bool = False
    why: str
    fix: str

    def severity(self, value: float, allowance: float = 0.0) -> tuple[Severity, float] | None:
        """The severity of a value and the limit it broke; `allowance` widens the limits by that many decades."""
        factor = 10.0 ** (-allowance if self.below else allowance)
        limits: tuple[tuple[Severity, float | None], ...] = (("error", self.error), ("warning", self.warning))
        for severity, limit in limits:
            if limit is not None and (value < limit * factor if self.below else value > limit * factor):
                return severity, limit * factor
        return None

    def decades(self, value: float, allowance: float = 0.0) -> float:
        """How far a value lies beyond the first limit, in powers of ten, MOST_DECADES at most: what an exact 0 counts."""
        first = self.warning if self.warning is not None else self.error
        if first is None:
            return 0.0
        distance = math.log10(first / max(value, 1e-300)) if self.below else math.log10(max(value, 1e-300) / first)
        return min(MOST_DECADES, max(0.0, distance - allowance))


_TABLE = (
    Rule(
        code="GF101", name="vanishing-gradient", warning=1e-3, error=1e-6, below=True,
        why="The layer receives next to nothing of the gradient that leaves the loss, so it does not learn.",
        fix="Use a non-saturating activation, an initialisation of gain 1, a normalisation, or a skip connection around the layers after it.",
    ),
    Rule(
        code="GF102", name="exploding-gradient", warning=1e3, error=1e6,
        why="The gradient grows on its way to the layer: one step overshoots, and clipping would starve every other layer.",
        fix="Lower the initialisation gain, normalise, or scale the residual branches by 1/sqrt(number of blocks).",
    ),
    Rule(
        code="GF103", name="non-finite-gradient", error=0.0,
        why="An inf or nan in one gradient turns every weight before it into nan at the first step.",
        fix="Look for a division, log, sqrt or norm at 0, or an overflow in half precision, right after the layer named first: the backward pass met it there.",
    ),
    Rule(
        code="GF104", name="unreached-parameter", warning=0.0,
        why="The parameter is trainable and never receives a gradient: it stays as it was initialised.",
        fix="Let the parameter's output reach the loss (remove what cuts it), or freeze the parameter with requires_grad_(False).",
    ),
    Rule(
        code="GF105", name="closed-branch",
        why="A zero-initialised scale multiplies the branch by 0: its layers get no gradient in the first step, the scale does, and the branch opens. Healthy.",
        fix="Nothing to mend.",
    ),
    Rule(
        code="GF106", name="closed-trunk",
        why="A parameter that is zero, such as a zero-initialised head, blocks all gradient in the first step; how it flows behind it cannot be seen.",
        fix="Profile after one training step, with --weights, or with the parameter initialised.",
    ),
    Rule(
        code="GF107", name="silent-loss", error=0.0,
        why="The gradient at the model's output is 0 or nothing was measured: no statement about any layer is possible.",
        fix="Use a loss whose gradient is not 0 on this batch, or --loss probe.",
    ),
    Rule(
        code="GF201", name="attenuating-skip", warning=0.95, below=True,
        why="The skip passes on less than it receives; over many blocks the loss compounds exponentially.",
        fix="Make the skip an identity (λ = 1): remove the factor or the gate on the shortcut, or scale the branch instead.",
    ),
    Rule(
        code="GF202", name="amplifying-skip", warning=1.05,
        why="The skip passes on more than it receives; over many blocks the gain compounds exponentially.",
        fix="Make the skip an identity (λ = 1), or follow the sum with a normalisation as DeepNorm does.",
    ),
    Rule(
        code="GF208", name="detached-skip", error=0.0,
        why="The skip is there in the forward pass and cut in the backward pass: the gradient has to go through the branch, as in a plain network.",
        fix="Remove the detach(), .data or no_grad() that is named here; if the gradient is meant to stop there, ignore this rule.",
    ),
    Rule(
        code="GF206", name="starved-highway", warning=1e-3, error=1e-6, below=True,
        why="With the branches cut, next to nothing gets through the skips: what reaches the early layers went through every branch.",
        fix="Set λ = 1 on the skips named here, and keep activations and norms off the trunk between the sums.",
    ),
    Rule(
        code="GF207", name="exploding-highway", warning=1e3, error=1e6,
        why="With the branches cut, the skips alone amplify the gradient out of bounds.",
        fix="Set λ = 1 on the skips named here, or normalise after the sum.",
    ),
)  # fmt: skip

RULES = {rule.code: rule for rule in _TABLE}
