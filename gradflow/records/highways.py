"""Highways: what the skips carry over many blocks, measured with every branch cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gradflow.records.base import Measured
from gradflow.records.skips import Streams


@dataclass(frozen=True, kw_only=True)
class Segment(Measured):
    """A stretch of a highway: skips of one stage, or the transition between two.

    Attributes:
        name: from its first skip to its last, or what the trunk passes between two.
        form: "transition" where the shape changes or weights lie on the way, "stage" elsewhere.
        skips: ids of its skips, nearest the input first; empty for a transition on the trunk.
        ops: operators on the trunk inside it and on its skip paths, without repeats.
        gain: ‖h at its lower end‖/‖h at its upper end‖; the product over a highway's segments is the highway's gain.
    """

    optional = frozenset({"gain"})

    name: str
    form: Literal["stage", "transition"]
    skips: Sequence[str]
    ops: Sequence[str]
    gain: float | None


@dataclass(frozen=True, kw_only=True)
class ForkSpectrum(Measured):
    """How much of the gradient at one fork has passed through 0, 1, 2 … branches of its highway (after Veit et al. 2016).

    p_m is the sum over all paths that pass through exactly m branches above the fork; t = Σ p_m + what came by other ways than this highway.

    Attributes:
        fork: id of the skip that starts there.
        norms: ‖p_m‖/‖t‖ for m = 0, 1, 2 …; the first is the highway. Empty, as the shares, where t is 0 or not finite.
        shares: ⟨p_m,t⟩/‖t‖²; they and `other_share` add up to 1.
        other_share: of what came by other ways.
        mean_length: Σ m·‖p_m‖²/Σ‖p_m‖²: branches that the gradient has passed on average.
    """

    optional = frozenset({"other_share", "mean_length"})

    fork: str
    norms: Sequence[float]
    shares: Sequence[float]
    other_share: float | None
    mean_length: float | None


@dataclass(frozen=True, kw_only=True)
class Highway(Measured):
    """Skips linked by the trunk between them, measured by replay with every branch cut.

    Attributes:
        skips: ids of its skips, nearest the input first.
        trunk_ops: operators that lie on the trunk between two joins (a ReLU or a norm after the sum, a strided convolution), without repeats.
        product_of_lambdas: ∏λ̂, undefined where one λ̂ is.
        gain: ‖h at the first fork‖/‖g at the last join‖.
        total_gain: ‖t at the first fork‖/‖g at the last join‖: what really arrives there, branches included.
        top_gain: ‖g at the last join‖/‖∂L/∂(model output)‖: times a fork's gain it compares with the layers' gains.
        fork_gains: ‖h at each fork‖/‖g at the last join‖, aligned with `skips`.
        identity_gain: the counterfactual: `gain` if between each join and fork of one shape the skips together were the identity (λ = 1), the trunk as it
            is; replayed, not multiplied.
        segments: its stages and the transitions between them, nearest the input first.
        streams: the composite mixing matrix from the last join to each fork, aligned with `skips`; empty where it does not mix streams throughout.
        spectrum: aligned with `skips`; empty where it was not asked for or could not be replayed.
    """

    optional = frozenset({"product_of_lambdas", "gain", "total_gain", "top_gain", "identity_gain"})

    name: str
    skips: Sequence[str]
    trunk_ops: Sequence[str]
    product_of_lambdas: float | None
    gain: float | None
    total_gain: float | None
    top_gain: float | None
    fork_gains: Sequence[float]
    identity_gain: float | None
    segments: Sequence[Segment] = ()
    streams: Sequence[Streams] = ()
    spectrum: Sequence[ForkSpectrum] = ()

    @property
    def turns(self) -> int:
        """How often a loop's highway goes round: how often each of its skips is passed; 1 where one of them is passed once, and it is no loop."""
        return min(Counter(self.skips).values(), default=1)
