"""Findings on the signal itself: where infinities and zeros come from, dead units, gradients that shatter, fluctuation between batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from gradflow.bands import fluctuation, is_weighted
from gradflow.judge import remedies
from gradflow.judge.layers import has_nonfinite_parameter, relieved
from gradflow.numbers import number, percent
from gradflow.records import Finding, Layer, Location, Nonfinite, Skip
from gradflow.rules import MOST_DECADES, Rules

_GIVEN = {
    "input": "Look at the data: a missing value, a division by a standard deviation of 0, an overflow where it was read.",
    "parameter": "Initialise it anew, or load it from a checkpoint before the step that broke it; in training that step had a gradient that is not finite.",
    "buffer": "Look at what fills it: running statistics take in what is not finite once, and keep it. Reset it, or load it from an earlier checkpoint.",
}
_STRUCTURE = 1.0  # decades that a finding counts whose number is a share


def judge_signal(layers: Sequence[Layer], skips: Sequence[Skip], rules: Rules) -> list[Finding]:
    """Findings of GF109, GF301 and GF302, not yet in order."""
    return [*_dead_units(layers, rules), *_shattered(layers, skips, rules), *_fluctuating(layers, rules)]


def refined(found: Sequence[Finding], layers: Sequence[Layer], nonfinite: Nonfinite | None, rules: Rules) -> list[Finding]:
    """The same findings with their causes: what vanishes to exactly 0 is GF108, one for each cause, and what is not finite one GF103 at its origin."""
    silent = [f for f in found if f.rule == "GF101" and f.value == 0]
    bad = [] if nonfinite is None else [f for f in found if f.rule == "GF103"]
    others = [f for f in found if f not in silent and f not in bad]
    origin = [] if nonfinite is None else [_origin(nonfinite, len(bad), layers, rules)]
    return [*origin, *_silenced(silent, layers, rules), *others]


def _origin(nonfinite: Nonfinite, reached: int, layers: Sequence[Layer], rules: Rules) -> Finding:
    rule = rules["GF103"]
    place = f"`{nonfinite.module}`" + (f", {nonfinite.location}" if nonfinite.location else "")
    if nonfinite.operator in ("input", "parameter", "buffer"):
        origin = f"{nonfinite.what}, which reach the loss; they are first used in {place}"
    elif nonfinite.operator == "sum":
        origin = f"Finite gradients add up to what is not finite in {place}: {nonfinite.what}"
    else:
        way = "on the way to the loss" if nonfinite.phase == "forward" else "on the way back"
        origin = f"Numbers that are not finite are first made by {nonfinite.operator} in {place}, {way}: {nonfinite.what}"
    harmful = nonfinite.phase == "forward" or any(map(has_nonfinite_parameter, layers))
    spread = f" {reached} of {len(layers)} layers have gradients or weights that are not finite." if reached else " No layer's gradient shows it."
    return Finding(
        rule=rule.code, severity="error" if harmful else "warning", where=nonfinite.module, value=float(max(1, reached)), limit=0.0,
        decades=MOST_DECADES if harmful else _STRUCTURE,
        fix=_GIVEN.get(nonfinite.operator, rule.fix), location=nonfinite.location, message=f"{origin[0].upper()}{origin[1:]}.{spread}",
    )  # fmt: skip


def _silenced(silent: Sequence[Finding], layers: Sequence[Layer], rules: Rules) -> list[Finding]:
    """One finding for each cause and severity, at the silent layer that is nearest to it."""
    rule, by_name = rules["GF108"], {layer.name: layer for layer in layers}
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in silent:
        groups.setdefault((by_name[finding.where].silenced_by, finding.severity), []).append(finding)
    found = []
    for (cause, _), group in groups.items():
        nearest = max(group, key=lambda f: by_name[f.where].depth)
        layer = by_name[nearest.where]
        what = by_name[cause].type if cause in by_name else cause.partition(" ")[0]
        more = f" and {len(group) - 1} more before it" if len(group) > 1 else ""
        because = f": {cause} receives a gradient and passes none on" if cause else ""
        found.append(
            replace(
                nearest, rule=rule.code, fix=remedies.of_silence(rule, what), location=_location(cause, by_name) or nearest.location,
                message=f"{layer.name} ({layer.type}){more} receive{'' if len(group) > 1 else 's'} a gradient of exactly 0{because}.",
            )
        )  # fmt: skip
    return found


def _location(name: str, by_name: dict[str, Layer]) -> Location | None:
    return by_name[name].location if name in by_name else None


def _dead_units(layers: Sequence[Layer], rules: Rules) -> list[Finding]:
    rule, found = rules["GF109"], []
    for layer in layers:
        broken = None if layer.dead_units is None or layer.closed_by else rule.severity(layer.dead_units)
        if broken is None or layer.dead_units is None:
            continue
        found.append(
            Finding(
                rule=rule.code, severity=broken[0], where=layer.name, value=layer.dead_units, limit=broken[1], decades=_STRUCTURE,
                fix=rule.fix, location=layer.location,
                message=f"{percent([layer.dead_units])} of the units of {layer.name} ({layer.type}) receive no gradient from any sample.",
            )
        )  # fmt: skip
    return found


def _shattered(layers: Sequence[Layer], skips: Sequence[Skip], rules: Rules) -> list[Finding]:
    """Depth without relief, of parallel layers one."""
    rule = rules["GF301"]
    bare = [
        layer
        for layer, aside in zip(layers, relieved(layers, skips, unmeasured=True), strict=True)
        if layer.gain is not None and is_weighted(layer) and not aside
    ]
    depth = len({layer.layers_after for layer in bare})
    left = shattered_correlation(depth)
    broken = rule.severity(left)
    if not rule.noted(left):
        return []
    return [
        Finding(
            rule=rule.code, severity=broken[0] if broken else "info", where=bare[0].name, value=left, limit=broken[1] if broken else rule.note,
            decades=rule.noted(left), fix=rule.fix, location=bare[0].location,
            message=f"{depth} layers down to {bare[0].name} ({bare[0].type}) have no skip around them that passes the gradient on. In so deep a stack of "
            f"wide ReLU layers the gradients of two inputs have a correlation of {number(left, 3)} left: from one input to the next they are all but noise.",
        )
    ]  # fmt: skip


def shattered_correlation(depth: int) -> float:
    """The cosine that is left of the gradients of two orthogonal inputs after `depth` layers of a wide He-initialised ReLU net, ∏(1 − θ_l/π) with
    cos θ_{l+1} = [sin θ_l + (π − θ_l) cos θ_l]/π and θ_1 = π/2 (Balduzzi et al. 2017 for what it means; Cho and Saul 2009 for the recursion)."""
    angle, left = math.pi / 2, 1.0
    for _ in range(depth):
        left *= 1 - angle / math.pi
        angle = math.acos(min(1.0, (math.sin(angle) + (math.pi - angle) * math.cos(angle)) / math.pi))
    return left


def _fluctuating(layers: Sequence[Layer], rules: Rules) -> list[Finding]:
    """The layer that fluctuates furthest beyond what a net of its widths does, one standard deviation of it: half of `fluctuation`."""
    rule = rules["GF302"]
    beyond = []
    for layer, band in zip(layers, fluctuation(layers), strict=True):
        if layer.fluctuation is None or not rule.first:
            continue
        broken = rule.severity(layer.fluctuation, max(0.0, math.log10(band / 2 / rule.first)) if band > 0 else 0.0)
        if broken is not None:
            beyond.append((layer.fluctuation - broken[1], broken, layer))
    if not beyond:
        return []
    decades, (severity, limit), worst = max(beyond, key=lambda one: one[0])
    others = f", and that of {len(beyond) - 1} more layers beyond theirs" if len(beyond) > 1 else ""
    return [
        Finding(
            rule=rule.code, severity=severity, where=worst.name, value=worst.fluctuation, limit=limit, decades=min(MOST_DECADES, decades), fix=rule.fix,
            location=worst.location,
            message=f"The gain of {worst.name} ({worst.type}) varies from batch to batch by {number(worst.fluctuation, 3)} decades (powers of ten), as one "
            f"standard deviation; the widths of the layers after it explain {number(limit, 3)}{others}.",
        )
    ]  # fmt: skip
