"""Stages of a model by the names of its layers, and their colours."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from gradflow.records import Layer
from gradflow.render.figure.marks import Key, dot
from gradflow.render.figure.text import short
from gradflow.render.figure.theme import Theme

OTHER = "other stages"
_DEEPEST = 4


def stages_of(layers: Sequence[Layer], most: int) -> dict[str, str]:
    """Layer name to stage, at most `most`: the shortest prefix that tells layers apart. Of too many, numbered ones are one, and then the rarest."""
    paths = {layer.name: layer.name.split(".") for layer in layers}
    depth = 1
    while depth < _DEEPEST and _count(paths, depth) == 1 and _count(paths, depth + 1) <= most:
        depth += 1
    stages = {name: ".".join(path[:depth]) for name, path in paths.items()}
    if len(set(stages.values())) > most:
        stages = {name: re.sub(r"(?<![^.])\d+(?![^.])", "*", stage) for name, stage in stages.items()}
    common = [stage for stage, _ in Counter(stages.values()).most_common()]
    kept = common if len(common) <= most else common[: most - 1]
    return {name: stage if stage in kept else OTHER for name, stage in stages.items()}


def _count(paths: Mapping[str, Sequence[str]], depth: int) -> int:
    return len({tuple(path[:depth]) for path in paths.values()})


def colors_of(layers: Sequence[Layer], theme: Theme, dotted: Collection[str]) -> tuple[dict[str, str], list[Key]]:
    """The colour of each layer, by its name, and the keys of the stages, if there are several, that have one of those `dotted`, by their names."""
    stages = stages_of(layers, len(theme.stages))
    names = list(dict.fromkeys(stages.values()))
    colors = {name: theme.stages[i] for i, name in enumerate(n for n in names if n != OTHER)} | {OTHER: theme.grey}
    shown = {stages[name] for name in dotted}
    keys: list[Key] = [(dot(colors[n]), short(n, 22)) for n in sorted(names, key=OTHER.__eq__) if n in shown] if len(names) > 1 else []
    return {name: colors[stage] for name, stage in stages.items()}, keys
