"""`python -m gradflow.cli.reference` prints docs/reference/cli.md: the page is what the commands declare."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

from gradflow.cli import app

_HEAD = """# The command line

Machine output goes to standard output alone, progress and notes to standard error. Colour follows `NO_COLOR` and the terminal. Every command has `--help`.

| exit code | |
|---|---|
| 0 | no finding of severity error (of `check`: none at or above `--fail-on`) |
| 1 | there is one |
| 2 | the target, the input, the configuration or the usage is wrong |
| 3 | the model failed in its forward pass, its loss or its backward pass |
| 130 | interrupted (Ctrl-C); `gradflow check` then tells what it has and ends with 2 |

"""


def page() -> str:
    """The whole page: a section for each command, in the order of `gradflow --help`."""
    commands = [command.callback for command in app.registered_commands if command.callback]
    listing = "".join(f"- [`gradflow {_name(command)}`](#gradflow-{_name(command)})\n" for command in commands)
    return _HEAD + listing + "".join(f"\n{_section(command)}" for command in commands)


@dataclass(frozen=True, kw_only=True)
class _Parameter:
    """A parameter of a command: its name, what typer is told of it, its type without None, and its default."""

    name: str
    declared: ArgumentInfo | OptionInfo
    kind: Any
    default: Any

    @property
    def is_argument(self) -> bool:
        return isinstance(self.declared, ArgumentInfo)

    @property
    def shown(self) -> str:
        """As one types it: TARGET, --fail-on, --eval/--no-eval."""
        if self.is_argument:
            return self.declared.metavar or self.name.upper()
        return (self.declared.param_decls or (f"--{self.name.replace('_', '-')}",))[0]


def _name(command: Callable[..., Any]) -> str:
    return command.__name__.replace("_", "-")


def _section(command: Callable[..., Any]) -> str:
    parameters = list(_parameters(command))
    names = [p.shown if p.default is inspect.Parameter.empty else f"[{p.shown}]" for p in parameters if p.is_argument]
    usage = " ".join(["gradflow", _name(command), *names, "[OPTIONS]"])
    rows = "".join(_row(parameter) for parameter in parameters)
    return f"## gradflow {_name(command)}\n\n```text\n{usage}\n```\n\n{inspect.getdoc(command)}\n\n| | takes | default | |\n|---|---|---|---|\n{rows}"


def _parameters(command: Callable[..., Any]) -> Iterator[_Parameter]:
    """In the order of the signature."""
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        kind, declared = _annotated(hints[name])
        yield _Parameter(name=name, declared=declared, kind=kind, default=parameter.default)


def _annotated(hint: Any) -> tuple[Any, ArgumentInfo | OptionInfo]:
    """The type, without None, and the declaration; Python 3.10 wraps a hint whose default is None once more."""
    if get_origin(hint) is not Annotated:
        hint = next(part for part in get_args(hint) if get_origin(part) is Annotated)
    kind, declared = get_args(hint)[:2]
    return next((part for part in get_args(kind) if part is not type(None) and type(None) in get_args(kind)), kind), declared


def _row(parameter: _Parameter) -> str:
    takes = "" if parameter.is_argument else _value(parameter.kind)
    default = parameter.default
    left_out = (
        "" if default is None or default is False or default is inspect.Parameter.empty else f"`{default.value if isinstance(default, Enum) else default}`"
    )
    return f"| `{parameter.shown}` | {takes} | {left_out} | {_cell(parameter.declared.help or '')} |\n"


def _value(kind: Any) -> str:
    """What an option takes: a path, a number, one of some words; nothing for a flag."""
    if get_origin(kind) is list:
        kind = get_args(kind)[0]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{choice.value}`" for choice in kind)
    return {"bool": "", "Path": "path", "int": "whole number", "float": "number"}.get(getattr(kind, "__name__", ""), "text")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("[", "\\[")


if __name__ == "__main__":
    sys.stdout.write(page())
