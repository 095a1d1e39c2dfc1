"""The command line: parse, call, write files, map errors to exit codes. Imports torch only when a command needs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import gradflow
from gradflow import errors

if TYPE_CHECKING:
    from gradflow.records import Report

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


@app.command()
def profile(
    target: Annotated[str, typer.Argument(help="model.py, model.py:NAME, package.module:NAME, torchvision:NAME, timm:NAME, hf:MODEL_TYPE or hf:DIR.")],
    arg: Annotated[list[str] | None, typer.Option(help="Argument of the builder, or field of the config, as name=value; may be repeated.")] = None,
    weights: Annotated[Path | None, typer.Option(help="State dict to load (.pt without pickled code, or .safetensors).")] = None,
    input: Annotated[list[str] | None, typer.Option(help="8x3x224x224, x=float32[4,16] or ids=int64[2,128]<50257; may be repeated.")] = None,
    batch: Annotated[Path | None, typer.Option(help="File with the batch: .pt, .npz or .safetensors.")] = None,
    loss: Annotated[str | None, typer.Option(help="probe, cross_entropy, mse, …; by default the file's or the model's own, else probe.")] = None,
    device: Annotated[str, typer.Option(help="Where to run, e.g. cpu or cuda:0.")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="Cast the model to float32, float64, bfloat16 or float16.")] = None,
    amp: Annotated[str | None, typer.Option(help="Run the forward under autocast: bf16 or fp16.")] = None,
    eval: Annotated[bool, typer.Option("--eval", help="Profile in eval mode.")] = False,
    seed: Annotated[int, typer.Option(help="For weights, inputs, dropout and everything else drawn at random.", min=0)] = 0,
    trust: Annotated[bool, typer.Option("--trust", help="Allow files that run code when they are loaded.")] = False,
    png: Annotated[Path | None, typer.Option(help="Write the picture to this .png file; - for standard output.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the report to this file; - for standard output.")] = None,
    all: Annotated[bool, typer.Option("--all", help="Show every row: fold nothing.")] = False,
) -> None:
    """Run one batch forward and back, and report vanishing or exploding layers, every skip with its λ, and the highway that the skips form.

    Exit codes: 0 no error-level finding, 1 sick, 2 the target, the input or the usage is wrong, 3 the model itself failed.
    """
    if png is not None and png != Path("-") and png.suffix.lower() != ".png":
        raise errors.UsageError(option="--png", value=png, expected="a name that ends in .png")
    for file in (png, json):
        _check_writable(file)
    from gradflow.profiling import Options, profile_target
    from gradflow.subject import parse_arguments

    options = Options(
        arguments=parse_arguments(arg or []),
        weights=weights,
        inputs=tuple(input or ()),
        batch=batch,
        loss=loss,
        device=device,
        dtype=dtype,
        amp=amp,
        evaluate=eval,
        seed=seed,
        trust=trust,
    )
    report = profile_target(target, options)
    to_stdout = Path("-") in (json, png)
    _show(report, unfold=all, to_stderr=to_stdout)
    if json is not None:
        _write(json, report.to_json().encode())
    if png is not None:
        from gradflow.render import png as picture

        _write(png, picture.render(report))
    raise typer.Exit(1 if report.verdict == "sick" else 0)


def _show(report: Report, *, unfold: bool, to_stderr: bool) -> None:
    from rich.console import Console

    from gradflow.render import terminal

    stream = sys.stderr if to_stderr else sys.stdout
    console = Console(file=stream)
    color = console.is_terminal and not console.no_color
    text = terminal.render(report, width=console.width, color=color, unfold=unfold, links=color)
    stream.write(text if text.endswith("\n") else text + "\n")


def _check_writable(file: Path | None) -> None:
    """Output paths are checked before the model runs, which may take minutes.

    Raises:
        errors.OutputFileError: the file cannot be written.
    """
    if file is None or file == Path("-"):
        return
    if file.is_dir():
        raise errors.OutputFileError(file=str(file), reason="it is a folder")
    folder = file.parent
    if not folder.is_dir():
        raise errors.OutputFileError(file=str(file), reason=f"there is no folder {folder}")
    if not os.access(file if file.exists() else folder, os.W_OK):
        raise errors.OutputFileError(file=str(file), reason="permission denied")


def _write(file: Path, content: bytes) -> None:
    if file == Path("-"):
        sys.stdout.buffer.write(content)
        return
    try:
        file.write_bytes(content)
    except OSError as error:
        raise errors.OutputFileError(file=str(file), reason=error.strerror or str(error)) from error
    typer.echo(f"wrote {file}", err=True)


def main() -> None:
    """Entry point of the `gradflow` command."""
    try:
        app()
    except errors.GradflowError as error:
        typer.echo(f"error: {error}", err=True)
        if error.detail:
            typer.echo(f"\n{error.detail}", err=True)
        sys.exit(error.exit_code)
