"""The layers beyond a limit, told as one run: the worst in front, with the place where the gradient is lost and what to do there. Touches no tensor."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import replace

from gradflow.judge import places, remedies
from gradflow.numbers import number
from gradflow.records import GRAVITY, Finding, Layer, Skip
from gradflow.rules import Rule


def told(found: Sequence[Finding], layers: Sequence[Layer], skips: Sequence[Skip], past: Sequence[bool], around: Sequence[bool], rule: Rule) -> list[Finding]:
    """`found` with the rule's run of layers made one: of all layers that the gradient does not get past the one whose gain is farthest from 1 comes first,
    though another may lie farther beyond a limit that its own band widens. It counts what the worst finding counts, and says at which layer the gradient is
    lost, or by how much at each, and where the run begins. Where it is lost at one layer, that layer's line and remedy are those of all that lie before it.

    Args:
        past: for each layer whether the gradient gets past it.
        around: for each layer whether a live skip leads around it.
    """
    at = {layer.name: i for i, layer in enumerate(layers)}
    run = {at[f.where]: f for f in found if f.rule == rule.code and f.severity != "info" and not past[at[f.where]]}
    if not run:
        return list(found)
    gravity = max(GRAVITY[f.severity] for f in run.values())
    worst = max((i for i, f in run.items() if GRAVITY[f.severity] == gravity), key=lambda i: _distance(layers[i].gain))
    counts = [not (beside or layer.closed_by or ".parametrizations." in layer.name) for layer, beside in zip(layers, around, strict=True)]
    step = places.step(layers, counts, worst, below=rule.below)
    fix = remedies.of_layers(rule, layers[worst:], skips) if step is None else remedies.of_step(rule, step)
    behind = -1 if step is None else layers.index(step.before)
    mended = {
        id(f): replace(f, fix=fix, location=(step.at.location if step and i <= behind else None) or f.location)
        for i, f in run.items()
        if step is None or i <= behind
    }
    where = (
        f"{places.told(step, verb(rule))}" if step else f"{verb(rule)}{places.rate(layers[worst], bare=not any(around[worst:]))}{_since(layers, run, worst)}"
    )
    first = replace(
        mended[id(run[worst])], decades=max(f.decades for f in run.values() if GRAVITY[f.severity] == gravity),
        message=f"{layers[worst].name} ({layers[worst].type}) {received(layers[worst], rule)}: the gradient {where}.",
    )  # fmt: skip
    return [first, *(mended.get(id(f), f) for f in found if f is not run[worst])]


def verb(rule: Rule) -> str:
    """What the gradient does beyond the rule's limit."""
    return "vanishes" if rule.below else "explodes"


def received(layer: Layer, rule: Rule) -> str:
    """What arrives at the layer; its gain must be defined."""
    return (
        "receives a gradient of exactly 0" if layer.gain == 0 else f"receives {number(layer.gain)} {'of' if rule.below else 'times'} the output's gradient norm"
    )


def _since(layers: Sequence[Layer], run: Container[int], worst: int) -> str:
    """Where the run begins that ends with the worst layer; empty where that is alone."""
    begins, i = worst, worst
    while i + 1 < len(layers) and (i + 1 in run or layers[i + 1].gain is None):
        i += 1
        begins = i if i in run else begins
    return f", beyond its limit from {layers[begins].name} ({layers[begins].type}) back to here" if begins > worst else ""


def _distance(gain: float | None) -> float:
    """How far a gain lies from 1, in decades."""
    return math.inf if not gain else abs(math.log10(gain))
