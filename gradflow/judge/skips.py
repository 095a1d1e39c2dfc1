"""Findings on single skips: λ, and what the path does to the gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import replace

from gradflow.judge import remedies
from gradflow.judge.highways import is_compensated
from gradflow.numbers import number
from gradflow.records import Finding, Highway, Layer, Skip
from gradflow.rules import MOST_DECADES, Rule, Rules

_MOSTLY_SCALAR = 0.9  # a skip with more misfit is a transformation, which its λ does not describe
_DEEP = 8  # weighted layers in a row
_THINNED = 1.0  # decades of coordinates that dropout may take from a highway before that counts in the severity
_MUTE = 1e-4  # of the gradient at the join
_TRANSFORMING = ("norm", "projection", "detached", "streams")  # their scale is data's and weights', not a factor that someone wrote


def judge_skips(layers: Sequence[Layer], skips: Sequence[Skip], highways: Sequence[Highway], rules: Rules) -> list[Finding]:
    """Findings of the rules on single skips, not yet in order."""
    closed = {layer.depth for layer in layers if layer.closed_by}
    frozen = {layer.depth for layer in layers if any(p.status == "frozen" and len(p.shape) > 1 for p in layer.parameters)}
    return [
        *_scaled(skips, highways, rules),
        *(_detached(skip, rules) for skip in skips if skip.kind == "detached"),
        *(f for skip in skips for f in (_transforming(skip, skips, frozen, rules), _opposed(skip, rules), _unbalanced(skip, closed, rules)) if f is not None),
        *_noisy(skips, highways, rules),
        *(_deep(skip, rules) for skip in skips if skip.bypassed_layers > _DEEP and not _holds_another(skip, skips)),
    ]


def _scaled(skips: Sequence[Skip], highways: Sequence[Highway], rules: Rules) -> list[Finding]:
    compensated = {i: h for h in highways if is_compensated(h) for i in h.skips}
    together = _parallel(skips)
    findings = []
    for skip in skips:
        lam = together.get(skip.id, skip.lam)
        beside = skip.form == "add" and skip.highway_gain is None  # a second operand: the stream itself has a skip of its own, or is passed on by a factor
        if lam is None or beside or skip.kind in _TRANSFORMING or (skip.misfit is not None and skip.misfit > _MOSTLY_SCALAR):
            continue
        for rule, word, bound in ((rules["GF201"], "attenuates", skip.lam_high), (rules["GF202"], "amplifies", skip.lam_low)):
            size = abs(lam)
            broken = rule.severity(size)
            if broken is None or (skip.id not in together and bound is not None and rule.severity(abs(bound)) is None):
                continue
            highway = compensated.get(skip.id)
            functions = remedies.pointwise(skip)
            findings.append(
                Finding(
                    rule=rule.code, severity=broken[0] if highway is None else "info", where=skip.id, value=lam, limit=broken[1],
                    decades=rule.decades(size) if highway is None else 0.0, location=skip.location,
                    fix=remedies.of_skip(rule, skip) if highway is None else remedies.WHILE_NORMED,
                    message=(f"The skip of {skip.id} passes through {', '.join(functions)} and" if functions else f"The {skip.kind} skip of {skip.id}")
                    + f" {word} the gradient: λ = {number(lam)}"
                    + (", with the others between the same fork and join" if skip.id in together else "")
                    + (_where(skip) if highway is None else _made_up(highway)),
                )
            )  # fmt: skip
    return findings


def _where(skip: Skip) -> str:
    return f", over its {skip.calls} calls." if skip.calls > 1 else f", over {_count(skip.bypassed_layers)}."


def _made_up(highway: Highway) -> str:
    """Why λ ≠ 1 is a note: what the norms on the trunk make of it."""
    norms = ", ".join(op for op in highway.trunk_ops if "norm" in op)
    return (
        f". That is no alarm: {norms} on the trunk makes up for it, and all {len(highway.skips)} skips of the highway together pass on {number(highway.gain)}."
    )


def _parallel(skips: Sequence[Skip]) -> dict[str, float]:
    """Of several additive skips between one fork and one join (`x + x + F(x)`) the first, with their λ added up."""
    groups: dict[tuple[str, str], list[Skip]] = {}
    for skip in skips:
        if skip.form == "add" and skip.lam is not None and skip.kind != "detached":
            groups.setdefault((skip.fork, skip.join), []).append(skip)
    return {group[0].id: sum(s.lam or 0.0 for s in group) for group in groups.values() if len(group) > 1}


def _detached(skip: Skip, rules: Rules) -> Finding:
    rule = rules["GF208"]
    place = f" at {skip.location}" if skip.location else ""
    return Finding(
        rule=rule.code, severity="error", where=skip.id, value=0.0, limit=None, decades=1.0, fix=rule.fix, location=skip.location,
        message=f"The skip of {skip.id} is cut{place} ({', '.join(skip.path_ops)}): it is added in the forward pass and no gradient comes back.",
        undefined={"limit": "the rule has none"},
    )  # fmt: skip


def _transforming(skip: Skip, skips: Sequence[Skip], frozen: Set[int], rules: Rules) -> Finding | None:
    """A weighted layer where the shapes would allow the identity; two maps that are added inside a branch, which a skip leads around, are the branch. A frozen
    matrix there is what fine-tuning was given, with or without another beside it (LoRA): its shape is not in question."""
    if not frozen.isdisjoint(range(skip.fork_depth, skip.join_depth)):
        return None
    if skip.form != "add" or skip.lam is None or skip.kind != "projection" or any(_holds(other, skip) for other in skips):
        return None
    through = ", ".join(skip.path_ops)
    return _noted(rules["GF203"], skip, f"The skip of {skip.id} transforms the gradient where an identity would do: it passes through {through}.")


def _noisy(skips: Sequence[Skip], highways: Sequence[Highway], rules: Rules) -> list[Finding]:
    """Dropout on skips. The first of a highway counts for all of it: a skip with inverted dropout of rate p, s = m·g/(1 − p), has misfit² = p in the mean,
    whatever λ, so that ∏(1 − misfit²) of the coordinates are kept in every block."""
    noisy = [s for s in skips if s.kind == "dropout" and s.form == "add" and s.lam is not None]
    kept = {s.id: max(1e-300, 1 - s.misfit**2) if s.misfit is not None else 1e-300 for s in noisy}
    on = [[i for i in highway.skips if i in kept] for highway in highways]
    first = {ids[0]: ids for ids in sorted(on, key=len) if ids}
    later = {i for ids in on for i in ids} - {*first}
    findings = []
    for skip in noisy:
        together = first.get(skip.id, [skip.id])
        lost = 0.0 if skip.id in later else -sum(math.log10(kept[i]) for i in together)
        over = (
            f"; a coordinate gets through all {len(together)} such skips of its highway with a probability of {number(10**-lost, 3)}"
            if lost and len(together) > 1
            else ""
        )
        finding = _noted(rules["GF204"], skip, f"The skip of {skip.id} drops a part of the gradient: it passes through {', '.join(skip.path_ops)}{over}.")
        findings.append(replace(finding, decades=min(MOST_DECADES, max(0.0, lost - _THINNED))))
    return findings


def _opposed(skip: Skip, rules: Rules) -> Finding | None:
    """A branch that cancels most of what the skip sends back."""
    if skip.form != "add" or skip.bound_holds is not False or not skip.gain or skip.total_gain is None:
        return None
    left = skip.total_gain / skip.gain
    return _limited(rules["GF209"], skip, left, f"The branch of {skip.id} cancels its skip: {number(left)} of what the skip sends back is left at the fork.")


def _unbalanced(skip: Skip, closed: Set[int], rules: Rules) -> Finding | None:
    """A branch that sends back next to nothing, unless a LayerScale or a zero-initialised parameter closes layers in it; or many times what the skip does."""
    if skip.form != "add" or not skip.branch_gain or not skip.gain:
        return None
    if skip.branch_gain < _MUTE and not closed.isdisjoint(range(skip.fork_depth, skip.join_depth)):
        return None
    if skip.branch_gain < _MUTE:
        return _noted(
            rules["GF211"], skip, f"The branch of {skip.id} sends back {number(skip.branch_gain)} of the gradient at its join: its layers hardly learn."
        )
    ratio = skip.branch_gain / skip.gain
    return _limited(
        rules["GF212"], skip, ratio, f"The branch of {skip.id} sends back {number(ratio)} times what the skip does: the block works as if it had no skip."
    )


def _limited(rule: Rule, skip: Skip, value: float, message: str) -> Finding | None:
    """A finding if the value breaks a limit of the rule."""
    broken = rule.severity(value)
    if broken is None:
        return None
    return Finding(
        rule=rule.code, severity=broken[0], where=skip.id, value=value, limit=broken[1], decades=rule.decades(value), fix=rule.fix, location=skip.location,
        message=message,
    )  # fmt: skip


def _deep(skip: Skip, rules: Rules) -> Finding:
    return _noted(
        rules["GF210"],
        skip,
        f"The branch of {skip.id} holds {_count(skip.bypassed_layers)} in a row and no skip of its own: inside it the gradient goes through every one.",
    )


def _holds_another(skip: Skip, skips: Sequence[Skip]) -> bool:
    """Whether another skip lies inside the branch."""
    return any(_inside(other, skip) for other in skips)


def _holds(skip: Skip, other: Skip) -> bool:
    """Whether a skip of the trunk leads around the other and passes its gradient on."""
    return skip.highway_gain is not None and skip.kind != "projection" and _inside(other, skip)


def _inside(skip: Skip, other: Skip) -> bool:
    return skip is not other and skip.fork_depth >= other.fork_depth and skip.join_depth <= other.join_depth and skip.fork != other.fork


def _noted(rule: Rule, skip: Skip, message: str) -> Finding:
    """A finding without a limit, which adds nothing to the severity."""
    return Finding(
        rule=rule.code, severity=rule.severity_without_limit, where=skip.id, value=None, limit=None, decades=0.0, fix=rule.fix, location=skip.location,
        message=message, undefined={"value": "it is structure, not a number", "limit": "the rule has none"},
    )  # fmt: skip


def _count(count: int) -> str:
    return "1 weighted layer" if count == 1 else f"{count} weighted layers"
