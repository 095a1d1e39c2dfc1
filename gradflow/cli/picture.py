"""The options of a report's picture, and the drawing of it. The format is that of the file's ending; matplotlib is imported when there is something to draw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from gradflow.cli.output import write
from gradflow.errors import UsageError
from gradflow.records import Report
from gradflow.render.figure import ENDINGS, PanelName, ThemeName, named


def _theme(word: str) -> ThemeName:
    return named("--theme", word, ThemeName)


def _panel(word: str) -> PanelName:
    return named("--panel", word, PanelName)


Theme = Annotated[ThemeName, typer.Option("--theme", parser=_theme, metavar=f"[{'|'.join(t.value for t in ThemeName)}]", help="Colours of the picture.")]
Panels = Annotated[
    list[PanelName] | None,
    typer.Option(
        "--panel", parser=_panel, metavar=f"[{'|'.join(p.value for p in PanelName)}]", help="Draw this panel alone, without the header; may be repeated."
    ),
]


def ending_of(file: Path) -> str:
    """The ending that tells a picture's format; PNG on standard output."""
    return ENDINGS[0] if file == Path("-") else file.suffix.lower()


def check_picture(png: Path | None, theme: ThemeName, panels: Sequence[PanelName] | None) -> None:
    """Raises:
    UsageError: a panel or the dark theme is asked for, and no picture.
    """
    asked = [("--panel", panels[0].value)] if panels else [("--theme", theme.value)] if theme is not ThemeName.LIGHT else []
    if png is None and asked:
        option, value = asked[0]
        raise UsageError(option=option, value=value, expected="--png FILE beside it: no picture is asked for")


def draw(file: Path, report: Report, theme: ThemeName, panels: Sequence[PanelName] | None) -> None:
    """Write the picture of a report.

    Raises:
        errors.OutputFileError: the file cannot be written.
    """
    from gradflow.render.figure import page

    write(file, page.render(report, theme=theme, panels=panels or (), ending=ending_of(file)))
