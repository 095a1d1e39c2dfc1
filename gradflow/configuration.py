"""`[tool.gradflow]` of a pyproject.toml: found, read and checked key by key. An unknown key or a value of the wrong type is an error that names its place."""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from gradflow.errors import ConfigurationError, UsageError, reason_of
from gradflow.records import Location, Severity
from gradflow.rules import RULES, choose, matching

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMATS = ("text", "json", "github", "junit", "sarif", "markdown")
FAIL_ON = ("error", "warning")
_COMMENTED = re.compile(r"""(?P<quoted>"[^"\n]*"|'[^'\n]*')|#[^\n]*""")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one place (the command line, a target's table, `[tool.gradflow]`) says about how a target is checked; None where it says nothing.

    The fields are the options of `gradflow check` by their names on the command line.
    """

    arg: Mapping[str, object] | None = None
    weights: Path | None = None
    input: Sequence[str] | None = None
    batch: Path | None = None
    loss: str | None = None
    device: str | None = None
    dtype: str | None = None
    amp: str | None = None
    eval: bool | None = None
    seed: int | None = None
    trust: bool | None = None
    batches: int | None = None
    probes: int | None = None
    spectrum: bool | None = None
    select: Sequence[str] | None = None
    ignore: Sequence[str] | None = None
    limits: Mapping[str, float] | None = None

    def over(self, general: Settings) -> Settings:
        """These settings, completed by those of a more general place: the nearer one counts, whole; `arg` and `limits` do so name by name."""
        merged: dict[str, object] = {}
        for name in (field.name for field in fields(self)):
            near, far = getattr(self, name), getattr(general, name)
            merged[name] = {**far, **near} if isinstance(near, Mapping) and isinstance(far, Mapping) else far if near is None else near
        return Settings(**merged)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One of `targets`, with what its own table says, and its line; None where that was not found."""

    target: str
    settings: Settings = Settings()
    location: Location | None = None


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A table `[tool.gradflow]`.

    Attributes:
        folder: in which it lies: its relative paths start there. None where there is no file.
        defaults: for every target.
        formats, outputs: paired in order.
    """

    folder: Path | None = None
    targets: Sequence[Entry] = ()
    defaults: Settings = Settings()
    fail_on: Severity | None = None
    baseline: Path | None = None
    formats: Sequence[str] = ()
    outputs: Sequence[Path] = ()
    repeat: int | None = None


def find(start: Path) -> Path | None:
    """The nearest pyproject.toml with a table `[tool.gradflow]`, from the folder `start` upward.

    Raises:
        ConfigurationError: a pyproject.toml on the way cannot be read.
    """
    for folder in (start, *start.parents):
        file = folder / "pyproject.toml"
        if file.is_file() and _table(file) is not None:
            return file
    return None


def read(file: Path) -> Configuration:
    """The configuration in `file`.

    Raises:
        ConfigurationError: it cannot be read, has no table `[tool.gradflow]`, or that has an unknown key or a wrong value.
    """
    table = _table(file)
    if table is None:
        raise ConfigurationError(place=str(file), reason="it has no table [tool.gradflow]", remedy="Write one, or name another file with --config.")
    place = f"{_near(file)}, [tool.gradflow]"
    values = _values(table, {**_SETTINGS, **_GENERAL}, place)
    own = {name: values.pop(key, None) for key, name in (("fail-on", "fail_on"), ("baseline", "baseline"), ("repeat", "repeat"))}
    entries = [_entry(item, f"{place} targets[{i}]", file.parent) for i, item in enumerate(_list(values.pop("targets", [])))]
    lines = _lines(file, [entry.target for entry in entries])
    targets = tuple(replace(entry, location=Location(file=str(file), line=line) if line else None) for entry, line in zip(entries, lines, strict=True))
    formats, outputs = values.pop("format", ()), values.pop("output", ())
    return Configuration(
        folder=file.parent,
        targets=targets,
        defaults=_settings(values, file.parent),
        formats=tuple(str(name) for name in _list(formats)),
        outputs=tuple(file.parent / str(output) for output in _list(outputs)),
        **{**own, "baseline": file.parent / str(own["baseline"]) if own["baseline"] is not None else None},  # type: ignore[arg-type]
    )


def _table(file: Path) -> Mapping[str, object] | None:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
        raise ConfigurationError(place=_near(file), reason=f"it cannot be read: {reason}", remedy="Mend the file, or name another with --config.") from error
    tool = document.get("tool")
    table = tool.get("gradflow") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise ConfigurationError(place=f"{_near(file)}, tool.gradflow", reason="it is no table", remedy="Write [tool.gradflow] and its keys below.")
    return table


def _lines(file: Path, targets: Sequence[str]) -> list[int | None]:
    """The line of each target. TOML's reader tells none: it is the next one on which the target stands in quotes, and in no comment."""
    text = _COMMENTED.sub(lambda found: found["quoted"] or "", file.read_text(encoding="utf-8"))
    opened = re.search(r"\[tool\.gradflow[\].]", text)
    here, found = opened.start() if opened else 0, list[int | None]()
    for target in targets:
        places = [text.find(quoted, here) for quoted in (json.dumps(target, ensure_ascii=False), f"'{target}'")]
        place = min((place for place in places if place >= 0), default=None)
        found.append(None if place is None else text.count("\n", 0, place) + 1)
        here = here if place is None else place + 1
    return found


def _near(file: Path) -> str:
    """The file as seen from here."""
    here = Path.cwd()
    return str(file.relative_to(here)) if file.is_relative_to(here) else str(file)


def _entry(item: object, place: str, folder: Path) -> Entry:
    if isinstance(item, str):
        item = {"target": item}
    if not isinstance(item, dict):
        raise _wrong(place, item, 'a target, or a table with one: {target = "model.py", seed = 1}')
    values = _values(item, {**_SETTINGS, "target": (_text, "a string")}, place)
    if "target" not in values:
        raise ConfigurationError(place=place, reason="it has no key 'target'", remedy='Write {target = "model.py", …}.')
    target = str(values.pop("target"))
    return Entry(target=target, settings=_settings(values, folder))


def _settings(values: Mapping[str, object], folder: Path) -> Settings:
    paths = {key: folder / str(values[key]) for key in ("weights", "batch") if key in values}
    return Settings(**{**values, **paths})  # type: ignore[arg-type]


_Reader = Callable[[object, str], object]
"""(value, place) -> the value as it is kept; raises ValueError where it is of a wrong type."""


def _values(table: Mapping[str, object], known: Mapping[str, tuple[_Reader, str]], place: str) -> dict[str, object]:
    found = {}
    for key, value in table.items():
        if key not in known:
            near = difflib.get_close_matches(key.replace("_", "-"), known, n=1) or difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise ConfigurationError(place=place, reason=f"unknown key {key!r}", remedy=f"{hint}It takes: {', '.join(sorted(known))}.")
        reader, expected = known[key]
        try:
            found[key] = reader(value, f"{place} {key}")
        except ValueError:
            raise _wrong(f"{place} {key}", value, expected) from None
    return found


def _wrong(place: str, value: object, expected: str) -> ConfigurationError:
    return ConfigurationError(place=place, reason=f"{value!r} is not valid", remedy=f"Expected {expected}.")


def _text(value: object, place: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _flag(value: object, place: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _count(least: int) -> _Reader:
    def read_count(value: object, place: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError
        return value

    return read_count


def _one_of(choices: Sequence[str]) -> _Reader:
    def read_choice(value: object, place: str) -> str:
        if value not in choices:
            raise ValueError
        return str(value)

    return read_choice


def _list(value: object) -> tuple[object, ...]:
    """A list as it is, and anything else as a list of one."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _several(reader: _Reader) -> _Reader:
    return lambda value, place: tuple(reader(item, place) for item in _list(value))


def _arguments(value: object, place: str) -> Mapping[str, object]:
    if not isinstance(value, dict) or not all(name.isidentifier() for name in value):
        raise ValueError
    return value


def _code(value: object, place: str) -> str:
    try:
        matching(RULES, _text(value, place), place)
    except UsageError as error:
        raise ConfigurationError(place=place, reason=f"{value!r} is no rule", remedy=error.remedy) from error
    return str(value)


def _limits(value: object, place: str) -> Mapping[str, float]:
    if not isinstance(value, dict) or not all(isinstance(limit, (int, float)) and not isinstance(limit, bool) for limit in value.values()):
        raise ValueError
    for code, limit in value.items():
        try:
            choose(RULES, limits={code: float(limit)})
        except UsageError as error:
            raise ConfigurationError(place=place, reason=f"{code} = {limit} is not valid", remedy=error.remedy) from error
    return {code: float(limit) for code, limit in value.items()}


_STRING = (_text, "a string")
_STRINGS = (_several(_text), "a string, or a list of strings")
_SWITCH = (_flag, "true or false")
_CODES = (_several(_code), 'a list of codes, e.g. ["GF1", "GF203"]')

_SETTINGS: Mapping[str, tuple[_Reader, str]] = {
    "arg": (_arguments, "a table of the builder's arguments, e.g. {depth = 20}"),
    "weights": _STRING,
    "input": _STRINGS,
    "batch": _STRING,
    "loss": _STRING,
    "device": _STRING,
    "dtype": _STRING,
    "amp": (_one_of(("bf16", "fp16")), "'bf16' or 'fp16'"),
    "eval": _SWITCH,
    "seed": (_count(0), "a whole number of 0 or more"),
    "trust": _SWITCH,
    "batches": (_count(1), "a whole number of 1 or more"),
    "probes": (_count(0), "a whole number of 0 or more"),
    "spectrum": _SWITCH,
    "select": _CODES,
    "ignore": _CODES,
    "limits": (_limits, "a table of numbers by the rules' codes, e.g. {GF201 = 0.9}"),
}
"""The keys that a target's own table takes and `[tool.gradflow]` gives defaults for."""

_GENERAL: Mapping[str, tuple[_Reader, str]] = {
    "targets": (lambda value, place: _sequence(value), "a list of targets"),
    "fail-on": (_one_of(FAIL_ON), "'error' or 'warning'"),
    "baseline": _STRING,
    "format": (_several(_one_of(FORMATS)), f"one or several of {', '.join(FORMATS)}"),
    "output": (_several(_text), "a file, or a list of files in the order of the formats"),
    "repeat": (_count(1), "a whole number of 1 or more"),
}
"""The keys that only `[tool.gradflow]` takes."""


def _sequence(value: object) -> Sequence[object]:
    if not isinstance(value, list):
        raise ValueError
    return value
