"""The skips of a lifted tape as places in the source: calls of one line with the same layers are one site, which has a name. Touches no tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gradflow.records import Location
from gradflow.residual import SkipPath
from gradflow.residual.flow import parameters_of, same_layers


@dataclass(frozen=True, kw_only=True)
class Site:
    """One skip of the source: all the calls that pass through the same line with the same parameters on the branch."""

    id: str
    name: str
    calls: tuple[int, ...]


def sites(skips: Sequence[SkipPath], model_class: str) -> tuple[Site, ...]:
    """The skips grouped by site, in the order of their first calls; `calls` are positions in `skips`."""
    groups: dict[object, list[list[int]]] = {}
    for i, skip in enumerate(skips):
        path = tuple(name for name, _ in skip.join.meta.get("call", ()))
        here = groups.setdefault((path, skip.join.meta.get("location"), skip.operand, skip.kind, skip.form), [])
        site = next((calls for calls in here if _same_layers(skips[calls[-1]], skip)), None)
        if site is None:
            here.append(site := [])
        site.append(i)
    merged = sorted((calls for here in groups.values() for calls in here), key=lambda calls: calls[0])
    names = [module_path(skips[calls[0]]) or f"({model_class})" for calls in merged]
    several, number = Counter(names), Counter[str]()
    found = []
    for name, calls in zip(names, merged, strict=True):
        number[name] += 1
        found.append(Site(id=name if several[name] == 1 else f"{name}#{number[name]}", name=name, calls=tuple(calls)))
    return tuple(found)


def _same_layers(one: SkipPath, other: SkipPath) -> bool:
    """Whether the ends of two branches use the same layers; an end that is out of sight of any layer may be either's."""
    return not (one.ending and other.ending) or same_layers(one.ending, other.ending)


def module_path(skip: SkipPath) -> str:
    """The innermost module in which the join happens."""
    path = skip.join.meta.get("call", ())
    return str(path[-1][0]) if path else ""


def structure(path: SkipPath, site: Site) -> dict[str, Any]:
    """What a record of a skip says without a gradient, by field."""
    location = path.cut if path.kind == "detached" and path.cut else path.join.meta.get("location")
    return {
        "id": site.id,
        "name": site.name,
        "fork": path.fork.name,
        "join": path.join.name,
        "form": path.form,
        "kind": path.kind,
        "path_ops": tuple(op.removeprefix("native_") for op in path.path_ops),
        "branch": _branch(path, site.name),
        "location": location if isinstance(location, Location) else None,
        "bypassed_layers": path.bypassed_layers,
    }


def eps_of(skip: SkipPath) -> float:
    """The spacing at 1 of the numbers that the gradient at a skip's join is made of."""
    return float(torch.finfo(skip.join.meta["dtype"]).eps)


def highway_name(ids: Sequence[str]) -> str:
    """From the first skip to the last."""
    return ids[0] if ids[0] == ids[-1] else f"{ids[0]} … {ids[-1]}"


def _branch(path: SkipPath, name: str) -> str:
    """The modules that own the branch's parameters, relative to the module of the join."""
    prefix = "" if name.startswith("(") else f"{name}."
    owners = []
    first: dict[str, int] = {}
    nodes = path.branch_nodes
    for i, node in enumerate(nodes):
        for operand in node.all_input_nodes:
            first.setdefault(operand.name, i)
    for parameter in sorted(parameters_of(nodes), key=lambda p: (first.get(p.replace(".", "_"), len(nodes)), p)):
        parts = (parameter.removeprefix(prefix) if parameter.startswith(prefix) else parameter).split(".")[:-1] or [parameter.rpartition(".")[2]]
        owners.append(".".join(parts[: 2 if len(parts) > 1 and parts[1].isdigit() else 1]))
    unique = list(dict.fromkeys(owners))
    return ", ".join(unique[:4]) + (", …" if len(unique) > 4 else "")
