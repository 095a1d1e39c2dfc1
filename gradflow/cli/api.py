"""`python -m gradflow.cli.api` prints docs/reference/api.md: the docstrings of `gradflow.__all__` and of every record that a report holds."""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

import gradflow

_HEAD = """# From Python

`import gradflow` does not import torch; its functions do, when they are first used. What they refuse they refuse with a `gradflow.errors.GradflowError`, whose
text names the fact, the place and the remedy, and whose `exit_code` is the command line's.

The records below are frozen dataclasses, and the keys of the JSON are their fields ([schema of the report](../report-v1.schema.json),
[of `gradflow shatter`](../shatter-v1.schema.json)). A field that may be `None` has its reason in the record's `undefined`, by the field's name.
Both reports have `to_json()`, and `from_json(text)` reads back what it wrote.
"""
_SECTION = re.compile(r"^(Args|Returns|Raises|Attributes):\n", re.MULTILINE)


def page() -> str:
    """The whole page: functions and classes, then each report and the records in it."""
    named = [getattr(gradflow, name) for name in gradflow.__all__ if not name.startswith("__")]
    roots = sorted((thing for thing in named if inspect.isclass(thing) and is_dataclass(thing)), key=lambda root: (root is not gradflow.Report, root.__name__))
    records = dict.fromkeys(record for root in roots for record in _records(root))
    called = sorted((thing for thing in named if not is_dataclass(thing)), key=lambda thing: (inspect.isclass(thing), thing.__name__))
    return _HEAD + "".join(f"\n{_called(thing)}" for thing in called) + "".join(f"\n{_record(record)}" for record in records)


def _records(root: type) -> Iterator[type]:
    """`root` and the records that it holds, however deep, each where it first comes."""
    yield root
    for kind in get_type_hints(root).values():
        for inner in _dataclasses(kind):
            yield from _records(inner)


def _dataclasses(kind: Any) -> Iterator[type]:
    if isinstance(kind, type) and is_dataclass(kind):
        yield kind
    for part in get_args(kind):
        yield from _dataclasses(part)


def _called(thing: Any) -> str:
    """A function; or a class, with how it is made and its public methods."""
    text = f"## gradflow.{thing.__name__}\n\n{_signed(thing, f'gradflow.{thing.__name__}')}{_prose(thing)}"
    if inspect.isclass(thing):
        methods = [(name, method) for name, method in vars(thing).items() if inspect.isfunction(method) and not name.startswith("_")]
        text += "".join(f"\n### {thing.__name__}.{name}\n\n{_signed(method, name)}{_prose(method)}" for name, method in methods)
    return text


def _signed(function: Any, name: str) -> str:
    signature = inspect.signature(function)
    returned = signature.return_annotation
    arguments = "".join(f"    {line},\n" for line in _arguments(signature))
    arguments = f"\n{arguments}" if arguments else ""
    return f"```py\n{name}({arguments})" + ("" if returned in (inspect.Signature.empty, "None", None) else f" -> {returned}") + "\n```\n\n"


def _prose(documented: Any) -> str:
    summary, sections = _parsed(documented)
    text = f"{summary}\n"
    for title, entries in sections.items():
        text += f"\n**{title}**\n\n" + "".join(f"- `{name}`: {meaning}\n" if name else f"{meaning}\n" for name, meaning in entries)
    return text


def _arguments(signature: inspect.Signature) -> Iterator[str]:
    starred = False
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        default = parameter.default
        shown = "..." if is_dataclass(default) else repr(default)
        yield f"{parameter.name}: {parameter.annotation}" + ("" if default is parameter.empty else f" = {shown}")


def _record(record: type) -> str:
    summary, sections = _parsed(record)
    said = {name.strip(): meaning for names, meaning in sections.get("Attributes", ()) for name in names.split(",")}
    kinds = {field.name: str(field.type).removeprefix("_").replace(" | ", " or ") for field in fields(record)}
    rows = "".join(f"| `{name}` | `{kind}` | {said.get(name, '').replace('|', chr(92) + '|')} |\n" for name, kind in kinds.items() if name != "undefined")
    return f"## {record.__name__}\n\n{summary}\n\n| field | type | |\n|---|---|---|\n{rows}"


def _parsed(documented: Any) -> tuple[str, dict[str, list[tuple[str, str]]]]:
    """The text before the first section; each section's entries as (name, text), the name empty in a section of prose."""
    summary, *rest = _SECTION.split(inspect.getdoc(documented) or "")
    return summary.strip(), {title: list(_entries(title, body)) for title, body in zip(rest[::2], rest[1::2], strict=True)}


def _entries(title: str, body: str) -> Iterator[tuple[str, str]]:
    """An entry starts at the margin, and its further lines are indented. What is returned is prose."""
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(body).strip()):
        words = " ".join(entry.split())
        name, _, meaning = words.partition(": ")
        yield ("", words) if title == "Returns" else (name, meaning)


if __name__ == "__main__":
    sys.stdout.write(page())
