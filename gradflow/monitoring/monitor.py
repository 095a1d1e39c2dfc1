"""Profiles of a training loop's own batches, on the steps that are asked for.

A sampled step is profiled by a forward and a backward pass of its own, inside the guard of `gradflow.profile`, and not by hooks on the loop's: hooks would
have to be there before the loop's forward and until after its backward, both of which are the user's code (compiled, checkpointed, scaled, accumulated,
several losses), the highway's replay would run inside that backward, and an error of gradflow's would be an error of the training. The price is one more
forward and backward on these steps. On all others a step is counted and nothing else.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, get_args

from torch import nn

from gradflow import errors
from gradflow.assembly import Amp, amp_of, check_model
from gradflow.monitoring.book import Book
from gradflow.monitoring.saving import save
from gradflow.monitoring.writers import Writer
from gradflow.profiling import profile
from gradflow.records import VERDICTS, History, Report
from gradflow.render import summary
from gradflow.render.names import clean, place
from gradflow.rules import EVERY, Rules

OnFinding = Literal["ignore", "warn", "raise"]
Keep = Literal["none", "all", "worst", "last"]
Every = int | Callable[[int], bool]
_EVERY = 500
_ON_FINDING: OnFinding = "ignore"
_KEEP: Keep = "none"


class SickTrainingWarning(UserWarning):
    """The gradient flow of a training run turned sick, or a step could not be profiled."""


class Monitor:
    """Watches the gradient flow of a model while it is trained, and leaves the training as it is without, bit for bit.

        with gradflow.Monitor(model, every=100) as monitor:
            for x, y in loader:
                monitor.observe(x, y, loss_fn)
                ...  # the step as ever

    Nothing is attached to the model between the steps that are sampled.

    Args:
        model: what is trained; wrapped for several processes, it is profiled on this one.
        every: the steps that are sampled: each whose number is a multiple of it, the first being 0, or those for whose number a callable returns true.
        on_finding: what to do at a sampled step whose verdict is "sick" where that of the one before was not: "ignore" it, "warn" with a
            `SickTrainingWarning`, or "raise" `errors.SickTraining`.
        keep: which whole reports stay in `reports`: "none", "all", the "worst", or the "last". The history is kept whatever it says.
        writers: are told of each sampled step, and of the end: `TensorBoard`, `WandB`, or an object with their methods.
        seed: of every profile, dropout included. One for all: what changes from one sampled step to the next is the training and not the drawing.
        amp: as for `gradflow.profile`; by default the forward runs under whatever autocast `observe` is called in.
        rules: as for `gradflow.profile`.

    Raises:
        errors.UsageError: an argument has a value that it cannot have.
        errors.TargetError: as `gradflow.profile` refuses the model.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        every: Every = _EVERY,
        on_finding: OnFinding = _ON_FINDING,
        keep: Keep = _KEEP,
        writers: Sequence[Writer] = (),
        seed: int = 0,
        amp: Amp | None = None,
        rules: Rules = EVERY,
    ) -> None:
        check_schedule(every=every, on_finding=on_finding, keep=keep)
        check_model(model)
        self._model, self._every, self._on_finding, self._keep = model, every, on_finding, keep
        self._writers = tuple(writers)
        self._seed, self._amp, self._rules = seed, amp_of(amp), rules
        self._book = Book()
        self._reports: dict[int, Report] = {}
        self._step = 0
        self._sampled: int | None = None
        self._verdict = "healthy"

    def observe(
        self,
        inputs: object,
        targets: object | None = None,
        loss: str | Callable[..., object] | None = None,
        *,
        step: int | None = None,
    ) -> Report | None:
        """Call once at each step, best before its forward pass. The step is profiled if it is to be sampled.

        Args:
            inputs, targets, loss: as for `gradflow.profile`. Callables for the inputs and the targets are called on sampled steps alone.
            step: its number; by default one more than at the call before, from 0. A step that is given twice (micro-batches) is sampled once.

        Returns:
            The report of a sampled step; None of any other, and of one whose profile failed.

        Raises:
            errors.SickTraining: the verdict has turned sick, and `on_finding` is "raise".
            errors.GradflowError: as `gradflow.profile`, at the first step that is sampled. A later step that cannot be profiled (a last batch of another
                shape, memory that is short) is a warning and stands in `History.missed`: the training goes on.
        """
        step = self._step if step is None else step
        self._step = step + 1
        if step == self._sampled or not self.samples(step):
            return None
        self._sampled = step
        began = time.perf_counter()
        try:
            report = profile(self._model, inputs, targets, loss, seed=self._seed, amp=self._amp, rules=self._rules)
        except errors.GradflowError as error:
            if self._book.is_empty:
                raise
            self._book.miss(step, error.fact)
            warnings.warn(f"step {step} was not profiled, the training goes on: {error.fact}", SickTrainingWarning, stacklevel=2)
            return None
        self._book.add(step, report, time.perf_counter() - began)
        self._retain(step, report)
        for writer in self._writers:
            writer.write(step, report)
        self._tell(step, report)
        return report

    @property
    def model(self) -> nn.Module:
        """What is watched."""
        return self._model

    def samples(self, step: int) -> bool:
        """Whether the step of this number is to be sampled."""
        return bool(self._every(step)) if callable(self._every) else step % self._every == 0

    @property
    def history(self) -> History:
        """What was measured so far.

        Raises:
            errors.NothingObserved: no step was sampled yet.
        """
        if self._book.is_empty:
            raise errors.NothingObserved(steps=self._step)
        return self._book.history()

    @property
    def reports(self) -> Mapping[int, Report]:
        """The whole reports that `keep` keeps, by step."""
        return dict(self._reports)

    def save(self, file: str | Path, *, dark: bool = False) -> None:
        """Write the history so far to a picture or a `.json` file; as `gradflow.monitoring.save`."""
        save(self.history, file, dark=dark)

    def close(self) -> None:
        """Close the writers; what the context manager does at its end. More may be observed without them."""
        writers, self._writers = self._writers, ()
        for writer in writers:
            writer.close(None if self._book.is_empty else self._book.history())

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _retain(self, step: int, report: Report) -> None:
        if self._keep == "none":
            return
        if self._keep == "worst" and any(_gravity(report) <= _gravity(kept) for kept in self._reports.values()):
            return
        if self._keep != "all":
            self._reports.clear()
        self._reports[step] = report

    def _tell(self, step: int, report: Report) -> None:
        turned = report.verdict == "sick" and self._verdict != "sick"
        self._verdict = report.verdict
        if not turned or self._on_finding == "ignore":
            return
        error = sickness(step, report)
        if self._on_finding == "raise":
            raise error
        warnings.warn(f"{error}", SickTrainingWarning, stacklevel=3)


