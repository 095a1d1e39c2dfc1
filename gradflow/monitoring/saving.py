"""A history written to a file: as a picture or as JSON, by the name's ending."""

from __future__ import annotations

from pathlib import Path

from gradflow import errors
from gradflow.records import History
from gradflow.render.figure import ENDINGS


def save(history: History, file: str | Path, *, dark: bool = False) -> None:
    """Write a history to a file.

    Args:
        file: a `.png`, `.svg` or `.pdf` file gets the heat map of depth against step, a `.json` file what `History.from_json` reads.
        dark: draw light on dark.

    Raises:
        errors.UsageError: the name ends otherwise.
        errors.OutputFileError: the file cannot be written.
    """
    path = Path(file)
    ending = path.suffix.lower()
    if ending not in (*ENDINGS, ".json"):
        raise errors.UsageError(option="file", value=path, expected=f"a name that ends in {', '.join(ENDINGS)} or .json")
    content = history.to_json().encode() if ending == ".json" else _picture(history, ending, dark)
    try:
        path.write_bytes(content)
    except OSError as error:
        raise errors.OutputFileError(file=str(path), reason=errors.reason_of(error)) from error


def _picture(history: History, ending: str, dark: bool) -> bytes:
    from gradflow.render.history import page  # matplotlib only where there is something to draw

    return page.render(history, ending, dark=dark)
