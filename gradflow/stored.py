"""Records read back from files. What cannot be read is the user's to mend, and says how."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradflow import errors
from gradflow.records import Report


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of file that gradflow writes.

    Attributes:
        what: as an error calls it.
        written: the command that writes one.
        use: what one can do with one; `{file}` stands for its name.
    """

    what: str
    written: str
    use: str


KINDS: Mapping[str, Kind] = {
    "report": Kind(what="a report", written="gradflow profile TARGET --json FILE", use="gradflow plot {file} --png report.png draws it"),
    "checks": Kind(
        what="the result of a check", written="gradflow check --format json --output FILE", use="gradflow plot {file} --png FOLDER draws each of its targets"
    ),
    "history": Kind(what="the history of a training run", written="a Monitor's save(FILE)", use="gradflow plot {file} --png history.png draws it"),
    "baseline": Kind(what="a baseline", written="gradflow check --baseline FILE --update-baseline", use="gradflow check --baseline {file} goes by it"),
    "difference": Kind(
        what="the difference of two reports",
        written="gradflow diff BEFORE AFTER --format json --output FILE",
        use="gradflow diff BEFORE AFTER --png FILE draws one from the two reports",
    ),
    "graph": Kind(what="the graph of a model", written="gradflow graph TARGET --format json --output FILE", use="gradflow graph TARGET shows it"),
    "shatter": Kind(what="a report of gradflow shatter", written="gradflow shatter TARGET --json FILE", use="gradflow shatter TARGET --png FILE draws one"),
}
"""By the middle of their schemas: report of gradflow/report/v1."""

_CODE = (".py", ".pt", ".pt2", ".pth", ".safetensors", ".bin", ".ckpt")


def read_text(file: Path, *, remedy: str) -> str:
    """The text of a file.

    Args:
        remedy: what to do where there is none.

    Raises:
        errors.RecordFileError: there is no such file, or it is no text.
    """
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise errors.RecordFileError(file=str(file), reason=errors.reason_of(error), remedy=remedy) from error
    except UnicodeDecodeError as error:
        raise errors.RecordFileError(file=str(file), reason="it is no text", remedy=remedy) from error


def read_report(file: Path) -> Report:
    """A report from its JSON.

    Raises:
        errors.RecordFileError: there is no such file, or it holds none.
    """
    remedy = "Write it with gradflow profile TARGET --json FILE."
    text = read_text(file, remedy=remedy)
    try:
        return Report.from_json(text)
    except (ValueError, RecursionError) as error:
        raise refused(file, text, error, remedy=remedy, wanted=("report",)) from error


def schema_of(text: str) -> object:
    """What a record's text says that it is; None where it says nothing of it.

    Raises:
        ValueError, RecursionError: it is not JSON.
    """
    return _field(text, "schema")


def refused(file: Path, text: str, error: Exception, *, remedy: str, wanted: Sequence[str]) -> errors.RecordFileError:
    """The error of a file whose text is no such record. It says what the file is where gradflow wrote it for another purpose; where another version of
    gradflow wrote it, that is the likely cause, and both are named.

    Args:
        error: what reading it raised.
        remedy: what to do where none of these is the cause.
        wanted: the kinds that can be read here.
    """
    kind = _kind(text)
    if kind is not None and kind not in wanted:
        one_of = " or ".join(KINDS[name].what for name in wanted)
        made = " or ".join(KINDS[name].written for name in wanted)
        use = KINDS[kind].use.format(file=file)
        return errors.ForeignRecord(file=str(file), what=KINDS[kind].what, wanted=one_of, remedy=f"Give what {made} wrote; {use}.")
    reason = str(error)
    if isinstance(error, json.JSONDecodeError):
        reason = f"it is not JSON: {error}"
        remedy = f"A model is profiled first: gradflow profile {file} --json FILE." if file.suffix.lower() in _CODE else remedy
    elif isinstance(error, ValueError) and kind is None:
        schema = schema_of(text)
        reason = f"it is JSON that gradflow did not write: {'it has no schema' if schema is None else f'its schema is {schema!r}'}"
    version, this = _version(text), _this_version()
    if version is not None and this is not None and version != this:
        reason += f" (gradflow {version} wrote it, and this is gradflow {this})"
        remedy = f"Write it anew with gradflow {this}, or read it with gradflow {version}."
    return errors.RecordFileError(file=str(file), reason=reason, remedy=remedy)


def _kind(text: str) -> str | None:
    """What gradflow wrote the text as, by its schema, of whatever version; None where it did not."""
    try:
        schema = schema_of(text)
    except (ValueError, RecursionError):
        return None
    owner, _, rest = schema.partition("/") if isinstance(schema, str) else ("", "", "")
    name = rest.partition("/")[0]
    return name if owner == "gradflow" and name in KINDS else None


def _this_version() -> str | None:
    """As it is installed; None where gradflow runs from its source alone. `gradflow` itself would bring torch along."""
    try:
        return importlib.metadata.version("gradflow-profiler")
    except importlib.metadata.PackageNotFoundError:
        return None


def _version(text: str) -> str | None:
    try:
        version = _field(text, "gradflow_version")
    except (ValueError, RecursionError):
        return None
    return version if isinstance(version, str) else None


def _field(text: str, name: str) -> object:
    plain = json.loads(text)
    return plain.get(name) if isinstance(plain, dict) else None
