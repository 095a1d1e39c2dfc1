"""Findings that follow from another: the cause is told first, and what follows names it. Touches no tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gradflow.judge import remedies
from gradflow.judge.places import sized, usual_size
from gradflow.records import GRAVITY, Finding, Highway, Layer, Skip

_MOST = 0.5  # of the decades of what follows: what explains fewer is not to blame
_CAPPED = 45.0  # decades, of a gain of 0: float32 ends there
_LARGE = 2.0  # decades between a matrix's size and the median's that no initialisation explains
_EFFECTS = {"GF206": ("GF101", "GF108"), "GF207": ("GF102",), "GF111": ("GF101", "GF102", "GF211", "GF212")}


def linked(findings: Sequence[Finding], layers: Sequence[Layer], skips: Sequence[Skip], highways: Sequence[Highway]) -> list[Finding]:
    """The same findings, not in order: one that follows from a highway's, or from that of a weight of the wrong size, names it, has its remedy and its line;
    and a cause is at least as severe as what follows from it."""
    model = _Model(
        {layer.name: layer for layer in layers}, {skip.id: skip for skip in skips}, {h.name: h for h in highways},
        {p.name: layer for layer in layers for p in layer.parameters}, usual_size(layers),
    )  # fmt: skip
    causes = [f for f in findings if f.rule in _EFFECTS and f.severity != "info"]
    found, gravest = [], dict[int, Finding]()
    for finding in findings:
        cause = next((c for c in causes if finding.rule in _EFFECTS[c.rule] and model.explains(c, finding)), None)
        if cause is None:
            found.append(model.with_its_weight(finding))
            continue
        found.append(_following(finding, cause))
        if id(cause) not in gravest or GRAVITY[finding.severity] > GRAVITY[gravest[id(cause)].severity]:
            gravest[id(cause)] = finding
    return [_as_grave(f, gravest[id(f)]) if id(f) in gravest else f for f in found]


def _following(finding: Finding, cause: Finding) -> Finding:
    message = f"{finding.message.removesuffix('.')}; {cause.where} is to blame ({cause.rule})."
    return replace(finding, message=message, fix=cause.fix, location=cause.location or finding.location, caused_by=cause.where)


def _as_grave(cause: Finding, effect: Finding) -> Finding:
    return replace(cause, severity=effect.severity) if GRAVITY[effect.severity] > GRAVITY[cause.severity] else cause


@dataclass(frozen=True)
class _Model:
    """What findings speak of, by name: layers, skips, highways, the layer of each parameter; and the usual size of a matrix."""

    layers: Mapping[str, Layer]
    skips: Mapping[str, Skip]
    highways: Mapping[str, Highway]
    owners: Mapping[str, Layer]
    usual: float

    def explains(self, cause: Finding, effect: Finding) -> bool:
        """Whether the cause explains at least half of the decades of what the effect tells of, at its place."""
        layer, skip, told = self._of(effect)
        if cause.rule == "GF111":
            explained = self._by_weight(self.owners[cause.where], cause.where, layer, skip)
        else:
            explained = None if layer is None else self._on_the_way(layer, self.highways[cause.where])
        return _explained(explained, told)

    def _by_weight(self, owner: Layer, name: str, layer: Layer | None, skip: Skip | None) -> float | None:
        """Decades that a weight of the wrong size adds to the gradient of what lies before it; at its own output, before a norm, it takes as many from it."""
        weight = sized(owner)
        if weight is None or weight[0].name != name:
            return None
        size = _decades(weight[1] / self.usual)
        if layer is owner:
            return -size
        around = [s for s in self.skips.values() if s.fork_depth <= owner.depth < s.join_depth]
        if layer is not None:
            return size if layer.depth < owner.depth and all(s.fork_depth <= layer.depth for s in around) else None
        return size if skip in around else None

    def with_its_weight(self, effect: Finding) -> Finding:
        """The finding with the weight that explains it, though no finding of its own does: attention whose logits a large weight saturates, say."""
        if effect.rule not in _EFFECTS["GF111"] or effect.severity == "info" or effect.fix.startswith("Give "):
            return effect
        layer, skip, told = self._of(effect)
        found = [(self._by_weight(owner, name, layer, skip), owner) for name, owner in self.owners.items() if owner is not layer]
        explaining = [(size, owner) for size, owner in found if size is not None and abs(size) >= _LARGE and _explained(size, told)]
        if not explaining:
            return effect
        owner = max(explaining, key=lambda one: abs(one[0]))[1]
        weight = sized(owner)
        assert weight is not None
        message = f"{effect.message.removesuffix('.')}; {remedies.of_what_size(weight, self.usual)}."
        return replace(effect, message=message, fix=remedies.of_weight(weight[0], owner), location=owner.location or effect.location)

    def _of(self, effect: Finding) -> tuple[Layer | None, Skip | None, float | None]:
        """The layer or skip that a finding speaks of, and the ratio that it tells: its gain, or the branch's against the skip's."""
        layer, skip = self.layers.get(effect.where), self.skips.get(effect.where)
        if layer is not None:
            return layer, None, layer.gain
        return None, skip, None if skip is None or not skip.gain or skip.branch_gain is None else skip.branch_gain / skip.gain

    def _on_the_way(self, layer: Layer, highway: Highway) -> float | None:
        """Decades between the highway's last join and its first fork after the layer: for a layer before the whole highway with the branches, for one inside
        it along the skips; None for a layer that has no fork after it."""
        after = [i for i, skip in enumerate(highway.skips) if self.skips[skip].fork_depth > layer.depth]
        if not after:
            return None
        along = _decades(highway.fork_gains[after[0]])
        if after[0] > 0 or highway.total_gain is None:
            return along
        return min(along, _decades(highway.total_gain), key=abs)


def _explained(decades: float | None, told: float | None) -> bool:
    """Whether they are at least half of the decades of the ratio that is told, to the same side of 1."""
    return decades is not None and told is not None and decades * _decades(told) > 0 and abs(decades) >= _MOST * abs(_decades(told))


def _decades(gain: float | None) -> float:
    return -_CAPPED if not gain else max(-_CAPPED, math.log10(gain))
