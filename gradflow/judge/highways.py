"""Findings on highways: what the skips carry over many blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from gradflow.judge import loops, remedies
from gradflow.numbers import number
from gradflow.records import Finding, Highway, Location, Severity, Skip
from gradflow.rules import Rule, Rules

_BOUNDS = (0.1, 10.0)  # a highway inside them makes up for λ ≠ 1 by the norms on its trunk
_ARRIVES = (0.03, 30.0)  # what arrives at a first fork and is within what networks that train lose or gain: docs/calibration.md
_NEAR_ONE = (0.95, 1.05)
_FEW = 3  # skips, of which one stands out
_CAPPED = 45.0  # decades, of a gain of 0: float32 ends there
_UNCHANGED = 1e-6  # relative: rounding in float32
_TELLING = 2.0  # times that λ = 1 would change a highway's gain
_LAMBDA, _SCALARS = "λ = 1 on its skips would not mend it alone", "Set λ = 1 on the skips named here, and move "
_ROUTES = frozenset({"cat", "slice", "select", "split", "split_with_sizes", "index", "index_select", "stack", "unbind"})
_ACTIVATIONS = frozenset({"relu", "gelu", "silu", "mish", "tanh", "sigmoid", "elu", "leaky_relu", "hardswish", "relu6", "hardtanh", "softplus", "threshold"})
_WEIGHTS = frozenset({"mm", "addmm", "bmm", "baddbmm", "convolution", "embedding", "linear"})


def judge_highways(highways: Sequence[Highway], skips: Sequence[Skip], rules: Rules) -> list[Finding]:
    """Findings of the rules on highways, not yet in order."""
    return [f for highway in highways for f in (*_highway(highway, skips, rules), *_on_the_trunk(highway, skips, rules))]


def is_compensated(highway: Highway) -> bool:
    """Whether the norms on a highway's trunk make up for λ ≠ 1."""
    normed = any("norm" in op for op in highway.trunk_ops) and not _WEIGHTS.intersection(highway.trunk_ops)
    return normed and highway.gain is not None and _BOUNDS[0] <= highway.gain <= _BOUNDS[1]


def _highway(highway: Highway, skips: Sequence[Skip], rules: Rules) -> list[Finding]:
    if highway.gain is None or len(highway.skips) < 2:
        return []  # a single skip is judged by its λ
    findings = []
    for rule, word in ((rules["GF206"], "carry only"), (rules["GF207"], "carry")):
        broken = rule.severity(highway.gain)
        if broken is None:
            continue
        severity, blame = _blame(highway, skips, rule, broken[0])
        findings.append(
            Finding(
                rule=rule.code, severity=severity, where=highway.name, value=highway.gain, limit=broken[1],
                decades=rule.decades(highway.gain) / highway.turns if severity != "info" else 0.0, location=_worst_location(highway, skips),
                fix=remedies.of_highway(rule, highway, skips) if not blame else remedies.ROUTED if severity == "info" else _off_the_trunk(highway, blame),
                message=_message(highway, skips, word, blame, eased=broken[0] == "error" and severity == "warning"),
            )
        )  # fmt: skip
    return findings


def _message(highway: Highway, skips: Sequence[Skip], word: str, blame: str, *, eased: bool) -> str:
    """What the skips alone carry, what really arrives, and what is to blame. `eased`: whether a highway beyond the limit of errors is a warning."""
    if highway.turns > 1:
        return loops.message(highway, skips, _describe(highway, skips)) + blame
    total = "" if highway.total_gain is None else f"; with the branches it is {number(highway.total_gain)}"
    made_up = " The branches make up for it." if eased and _made_up(highway) else ""
    return (
        f"The skips alone {word} {number(highway.gain)} of the gradient down this highway of {len(highway.skips)} "
        f"({_describe(highway, skips)}){total}.{made_up}{blame or _if_identities(highway)}"
    )


def _off_the_trunk(highway: Highway, blame: str) -> str:
    return f"{_SCALARS if _LAMBDA in blame else 'Move '}{', '.join(highway.trunk_ops)} off the trunk, into the branches."


def _on_the_trunk(highway: Highway, skips: Sequence[Skip], rules: Rules) -> list[Finding]:
    """What acts on the gradient in every block, between the sums; what stands once, in a transition between two stages, does not."""
    rule = rules["GF205"]
    acting = [op for op in highway.trunk_ops if ("norm" in op or op in _ACTIVATIONS) and op in _inside_stages(highway, skips)]
    if len(highway.skips) < 2 or not acting or _passed_as_it_is(highway, skips):
        return []
    verb = "lies" if len(acting) == 1 else "lie"
    return [
        Finding(
            rule=rule.code, severity=rule.severity_without_limit, where=highway.name, value=None, limit=None, decades=0.0, fix=rule.fix,
            location=_worst_location(highway, skips), undefined={"value": "it is structure, not a number", "limit": "the rule has none"},
            message=f"{', '.join(acting)} {verb} on the trunk between the {len(highway.skips)} sums of this highway: the gradient meets it in every block.",
        )
    ]  # fmt: skip


def _passed_as_it_is(highway: Highway, skips: Sequence[Skip]) -> bool:
    """Whether the gradient comes through most gaps between two sums unchanged: then what lies on the trunk stands in a few of them."""
    exact = {skip.id for skip in skips if skip.gain == 1}
    gaps = [(a, b) for i, a, b in zip(highway.skips, highway.fork_gains, highway.fork_gains[1:], strict=False) if i in exact]
    same = sum(math.isclose(a, b, rel_tol=_UNCHANGED) for a, b in gaps)
    return same > (len(highway.skips) - 1) / 2


