"""The options of a report's picture, and the drawing of it. The format is that of the file's ending; matplotlib is imported when there is something to draw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from gradflow.cli.options import choice
from gradflow.cli.output import write
from gradflow.cli.refusals import EmptyPicture, IncompleteUsage
from gradflow.records import Report
from gradflow.render.figure import ENDINGS, PanelName, ThemeName
from gradflow.render.names import clean

Theme = Annotated[ThemeName, choice("--theme", ThemeName, "Colours of the picture.")]
Panels = Annotated[list[PanelName] | None, choice("--panel", PanelName, "Draw this panel alone, without the header; may be repeated.")]


def ending_of(file: Path) -> str:
    """The ending that tells a picture's format; PNG on standard output."""
    return ENDINGS[0] if file == Path("-") else file.suffix.lower()


def check_picture(png: Path | None, theme: ThemeName, panels: Sequence[PanelName] | None) -> None:
    """Raises:
    IncompleteUsage: a panel or the dark theme is asked for, and no picture.
    """
    asked = [("--panel", panels[0].value)] if panels else [("--theme", theme.value)] if theme is not ThemeName.LIGHT else []
    if png is None and asked:
        option, value = asked[0]
        raise IncompleteUsage(option=f"{option} {value}", needs="--png FILE", reason="no picture is asked for")


def draw(file: Path, report: Report, theme: ThemeName, panels: Sequence[PanelName] | None) -> None:
    """Write the picture of a report. Of several panels one may have nothing to show: the page says so, and so does standard error.

    Raises:
        EmptyPicture: no panel that is asked for has anything to show of this report.
        errors.OutputFileError: the file cannot be written.
    """
    from gradflow.render.figure import page
    from gradflow.render.figure.panels import PANELS

    empty = {name: words for name in dict.fromkeys(panels or ()) if (words := PANELS[name].absent(report))}
    reasons = list(dict.fromkeys(empty.values()))
    if empty and len(empty) == len(set(panels or ())):
        full = [name.value for name, panel in PANELS.items() if not panel.absent(report)]
        raise EmptyPicture(panels=[name.value for name in empty], report=clean(report.target.spec), reasons=reasons, full=full)
    for name, words in empty.items():
        typer.echo(f"note: --panel {name.value} is empty for {clean(report.target.spec)}: {words}", err=True)
    write(file, page.render(report, theme=theme, panels=panels or (), ending=ending_of(file)))
