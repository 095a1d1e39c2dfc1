"""The JSON Schema of a report and of the other documents, derived from the records and from nothing else.

`python -m gradflow.render.json_schema` prints the report's, with `graph`, `shatter`, `checks`, `difference` or `history` after it the others'. Every key
that `to_json` writes is required, so a reader of a valid file need not ask whether a key is there.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence

from gradflow.diagram import Diagram
from gradflow.difference import Difference
from gradflow.records import Checks, History, Report
from gradflow.shatter_records import ShatterReport

_SCALARS: Mapping[object, str] = {str: "string", bool: "boolean", int: "integer", float: "number"}
_ATTRIBUTE = re.compile(r"^    (\w+(?:, \w+)*): (.*)$")
_UNDEFINED = (
    "Why each undefined field is null: field name to reason. Of the fields that may stand here each is null exactly when it does; other fields are null where "
    "they do not apply."
)
_FIXED = {"undefined": _UNDEFINED, "schema": "The format of this file, and its version."}
Root = type[Report] | type[Diagram] | type[ShatterReport] | type[Checks] | type[Difference] | type[History]
ROOTS: Mapping[str, Root] = {"report": Report, "graph": Diagram, "shatter": ShatterReport, "checks": Checks, "difference": Difference, "history": History}


def schema(root: Root = Report) -> dict[str, object]:
    """The schema of `root` in JSON Schema draft 2020-12."""
    records: dict[str, object] = {}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{root.schema.replace('/', ':')}",
        "title": root.schema,
        **_record(root, records),
        "$defs": dict(sorted(records.items())),
    }


def text(root: Root = Report) -> str:
    """The schema as it stands in docs/report-v1.schema.json, and in docs/ under the names of the other `ROOTS`."""
    return json.dumps(schema(root), indent=2, ensure_ascii=False) + "\n"


def _record(cls: type, records: dict[str, object]) -> dict[str, object]:
    """The schema of the dataclass `cls`; the records that it holds are added to `records`."""
    hints = typing.get_type_hints(cls)
    summary, attributes = _described(cls)
    properties: dict[str, object] = {}
    for field in dataclasses.fields(cls):
        described = {"description": attributes[field.name]} if field.name in attributes else {}
        properties[field.name] = described | _hinted(hints[field.name], records)
    if "undefined" in properties:
        optional = sorted(getattr(cls, "optional", ()))
        properties["undefined"] = {**_known(properties["undefined"]), "propertyNames": {"enum": optional}}
    if cls in ROOTS.values():
        properties["schema"] = {"description": _FIXED["schema"], "const": vars(cls)["schema"]}
    return {"description": summary, "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _known(value: object) -> dict[str, object]:
    assert isinstance(value, dict)
    return value


def _described(cls: type) -> tuple[str, dict[str, str]]:
    """The docstring of `cls` before its sections, and the text of each name under `Attributes:`."""
    head, _, rest = (inspect.getdoc(cls) or "").partition("\nAttributes:\n")
    attributes = dict(_FIXED)
    names: list[str] = []
    for line in rest.splitlines():
        if match := _ATTRIBUTE.match(line):
            names = match[1].split(", ")
            attributes |= dict.fromkeys(names, match[2])
        elif line.startswith("     "):
            attributes |= {name: f"{attributes[name]} {line.strip()}" for name in names}
        elif line.strip():
            break
    return " ".join(head.split()), attributes


def _hinted(hint: object, records: dict[str, object]) -> dict[str, object]:
    """The schema of a type hint."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if hint.__name__ not in records:
            records[hint.__name__] = {}
            records[hint.__name__] = _record(hint, records)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    if origin is Sequence:
        return {"type": "array", "items": _hinted(args[0], records)}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _hinted(args[1], records)}
    if origin is typing.Literal:
        return {"enum": list(args)}
    if origin in (types.UnionType, typing.Union):
        return _union([_hinted(a, records) for a in args if a is not type(None)], nullable=type(None) in args)
    return {"type": _SCALARS[hint]}


def _union(options: Sequence[dict[str, object]], nullable: bool) -> dict[str, object]:
    if nullable and len(options) == 1 and options[0].keys() == {"type"}:
        return {"type": [options[0]["type"], "null"]}
    return {"anyOf": [*options, *([{"type": "null"}] if nullable else [])]}


if __name__ == "__main__":
    sys.stdout.write(text(ROOTS[sys.argv[1] if len(sys.argv) > 1 else "report"]))
