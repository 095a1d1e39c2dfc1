"""Frozen dataclasses to strict JSON and back, driven by their type hints alone. Knows nothing of gradient flow."""

from __future__ import annotations

import dataclasses
import json
import reprlib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

Record = TypeVar("Record")
Whole = TypeVar("Whole", bound="Document")

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def dumps(record: object) -> str:
    """`record` (a dataclass instance) as strict JSON.

    Raises:
        ValueError: it holds a NaN or an infinity.
    """
    return json.dumps(to_plain(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def loads(cls: type[Record], text: str, schema: str) -> Record:
    """An instance of the dataclass `cls` from JSON text whose `schema` is the one given.

    Raises:
        ValueError: not JSON, another schema, an unknown or missing key, or a value of the wrong type; the message names the place.
    """
    plain = json.loads(text)
    found = plain.get("schema", schema) if isinstance(plain, dict) else schema
    if found != schema:  # before the fields, which are others in another schema
        raise ValueError(f"schema is {found!r}, expected {schema!r}")
    return cast(Record, from_plain(cls, plain, cls.__name__))


class Document:
    """A frozen dataclass that is a whole file: strict JSON (no NaN, no Infinity), two-space indented, with a field `schema` that says what it is."""

    schema: str

    def to_json(self) -> str:
        """As JSON."""
        return dumps(self)

    @classmethod
    def from_json(cls: type[Whole], text: str) -> Whole:
        """Read back what `to_json` wrote; the result equals the original.

        Raises:
            ValueError: the text is not JSON or not of this schema.
        """
        return loads(cls, text, cls.schema)


def to_plain(value: object) -> Json:
    """`value` as what JSON can hold: dataclasses as objects, sequences as lists."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"{type(value).__name__} has no JSON form")


def from_plain(hint: object, value: Json, place: str) -> object:
    """`value` as the type that `hint` names; sequences come back as tuples."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _record(cast(type, hint), value, place)
    if origin is Sequence:
        if not isinstance(value, list):
            raise ValueError(f"{place}: expected a list, found {reprlib.repr(value)}")
        return tuple(from_plain(args[0], v, f"{place}[{i}]") for i, v in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise ValueError(f"{place}: expected an object, found {reprlib.repr(value)}")
        return {k: from_plain(args[1], v, f"{place}.{k}") for k, v in value.items()}
    if origin is typing.Literal:
        if value not in args:
            raise ValueError(f"{place}: expected one of {', '.join(map(str, args))}, found {reprlib.repr(value)}")
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        return from_plain(next(a for a in args if a is not type(None)), value, place)
    return _scalar(hint, value, place)


def _scalar(hint: object, value: Json, place: str) -> object:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, cast(type, hint)) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"{place}: expected {getattr(hint, '__name__', hint)}, found {reprlib.repr(value)}")
    return value


def _record(cls: type, value: Json, place: str) -> object:
    if not isinstance(value, dict):
        raise ValueError(f"{place}: expected an object, found {reprlib.repr(value)}")
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise ValueError(f"{place}: unknown key {unknown[0]!r}")
    missing = [n for n, f in known.items() if n not in value and f.default is f.default_factory is dataclasses.MISSING]
    if missing:
        raise ValueError(f"{place}: missing key {missing[0]!r}")
    return cls(**{name: from_plain(hints[name], v, f"{place}.{name}") for name, v in value.items()})
