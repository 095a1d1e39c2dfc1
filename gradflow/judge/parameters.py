"""Findings on parameters and number formats: frozen, out of balance with the others, too small for float16."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from statistics import median

from gradflow.judge import remedies
from gradflow.judge.places import sized, usual_size
from gradflow.numbers import number, percent
from gradflow.records import Finding, Layer, Parameter
from gradflow.rules import Rules

_FEWEST = 4  # matrices whose median says what is usual
_APART = 1.0  # decades between a matrix's size and the median's that are news
_OWN = 100.0  # times that a matrix's balance differs from the median's by more than its layer's gradient does
_STREWN = 0.5  # of the frozen elements: no run of them is longer where adapters lie among them
_ADAPTERS = "Nothing, if these are adapters (LoRA); else call requires_grad_(True) on what should train."
_LEAST_FP16 = 2.0**-25  # half of float16's smallest number: what is smaller rounds to 0


def judge_parameters(layers: Sequence[Layer], relieved: Sequence[bool], rules: Rules, fp16_scale: float | None = None) -> list[Finding]:
    """Findings of GF110, GF111 and GF113, not yet in order.

    Args:
        relieved: for each layer whether a live skip leads around it: attention's logits and mute branches have small gradients by design.
        fp16_scale: the loss scale of a run in float16; None where it was not one.
    """
    underflow = [] if fp16_scale is None else [f for layer in layers if (f := _underflow(layer, fp16_scale, rules)) is not None]
    return [*underflow, *_unbalanced(layers, relieved, rules), *_frozen(layers, rules)]


def _underflow(layer: Layer, scale: float, rules: Rules) -> Finding | None:
    """The share of a layer's gradient that float16 cannot tell from 0, under the loss scale: counted where it came in a wider format, and where it came in
    float16, in which what is lost looks like any other 0, that of a Gaussian with the deviation of what is left: erf(2⁻²⁵/(σ√2))."""
    rule = rules["GF110"]
    if not layer.grad_rms or layer.fp16_underflow is None or layer.closed_by:
        return None
    deviation = layer.grad_rms * scale / math.sqrt(max(1e-12, 1 - (layer.zero_fraction or 0.0)))
    share = max(layer.fp16_underflow, math.erf(_LEAST_FP16 / (deviation * math.sqrt(2))))
    broken = rule.severity(share)
    if broken is None:
        return None
    under = "" if scale == 1 else f" under a loss scale of {scale:g}"
    return Finding(
        rule=rule.code, severity=broken[0], where=layer.name, value=share, limit=broken[1], decades=rule.decades(share), fix=rule.fix, location=layer.location,
        message=f"About {percent([share])} of the gradient at {layer.name} ({layer.type}) is too small for float16{under} and turns into 0.",
    )  # fmt: skip


def _unbalanced(layers: Sequence[Layer], relieved: Sequence[bool], rules: Rules) -> list[Finding]:
    """The matrices whose ‖∇W‖/‖W‖ lies farthest below and farthest above the median of all: no one learning rate suits both. Where the gradient at the layer's
    output is as small or large, the gradient is what is wrong, and the weights are not."""
    rule = rules["GF111"]
    open_ = [(i, layer) for i, layer in enumerate(layers) if not layer.closed_by]
    found = [(p.update_ratio, layer.gain or 1.0, p, i) for i, layer in open_ for p in layer.parameters if p.update_ratio and len(p.shape) > 1]
    if len(found) < _FEWEST:
        return []
    usual, usual_own = median(ratio for ratio, *_ in found), median(ratio / gain for ratio, gain, *_ in found)
    size = usual_size(layers)
    slow = [(usual / ratio, usual_own * gain / ratio, p, i, "slower") for ratio, gain, p, i in found if not relieved[i] or _is_large(layers[i], p, size)]
    fast = [(ratio / usual, ratio / gain / usual_own, p, i, "faster") for ratio, gain, p, i in found]
    own = [[item for item in side if item[1] >= _OWN] for side in (slow, fast)]
    worst = [max(side, key=lambda item: item[0]) for side in own if side]
    return [_apart(factor, p, layers[i], word, size, rules) for factor, _, p, i, word in worst if rule.severity(factor) is not None]


def _apart(factor: float, parameter: Parameter, layer: Layer, word: str, usual: float, rules: Rules) -> Finding:
    rule = rules["GF111"]
    broken = rule.severity(factor)
    assert broken is not None
    steps, ratio = f"{number(factor, 3)} times {word}, for its size", f"(‖∇W‖/‖W‖ = {number(parameter.update_ratio)})"
    weight = sized(layer)
    sets_apart = weight is not None and weight[0] is parameter and abs(math.log10(weight[1] / usual)) >= _APART
    return Finding(
        rule=rule.code, severity=broken[0], where=parameter.name, value=factor, limit=broken[1], decades=rule.decades(factor), location=layer.location,
        fix=remedies.of_weight(parameter, layer) if sets_apart else rule.fix,
        message=f"{remedies.of_what_size(weight, usual)}: a step of gradient descent moves it {steps} {ratio}." if weight is not None and sets_apart
        else f"A step of gradient descent moves {parameter.name} {steps}, than the median matrix of the model {ratio}.",
    )  # fmt: skip


def _is_large(layer: Layer, parameter: Parameter, usual: float) -> bool:
    """Whether it is the weight that is too large where its updates are small for its size, and no design."""
    weight = sized(layer)
    return weight is not None and weight[0] is parameter and weight[1] >= _OWN * usual


def _frozen(layers: Sequence[Layer], rules: Rules) -> list[Finding]:
    """Parameters that cannot be trained: a note where they are a minority, or all lie before what trains, as in fine-tuning, or where what trains is strewn
    among them, as adapters are; else a warning."""
    rule = rules["GF113"]
    still = [(i, p) for i, layer in enumerate(layers) for p in layer.parameters if p.status == "frozen"]
    moving = [(i, p) for i, layer in enumerate(layers) for p in layer.parameters if p.status != "frozen"]
    if not still or not moving:
        return []
    sizes = [sum(math.prod(p.shape) for _, p in group) for group in (still, moving)]
    between = max(i for i, _ in still) > min(i for i, _ in moving) and sizes[0] > sizes[1]
    strewn = between and _longest_frozen(layers) < _STREWN * sizes[0]
    share, count = sizes[0] / sum(sizes), len(still)
    first = layers[still[0][0]]
    who = f"{count} parameters, {percent([share])} of the model's weights, are frozen, from {still[0][1].name} to {still[-1][1].name}"
    return [
        Finding(
            rule=rule.code, severity="warning" if between and not strewn else "info", where=still[0][1].name, value=share, limit=None, decades=0.0,
            fix=_ADAPTERS if strewn else rule.fix, location=first.location, undefined={"limit": "the rule has none"},
            message=f"{who if count > 1 else f'{still[0][1].name}, {percent([share])} of the weights of the model, is frozen'}"
            f"{', and what trains is strewn among them, as adapters are' if strewn else ', among others that train' if between else ''}.",
        )
    ]  # fmt: skip


def _longest_frozen(layers: Sequence[Layer]) -> int:
    """Elements of the longest run of frozen matrices between two that train, in the order of the layers; adapters are matrices, and norms are none."""
    runs = groupby((p for layer in layers for p in layer.parameters if len(p.shape) > 1), key=lambda p: p.status == "frozen")
    return max((sum(math.prod(p.shape) for p in run) for frozen, run in runs if frozen), default=0)
