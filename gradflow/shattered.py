"""The wiring of `gradflow shatter`: subject -> line -> two runs -> ShatterReport."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

import gradflow
from gradflow.assembly import Amp, Options, Subject, amp_of, environment_of, from_target, given, mode_of, target_of
from gradflow.guard import names_as_written
from gradflow.line import POINTS, Course, lay
from gradflow.noise import references, tells
from gradflow.observe import Settings
from gradflow.shatter_records import BROKEN, Curve, Likeness, ShatterReport
from gradflow.shattering import PAIRED, across_samples, along_line, curve, read
from gradflow.subject.structure import class_name
from gradflow.telling import Tell, nobody


def shatter(
    model: nn.Module,
    inputs: object,
    *,
    points: int = POINTS,
    lags: int | None = None,
    between: Sequence[int] | None = None,
    grid: Sequence[float] | None = None,
    seed: int = 0,
    amp: Amp | None = None,
    evaluate: bool = False,
) -> ShatterReport:
    """How the gradient of `model` changes along a line of inputs, layer by layer; the model is left as it was, bit for bit.

    Args:
        model: any torch module with trainable parameters, on any device.
        inputs: as for `gradflow.profile`; a floating-point tensor with a batch dimension is needed.
        points: inputs on the line, which are run as one batch.
        lags: the largest lag of the autocorrelation; 15 by default, or as many as the points allow.
        between: the numbers of the two samples that the line joins; 0 and 1 by default.
        grid: the ends of a grid instead, for inputs of one number; -2 and 2 by default where the input is [batch, 1].
        seed: for everything drawn at random: the cotangent on the output, and dropout.
        amp: run the forward under autocast.
        evaluate: put the model in eval mode for the run; by default it stays in its own mode.

    Raises:
        errors.UsageError: a number is outside its range.
        line.NoLine: the batch has no two points to join.
        errors.NoGradient, errors.ModelFailed: as `gradflow.profile`.
    """
    course = Course(points=points, lags=lags, between=between, grid=grid)
    return _shatter(_Task(subject=given(model, inputs, None, "probe", Settings(seed=seed, amp=amp_of(amp), evaluate=evaluate)), course=course))


def shatter_target(target: str, options: Options, course: Course, tell: Tell = nobody) -> ShatterReport:
    """Load `target` and shatter it; `tell` takes the phases.

    Raises:
        errors.GradflowError: the subclass says what is wrong, and its exit code whose fault it is.
    """
    tell(f"load {target}")
    return _shatter(_Task(subject=from_target(target, replace(options, loss="probe")), course=course), tell)


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A subject, and the line that is asked for."""

    subject: Subject
    course: Course

    @property
    def model(self) -> nn.Module:
        return self.subject.model


@names_as_written
def _shatter(task: _Task, tell: Tell = nobody) -> ShatterReport:
    subject, course = task.subject, task.course
    tell(f"forward and back along a line of {course.points} points")
    laid = lay(subject.batch, course)
    line = read(subject.model, laid.batch, course.points, subject.settings, along_line)
    pairs = {}
    if laid.samples > 1:
        tell("forward and back across the samples of the batch")
        pairs = {(r.type, r.name): r for r in read(subject.model, subject.batch, laid.samples, subject.settings, across_samples)}
    tell("comparison with white noise and Brownian motion")
    white, brownian = references(course.points, course.last_lag)
    named = {white.name: white, brownian.name: brownian}
    few = [] if tells(named) else [f"{course.points} points are too few to tell white noise from Brownian motion: what is like both counts as between"]
    curves = tuple(curve(r, pairs.get((r.type, r.name)), course.last_lag, named) for r in line)
    return ShatterReport(
        gradflow_version=gradflow.__version__,
        environment=environment_of(subject.model, subject.settings),
        target=target_of(subject),
        mode=mode_of(subject),
        inputs=subject.batch.records,
        samples=min(laid.samples, PAIRED),
        line=laid.line,
        lags=course.last_lag,
        curves=curves,
        references=(white, brownian),
        like=_like(curves),
        notes=(*subject.notes, *few, *_notes(subject, laid.samples)),
    )


def _like(curves: Sequence[Curve]) -> Likeness:
    """Of the gradient nearest the input that is measured: there a gradient has passed every layer."""
    return next((c.like for c in curves if c.like != "undefined" or c.undefined["acf"] in BROKEN), "undefined")


def _notes(subject: Subject, samples: int) -> list[str]:
    """What couples the points of the line or adds noise to it."""
    training = mode_of(subject) == "train"
    modules = [m for m in subject.model.modules() if training and m.training]
    said = []
    if any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in modules):
        said.append("batch norm in train mode couples the points: z_i is the gradient of the sum over all points of the line; --eval uncouples them")
    if any("drop" in class_name(m).lower() and (getattr(m, "p", 0) or getattr(m, "drop_prob", 0)) for m in modules):
        said.append("dropout draws a mask of its own for every point, which looks like white noise; --eval leaves it out")
    if samples > PAIRED:
        said.append(f"mean cosines are taken over the first {PAIRED} of {samples} samples")
    return said
