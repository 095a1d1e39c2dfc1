"""Records + rules -> findings. Touches no tensor and measures nothing."""

from __future__ import annotations

from collections.abc import Sequence

from gradflow.judge.consequences import linked
from gradflow.judge.highways import judge_highways
from gradflow.judge.layers import judge_layers, relieved
from gradflow.judge.parameters import judge_parameters
from gradflow.judge.samples import judge_samples
from gradflow.judge.signal import judge_signal, refined
from gradflow.judge.skips import judge_skips
from gradflow.records import Finding, Highway, Layer, Nonfinite, SampleShare, Skip, verdict
from gradflow.rules import EVERY, Rules, worst_first

__all__ = ["judge", "verdict"]


def judge(
    layers: Sequence[Layer],
    skips: Sequence[Skip],
    highways: Sequence[Highway],
    rules: Rules = EVERY,
    *,
    fp16_scale: float | None = None,
    samples: Sequence[SampleShare] = (),
    loss: float | None = None,
    nonfinite: Nonfinite | None = None,
) -> tuple[Finding, ...]:
    """Every finding of the rules that are selected, the worst first, and before it what it follows from.

    Args:
        fp16_scale: the loss scale of a run in float16; None where it was not one.
        samples, nonfinite: as in the report.
        loss: its value; None where it is not finite.
    """
    found = [
        *refined(judge_layers(layers, skips, rules), layers, nonfinite, rules),
        *judge_signal(layers, skips, rules),
        *judge_samples(layers, samples, loss, rules),
        *judge_parameters(layers, relieved(layers, skips), rules, fp16_scale),
        *judge_skips(layers, skips, highways, rules),
        *judge_highways(highways, skips, rules),
    ]
    return worst_first(linked([f for f in found if f.rule in rules], layers, skips, highways))
