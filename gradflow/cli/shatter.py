"""`gradflow shatter`: how the gradient changes along a line of inputs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gradflow.cli.options import All, Amp, Arguments, BatchFile, Device, Dtype, Evaluate, Inputs, Quiet, Seed, TargetName, Trust, Weights, options_of, whole
from gradflow.cli.output import check_outputs, show, write
from gradflow.cli.picture import Theme, check_picture, ending_of
from gradflow.cli.progress import progress
from gradflow.render.figure import ThemeName


def shatter(
    target: TargetName,
    arg: Arguments = None,
    weights: Weights = None,
    input: Inputs = None,
    batch: BatchFile = None,
    device: Device = "cpu",
    dtype: Dtype = None,
    amp: Amp = None,
    eval: Evaluate = False,
    seed: Seed = 0,
    trust: Trust = False,
    points: Annotated[int, whole("--points", None, "How many inputs stand on the line; they are run as one batch.")] = 256,
    lags: Annotated[int | None, whole("--lags", None, "The largest lag of the autocorrelation; 15 by default.")] = None,
    between: Annotated[str | None, typer.Option(help="The two samples of the batch that the line joins, 0,1 by default.")] = None,
    grid: Annotated[str | None, typer.Option(help="For inputs of one number a grid instead, by its ends: -2:2, the default for an input [batch, 1].")] = None,
    png: Annotated[Path | None, typer.Option(help="Write the picture to this .png, .svg or .pdf file; - for standard output, as PNG.")] = None,
    theme: Theme = ThemeName.LIGHT,
    json: Annotated[Path | None, typer.Option(help="Write the numbers to this file, by docs/shatter-v1.schema.json; - for standard output.")] = None,
    all: All = False,
    quiet: Quiet = False,
) -> None:
    """Walk along a line of inputs, and show how the gradient at each layer changes: smoothly, or from point to point like white noise.

    Exit codes: 0, 2 the target, the input or the usage is wrong, 3 the model itself failed.
    """
    check_outputs(png, json, None, {"the target": target, "the weights": weights, "the batch": batch})
    check_picture(png, theme, None)
    from gradflow.line import Course, parse_between, parse_grid
    from gradflow.shattered import shatter_target

    course = Course(points=points, lags=lags, between=None if between is None else parse_between(between), grid=None if grid is None else parse_grid(grid))
    options = options_of(arg, weights, input, batch, None, device, dtype, amp, eval, seed, trust)
    with progress(quiet) as tell:
        report = shatter_target(target, options, course, tell)

    def text(width: int, color: bool) -> str:
        from gradflow.render.shatter import terminal

        return terminal.render(report, width=width, color=color, unfold=all, links=color)

    show(text, sys.stderr if Path("-") in (json, png) else sys.stdout)
    if json is not None:
        write(json, report.to_json())
    if png is not None:
        from gradflow.render.shatter import png as picture

        write(png, picture.render(report, theme=theme, ending=ending_of(png)))
