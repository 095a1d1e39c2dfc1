"""Records read back from files. What cannot be read is the user's to mend, and says how."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

from gradflow import errors
from gradflow.records import Report


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
        raise refused(file, text, error, remedy=remedy) from error


def schema_of(text: str) -> object:
    """What a record's text says that it is; None where it says nothing of it.

    Raises:
        ValueError, RecursionError: it is not JSON.
    """
    return _field(text, "schema")


def refused(file: Path, text: str, error: Exception, *, remedy: str) -> errors.RecordFileError:
    """The error of a file whose text is no such record. Where another version of gradflow wrote it, that is the likely cause, and both are named.

    Args:
        error: what reading it raised.
        remedy: what to do where no other version did.
    """
    reason = f"it is not JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error)
    version, this = _version(text), _this_version()
    if version is not None and this is not None and version != this:
        reason += f" (gradflow {version} wrote it, and this is gradflow {this})"
        remedy = f"Write it anew with gradflow {this}, or read it with gradflow {version}."
    return errors.RecordFileError(file=str(file), reason=reason, remedy=remedy)


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
