"""Findings on samples: one that carries the whole gradient of a batch, and whether that is a fault or the end of a training. Touches no tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gradflow.numbers import number, percent
from gradflow.records import Finding, Layer, Location, SampleShare
from gradflow.rules import Rule, Rules

_FEWEST = 4  # samples; of fewer, one that carries most is chance
_SHARED = 10.0  # odds: the output's gradient is still that of several samples
_LARGER = 300.0  # times the odds at the output: what inputs of usual sizes do not make of them
_REACH = 1.0  # of the weights' own size
_DECADES = 1.0
_LATE = "Nothing, late in a training; early in one look at this sample's label and at what the loss makes of the others."


@dataclass(frozen=True, kw_only=True)
class _Cause:
    """Why a sample dominates, as it ends the message, and whether that is a matter of concern."""

    text: str
    harmful: bool


def judge_samples(layers: Sequence[Layer], samples: Sequence[SampleShare], loss: float | None, rules: Rules) -> list[Finding]:
    """Findings of GF112, at the place where it is plainest.

    Args:
        loss: its value; None where it is not finite or not known.
    """
    rule = rules["GF112"]
    shares = [(share.largest, share) for share in samples if share.largest is not None and share.samples >= _FEWEST]
    if not shares:
        return []
    largest, share = max(shares, key=lambda pair: pair[0])
    broken = rule.severity(largest)
    if broken is None:
        return []
    which = f"Sample {share.sample} of batch {share.batch}" if share.batch else f"Sample {share.sample}"
    place = "at the output" if share.where == "output" else f"at {share.where}"
    cause = _cause([share for _, share in shares], _reach(layers, loss), rule)
    return [
        Finding(
            rule=rule.code, severity=broken[0] if cause.harmful else "info", where=share.where, value=largest, limit=broken[1],
            decades=_DECADES if cause.harmful else 0.0, fix=rule.fix if cause.harmful else _LATE, location=_location(share.where, layers),
            message=f"{which} carries {percent([largest])} of the gradient of {share.samples} samples {place} (counted from 0): {cause.text}.",
        )
    ]  # fmt: skip


def _cause(shares: Sequence[SampleShare], reach: float | None, rule: Rule) -> _Cause:
    """What is large: the input, where the first layer sees far more of the sample than the output does; else its gradient at the output. That is so of a target
    that is out of reach, and at the end of a training of the one sample that is left when all others are fitted: then a small step would fit it as well."""
    output = next((share for share in shares if share.where == "output"), None)
    if output is None:
        return _Cause(text="its input or its target stands out", harmful=True)
    if any(_is_input(share, output, rule) for share in shares if share is not output):
        return _Cause(text="it is its input that is large", harmful=True)
    if reach is None:
        return _Cause(text="the loss pulls at it alone", harmful=True)
    if reach > _REACH:
        return _Cause(text=f"its target is out of reach, for to fit it the weights would have to move by {number(reach, 3)} times their own size", harmful=True)
    small = f"its input is not large, and weights that move by {number(reach, 3)} of their size would fit it"
    return _Cause(text=f"{small}. So it is late in a training, when all others are fitted", harmful=False)


def _is_input(first: SampleShare, output: SampleShare, rule: Rule) -> bool:
    """Whether a sample that dominates the first layer does so by its input. One that is c times too large makes the odds there c² times those at the output,
    and these c² times too large under a squared loss; where all others are fitted what is left of them is chance, and grows with the odds."""
    if first.largest is None or rule.severity(first.largest) is None:
        return False
    odds = _odds(output)
    return first.sample != output.sample or odds < _SHARED or _odds(first) > odds * max(_LARGER, math.sqrt(odds))


def _odds(share: SampleShare) -> float:
    """Of the sample's part against all others'."""
    largest = share.largest or 0.0
    return math.inf if largest == 1 else largest / (1 - largest)


def _reach(layers: Sequence[Layer], loss: float | None) -> float | None:
    """By how many times their own norm the weights would have to move to bring the loss to 0 if it were linear, L/(‖∇W‖‖W‖): it depends neither on the loss's
    scale nor on its reduction. In a bias-free ReLU network of k layers ⟨∇W,W⟩ is k·⟨∂L/∂y,y⟩, and for a sample that cross-entropy gets confidently wrong
    ⟨∂L/∂y,y⟩ ≈ L, so that it is about 1/k at most; a target of T times the output's size takes up to T/2k."""
    known = {p.name: p for layer in layers for p in layer.parameters if p.grad_norm is not None and p.weight_norm is not None}.values()
    gradient = math.sqrt(math.fsum((p.grad_norm or 0.0) ** 2 for p in known))
    weights = math.sqrt(math.fsum((p.weight_norm or 0.0) ** 2 for p in known))
    return abs(loss) / gradient / weights if loss is not None and gradient > 0 and weights > 0 else None


def _location(name: str, layers: Sequence[Layer]) -> Location | None:
    return next((layer.location for layer in layers if layer.name == name), None)
