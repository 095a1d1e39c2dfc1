"""`gradflow plot`: the picture of a stored report, of a training run's history, or those of a check. Imports no torch; matplotlib only when it draws."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from gradflow import errors
from gradflow.cli.output import check_outputs, check_writable, write
from gradflow.cli.picture import Panels, Theme, draw, ending_of
from gradflow.cli.refusals import EmptyPicture
from gradflow.records import CHECKS_SCHEMA, HISTORY_SCHEMA, SCHEMA, Checks, History, Outcome, Report
from gradflow.render.figure import ENDINGS, PanelName, ThemeName
from gradflow.stored import read_text, refused, schema_of

_REMEDY = "Give what gradflow profile TARGET --json FILE, gradflow check --format json --output FILE or a Monitor's save() wrote."
_READERS: dict[object, Callable[[str], Report | Checks | History]] = {
    SCHEMA: Report.from_json,
    CHECKS_SCHEMA: Checks.from_json,
    HISTORY_SCHEMA: History.from_json,
}
_LONGEST = 100  # characters of a label in a file name: with a folder before it and a number after it that stays below every file system's limit
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # names that Windows keeps for itself, whatever follows the point


def plot(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What gradflow profile --json, gradflow check --format json or a Monitor wrote.")],
    png: Annotated[
        Path,
        typer.Option(help="The .png, .svg or .pdf file to write, - for standard output, as PNG; of a check the folder for its pictures, made if missing."),
    ],
    theme: Theme = ThemeName.LIGHT,
    panel: Panels = None,
) -> None:
    """Draw the picture of a stored report, as gradflow profile --png does; of a check the picture of each target; of a history its heat map.

    Exit codes: 0 drawn, whatever the verdict, 2 the file cannot be read or the picture cannot be written.
    """
    records = _read(file)
    if isinstance(records, Checks):
        _draw_check(records, png, file, theme, panel)
        return
    if isinstance(records, History) and panel:
        raise errors.UsageError(option="--panel", value=panel[0].value, expected=f"no panel: {file} holds a history, whose picture is one")
    _check_file(png, file)
    if isinstance(records, History):
        _draw_history(records, png, theme)
    else:
        draw(png, records, theme, panel)


def _draw_check(checks: Checks, folder: Path, file: Path, theme: ThemeName, panel: Sequence[PanelName] | None) -> None:
    """The picture of each target; one that the panels have nothing to show of is told of, and stops none of the others.

    Raises:
        EmptyPicture: the panels have nothing to show of any.
    """
    empty: list[EmptyPicture] = []
    placed = list(_placed(checks.outcomes, folder, file))
    for report, place in placed:
        try:
            draw(place, report, theme, panel)
        except EmptyPicture as error:
            empty.append(error)
    if empty and len(empty) == len(placed):
        raise empty[0]
    for told in empty:
        typer.echo(f"note: {told.fact}", err=True)
    _tell_broken(checks.outcomes)


def _draw_history(history: History, png: Path, theme: ThemeName) -> None:
    from gradflow.render.history import page

    write(png, page.render(history, ending_of(png), dark=theme is ThemeName.DARK))


def _read(file: Path) -> Report | Checks | History:
    """What `file` holds, told by its field `schema`.

    Raises:
        errors.RecordFileError: there is no such file, or it holds neither a report nor a check nor a history.
    """
    text = read_text(file, remedy=_REMEDY)
    try:
        schema = schema_of(text)
        if schema not in _READERS:
            raise ValueError(f"its schema is {schema!r}, which this gradflow does not know")
        return _READERS[schema](text)
    except (ValueError, RecursionError) as error:
        raise refused(file, text, error, remedy=_REMEDY, wanted=("report", "checks", "history")) from error


def _check_file(png: Path, file: Path) -> None:
    """Raises:
    errors.UsageError, errors.OutputFileError: `png` is no file that the one picture of `file` can be written to.
    """
    try:
        if png.is_dir():
            raise errors.UsageError(option="--png", value=f"{png} (a folder)", expected=f"a file that ends in .png, .svg or .pdf: {file} holds one picture")
        check_outputs(png, None)
    except OSError as error:  # a folder on the way may not be searched
        raise errors.OutputFileError(file=str(png), reason=errors.reason_of(error)) from error


def _placed(outcomes: Sequence[Outcome], folder: Path, file: Path) -> Iterator[tuple[Report, Path]]:
    """Each report of a check with the file for its picture; the folder is made.

    Raises:
        errors.UsageError, errors.OutputFileError: `folder` is none, or it or a file in it cannot be written.
    """
    _make(folder, file)
    drawn = [(report, outcome.target) for outcome in outcomes if (report := _shown(outcome)) is not None]
    for (report, _), name in zip(drawn, file_names([target for _, target in drawn]), strict=True):
        check_writable(folder / name)
        yield report, folder / name


def _make(folder: Path, file: Path) -> None:
    try:
        named = folder.suffix.lower() in ENDINGS and not folder.is_dir()
        wrong = "standard output" if folder == Path("-") else "the name of one picture" if named else ""
        if not wrong:
            folder.mkdir(parents=True, exist_ok=True)
            wrong = "" if os.access(folder, os.W_OK | os.X_OK) else "permission denied"
    except OSError as error:
        wrong = "a file" if isinstance(error, FileExistsError) else errors.reason_of(error)
    if wrong:
        expected = f"a folder that can be written, for a picture of each target: {file} holds a check"
        raise errors.UsageError(option="--png", value=f"{folder} ({wrong})", expected=expected)


def _shown(outcome: Outcome) -> Report | None:
    """The report, without what a comment silenced: the picture says what the check said of the model, whether it passed or not."""
    from gradflow.render.check import words

    return words.report(outcome) if outcome.silenced else outcome.report


def _tell_broken(outcomes: Sequence[Outcome]) -> None:
    from gradflow.render.names import clean

    for outcome in outcomes:
        if outcome.trouble is not None:
            typer.echo(f"note: no picture of {clean(outcome.target)}, which is broken: {clean(outcome.trouble.fact)}", err=True)


def file_names(labels: Sequence[str]) -> list[str]:
    """A file name for each label: letters, digits and `._=-` alone, none that a system reserves, and no two that differ by case alone."""
    taken: set[str] = set()
    names = []
    for label in labels:
        plain = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode()
        stem = re.sub(r"[^A-Za-z0-9._=]+", "-", plain)[:_LONGEST].strip("-.") or "target"
        stem = f"target-{stem}" if _DEVICES.match(stem) else stem
        name, number = stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.lower())
        names.append(f"{name}.png")
    return names
