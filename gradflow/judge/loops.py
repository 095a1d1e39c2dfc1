"""A starved or exploding highway of a loop, in words: what its skips bring back from the last call to the first. Touches no tensor."""

from __future__ import annotations

from collections.abc import Sequence

from gradflow.numbers import number
from gradflow.records import Highway, Skip

_ROUNDING = 1e-7  # float32's: what is smaller is lost beside a 1


def message(highway: Highway, skips: Sequence[Skip], lams: str) -> str:
    """What it means for a loop; `lams` are the λ of its skips. The gain must be defined."""
    size = "nothing" if highway.gain == 0 else f"{number(highway.gain)}"
    gated = all(skip.kind == "gated" for skip in skips if skip.id in highway.skips)
    who = f"The carry of {highway.name} alone brings" if gated else f"The skips of {highway.name} alone bring"
    text = f"{who} {size} of the gradient back from the last call to the first of {highway.turns} ({lams}){_faded(highway)}."
    if highway.total_gain is not None:
        text += f" In all {number(highway.total_gain)} of it arrives at the first call, through the branches or from outputs on the way."
    if highway.identity_gain is not None and highway.identity_gain > 0:
        text += f" With λ = 1 at each call {number(highway.identity_gain)} would come back this way."
    return text


def _faded(highway: Highway) -> str:
    """After how many calls next to nothing is left; empty where something is to the end."""
    per_call = len(highway.skips) // highway.turns
    steps = next((i for i, left in enumerate(reversed(highway.fork_gains), 1) if left < _ROUNDING), None)
    return "" if steps is None else f"; after {-(-steps // per_call)} calls less than {number(_ROUNDING)} of it is left, float32's rounding"
