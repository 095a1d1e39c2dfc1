"""`gradflow profile`: one target, forward and back."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradflow.cli.options import (
    All,
    Amp,
    Arguments,
    BatchFile,
    Device,
    Dtype,
    Evaluate,
    Inputs,
    LossName,
    Quiet,
    Seed,
    TargetName,
    Trust,
    Weights,
    options_of,
    whole,
)
from gradflow.cli.output import check_outputs, show, source_base, write
from gradflow.cli.picture import Panels, Theme, check_picture, draw
from gradflow.cli.progress import progress
from gradflow.render.figure import ThemeName

if TYPE_CHECKING:
    from gradflow.difference import Difference
    from gradflow.records import Report


def profile(
    target: TargetName,
    arg: Arguments = None,
    weights: Weights = None,
    input: Inputs = None,
    batch: BatchFile = None,
    loss: LossName = None,
    device: Device = "cpu",
    dtype: Dtype = None,
    amp: Amp = None,
    eval: Evaluate = False,
    seed: Seed = 0,
    trust: Trust = False,
    batches: Annotated[int, whole("--batches", 1, "Run this many batches, each drawn anew, and add their sums.")] = 1,
    probes: Annotated[int, whole("--probes", 0, "Push this many random cotangents down each skip path: what it does to any gradient.")] = 0,
    spectrum: Annotated[bool, typer.Option("--spectrum", help="Split the gradient at each fork by how many branches it has passed.")] = False,
    png: Annotated[Path | None, typer.Option(help="Write the picture to this .png, .svg or .pdf file; - for standard output, as PNG.")] = None,
    theme: Theme = ThemeName.LIGHT,
    panel: Panels = None,
    json: Annotated[Path | None, typer.Option(help="Write the report to this file; - for standard output.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the report for a pull request to this file; - for standard output.")] = None,
    against: Annotated[Path | None, typer.Option(help="Show what changed since this report, which --json wrote.")] = None,
    all: All = False,
    quiet: Quiet = False,
) -> None:
    """Run a batch forward and back, and report vanishing or exploding layers, every skip with its λ, and the highway that the skips form.

    Exit codes: 0 no error-level finding, 1 sick, 2 the target, the input or the usage is wrong, 3 the model itself failed.
    """
    check_outputs(png, json, markdown, {"the target": target, "the weights": weights, "the batch": batch})
    check_picture(png, theme, panel)
    before = _read(against)
    from gradflow.profiling import profile_target

    options = options_of(arg, weights, input, batch, loss, device, dtype, amp, eval, seed, trust)
    with progress(quiet) as tell:
        report = profile_target(target, replace(options, batches=batches, probes=probes, spectrum=spectrum), tell=tell)
    changed = _changed(before, report)

    def text(width: int, color: bool) -> str:
        from gradflow.render import difference, terminal

        shown = terminal.render(report, width=width, color=color, unfold=all, links=color)
        return shown if changed is None else f"{shown}\n{difference.render(changed, width=width, color=color, unfold=all, links=color)}"

    show(text, sys.stderr if Path("-") in (json, png, markdown) else sys.stdout)
    if json is not None:
        write(json, report.to_json())
    if markdown is not None:
        write(markdown, _markdown(report, changed, markdown, all))
    if png is not None:
        draw(png, report, theme, panel)
    raise typer.Exit(1 if report.verdict == "sick" else 0)


def _read(against: Path | None) -> Report | None:
    """The older report, read before the model runs.

    Raises:
        errors.RecordFileError: there is no such file, or it holds none.
    """
    from gradflow.stored import read_report

    return None if against is None else read_report(against)


def _changed(before: Report | None, report: Report) -> Difference | None:
    from gradflow.difference import difference

    return None if before is None else difference(before, report)


def _markdown(report: Report, changed: Difference | None, file: Path, unfold: bool) -> str:
    from gradflow.render.check import places
    from gradflow.render.markdown import links
    from gradflow.render.markdown import report as page

    return page.render(report, source=links.below(source_base(file, places.root())), unfold=unfold, against=changed)
