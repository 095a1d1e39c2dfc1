"""Containers of tensors: what is walked into, by which names, and how one is rebuilt. Never changes what it is given."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from types import ModuleType

import torch

CACHES = frozenset({"past_key_values", "cache_params"})
"""Keys that hold what a language model keeps for its next call: not an output of this one."""


def children(value: object) -> Iterator[tuple[str, object]] | None:
    """What a container holds, each with the step that leads to it (".logits", "[0]"); None for anything that is not a container.

    A mapping comes first: transformers' outputs are both mappings and dataclasses, and as mappings they leave out what is None.
    """
    if isinstance(value, Mapping):
        return ((f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]", child) for key, child in value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return ((f".{name}", child) for name, child in zip(value._fields, value, strict=True))
    if isinstance(value, (tuple, list)):
        return ((f"[{index}]", child) for index, child in enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return ((f".{field.name}", getattr(value, field.name)) for field in dataclasses.fields(value) if hasattr(value, field.name))
    return None


def tensors(value: object, name: str, *, skip: frozenset[str] = frozenset()) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in `value` with its path ("output.logits", "output[0]"), each object once, in order."""
    seen: set[int] = set()

    def walk(value: object, name: str) -> Iterator[tuple[str, torch.Tensor]]:
        if id(value) in seen:
            return
        if isinstance(value, torch.Tensor):
            seen.add(id(value))
            yield name, value
            return
        inside = children(value)
        if inside is None:
            return
        seen.add(id(value))
        for step, child in inside:
            if step.removeprefix(".") not in skip:
                yield from walk(child, name + step)

    return walk(value, name)


def replaced(value: object, change: Callable[[torch.Tensor], torch.Tensor]) -> object:
    """`value` with `change` applied to every tensor in it; containers are copied, everything else is passed on as it is."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, MutableMapping):
        mapping = copy.copy(value)
        for key, child in value.items():
            mapping[key] = replaced(child, change)
        return mapping
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        named: Callable[..., object] = type(value)  # a namedtuple's own constructor, which takes the fields one by one
        return named(*(replaced(child, change) for child in value))
    if type(value) in (tuple, list):
        return type(value)(replaced(child, change) for child in value)  # type: ignore[call-arg, attr-defined]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        other = copy.copy(value)
        for field in dataclasses.fields(value):
            object.__setattr__(other, field.name, replaced(getattr(value, field.name), change))
        return other
    return value


def sizes(tensor: torch.Tensor) -> tuple[int, ...]:
    """The shape in plain numbers; a nested tensor, one of whose sizes is none, has that of its packed values: [tokens, ...]."""
    return tuple((tensor.detach().values() if tensor.layout is torch.jagged else tensor).shape)


def class_name(module: torch.nn.Module) -> str:
    """The class that the user wrote: TorchScript remembers it, its own class says nothing."""
    return str(module.original_name) if isinstance(module, torch.jit.ScriptModule) else type(module).__name__


def dtype_name(dtype: torch.dtype) -> str:
    """The dtype as a report spells it, e.g. "float32"."""
    return str(dtype).removeprefix("torch.")


def described(value: object) -> str:
    """A value in a few words, for a sentence that says what was found: "an int64 tensor of shape [4]", "None", "a list of 3"."""
    if value is None:
        return "None"
    if isinstance(value, torch.Tensor):
        name = dtype_name(value.dtype)
        graph = " without grad_fn" if (value.is_floating_point() or value.is_complex()) and not value.requires_grad else ""
        name = name if value.numel() else f"empty {name}"
        return f"{_article(name)} {name} tensor{graph}{',' if graph else ''} of shape {list(sizes(value))}"
    kind = "Python module" if isinstance(value, ModuleType) else type(value).__name__
    inside = children(value)
    if inside is None:
        return f"{_article(kind)} {kind}"
    parts = [described(child) for _, child in inside]
    if not parts:
        return f"an empty {kind}"
    return f"{_article(kind)} {kind} of {'; '.join(parts[:4])}{'; …' if len(parts) > 4 else ''}"


def _article(noun: str) -> str:
    return "an" if noun.startswith("nd") or (noun[:1].lower() in "aeiou" and not noun.startswith("uint")) else "a"
