"""The command line: parse, call, write files, map errors to exit codes. Imports torch only when a command needs it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import gradflow
from gradflow import errors
from gradflow.cli import check, diff, graph, misread, plot, profile, rule, shatter
from gradflow.cli.output import open_streams, put

app = typer.Typer(
    name="gradflow",
    help="Does the gradient reach every layer of a torch model, and if not, which connection is to blame?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"gradflow {gradflow.__version__}")
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False) -> None:
    pass


for _command in (profile.profile, check.check, graph.graph, shatter.shatter, plot.plot, diff.diff, rule.rule):
    app.command()(_command)


def main() -> None:
    """Entry point of the `gradflow` command."""
    open_streams()
    try:
        code = app(standalone_mode=False)
    except errors.GradflowError as error:
        _tell(error)
        code = error.exit_code
    except misread.MISREAD as error:
        if not misread.is_help(error):
            _tell(misread.told(error, sys.argv[1:]))
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


def _tell(error: errors.GradflowError) -> None:
    put(sys.stderr, f"error: {error}\n" + (f"\n{error.detail}\n" if error.detail else ""))
