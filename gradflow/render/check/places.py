"""Where in the repository a finding lies. Paths are text; the one question asked of the file system is where the repository begins."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath

from gradflow.records import Location, Outcome

_FILE = re.compile(r"(.+?\.py)(?=$|[:\s])")


def root() -> Path:
    """The nearest folder upward from the current directory that holds a `.git`, else the current directory."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), here)


def relative(file: str, base: Path) -> str | None:
    """`file` relative to `base` with forward slashes; None where it lies outside, among installed packages, or is no file (`<string>`)."""
    if not file or (file.startswith("<") and file.endswith(">")):
        return None
    path = PurePath(os.path.normpath(Path.cwd() / file))
    if not path.is_relative_to(base) or "site-packages" in path.parts:
        return None
    return path.relative_to(base).as_posix()


def of_target(outcome: Outcome, base: Path) -> str | None:
    """The model file that the target names, relative to `base`; None where it names none, or none that there is."""
    match = None if outcome.trouble and outcome.trouble.kind == "UnknownTarget" else _FILE.match(outcome.target)
    return relative(match[1], base) if match else None


def anchor(location: Location | None, outcome: Outcome, base: Path) -> tuple[str, int] | None:
    """File and line for an annotation: the finding's own, else the first line of the target's model file, else the line of the configuration that names
    the target; None where none of them lies in the repository."""
    of_file = Location(file=file, line=1) if (file := of_target(outcome, base)) else None
    for place in (location and _in_repository(location, base), of_file, outcome.listed and _in_repository(outcome.listed, base)):
        if place:
            return place.file, max(place.line, 1)
    return None


def _in_repository(location: Location, base: Path) -> Location | None:
    file = relative(location.file, base)
    return None if file is None else Location(file=file, line=location.line)
