"""What every record shares: a value that is not defined is None and has its reason beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePath
from typing import ClassVar, Literal

Severity = Literal["error", "warning", "info"]
Verdict = Literal["healthy", "warnings", "sick"]
GRAVITY: Mapping[Severity, int] = {"info": 0, "warning": 1, "error": 2}
VERDICTS: tuple[Verdict, ...] = ("healthy", "warnings", "sick")  # each graver than the one before
Form = Literal["add", "concat"]
Kind = Literal["identity", "scaled", "gated", "projection", "pooled", "norm", "dropout", "concat", "detached", "streams"]
Status = Literal["measured", "frozen", "unreached"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A record whose optional fields are each either a finite number or have a reason.

    Raises:
        ValueError: a None without a reason, a reason without a None, or a number that strict JSON cannot hold.
    """

    optional: ClassVar[frozenset[str]] = frozenset()

    undefined: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = {f.name for f in fields(self) if f.name in self.optional and getattr(self, f.name) is None}
        if missing != set(self.undefined):
            raise ValueError(f"{type(self).__name__}: None in {sorted(missing)}, but reasons for {sorted(self.undefined)}")
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{type(self).__name__}.{f.name} is {value}: give None and a reason")


@dataclass(frozen=True, kw_only=True)
class Location:
    """A line of the user's source."""

    file: str
    line: int

    def __str__(self) -> str:
        """`file:line`, the file relative to the current directory where it lies in it."""
        path, here = PurePath(self.file), Path.cwd()
        return f"{path.relative_to(here) if path.is_relative_to(here) else self.file}:{self.line}"
