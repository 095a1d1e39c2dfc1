"""`gradflow graph`: the graph of one target, without a backward pass."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

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
    choice,
    options_of,
)
from gradflow.cli.output import FILE_WIDTH, check_apart, check_writable, show, write
from gradflow.cli.progress import progress


class GraphFormat(str, Enum):
    """What `gradflow graph` can write."""

    TABLE, CODE, DOT, JSON = "table", "code", "dot", "json"


def graph(
    target: TargetName,
    format: Annotated[
        GraphFormat, choice("--format", GraphFormat, "A table for people, FX code, Graphviz DOT, or JSON by docs/graph-v1.schema.json.")
    ] = GraphFormat.TABLE,
    output: Annotated[Path | None, typer.Option(help="Write to this file; - for standard output.")] = None,
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
    all: All = False,
    quiet: Quiet = False,
) -> None:
    """Run one batch forward, and show the model's graph with the fork, the join and the kind of every skip. No backward pass is run.

    Exit codes: 0, 2 the target, the input or the usage is wrong, 3 the model itself failed.
    """
    check_writable(output)
    check_apart([("--output", output)], {"the target": target, "the weights": weights, "the batch": batch})
    from gradflow.profiling import graph_target

    options = options_of(arg, weights, input, batch, loss, device, dtype, amp, eval, seed, trust)
    with progress(quiet) as tell:
        diagram = graph_target(target, options, tell)

    def text(width: int, color: bool) -> str:
        from gradflow.render.graph import code, dot, table

        if format is GraphFormat.TABLE:
            return table.render(diagram, width=width, color=color, unfold=all, links=color)
        return diagram.to_json() if format is GraphFormat.JSON else code.render(diagram) if format is GraphFormat.CODE else dot.render(diagram, unfold=all)

    if format is not GraphFormat.TABLE:
        for note in diagram.notes:
            typer.echo(f"note: {note}", err=True)
    if output is not None and output != Path("-"):
        write(output, text(FILE_WIDTH, False))
    elif format is GraphFormat.TABLE:
        show(text, sys.stdout)
    else:
        write(Path("-"), text(FILE_WIDTH, False))
