"""Many targets in one run: each is loaded, profiled, judged and released before the next, and one that fails stops none of the others."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import torch

import gradflow
from gradflow.assembly import Options
from gradflow.baseline import Baseline, apply_baseline, baseline_notes
from gradflow.errors import GradflowError
from gradflow.ignoring import Comments
from gradflow.profiling import profile_target
from gradflow.records import GRAVITY, VERDICTS, Checks, Finding, Location, Outcome, Report, Severity, Silenced, Trouble, verdict
from gradflow.render.check import words
from gradflow.rules import Rules, rank, severity, worst_first
from gradflow.telling import Tell, nobody


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is checked: `spec` under `options`, judged by `rules`, how the run names it, and the line of the configuration that lists it."""

    spec: str
    label: str
    options: Options
    rules: Rules
    listed: Location | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How targets are checked.

    Attributes:
        fail_on: the least severity that fails a target.
        repeat: how many seeds, from each target's own upward; whatever is found with any of them counts.
        baseline: whose findings are old; those that a comment in the source silences are ignored first.
        tell: takes the progress, piece by piece.
    """

    fail_on: Severity = "error"
    repeat: int = 1
    baseline: Baseline = field(default_factory=Baseline)
    tell: Tell = nobody


def check(targets: Sequence[Target], plan: Plan) -> Checks:
    """Check every target. None raises: what goes wrong is its outcome. An interrupt ends the run with what there is by then."""
    outcomes: list[Outcome] = []
    notes: list[str] = []
    comments = Comments()
    for number, target in enumerate(targets, 1):
        plan.tell(f"[{number}/{len(targets)}] {target.label} … ")
        began = time.perf_counter()
        interrupted = False
        try:
            runs = _runs(target, plan, comments)
        except KeyboardInterrupt:
            runs, interrupted = {target.options.seed: _broken(target.label, _INTERRUPTION)}, True
        outcome = replace(_together(list(runs.values())), seconds=time.perf_counter() - began, listed=target.listed)
        outcomes.append(outcome)
        notes += [*_disagreement(target.label, runs), *_of_baseline(outcome, target, plan)]
        plan.tell(f"{_said(outcome, len(runs))}\n")
        if interrupted:
            left = len(targets) - number
            notes.append(f"interrupted at {target.label}" + (f": {left} of {len(targets)} targets were not run" if left else ""))
            break
    return gathered(outcomes, plan.fail_on, [*notes, *comments.notes()])


def gathered(outcomes: Sequence[Outcome], fail_on: Severity, notes: Sequence[str]) -> Checks:
    """The record of a run; its exit code is the worst of the outcomes'."""
    return Checks(
        gradflow_version=gradflow.__version__,
        outcomes=tuple(outcomes),
        fail_on=fail_on,
        exit_code=max((outcome.exit_code for outcome in outcomes), default=0),
        notes=tuple(notes),
    )


def excused(checks: Checks, baseline: Baseline) -> Checks:
    """The same run, had `baseline` been there before it."""

    def again(outcome: Outcome) -> Outcome:
        if outcome.report is None:
            return outcome
        new, old = apply_baseline(outcome.target, outcome.findings, baseline, outcome.report)
        return replace(settled(outcome.target, outcome.report, new, (*outcome.silenced, *old), checks.fail_on), seconds=outcome.seconds, listed=outcome.listed)

    return gathered([again(outcome) for outcome in checks.outcomes], checks.fail_on, checks.notes)


def settled(label: str, report: Report, findings: Sequence[Finding], silenced: Sequence[Silenced], fail_on: Severity) -> Outcome:
    """The outcome of a target that was profiled, with the findings that count and those that do not."""
    failed = any(GRAVITY[finding.severity] >= GRAVITY[fail_on] for finding in findings)
    return Outcome(
        target=label,
        state="failed" if failed else "passed",
        findings=tuple(findings),
        silenced=tuple(silenced),
        report=report,
        trouble=None,
        exit_code=1 if failed else 0,
        seconds=0.0,
    )


def _runs(target: Target, plan: Plan, comments: Comments) -> dict[int, Outcome]:
    """One outcome for each seed; another seed mends no trouble."""
    runs: dict[int, Outcome] = {}
    for seed in range(target.options.seed, target.options.seed + plan.repeat):
        with _alone():
            runs[seed] = _run(replace(target, options=replace(target.options, seed=seed)), plan, comments)
        if runs[seed].trouble is not None:
            break
    return runs


