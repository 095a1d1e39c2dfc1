"""Arguments of the callable that builds a model: read from --arg, checked against its signature, passed on."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence

from gradflow.errors import ArgumentError, MissingArguments, TargetFileError
from gradflow.subject.trace import user_traceback

_BARE_WORD = re.compile(r"[A-Za-z_][\w./-]*")
_UNEXPECTED = re.compile(r"(\S+?)(?:\.\w+)?\(\) got an unexpected keyword argument '(\w+)'")


def parse_arguments(items: Sequence[str]) -> dict[str, object]:
    """Read `name=value` items: the value is a Python literal, or a bare word that stands for itself.

    Raises:
        ArgumentError: no "=", a name that is no identifier or comes twice, a value that is neither a literal nor a bare word, or `true`/`false`
            (as strings both would count as true).
    """
    arguments: dict[str, object] = {}
    for item in items:
        name, equals, text = item.partition("=")
        name, text = name.strip(), text.strip()
        if not equals or not name.isidentifier():
            raise ArgumentError(argument=item, reason="it is not of the form name=value")
        if name in arguments:
            raise ArgumentError(argument=item, reason=f"{name!r} is given twice")
        if text in ("true", "false"):
            raise ArgumentError(argument=item, reason=f"{text!r} is not Python; write {text.capitalize()}, or '{text}' in quotes for the string")
        arguments[name] = _value(item, text)
    return arguments


def _value(item: str, text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        if _BARE_WORD.fullmatch(text):
            return text
    raise ArgumentError(argument=item, reason=f"{text!r} is neither a Python literal nor a bare word")


def unknown_argument(name: str, accepted: Sequence[str]) -> ArgumentError:
    """The error for an argument that nothing takes, with the nearest right name."""
    near = difflib.get_close_matches(name, accepted, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    listed = f"it takes {', '.join(accepted)}" if accepted else "it takes no arguments"
    return ArgumentError(argument=name, reason=f"there is no such argument{hint}; {listed}")


def build(builder: Callable[..., object], arguments: Mapping[str, object], *, target: str) -> object:
    """Call the user's builder.

    Raises:
        ArgumentError: an argument that the builder does not take.
        MissingArguments: the builder needs arguments that were not given.
        TargetFileError: the builder raised (SystemExit included; KeyboardInterrupt goes through).
    """
    _check(builder, arguments, target)
    try:
        return builder(**arguments)
    except TypeError as error:
        raise _unexpected(error, arguments) or _failed(target, error) from error
    except (Exception, SystemExit) as error:
        raise _failed(target, error) from error


def _check(builder: Callable[..., object], arguments: Mapping[str, object], target: str) -> None:
    parameters = _parameters(builder)
    if parameters is None:
        return
    kinds = inspect.Parameter
    named = [p for p in parameters if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    names = [p.name for p in named]
    if not any(p.kind is kinds.VAR_KEYWORD for p in parameters):
        for name in arguments:
            if name not in names:
                raise unknown_argument(name, names)
    missing = [p.name for p in named if p.default is kinds.empty and p.name not in arguments]
    if missing:
        raise MissingArguments(target=target, names=missing)


def _parameters(builder: object) -> list[inspect.Parameter] | None:
    if not callable(builder):
        return None
    try:
        return list(inspect.signature(builder).parameters.values())
    except (TypeError, ValueError):
        return None


def _unexpected(error: TypeError, arguments: Mapping[str, object]) -> ArgumentError | None:
    """A builder that takes **kwargs passes an unknown name on, and the class behind it complains: name what that class takes."""
    match = _UNEXPECTED.search(str(error))
    if match is None or match[2] not in arguments:
        return None
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return None
    in_reach = [*trace.tb_frame.f_locals.values(), *trace.tb_frame.f_globals.values()]
    behind = next((value for value in in_reach if callable(value) and getattr(value, "__name__", None) == match[1].partition(".")[0]), None)
    kinds = inspect.Parameter
    accepted = [p.name for p in _parameters(behind) or () if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    return unknown_argument(match[2], accepted) if accepted else ArgumentError(argument=match[2], reason=str(error))


def _failed(target: str, error: BaseException) -> TargetFileError:
    return TargetFileError(target=target, action="building its model", error=error, traceback=user_traceback(error))
