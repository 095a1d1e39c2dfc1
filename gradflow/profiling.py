"""The wiring: subject -> observation -> accounts -> judgement -> Report. Everything else is a stranger to its neighbours."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import fx, nn

import gradflow
from gradflow import errors, judge, records
from gradflow.accounts import Tally, account, account_opaque, account_sample, draw, tally
from gradflow.assembly import Amp, Options, Subject, amp_of, environment_of, from_target, given, mode_of, target_of
from gradflow.causes import first_nonfinite, silencers
from gradflow.diagram import Diagram
from gradflow.guard import names_as_written
from gradflow.meter import weigh
from gradflow.numbers import number
from gradflow.observe import Observation, Settings, leaves_fused_path, look, observe
from gradflow.rules import EVERY, Rules, severity
from gradflow.subject import Batch, Objective
from gradflow.subject.structure import class_name
from gradflow.telling import Tell, nobody


def profile(
    model: nn.Module,
    inputs: object,
    targets: object | None = None,
    loss: str | Callable[..., object] | None = None,
    *,
    seed: int = 0,
    amp: Amp | None = None,
    evaluate: bool = False,
    batches: int = 1,
    probes: int = 0,
    spectrum: bool = False,
    rules: Rules = EVERY,
) -> records.Report:
    """Profile `model` on one batch or several, and leave the model as it was, bit for bit.

    Args:
        model: any torch module with trainable parameters, on any device.
        inputs: a tensor (one positional argument), a tuple (several), a dict (keyword arguments), or a callable that returns one of these.
        targets: what a loss of (output, targets) is given, or a callable that returns it.
        loss: the name of a loss ("cross_entropy", "mse", "probe", …), or a callable of (output, targets) or (output). By default the output's `.loss`,
            a scalar output, or else "probe": a seeded Gaussian cotangent on the output.
        seed: for everything drawn at random, dropout included.
        amp: run the forward under autocast; fp16 gradients are measured under a loss scale (65536, or what a float16 output has room for) and reported
            without it.
        evaluate: put the model in eval mode for the run; by default it stays in its own mode.
        batches: how many are run, one after another; `inputs` is then a callable that returns a new one at each call (what it draws is not seeded). Their
            sums are added.
        probes: random cotangents that are pushed down each skip path, for what it does to any gradient and not only to this loss's.
        spectrum: whether the gradient at each fork is split by how many branches it has passed (for L skips, L²/2 passes through a branch).
        rules: what the report is judged by: `gradflow.rules.choose(gradflow.rules.RULES, select, ignore, limits)`.

    Returns:
        The report. A scalar loss's value is `report.run.loss.value`.

    Raises:
        errors.NoParameters, errors.UninitializedModel, errors.MetaModel: nothing to profile.
        errors.LossError, errors.NoGradient: nothing to differentiate.
        errors.ModelFailed: the model raised.
        errors.SameBatch: `inputs` returned one batch twice.
    """
    settings = Settings(seed=seed, amp=amp_of(amp), evaluate=evaluate, probes=probes, spectrum=spectrum)
    return _report(replace(given(model, inputs, targets, loss, settings, batches), rules=rules))


def graph(
    model: nn.Module,
    inputs: object,
    targets: object | None = None,
    loss: str | Callable[..., object] | None = None,
    *,
    seed: int = 0,
    amp: Amp | None = None,
    evaluate: bool = False,
) -> Lifted:
    """Run one batch of `model` forward and lift its autograd tape to a torch.fx graph, skips marked. No backward pass is run.

    Arguments and errors are those of `profile`, and the model is left as it was.
    """
    return _lifted(given(model, inputs, targets, loss, Settings(seed=seed, amp=amp_of(amp), evaluate=evaluate)))


@dataclass(frozen=True, kw_only=True)
class Lifted:
    """A forward pass, lifted.

    Attributes:
        graph: nodes carry `shape`, `dtype`, `nn_module_stack`, `stack_trace`, `location`, and `forks` and `joins`: the ids of the skips that start and end
            there. It is for reading and not for running: of an operator's constants the tape holds only those that its backward needs.
        diagram: the same as frozen records, with the skips' paths and branches and the highways.
    """

    graph: fx.Graph
    diagram: Diagram


_UNTRACKED = "the model does not take inputs that require a gradient: a skip that starts at an input is not seen"
_LEDGER = defaultdict(lambda: 5e-2, {torch.float64: 1e-9, torch.complex128: 1e-9, torch.float32: 1e-3, torch.complex64: 1e-3})  # rounding, with room


def profile_target(target: str, options: Options, rules: Rules = EVERY, tell: Tell = nobody) -> records.Report:
    """Load `target` and profile it; findings are those of `rules`, and `tell` takes the phases.

    Raises:
        errors.GradflowError: the subclass says what is wrong, and its exit code whose fault it is.
    """
    tell(f"load {target}")
    return _report(replace(from_target(target, options), rules=rules), tell)


def graph_target(target: str, options: Options, tell: Tell = nobody) -> Diagram:
    """Load `target`, run it forward and draw its graph; `tell` takes the phases.

    Raises:
        errors.GradflowError: as `profile_target`.
    """
    tell(f"load {target}")
    subject = from_target(target, options)
    tell("forward")
    return _lifted(subject).diagram


@names_as_written
def _lifted(subject: Subject) -> Lifted:
    model, settings = subject.model, subject.settings
    sight = look(model, subject.batch, subject.objective, settings, subject.bystanders)
    parts = draw(sight.tape.graph, sight.skips, sight.highways, class_name(model))
    opaque = account_opaque(sight, class_name(model))
    for node in sight.tape.graph.nodes:
        node.meta.pop("value", None)  # the graph outlives the tape
    diagram = Diagram(
        gradflow_version=gradflow.__version__,
        target=target_of(subject),
        mode=mode_of(subject),
        inputs=subject.batch.records,
        loss=subject.objective.name,
        nodes=parts.nodes,
        edges=parts.edges,
        skips=parts.skips,
        highways=parts.highways,
        opaque=opaque,
        notes=(*subject.notes, *([] if sight.inputs_tracked else [_UNTRACKED])),
    )
    return Lifted(graph=sight.tape.graph, diagram=diagram)


@dataclass(kw_only=True)
class _Course:
    """What is noted of the runs as they go by, besides the sums."""

    forward_s: float = 0.0
    backward_s: float = 0.0
    analysis_s: float = 0.0
    inputs_tracked: bool = True
    loss_scales: set[float] = field(default_factory=set)
    dtypes: set[torch.dtype] = field(default_factory=set)
    batches: int = 0
    nonfinite: records.Nonfinite | None = None
    troubles: list[str] = field(default_factory=list)

    def note(self, observation: Observation) -> None:
        self.forward_s += observation.forward_s
        self.backward_s += observation.backward_s
        self.analysis_s += observation.analysis_s
        self.inputs_tracked &= observation.inputs_tracked
        self.loss_scales.add(observation.loss_scale)
        self.dtypes |= observation.dtypes
        self.batches += 1


@names_as_written
def _report(subject: Subject, tell: Tell = nobody) -> records.Report:
    model, settings, course = subject.model, subject.settings, _Course()
    found: Tally | None = None
    weights = None
    for run, (batch, objective, seeded) in enumerate(subject.runs(), 1):
        told = _numbered(tell, run, subject.batches)
        observation = observe(model, batch, objective, seeded, subject.bystanders, told)
        began = time.perf_counter()
        weights = weights or weigh(dict(model.named_parameters()))
        one = tally(observation, model, weights)
        found = one if found is None else found + one
        course.note(observation)
        broken = course.nonfinite is None and _is_broken(observation)
        observation.release()
        del observation  # its nodes would outlive the next forward
        if broken:
            told("search for the first value that is not finite")
            _trace(subject, batch, objective, seeded, course)
        course.analysis_s += time.perf_counter() - began
    assert found is not None  # there is a first batch
    began = time.perf_counter()
    layers, skips, highways = account(found, settings.seed, settings.probes)
    layers = _silenced(subject, layers, course)
    samples = tuple(account_sample(place) for place in found.samples)
    fp16_scale, loss = _fp16_scale(subject, course), _mean_loss(found)
    findings = judge.judge(layers, skips, highways, subject.rules, fp16_scale=fp16_scale, samples=samples, loss=loss, nonfinite=course.nonfinite)
    course.analysis_s += time.perf_counter() - began
    return records.Report(
        gradflow_version=gradflow.__version__,
        environment=environment_of(model, settings),
        target=target_of(subject),
        run=_run(subject, course, found, samples, _notes(subject, course, found, skips)),
        layers=layers,
        skips=skips,
        highways=highways,
        findings=findings,
        verdict=judge.verdict(findings),
        severity=severity(findings),
        opaque=found.opaque,
        nonfinite=course.nonfinite,
        limits=subject.rules.limits,
    )


def _numbered(tell: Tell, number: int, batches: int) -> Tell:
    """Says which batch of several it is."""
    return tell if batches == 1 else lambda phase: tell(f"batch {number} of {batches}: {phase}")


def _is_broken(observation: Observation) -> bool:
    """Whether the loss or any gradient is not finite."""
    readings = observation.readings
    gradients = (*readings.values.values(), *readings.parameters.values())
    return not math.isfinite(observation.loss_value) or any(sums.nonfinite for sums in gradients)


def _trace(subject: Subject, batch: Batch, objective: Objective, seeded: Settings, course: _Course) -> None:
    """Run a batch again and look for the operation that made what is not finite."""
    began = time.perf_counter()
    try:
        found = first_nonfinite(subject.model, batch, objective, seeded, subject.bystanders)
        course.nonfinite = None if found is None else replace(found, batch=course.batches - 1)
    except errors.GradflowError as error:
        course.troubles.append(f"where infinities and nan come from could not be told: {error}")
    course.analysis_s += time.perf_counter() - began


def _silenced(subject: Subject, layers: tuple[records.Layer, ...], course: _Course) -> tuple[records.Layer, ...]:
    """With what silences the layers that receive exactly 0, for which the first batch is run again where there are any."""
    silent = {layer.name for layer in layers if layer.gain == 0 and layer.zero_fraction == 1 and not layer.closed_by}
    if not silent:
        return layers
    try:
        by = silencers(subject.model, subject.batch, subject.objective, subject.settings, silent, subject.bystanders)
    except errors.GradflowError as error:
        course.troubles.append(f"what silences a layer could not be told: {error}")
        return layers
    return tuple(replace(layer, silenced_by=by[layer.name]) if layer.name in by else layer for layer in layers)


def _fp16_scale(subject: Subject, course: _Course) -> float | None:
    """The loss scale of a run in float16; None of any other."""
    half = subject.settings.amp == "fp16" or any(p.dtype is torch.float16 for p in subject.model.parameters())
    return max(course.loss_scales) if half else None


def _notes(subject: Subject, course: _Course, found: Tally, skips: Sequence[records.Skip]) -> tuple[str, ...]:
    model, settings = subject.model, subject.settings
    said = [*subject.notes, *_tied(model), *course.troubles]
    if not course.inputs_tracked:
        said.append(_UNTRACKED)
    worst = max((skip.ledger_error or 0.0 for skip in skips), default=0.0)
    if worst > max(_LEDGER[d] for d in (next(model.parameters()).dtype, *course.dtypes)) * (10 if settings.amp else 1):
        said.append(f"a ledger does not close (error {number(worst, 3)}): a gradient hook of the model changes gradients on the way, which the highway ignores")
    missing = "what is measured along paths that pass there is missing (please report it, unless it is a custom function)"
    said += [f"gradflow could not replay {failure}; {missing}" for failure in found.failures]
    if leaves_fused_path(model, settings):
        said.append("torch's fused path for frozen encoders in eval mode is not taken under hooks: values may differ from a plain run's in the last digits")
    if settings.amp == "fp16":
        scales = ", ".join(f"{scale:g}" for scale in sorted(course.loss_scales))
        said.append(f"gradients were measured under a loss scale of {scales} and are reported without it")
    return tuple(said)


def _mean_loss(found: Tally) -> float | None:
    """Over the batches; None where it is not finite."""
    mean = sum(found.losses) / len(found.losses)
    return mean if math.isfinite(mean) else None


def _run(subject: Subject, course: _Course, found: Tally, samples: tuple[records.SampleShare, ...], notes: tuple[str, ...]) -> records.Run:
    objective = subject.objective
    value = _mean_loss(found)
    return records.Run(
        mode=mode_of(subject),
        inputs=subject.batch.records,
        loss=records.Loss(
            name=objective.name,
            value=value,
            source=objective.source,
            undefined={} if value is not None else {"value": f"it is {sum(found.losses)}"},
        ),
        batches=subject.batches,
        forward_s=course.forward_s,
        backward_s=course.backward_s,
        analysis_s=course.analysis_s,
        notes=notes,
        sample_shares=samples,
    )


def _tied(model: nn.Module) -> list[str]:
    """Parameters that have a second name: they are listed once, under the first."""
    first = {p: n for n, p in model.named_parameters()}
    again = [(n, first[p]) for n, p in model.named_parameters(remove_duplicate=False) if first[p] != n]
    return [f"{name} is tied to {known} and listed there" for name, known in again]