def _run(target: Target, plan: Plan, comments: Comments) -> Outcome:
    try:
        report = profile_target(target.spec, target.options, target.rules)
    except GradflowError as error:
        trouble = Trouble(kind=type(error).__name__, fact=error.fact, remedy=error.remedy, detail=error.detail, exit_code=error.exit_code)
        return _broken(target.label, trouble)
    except (Exception, SystemExit) as error:
        return _broken(target.label, _surprise(error))
    counted, ignored = comments.apply(report.findings, report, target.rules)
    new, old = apply_baseline(target.label, counted, plan.baseline, report)
    return settled(target.label, report, new, (*ignored, *old), plan.fail_on)


def _broken(label: str, trouble: Trouble) -> Outcome:
    return Outcome(target=label, state="broken", findings=(), silenced=(), report=None, trouble=trouble, exit_code=trouble.exit_code, seconds=0.0)


def _surprise(error: BaseException) -> Trouble:
    return Trouble(
        kind=type(error).__name__,
        fact=f"gradflow failed on this target: {type(error).__name__}: {error}",
        remedy="Unless memory ran out this is a fault of gradflow: please report it with the frames below.",
        detail="".join(traceback.format_exception(error)),
        exit_code=2,
    )


_INTERRUPTION = Trouble(kind="Interrupted", fact="The run was interrupted at this target.", remedy="Run it again.", detail="", exit_code=2)


def _together(runs: Sequence[Outcome]) -> Outcome:
    """The worst of several runs, with what any of them found: a finding that counts in one of them counts."""
    worst = max(runs, key=lambda run: (run.exit_code, VERDICTS.index(verdict(words.own(run))), severity(words.own(run))))
    if worst.report is None or len(runs) == 1:
        return worst
    counted = _united([[(f, f) for f in run.findings] for run in runs])
    known = {(f.rule, f.where) for f in counted}
    silenced = _united([[(s.finding, s) for s in run.silenced] for run in runs])
    return replace(worst, findings=counted, silenced=tuple(s for s in silenced if (s.finding.rule, s.finding.where) not in known))


Item = TypeVar("Item")


def _united(runs: Sequence[Sequence[tuple[Finding, Item]]]) -> tuple[Item, ...]:
    """Each rule's finding at each place once, as often as one run has it at most, the worst of its kind; worst first, as `judge` sorts."""
    kinds: dict[tuple[str, str, int], list[tuple[Finding, Item]]] = {}
    for run in runs:
        times: Counter[tuple[str, str]] = Counter()
        for finding, item in run:
            kind = (finding.rule, finding.where)
            kinds.setdefault((*kind, times[kind]), []).append((finding, item))
            times[kind] += 1
    pairs = [min(same, key=lambda pair: rank(pair[0])) for same in kinds.values()]
    items = {id(finding): item for finding, item in pairs}
    return tuple(items[id(finding)] for finding in worst_first(finding for finding, _ in pairs))


def _disagreement(label: str, runs: Mapping[int, Outcome]) -> list[str]:
    """Which seeds gave which verdict, where it is not one and the same."""
    seeds: dict[str, list[str]] = {}
    for seed, run in runs.items():
        seeds.setdefault("broken" if run.trouble is not None else verdict(words.own(run)), []).append(str(seed))
    told = [f"{word} with seed {', '.join(found)}" for word, found in seeds.items()]
    return [f"{label}: the verdict depends on the seed: {'; '.join(told)}. The worst counts"] if len(seeds) > 1 else []


def _of_baseline(outcome: Outcome, target: Target, plan: Plan) -> Sequence[str]:
    if outcome.report is None:
        return ()
    found = [*outcome.findings, *(silenced.finding for silenced in outcome.silenced)]
    return baseline_notes(target.label, found, plan.baseline, outcome.report, target.rules)


def _said(outcome: Outcome, seeds: int) -> str:
    """One outcome in a few words: the model's own verdict, and where that is not all, whether it passed."""
    found = words.own(outcome)
    word = "broken" if outcome.trouble is not None else verdict(found)
    told = f"{word}{f' with {seeds} seeds' if seeds > 1 else ''} {outcome.seconds:.1f} s"
    if outcome.trouble is not None:
        return f"{told}: {outcome.trouble.fact.splitlines()[0]}"
    worst = f": {found[0].rule} at {found[0].where}" if word != "healthy" else ""
    return told + worst + (f" ({outcome.state}; {words.silenced(outcome)})" if outcome.silenced else "")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Whatever a target's own code changes in this process is put back, what it prints goes to standard error, and its memory is released."""
    paths, folder, dtype, grad, device = [*sys.path], Path.cwd(), torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_default_device()
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            yield
    finally:
        sys.path[:] = paths
        os.chdir(folder)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)
        for name in [name for name in sys.modules if name.startswith("_gradflow_target_")]:
            del sys.modules[name]  # it holds the model where the file builds one
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