def _inside_stages(highway: Highway, skips: Sequence[Skip]) -> set[str]:
    """Operators on the trunk inside its stages; all on the trunk where it has no segments."""
    if not highway.segments:
        return {*highway.trunk_ops}
    paths = {s.id: s.path_ops for s in skips}
    stages = [segment for segment in highway.segments if segment.form == "stage"]
    return {op for stage in stages for op in stage.ops if not any(op in paths[i] for i in stage.skips if i in paths)}


def _if_identities(highway: Highway) -> str:
    """The counterfactual, where it makes a difference that a reader would act on."""
    gain, identity = highway.gain, highway.identity_gain
    if gain is None or identity is None or not identity > 0:
        return ""
    if gain == 0:
        return f" With λ = 1 on each of its skips {highway.skips[0]} would receive {number(identity)} through the highway."
    ratio, word = (identity / gain, "more") if identity > gain else (gain / identity, "less")
    trunk = ", the trunk as it is," if highway.trunk_ops else ""
    return (
        f" With λ = 1 on each of its skips{trunk} {highway.skips[0]} would receive {number(ratio, 3)} times {word} through the highway."
        if ratio >= _TELLING
        else ""
    )


def _made_up(highway: Highway) -> bool:
    """Whether the branches make up for the skips: with them what arrives at the first fork is no matter of concern."""
    return highway.total_gain is not None and _ARRIVES[0] <= highway.total_gain <= _ARRIVES[1]


def _no_help(highway: Highway, rule: Rule) -> bool:
    """Whether λ = 1 on every skip would leave the highway beyond the error limit: then it is the trunk."""
    broken = None if highway.identity_gain is None else rule.severity(highway.identity_gain)
    return broken is not None and broken[0] == "error"


def _blame(highway: Highway, skips: Sequence[Skip], rule: Rule, severity: Severity) -> tuple[Severity, str]:
    """A highway on which every defined λ is 1, or which λ = 1 would not mend, loses its gradient on the trunk. Where the trunk has weights or routes tokens
    (a class token joined late), that is the architecture and at most a warning, or a note where routing alone leaves nothing."""
    on = {*highway.skips}
    if highway.turns > 1 or _made_up(highway):
        severity = "warning" if severity == "error" else severity  # cells in loops: forgetting over many steps is what their gates are for
    identities = all(s.lam is None or _NEAR_ONE[0] <= s.lam <= _NEAR_ONE[1] for s in skips if s.id in on)
    trunk = {*highway.trunk_ops, *(op for s in skips if s.id in on and not _pads(s) for op in s.path_ops)}
    if not highway.trunk_ops or not (identities or _no_help(highway, rule)):
        return severity, ""
    because = "Wherever λ is defined it is 1" if identities else _LAMBDA
    if not trunk & (_ROUTES | _WEIGHTS):
        return severity, f" {because}: what lies on the trunk between the sums ({', '.join(highway.trunk_ops)}) does it."
    if highway.gain == 0 and trunk & _ROUTES:
        return "info", " Slicing or concatenation on the way routes the gradient past it."
    return "warning", f" {because}: the trunk between the skips makes the difference."


def _pads(skip: Skip) -> bool:
    """Whether it is an option-A shortcut, gated or not, whose slices skip positions between stages and route nothing past the highway."""
    return any("pad" in op for op in skip.path_ops)


def _describe(highway: Highway, skips: Sequence[Skip]) -> str:
    """The λ of its skips in runs, or of the one that does most; and what lies on the trunk."""
    by_id = {s.id: s for s in skips}
    one = _one(highway)
    if one is not None and len({by_id[i].lam for i in highway.skips}) > 1:
        lam = by_id[one].lam
        text = f"most of it at {one}, λ = {'undefined' if lam is None else number(lam)}"
        return f"{text}; trunk: {', '.join(highway.trunk_ops)}" if highway.trunk_ops else text
    lams = [by_id[i].lam for i in highway.skips]
    runs = [(lam, len(list(group))) for lam, group in groupby("undefined" if lam is None else f"{number(lam)}" for lam in lams)]
    text = ", ".join(f"λ = {lam} ×{n}" for lam, n in runs[:3]) + (", …" if len(runs) > 3 else "")
    return f"{text}; trunk: {', '.join(highway.trunk_ops)}" if highway.trunk_ops else text


def _one(highway: Highway) -> str | None:
    """The skip at which more than half of the decades of the highway's gain are lost or gained, with the trunk below it; None where there is none."""
    if len(highway.skips) < _FEW or highway.turns > 1 or len(highway.fork_gains) < len(highway.skips):
        return None
    decades = [math.log10(gain) if gain > 0 else -_CAPPED for gain in (*highway.fork_gains, 1.0)]
    steps = [abs(decades[i] - decades[i + 1]) for i in range(len(highway.skips))]
    most = max(range(len(steps)), key=steps.__getitem__)
    return highway.skips[most] if steps[most] > abs(decades[0]) / 2 > 0 else None


def _worst_location(highway: Highway, skips: Sequence[Skip]) -> Location | None:
    by_id = {s.id: s for s in skips}
    if (one := _one(highway)) is not None:
        return by_id[one].location
    on = [by_id[i] for i in highway.skips]
    worst = max(on, key=lambda s: abs(math.log10(abs(s.lam) if s.lam else 1e-45)) if s.lam is not None else 0.0)
    return worst.location
