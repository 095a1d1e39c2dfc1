"""`gradflow diff`: what changed between two reports."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from gradflow.cli.options import All, choice, real
from gradflow.cli.output import FILE_WIDTH, check_apart, check_outputs, check_writable, put, show, write
from gradflow.cli.picture import Theme, check_picture, ending_of
from gradflow.errors import UsageError
from gradflow.render.figure import ThemeName


class DiffFormat(str, Enum):
    """What `gradflow diff` can write."""

    TEXT, JSON = "text", "json"


def diff(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="The older report: what gradflow profile --json wrote.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="The newer report.")],
    factor: Annotated[float, real("--factor", 1.0, "Gains that changed by less are not shown.")] = 2.0,
    format: Annotated[DiffFormat, choice("--format", DiffFormat, "For people, or JSON by docs/difference-v1.schema.json.")] = DiffFormat.TEXT,
    output: Annotated[Path | None, typer.Option(help="Write to this file; - for standard output.")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw both over each other into this .png, .svg or .pdf file; - for standard output, as PNG.")] = None,
    theme: Theme = ThemeName.LIGHT,
    all: All = False,
) -> None:
    """Show what changed from one report to another: findings, the verdict, skips, highways and layers. Numbered blocks may have come or gone.

    Exit codes: 0 nothing got worse, 1 the verdict, an error or a warning did, 2 a file is no report.
    """
    check_outputs(png, None)
    check_picture(png, theme, None)
    check_writable(output)
    check_apart([("--png", png), ("--output", output)], {"the older report": before, "the newer report": after})
    if png == Path("-") and (output == Path("-") or (output is None and format is DiffFormat.JSON)):
        raise UsageError(option="--png", value=png, expected="a file, since the difference takes standard output")
    from gradflow.difference import difference
    from gradflow.stored import read_report

    reports = read_report(before), read_report(after)
    found = difference(*reports, factor)

    def text(width: int, color: bool) -> str:
        from gradflow.render import difference as renderer

        return renderer.render(found, width=width, color=color, unfold=all, links=color)

    if output is not None and output != Path("-"):
        write(output, found.to_json() if format is DiffFormat.JSON else text(FILE_WIDTH, False))
    elif format is DiffFormat.JSON:
        put(sys.stdout, found.to_json())
    else:
        show(text, sys.stderr if png == Path("-") else sys.stdout)
    if png is not None:
        from gradflow.render.figure import comparison

        write(png, comparison.render(*reports, found, theme=theme, ending=ending_of(png)))
    raise typer.Exit(1 if found.worse else 0)
