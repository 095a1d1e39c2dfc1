"""What one batch leaves behind: facts and sums, no tensor and no graph. The tallies of several batches merge by addition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Protocol, TypeVar

from torch import nn

from gradflow.accounts.highways import HighwayTally, account_highway, tally_highways
from gradflow.accounts.layers import LayerTally, account_layer, layer_rows, tally_layers
from gradflow.accounts.opaque import account_opaque
from gradflow.accounts.sites import sites
from gradflow.accounts.skips import SkipTally, account_skip, tally_skips
from gradflow.observe import Observation
from gradflow.records import Highway, Layer, Opaque, Skip
from gradflow.subject.structure import class_name
from gradflow.sums import GradientSums, SampleSums


@dataclass(frozen=True, kw_only=True)
class Tally:
    """One batch or several.

    Attributes:
        layers: in the order in which the forward finished them.
        skips, highways: as they were found; one that only a later batch has comes last.
        output: sums over the gradient at the model's output.
        samples: what each sample carries, at the model's output and at the first weighted layer.
        losses: the value of each batch's loss.
        failures: what could not be replayed.
    """

    layers: tuple[LayerTally, ...]
    skips: tuple[SkipTally, ...]
    highways: tuple[HighwayTally, ...]
    opaque: tuple[Opaque, ...]
    output: GradientSums
    samples: tuple[SampleSums, ...]
    losses: tuple[float, ...]
    failures: tuple[str, ...]

    def __add__(self, other: Tally) -> Tally:
        ids = _ids(self.skips, other.skips)
        opaque = {(part.name, part.operator): part for part in (*other.opaque, *self.opaque)}
        return replace(
            self,
            layers=_merged(self.layers, other.layers, lambda x: x.name),
            skips=_merged(self.skips, [skip.renamed(ids) for skip in other.skips], lambda x: x.id),
            highways=_longest(_merged(self.highways, [highway.renamed(ids) for highway in other.highways], lambda x: x.skips), self.highways),
            opaque=tuple(sorted(opaque.values(), key=lambda part: part not in self.opaque)),
            output=self.output + other.output,
            samples=_merged(self.samples, other.samples, lambda x: x.where),
            losses=self.losses + other.losses,
            failures=tuple(dict.fromkeys((*self.failures, *other.failures))),
        )


class _Mergeable(Protocol):
    def __add__(self, other: Any) -> Any: ...


Part = TypeVar("Part", bound=_Mergeable)


class _Key(Protocol):
    def __call__(self, part: Any) -> Hashable: ...


def _merged(ours: Sequence[Part], theirs: Sequence[Part], key: _Key) -> tuple[Part, ...]:
    """Parts of one key added up, the others side by side."""
    found = {key(part): part for part in ours}
    for part in theirs:
        k = key(part)
        found[k] = found[k] + part if k in found else part
    return tuple(found.values())


def _longest(highways: Sequence[HighwayTally], ours: Sequence[HighwayTally]) -> tuple[HighwayTally, ...]:
    """A loop that one batch runs through more often than another is one highway, the longest: forks of other steps do not add up."""
    known, place = {highway.skips for highway in ours}, {highway.skips: i for i, highway in enumerate(highways)}
    groups: dict[frozenset[str], list[HighwayTally]] = {}
    for highway in sorted(highways, key=lambda highway: -len(highway.skips)):
        groups.setdefault(frozenset(highway.skips), []).append(highway)
    found = []
    for on, alike in groups.items():
        loop = len(alike[0].skips) > len(on)
        many = max(1, sum(highway.skips in known for highway in alike)) if loop else len(alike)  # one batch may run a loop over several sequences
        found += alike[:many]
    return tuple(sorted(found, key=lambda highway: place[highway.skips]))


def _ids(ours: Sequence[SkipTally], theirs: Sequence[SkipTally]) -> dict[str, str]:
    """For each of their ids ours of the same site, or one that is free: numbers count a module's skips, of which another batch may have others."""
    known, taken = {place: skip.id for place, skip in _places(ours).items()}, {skip.id: skip.fields["name"] for skip in ours}
    found = {}
    for place, skip in _places(theirs).items():
        name = skip.fields["name"]
        free = skip.id if name not in taken.values() else next(i for number in count(2) if (i := f"{name}#{number}") not in taken)
        found[skip.id] = known.get(place, free)
        taken[found[skip.id]] = name
    return found


def _places(skips: Sequence[SkipTally]) -> dict[Hashable, SkipTally]:
    """The skips by where in the source they are, and which of several there."""
    number = Counter[Hashable]()
    found: dict[Hashable, SkipTally] = {}
    for skip in skips:
        number[skip.place] += 1
        found[skip.place, number[skip.place]] = skip
    return found


def tally(observation: Observation, model: nn.Module, weights: Mapping[str, GradientSums]) -> Tally:
    """What is kept of one observation; `weights` are sums over each parameter itself, by name."""
    kind, rows = class_name(model), layer_rows(observation, model)
    values, found = observation.readings.values, sites(observation.skips, kind)
    output = sum((values[v] for v in dict.fromkeys(observation.outputs) if v in values), GradientSums()).scaled(observation.loss_scale)
    return Tally(
        layers=tally_layers(observation, rows, model, weights, output),
        skips=tally_skips(observation, rows, found),
        highways=tally_highways(observation, found),
        opaque=account_opaque(observation, kind),
        output=output,
        samples=tuple(observation.readings.samples),
        losses=(observation.loss_value,),
        failures=tuple(observation.readings.failures),
    )


def account(found: Tally, seed: int, probes: int) -> tuple[tuple[Layer, ...], tuple[Skip, ...], tuple[Highway, ...]]:
    """The records; `seed` is that of the bootstrap, `probes` how many random cotangents each path was given."""
    return (
        tuple(account_layer(layer, depth, found.output) for depth, layer in enumerate(found.layers)),
        tuple(account_skip(skip, seed, probes) for skip in found.skips),
        tuple(account_highway(highway, found.output.squares) for highway in found.highways),
    )
