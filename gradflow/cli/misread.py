"""Words after `gradflow` that make no command: what typer says of them, in gradflow's own form. Imports no torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

import typer

from gradflow.cli.refusals import UnreadableCommand

MISREAD: type[Exception] = typer.BadParameter.__mro__[1]
"""The base of what typer raises for them: click's own class, or that of the copy which later typers bring along."""


def is_help(error: Exception) -> bool:
    """Whether no word was given at all, which asks for the list of commands; it is printed."""
    if type(error).__name__ != "NoArgsIsHelpError":
        return False
    error.show()  # type: ignore[attr-defined]
    return True


def told(error: Exception, words: Sequence[str]) -> UnreadableCommand:
    """The error for `words`, of which typer raised `error`."""
    context = getattr(error, "ctx", None)
    named = next((word for word in words if not word.startswith("-")), "")
    command = context.command_path if context is not None else f"gradflow {named}".rstrip()
    wrong = str(getattr(error, "option_name", ""))
    known: Iterable[str] = getattr(getattr(context, "command", None), "commands", ())
    usage = _usage(context) if context is not None else f"a value behind {wrong}"
    if known and named and named not in known and not wrong:
        target = ":" in named or "." in named or "/" in named
        near = [f"gradflow profile {named}"] if target else [f"gradflow {name}" for name in difflib.get_close_matches(named, list(known), n=1)]
        return UnreadableCommand(command="gradflow", reason=f"there is no command {named!r}", usage=usage, suggestion="".join(near))
    if wrong and type(error).__name__ == "NoSuchOption":
        near = difflib.get_close_matches(wrong, _options(context), n=1)
        return UnreadableCommand(command=command, reason=f"there is no option {wrong}", usage=usage, suggestion="".join(near))
    if missing := _missing(error):
        return UnreadableCommand(command=command, reason=f"{missing} is missing", usage=usage)
    if wrong and context is None:
        return UnreadableCommand(command=command, reason=f"{wrong} has no value", usage=usage)
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return UnreadableCommand(command=command, reason=f"{message[:1].lower()}{message[1:]}", usage=usage)


def _missing(error: Exception) -> str:
    parameter = getattr(error, "param", None)
    if type(error).__name__ != "MissingParameter" or parameter is None:
        return ""
    return str(parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar or parameter.name)


def _options(context: object) -> list[str]:
    parameters = getattr(getattr(context, "command", None), "params", ())
    return [name for parameter in parameters for name in parameter.opts if name.startswith("--")]


def _usage(context: typer.Context) -> str:
    """`gradflow plot FILE --png PNG [OPTIONS]`: with the options that cannot be left out."""
    if getattr(context.command, "commands", None):
        return f"{context.command_path} COMMAND"
    arguments = [p for p in context.command.params if p.param_type_name == "argument"]
    named = [name if p.required else f"[{name}]" for p in arguments if (name := p.metavar or str(p.name).upper())]
    needed = [f"{p.opts[0]} {str(p.name).upper()}" for p in context.command.params if p.required and p not in arguments]
    return " ".join([context.command_path, *named, *needed, "[OPTIONS]"])
