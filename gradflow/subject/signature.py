"""What a model's forward accepts. Reads signatures, never calls anything."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gradflow.errors import WrongInputs
from gradflow.subject.structure import class_name


@dataclass(frozen=True, kw_only=True)
class Forward:
    """The parameters of a forward, without `self`.

    Attributes:
        positional: names that a positional argument can land on, in order.
        keywords: names that can be given as keywords.
        required: names without a default.
        more_positional, more_keywords: whether it takes *args, **kwargs.
    """

    positional: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    more_positional: bool = False
    more_keywords: bool = False

    def accepts(self, name: str) -> bool:
        """Whether `name` can be given as a keyword argument."""
        return name in self.keywords or self.more_keywords

    def described(self) -> tuple[str, ...]:
        """The accepted names for a message, with *args and **kwargs where they are."""
        names = tuple(dict.fromkeys(self.positional + self.keywords))
        return names + ("*args",) * self.more_positional + ("**kwargs",) * self.more_keywords


_ANYTHING = Forward(more_positional=True, more_keywords=True)


def forward_of(model: torch.nn.Module) -> Forward:
    """The signature of `model.forward`, looking through torch.compile; one that accepts anything where Python cannot tell."""
    inner = getattr(model, "_orig_mod", model)
    if isinstance(inner, torch.jit.ScriptModule):
        return _of_script(inner)
    try:
        parameters = inspect.signature(inner.forward).parameters.values()
    except (TypeError, ValueError):
        return _ANYTHING
    kinds = inspect.Parameter
    named = [p for p in parameters if p.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)]
    return Forward(
        positional=tuple(p.name for p in named if p.kind is not kinds.KEYWORD_ONLY),
        keywords=tuple(p.name for p in named if p.kind is not kinds.POSITIONAL_ONLY),
        required=tuple(p.name for p in named if p.default is kinds.empty),
        more_positional=any(p.kind is kinds.VAR_POSITIONAL for p in parameters),
        more_keywords=any(p.kind is kinds.VAR_KEYWORD for p in parameters),
    )


def _of_script(model: Any) -> Forward:
    """TorchScript's methods have a schema: every argument has a name, and there is no *args."""
    if not model._c._has_method("forward"):
        return _ANYTHING
    arguments = model._c._get_method("forward").schema.arguments[1:]
    names = tuple(a.name for a in arguments)
    return Forward(positional=names, keywords=names, required=tuple(a.name for a in arguments if not a.has_default_value()))


def check_fit(model: torch.nn.Module, positional: int, names: Sequence[str]) -> None:
    """Check that `positional` arguments and the keywords `names` can be passed to the model's forward.

    A model with forward pre-hooks is not checked: a hook may rewrite the arguments.

    Raises:
        WrongInputs: an unknown keyword, too many inputs, one given twice, or a required one missing.
    """
    if model._forward_pre_hooks:
        return
    forward = forward_of(model)
    accepted = forward.described()

    def refuse(reason: str, suggestions: Sequence[str] = ()) -> WrongInputs:
        return WrongInputs(model_class=class_name(model), reason=reason, accepted=accepted, suggestions=suggestions)

    for name in names:
        if not forward.accepts(name):
            raise refuse(f"it has no parameter {name!r}", difflib.get_close_matches(name, forward.keywords, n=2))
    if positional > len(forward.positional) and not forward.more_positional:
        raise refuse(f"{positional} positional inputs were given and it takes {len(forward.positional)}")
    taken = forward.positional[:positional]
    twice = [name for name in names if name in taken]
    if twice:
        raise refuse(f"{twice[0]!r} is given both by position and by name")
    missing = [name for name in forward.required if name not in taken and name not in names]
    if missing:
        raise refuse(f"no input is given for {', '.join(missing)}")
