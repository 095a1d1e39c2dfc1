"""`gradflow check`: many targets in one run, for people and for continuous integration."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradflow import errors
from gradflow.cli import plan
from gradflow.cli.options import Amp, Arguments, BatchFile, Dtype, Inputs, LossName, Quiet, Weights, choice, whole
from gradflow.cli.output import FILE_WIDTH, check_writable, put, show, write
from gradflow.configuration import Configuration, Settings, find, read
from gradflow.telling import Tell, nobody

if TYPE_CHECKING:
    from gradflow.baseline import Baseline
    from gradflow.checking import Target
    from gradflow.records import Checks, Severity
    from gradflow.rules import Rules


class CheckFormat(str, Enum):
    """What `gradflow check` can write."""

    TEXT, JSON, GITHUB, JUNIT, SARIF, MARKDOWN = "text", "json", "github", "junit", "sarif", "markdown"


class FailOn(str, Enum):
    """The least severity that fails a target."""

    ERROR, WARNING = "error", "warning"


def check(
    targets: Annotated[list[str] | None, typer.Argument(metavar="TARGET", help="As for profile; those of [tool.gradflow] without any.")] = None,
    arg: Arguments = None,
    weights: Weights = None,
    input: Inputs = None,
    batch: BatchFile = None,
    loss: LossName = None,
    device: Annotated[str | None, typer.Option(help="Where to run, e.g. cpu or cuda:0.")] = None,
    dtype: Dtype = None,
    amp: Amp = None,
    eval: Annotated[bool | None, typer.Option("--eval/--no-eval", help="Run in eval mode.")] = None,
    seed: Annotated[int | None, whole("--seed", 0, "For everything drawn at random; 0 by default.")] = None,
    trust: Annotated[bool | None, typer.Option("--trust/--no-trust", help="Allow files that run code when they are loaded.")] = None,
    batches: Annotated[int | None, whole("--batches", 1, "Run this many batches, each drawn anew, and add their sums.")] = None,
    probes: Annotated[int | None, whole("--probes", 0, "Push this many random cotangents down each skip path.")] = None,
    spectrum: Annotated[bool | None, typer.Option("--spectrum/--no-spectrum", help="Split the gradient at each fork by how many branches it passed.")] = None,
    select: Annotated[list[str] | None, typer.Option(help="Judge by these rules alone: codes, their beginnings or names; may be repeated.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Judge by all rules but these; may be repeated.")] = None,
    limit: Annotated[list[str] | None, typer.Option(help="Move the first limit of a rule, as GF201=0.9; may be repeated.")] = None,
    fail_on: Annotated[FailOn | None, choice("--fail-on", FailOn, "The least severity that fails a target; error by default.")] = None,
    format: Annotated[list[CheckFormat] | None, choice("--format", CheckFormat, "What to write; may be repeated, each with its --output.")] = None,
    output: Annotated[list[Path] | None, typer.Option(help="Where the format of the same number goes; - for standard output, as without.")] = None,
    baseline: Annotated[Path | None, typer.Option(help="Only findings that are new or worse than in this file fail.")] = None,
    update_baseline: Annotated[bool, typer.Option("--update-baseline", help="Write what is found to the baseline: it is known from now on.")] = False,
    repeat: Annotated[int | None, whole("--repeat", 1, "Run with this many seeds, and tell whether the verdicts agree.")] = None,
    config: Annotated[Path | None, typer.Option(help="The file with [tool.gradflow]; by default the nearest pyproject.toml upward.")] = None,
    quiet: Quiet = False,
) -> None:
    """Check many targets in one run, each as `gradflow profile` does, and say which fail. What is not given is taken from [tool.gradflow].

    Exit codes, the worst of all targets: 0 healthy, 1 findings at or above --fail-on, 2 the target, the input or the usage is wrong, 3 the model failed.
    """
    file = config or find(Path.cwd())
    configuration = Configuration() if file is None else read(file.absolute())
    outputs = plan.pairs([name.value for name in format or ()], output or (), configuration)
    kept = baseline or configuration.baseline
    known = _known(kept, update_baseline)
    command = Settings(
        arg=_arguments(arg), weights=weights, input=input, batch=batch, loss=loss, device=device, dtype=dtype, amp=amp, eval=eval, seed=seed, trust=trust,
        batches=batches, probes=probes, spectrum=spectrum, select=select, ignore=ignore, limits=_limits(limit),
    )  # fmt: skip
    goals = plan.goals(targets or (), command, configuration)
    outputs = tuple((name, plan.placed(path, goals.folder)) for name, path in outputs)
    kept = None if kept is None else plan.placed(kept, goals.folder)
    least = fail_on.value if fail_on else configuration.fail_on or "error"
    with _inside(goals.folder):
        plan.check_apart(outputs, goals.entries, kept)
        chosen = plan.targets(goals.entries)
        checks = _checked(
            chosen, least, repeat or configuration.repeat or 1, known, kept if update_baseline else None, nobody if quiet else partial(put, sys.stderr)
        )
        _show(checks, outputs, [target.rules for target in chosen])
    raise typer.Exit(checks.exit_code)


def _arguments(items: list[str] | None) -> Mapping[str, object] | None:
    if items is None:
        return None
    from gradflow.subject import parse_arguments

    return parse_arguments(items)


def _limits(items: list[str] | None) -> Mapping[str, float] | None:
    """Raises:
    errors.UsageError: one is not RULE=X, or a rule comes twice.
    """
    if items is None:
        return None
    limits: dict[str, float] = {}
    for item in items:
        code, _, number = item.partition("=")
        try:
            limit = float(number)
        except ValueError:
            raise errors.UsageError(option="--limit", value=item, expected="RULE=X with a number, e.g. GF201=0.9") from None
        if code in limits:
            raise errors.UsageError(option="--limit", value=item, expected=f"one limit for {code}")
        limits[code] = limit
    return limits


def _known(file: Path | None, update: bool) -> Baseline | None:
    """What the baseline says, None without one.

    Raises:
        errors.ConfigurationError: it is to be written, and no file is named.
        errors.OutputFileError, errors.RecordFileError: it cannot be written so, or cannot be read.
    """
    from gradflow.baseline import read_baseline

    if file is None and update:
        remedy = "Name one with --baseline FILE, or as `baseline` in [tool.gradflow]."
        raise errors.ConfigurationError(place="gradflow check --update-baseline", reason="there is no file to write", remedy=remedy)
    if update:
        check_writable(file)
    return None if file is None or (update and not file.exists()) else read_baseline(file)


def _checked(targets: Sequence[Target], fail_on: Severity, repeat: int, known: Baseline | None, renewed: Path | None, tell: Tell) -> Checks:
    """Run the check; `renewed` is the baseline to write, which then is the one that counts."""
    from gradflow import checking
    from gradflow.baseline import Baseline, baseline_of, write_baseline

    old = Baseline() if known is None or renewed is not None else known
    checks = checking.check(targets, checking.Plan(fail_on=fail_on, repeat=repeat, baseline=old, tell=tell))
    if renewed is None:
        return checks
    write_baseline(renewed, checks, known)
    typer.echo(f"wrote {renewed}", err=True)
    return checking.excused(checks, baseline_of(checks, known))


def _show(checks: Checks, outputs: Sequence[tuple[str, Path]], used: Sequence[Rules]) -> None:
    """Write every format to its place; the notes and the summary go to standard error unless the text is on standard output and has them."""
    from gradflow.render.check import RENDERERS, text, words
    from gradflow.rules import RULES, choose

    rules = choose(RULES, sorted({code for one in used for code in one.selected}))
    for name, file in outputs:
        if name in ("junit", "sarif"):
            write(file, RENDERERS[name](checks, rules=rules))
        elif name != "text":
            write(file, RENDERERS[name](checks))
        elif file == Path("-"):
            show(lambda width, color: text.render(checks, width=width, color=color, links=color), sys.stdout)
        else:
            write(file, text.render(checks, width=FILE_WIDTH, color=False))
    if ("text", Path("-")) not in outputs:
        for note in checks.notes:
            typer.echo(f"note: {note}", err=True)
        typer.echo(words.tally(checks), err=True)


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    here = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)
