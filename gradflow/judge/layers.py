"""Findings on layers: vanishing, exploding, not finite, unreached, closed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradflow.bands import fluctuation
from gradflow.judge import remedies, runs
from gradflow.numbers import number
from gradflow.records import Finding, Layer, Severity, Skip
from gradflow.rules import MOST_DECADES, Rule, Rules

_LIVE = 0.3  # of the gradient at its join: a skip that passes on more is alive
_RELIEF = 5.0  # decades: attention's logits at a usual initialisation lie 4 below the trunk
_ASIDE = 1.0  # decades at most, where the gradient gets past the layer: as much as other findings of structure count
_RUN_IT = "Give the model all inputs that it takes (an image beside the text, say), or remove or freeze what this model does not use."
NOT_CALLED = "not called in the forward pass"


def judge_layers(layers: Sequence[Layer], skips: Sequence[Skip], rules: Rules) -> list[Finding]:
    """Findings of the rules GF1xx, not yet in order."""
    bands, around = fluctuation(layers), relieved(layers, skips)
    branches = [_RELIEF if one else 0.0 for one in around]
    past = {code: passed(layers, bands, branches, rules[code]) for code in ("GF101", "GF102")}
    first = next((i for i, layer in enumerate(layers) if layer.gain is not None), None)
    allowances = [
        _Allowance(band=band, branch=branch, past=frozenset(code for code in past if past[code][i]), first=i == first)
        for i, (band, branch) in enumerate(zip(bands, branches, strict=True))
    ]
    scales = {p.name: p.weight_norm / math.sqrt(math.prod(p.shape)) for layer in layers for p in layer.parameters if p.weight_norm and math.prod(p.shape)}
    parameters = [p for layer in layers for p in layer.parameters]
    lost = sum(math.prod(p.shape) for p in parameters if p.status == "unreached" and NOT_CALLED not in p.undefined["grad_norm"])
    mostly = lost > sum(math.prod(p.shape) for p in parameters if p.status == "measured")  # most of what ran does not train: that is no forgotten head
    found = [f for i, allowance in enumerate(allowances) for f in _layer(layers[i:], allowance, scales, skips, rules)]
    for code, gets_past in past.items():
        found = runs.told(found, layers, skips, gets_past, around, rules[code])
    return [
        *found,
        *_closed_trunk(layers, skips, rules),
        *_silent(layers, rules),
        *_nonfinite(layers, rules),
        *(f for layer in layers if (f := _unreached(layer, mostly, rules)) is not None),
    ]


def relieved(layers: Sequence[Layer], skips: Sequence[Skip], *, unmeasured: bool = False) -> tuple[bool, ...]:
    """For each layer whether a live skip leads around it: attention's queries and keys, SE gates and scaled branches are small by design where one carries
    the gradient past them; depth shows in the layers of the trunk.

    Args:
        unmeasured: whether a skip counts that got no gradient to pass on, as behind a zero-initialised head.
    """
    live = [s for s in skips if (unmeasured if s.gain is None else s.gain >= _LIVE)]
    bypassed = {depth for s in live for depth in range(s.fork_depth, s.join_depth)}
    return tuple(layer.depth in bypassed for layer in layers)


def passed(layers: Sequence[Layer], bands: Sequence[float], branches: Sequence[float], rule: Rule) -> tuple[bool, ...]:
    """For each layer whether the gradient gets past it, so that what is wrong there stays there: a layer nearer the input keeps the rule's limits; or it is a
    parametrisation, which computes a weight and lies beside the network; or, for what vanishes, a live skip leads around it and nothing before the skip says
    that its trunk has vanished as well."""
    found, kept, lost = [], False, False
    for layer, band, branch in zip(layers, bands, branches, strict=True):
        beside = rule.below and branch > 0
        found.append(kept or ".parametrizations." in layer.name or (beside and not lost))
        within = bool(layer.nonfinite) or (layer.gain is not None and rule.severity(layer.gain, band) is None)
        kept = kept or within
        lost = lost or not (within or beside or layer.gain is None or layer.closed_by)
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class _Allowance:
    """What one layer is allowed.

    Attributes:
        band, branch: decades, for its fluctuation and, of what vanishes, because a live skip leads around it.
        past: the rules for which the gradient gets past it.
        first: whether it is the first that has a gain: what it receives is what arrives.
    """

    band: float
    branch: float
    past: frozenset[str]
    first: bool


def _layer(layers: Sequence[Layer], allowed: _Allowance, scales: Mapping[str, float], skips: Sequence[Skip], rules: Rules) -> list[Finding]:
    """Vanishing and exploding in the first of `layers`, those from it to the output, with the gradient measured against what its branch's own small scale lets
    through."""
    layer = layers[0]
    if layer.gain is None:
        return []
    scale = math.prod(scales.get(name, 0.0) for name in layer.closing)
    if layer.gain == 0 and layer.closed_by:
        return [_closed(layer, "0", rules)]
    findings = []
    advice = {code: remedies.of_layers(rules[code], layers, skips) for code in ("GF101", "GF102")}
    for rule, allowance in ((rules["GF101"], allowed.band + allowed.branch), (rules["GF102"], allowed.band)):
        broken = rule.severity(layer.gain, allowance)
        if broken is None:
            findings += _arrived(layer, allowed, advice[rule.code], rule)
            continue
        if rule.below and scale > 0:
            broken = rule.severity(layer.gain / scale, allowance)
        if broken is None:
            findings.append(_closed(layer, f"{number(layer.gain)} of the output's", rules))
            continue
        aside, decades = rule.code in allowed.past, rule.decades(layer.gain, allowance)
        told = f"the gradient {runs.verb(rule)}{' here, while the layers before it receive theirs' if aside else ''}"
        findings.append(
            Finding(
                rule=rule.code, severity="warning" if aside else broken[0], where=layer.name, value=layer.gain, limit=broken[1], fix=advice[rule.code],
                decades=min(_ASIDE, decades) if aside else max(decades, rule.noted(layer.gain)) if allowed.first else decades, location=layer.location,
                message=f"{layer.name} ({layer.type}) {runs.received(layer, rule)}: {told}.",
            )
        )  # fmt: skip
    return findings


def _arrived(layer: Layer, allowed: _Allowance, fix: str, rule: Rule) -> list[Finding]:
    """A note where the first layer is within the limits, and yet many small networks that do not train lose or gain as much. The band of fluctuation is not
    taken off: one whose gradient is lost by chance does not train either."""
    if layer.gain is None or not allowed.first or rule.code in allowed.past or layer.closed_by or not rule.noted(layer.gain):
        return []
    return [
        Finding(
            rule=rule.code, severity="info", where=layer.name, value=layer.gain, limit=rule.note, decades=rule.noted(layer.gain), location=layer.location,
            message=f"{layer.name} ({layer.type}), the first layer, {runs.received(layer, rule)}. No alarm: networks that train may do so as well. "
            "It counts in the severity, since many that do not train begin like this.",
            fix=f"Nothing, where training starts well; else: {fix[0].lower()}{fix[1:]}",
        )
    ]  # fmt: skip


def _closed(layer: Layer, received: str, rules: Rules) -> Finding:
    rule = rules["GF105"]
    verb = "start" if len(layer.closing) > 1 else "starts"
    by = f"{layer.closed_by}, which {verb} at or near 0" if layer.closed_by != "stochastic depth" else "stochastic depth, which dropped all samples"
    return Finding(
        rule=rule.code, severity="info", where=layer.name, value=layer.gain, limit=None, decades=0.0, fix=rule.fix, location=layer.location,
        message=f"The branch with {layer.name} is closed by {by}: a gradient of {received} is expected here and is no fault.",
        undefined={"limit": "a note has no limit"},
    )  # fmt: skip


def _closed_trunk(layers: Sequence[Layer], skips: Sequence[Skip], rules: Rules) -> list[Finding]:
    """Where the very first layer is closed nothing bypasses the closing parameter: the flow behind it cannot be judged in this state."""
    measured = [layer for layer in layers if layer.gain is not None]
    if not measured or not measured[0].closed_by or measured[0].gain != 0 or relieved(measured[:1], skips)[0]:
        return []
    rule, closing = rules["GF106"], measured[0].closed_by
    owner = next((layer for layer in layers if any(p.name == closing for p in layer.parameters)), measured[0])
    return [
        Finding(
            rule=rule.code, severity="warning", where=closing, value=0.0, limit=None, decades=1.0, fix=rule.fix, location=owner.location,
            message=f"{closing} {'dropped all samples' if closing == 'stochastic depth' else 'is zero'} and nothing leads around it: every layer before it "
            "receives a gradient of 0, and the flow there is unknown.",
            undefined={"limit": "the rule has none"},
        )
    ]  # fmt: skip


def _silent(layers: Sequence[Layer], rules: Rules) -> list[Finding]:
    """Where no layer has a gain there is nothing to call healthy."""
    if any(layer.gain is not None or layer.nonfinite for layer in layers):
        return []
    rule = rules["GF107"]
    reason = next((layer.undefined["gain"] for layer in layers if layer.grad_norm is not None), "no layer was measured")
    return [
        Finding(
            rule=rule.code, severity="error", where="output", value=0.0, limit=0.0, decades=MOST_DECADES, fix=rule.fix, location=None,
            message=f"Nothing can be said about the gradient: {reason}.",
        )
    ]  # fmt: skip


def _nonfinite(layers: Sequence[Layer], rules: Rules) -> list[Finding]:
    """The layer nearest the loss is named first: the backward pass met it first."""
    rule = rules["GF103"]
    bad = [layer for layer in layers if layer.nonfinite or has_nonfinite_parameter(layer)]
    severity: Severity = "error" if any(map(has_nonfinite_parameter, bad)) else "warning"  # else a mask hides it from every weight
    return [
        Finding(
            rule=rule.code, severity=severity, where=layer.name, value=float(layer.nonfinite or 1), limit=0.0,
            decades=MOST_DECADES - i / 1000 if severity == "error" else _ASIDE,
            message=f"{layer.name} ({layer.type}) {_nonfinite_what(layer)}{', first in the backward pass' if i == 0 else ''}.",
            fix=rule.fix, location=layer.location,
        )
        for i, layer in enumerate(reversed(bad))
    ]  # fmt: skip


def has_nonfinite_parameter(layer: Layer) -> bool:
    """Whether one of its weights, or the gradient of one, is not finite."""
    return any("not finite" in p.undefined.get("grad_norm", "") + p.undefined.get("weight_norm", "") for p in layer.parameters)


def _nonfinite_what(layer: Layer) -> str:
    if layer.nonfinite:
        return f"receives {layer.nonfinite} non-finite gradient elements"
    names = [p.name for p in layer.parameters if "not finite" in p.undefined.get("grad_norm", "") + p.undefined.get("weight_norm", "")]
    return f"has a non-finite gradient or weight in {', '.join(names)}"


def _unreached(layer: Layer, mostly: bool, rules: Rules) -> Finding | None:
    rule = rules["GF104"]
    lost = [p for p in layer.parameters if p.status == "unreached"]
    if not lost:
        return None
    reason = lost[0].undefined["grad_norm"]
    idle = NOT_CALLED in reason
    own = [p.name.removeprefix(f"{layer.name}.") for p in lost]
    names = " and ".join([", ".join(own[:2]), f"{len(own) - 2} more"] if len(own) > 2 else own)
    return Finding(
        rule=rule.code, severity="error" if mostly and not idle else "warning", where=layer.name, value=float(len(lost)), limit=None,
        decades=1.0, fix=_RUN_IT if idle else rule.fix, location=layer.location,
        message=f"{names} of {layer.name} can be trained but receive{'s' if len(lost) == 1 else ''} no gradient: {reason}.",
        undefined={"limit": "the rule has none"},
    )  # fmt: skip