def sickness(step: int, report: Report) -> errors.SickTraining:
    """What is said of a step at which the verdict is sick: the worst finding with its place and its fix, and how many there are."""
    grave = [finding for finding in report.findings if finding.severity == "error"]
    worst = grave[0]
    where = f", at {place(worst.location)}" if worst.location else ""
    others = f", the worst of {summary.plural(len(grave), 'error')}" if len(grave) > 1 else ""
    return errors.SickTraining(
        step=step,
        finding=f"{worst.rule}{where}{others}: {summary.told(worst)}",
        fix=clean(worst.fix),
        report=report,
    )


def check_schedule(*, every: object = _EVERY, on_finding: object = _ON_FINDING, keep: object = _KEEP, **others: object) -> None:
    """Refuse what no run can be watched by; the other options of `Monitor` are not looked at.

    Raises:
        errors.UsageError: that is it.
    """
    if not callable(every) and (not isinstance(every, int) or isinstance(every, bool) or every < 1):
        raise errors.UsageError(option="every", value=every, expected="a whole number of steps, 1 or more, or a callable that is given the step's number")
    for option, value, known in (("on_finding", on_finding, get_args(OnFinding)), ("keep", keep, get_args(Keep))):
        if value not in known:
            raise errors.UsageError(option=option, value=value, expected=", ".join(known))


def _gravity(report: Report) -> tuple[int, float]:
    return VERDICTS.index(report.verdict), report.severity
