"""Labels: how many skips of which kind an architecture has by its source or paper, and how well a run agrees with them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from gradflow.records import Kind
from tests.corpus.case import Case, Result

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it there

FOLDER = Path(__file__).parent / "labels"
KINDS = frozenset({*get_args(Kind), "streams"})
_FIELDS = {"target": str, "arguments": dict, "inputs": list, "skips": dict, "reference": str, "why": str}
_REQUIRED = ("target", "skips", "reference", "why")


class LabelError(Exception):
    """A label that cannot be used; the message says which and why."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """What one architecture has; the fields are those of the label files."""

    library: str
    target: str
    skips: Mapping[str, int]
    reference: str
    why: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The target, with its arguments in brackets where there are any."""
        return self.target + (f" ({', '.join(f'{k}={v}' for k, v in self.arguments.items())})" if self.arguments else "")

    @property
    def case(self) -> Case:
        """The label's own entry of the corpus."""
        return Case(library=self.library, name=self.target.partition(":")[2], target=self.target, arguments=self.arguments, inputs=self.inputs)


def read_labels(folder: Path = FOLDER) -> list[Label]:
    """Every label of a folder.

    Raises:
        LabelError: a file that is no TOML, a field that is missing, unknown or of the wrong type, an unknown kind, a count that is no positive integer, or
            the same model twice.
    """
    labels = [label for file in sorted(folder.glob("*.toml")) for label in _read(file)]
    keys = [label.case.key for label in labels]
    for label, key in zip(labels, keys, strict=True):
        if keys.count(key) > 1:
            raise LabelError(f"{label.library}: {label.target} has two labels")
    return labels


def _read(file: Path) -> list[Label]:
    try:
        content = tomllib.loads(file.read_text())
    except tomllib.TOMLDecodeError as error:
        raise LabelError(f"{file.name}: {error}") from error
    if set(content) - {"model"}:
        raise LabelError(f"{file.name}: only [[model]] tables belong here, not {', '.join(sorted(set(content) - {'model'}))}")
    return [_label(file, entry) for entry in content.get("model", [])]


def _label(file: Path, entry: Mapping[str, Any]) -> Label:
    where = f"{file.name}: {entry.get('target', 'a model without a target')}"
    for name in _REQUIRED:
        if name not in entry or entry[name] == "":
            raise LabelError(f"{where}: {name} is missing")
    for name, value in entry.items():
        if name not in _FIELDS or not isinstance(value, _FIELDS[name]):
            raise LabelError(f"{where}: {name} is unknown or of the wrong type")
    for kind, count in entry["skips"].items():
        if kind not in KINDS:
            raise LabelError(f"{where}: {kind!r} is no kind of skip ({', '.join(sorted(KINDS))})")
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise LabelError(f"{where}: {kind} = {count!r} is no count; leave out kinds that do not occur")
    return Label(library=file.stem, **{**entry, "inputs": tuple(entry.get("inputs", ()))})


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Found rows against labelled ones, over kinds and models.

    Attributes:
        both, found, labelled: Σ min(found, label), Σ found, Σ label.
        models: how many labels were compared.
        mismatches: (title, found, label) of the models that ran and differ.
        absent: titles of labelled models without a result that can be compared.
    """

    both: int
    found: int
    labelled: int
    models: int
    mismatches: tuple[tuple[str, Mapping[str, int], Mapping[str, int]], ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def recall(self) -> float:
        """Share of the labelled rows that were found; 1 where nothing is labelled."""
        return self.both / self.labelled if self.labelled else 1.0

    @property
    def precision(self) -> float:
        """Share of the found rows that are labelled; 1 where nothing was found."""
        return self.both / self.found if self.found else 1.0


def compare(labels: Iterable[Label], results: Mapping[str, Result]) -> Agreement:
    """Labels against the results of the same target with the same arguments and inputs. A model that did not run has found nothing."""
    both = found = labelled = models = 0
    mismatches, absent = [], []
    for label in labels:
        result = results.get(label.case.key)
        if result is None or result.status != "ok":
            absent.append(label.title)
        rows = result.skips if result is not None and result.status == "ok" else {}
        models += 1
        found += sum(rows.values())
        labelled += sum(label.skips.values())
        both += sum(min(rows.get(kind, 0), count) for kind, count in label.skips.items())
        if result is not None and result.status == "ok" and dict(rows) != dict(label.skips):
            mismatches.append((label.title, rows, label.skips))
    return Agreement(both=both, found=found, labelled=labelled, models=models, mismatches=tuple(mismatches), absent=tuple(absent))
