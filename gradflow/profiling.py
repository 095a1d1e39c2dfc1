"""The wiring: subject -> observation -> accounts -> judgement -> Report. Everything else is a stranger to its neighbours."""

from __future__ import annotations

import platform
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import fx, nn
from torch.nn.parameter import is_lazy

import gradflow
from gradflow import errors, judge, records
from gradflow.accounts import account_highways, account_layers, account_opaque, account_skips, draw
from gradflow.accounts.layers import layer_rows
from gradflow.diagram import Diagram
from gradflow.guard import names_as_written, written
from gradflow.meter import weigh
from gradflow.observe import Observation, Settings, leaves_fused_path, look, observe
from gradflow.subject import Batch, Objective, choose_batch, choose_loss, given_batch, load
from gradflow.subject.structure import class_name, dtype_name, replaced
from gradflow.sums import GradientSums

Amp = Literal["bf16", "fp16"]


def profile(
    model: nn.Module,
    inputs: object,
    targets: object | None = None,
    loss: str | Callable[..., object] | None = None,
    *,
    seed: int = 0,
    amp: Amp | None = None,
    evaluate: bool = False,
) -> records.Report:
    """Profile one batch of `model` and leave the model as it was, bit for bit.

    Args:
        model: any torch module with trainable parameters, on any device.
        inputs: a tensor (one positional argument), a tuple (several), a dict (keyword arguments), or a callable that returns one of these.
        targets: what a loss of (output, targets) is given.
        loss: the name of a loss ("cross_entropy", "mse", "probe", …), or a callable of (output, targets) or (output). By default the output's `.loss`,
            a scalar output, or else "probe": a seeded Gaussian cotangent on the output.
        seed: for everything drawn at random, dropout included.
        amp: run the forward under autocast; fp16 gradients are measured under a loss scale (65536, or what a float16 output has room for) and reported
            without it.
        evaluate: put the model in eval mode for the run; by default it stays in its own mode.

    Returns:
        The report. A scalar loss's value is `report.run.loss.value`.

    Raises:
        errors.NoParameters, errors.UninitializedModel, errors.MetaModel: nothing to profile.
        errors.LossError, errors.NoGradient: nothing to differentiate.
        errors.ModelFailed: the model raised.
    """
    return _report(_given(model, inputs, targets, loss, Settings(seed=seed, amp=_amp(amp), evaluate=evaluate)))


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
    return _lifted(_given(model, inputs, targets, loss, Settings(seed=seed, amp=_amp(amp), evaluate=evaluate)))


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


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line can say about a target; see `gradflow profile --help`."""

    arguments: Mapping[str, object] = field(default_factory=dict)
    weights: Path | None = None
    inputs: Sequence[str] = ()
    batch: Path | None = None
    loss: str | None = None
    device: str = "cpu"
    dtype: str | None = None
    amp: str | None = None
    evaluate: bool = False
    seed: int = 0
    trust: bool = False


_UNTRACKED = "the model does not take inputs that require a gradient: a skip that starts at an input is not seen"
_LEDGER = defaultdict(lambda: 5e-2, {torch.float64: 1e-9, torch.complex128: 1e-9, torch.float32: 1e-3, torch.complex64: 1e-3})  # rounding, with room
_DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}
_SHORT_DTYPES = {"fp32": "float32", "fp64": "float64", "fp16": "float16", "bf16": "bfloat16", "half": "float16", "double": "float64", "float": "float32"}


def profile_target(target: str, options: Options) -> records.Report:
    """Load `target` and profile it.

    Raises:
        errors.GradflowError: the subclass says what is wrong, and its exit code whose fault it is.
    """
    return _report(_subject(target, options))


def graph_target(target: str, options: Options) -> Diagram:
    """Load `target`, run it forward and draw its graph.

    Raises:
        errors.GradflowError: as `profile_target`.
    """
    return _lifted(_subject(target, options)).diagram


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """What is run: everything is loaded and checked."""

    model: nn.Module
    batch: Batch
    objective: Objective
    settings: Settings
    spec: str
    notes: tuple[str, ...] = ()
    bystanders: tuple[nn.Module, ...] = ()


def _given(model: nn.Module, inputs: object, targets: object | None, loss: str | Callable[..., object] | None, settings: Settings) -> _Subject:
    check_model(model)
    model, notes = written(model)
    batch = given_batch(inputs)
    objective = choose_loss(loss=loss, targets=replaced(targets, torch.clone), model=model, seed=settings.seed)
    return _Subject(model=model, batch=batch, objective=objective, settings=settings, spec=class_name(model), notes=notes, bystanders=_modules(loss))


def _subject(target: str, options: Options) -> _Subject:
    device, dtype = _device(options.device), _dtype(options.dtype)
    amp = _amp(options.amp)
    loaded = load(target, arguments=options.arguments, weights=options.weights, seed=options.seed, trust=options.trust)
    check_model(loaded.model)
    model, compiled = written(loaded.model)
    if dtype is not None:
        model.to(dtype)
    model.to(device)
    batch = choose_batch(loaded, specs=options.inputs, batch_file=options.batch, seed=options.seed, device=device, dtype=dtype)
    objective = choose_loss(loss=options.loss, targets=_placed(batch.targets, device), model=model, seed=options.seed, file_loss=loaded.loss)
    settings = Settings(seed=options.seed, amp=amp, evaluate=options.evaluate)
    notes = (*loaded.notes, *compiled, *batch.notes)
    return _Subject(model=model, batch=batch, objective=objective, settings=settings, spec=target, notes=notes, bystanders=_modules(loaded.loss))


def check_model(model: object) -> None:
    """Refuse what cannot be profiled before anything runs.

    Raises:
        errors.NotAModel: it is no module (a class, a path, a function).
        errors.UninitializedModel: a lazy parameter has no shape yet.
        errors.MetaModel: a parameter has a shape and no numbers.
        errors.NoParameters: nothing requires a gradient.
    """
    if not isinstance(model, nn.Module):
        found = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise errors.NotAModel(target="The model", found=found)
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise errors.UninitializedModel(name=name)
        if parameter.is_meta:
            raise errors.MetaModel(name=name)
    if not any(p.requires_grad for p in model.parameters()):
        raise errors.NoParameters(model_class=class_name(model))


def _modules(loss: object) -> tuple[nn.Module, ...]:
    return (loss,) if isinstance(loss, nn.Module) else ()


@names_as_written
def _lifted(subject: _Subject) -> Lifted:
    model, settings = subject.model, subject.settings
    sight = look(model, subject.batch, subject.objective, settings, subject.bystanders)
    parts = draw(sight.tape.graph, sight.skips, sight.highways, class_name(model))
    opaque = account_opaque(sight, class_name(model))
    for node in sight.tape.graph.nodes:
        node.meta.pop("value", None)  # the graph outlives the tape
    diagram = Diagram(
        gradflow_version=gradflow.__version__,
        target=_target(subject),
        mode=_mode(subject),
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


def _mode(subject: _Subject) -> Literal["train", "eval"]:
    return "train" if subject.model.training and not subject.settings.evaluate else "eval"


def _target(subject: _Subject) -> records.Target:
    parameters = list(subject.model.parameters())
    return records.Target(
        spec=subject.spec,
        model_class=class_name(subject.model),
        parameters=sum(p.numel() for p in parameters),
        trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
    )


@names_as_written
def _report(subject: _Subject) -> records.Report:
    model, settings = subject.model, subject.settings
    observation = observe(model, subject.batch, subject.objective, settings, subject.bystanders)
    began, kind = time.perf_counter(), class_name(model)
    output = sum((observation.readings.values[v] for v in dict.fromkeys(observation.outputs) if v in observation.readings.values), GradientSums())
    rows = layer_rows(observation, model)
    layers = account_layers(observation, rows, model, weigh(dict(model.named_parameters())), output)
    skips = account_skips(observation, rows, kind, settings.seed)
    highways = account_highways(observation, kind, output)
    opaque = account_opaque(observation, kind)
    findings = judge.judge(layers, skips, highways)
    observation.release()
    return records.Report(
        gradflow_version=gradflow.__version__,
        environment=_environment(model, settings),
        target=_target(subject),
        run=_run(subject, observation, skips, observation.analysis_s + time.perf_counter() - began),
        layers=layers,
        skips=skips,
        highways=highways,
        findings=findings,
        verdict=judge.verdict(findings),
        severity=judge.severity(findings),
        opaque=opaque,
    )


def _environment(model: nn.Module, settings: Settings) -> records.Environment:
    parameter = next(model.parameters())
    return records.Environment(
        torch=torch.__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        device=torch.cuda.get_device_name(parameter.device) if parameter.device.type == "cuda" else str(parameter.device),
        dtype=dtype_name(parameter.dtype),
        amp=settings.amp,
        seed=settings.seed,
    )


def _run(subject: _Subject, observation: Observation, skips: Sequence[records.Skip], analysis_s: float) -> records.Run:
    model, batch, objective, settings = subject.model, subject.batch, subject.objective, subject.settings
    finite = observation.loss_value - observation.loss_value == 0
    said = [*subject.notes, *_tied(model)]
    if not observation.inputs_tracked:
        said.append(_UNTRACKED)
    worst = max((skip.ledger_error or 0.0 for skip in skips), default=0.0)
    if worst > max(_LEDGER[d] for d in (next(model.parameters()).dtype, *observation.dtypes)) * (10 if settings.amp else 1):
        said.append(f"a ledger does not close (error {worst:.2g}): a gradient hook of the model changes gradients on their way, and the highway ignores it")
    said += [
        f"gradflow could not replay {failure}; the λ and the highways that pass there are missing: please report it"
        for failure in observation.readings.failures
    ]
    if leaves_fused_path(model, settings):
        said.append("torch's fused path for frozen encoders in eval mode is not taken under hooks: values may differ from a plain run's in the last digits")
    if settings.amp == "fp16":
        said.append(f"gradients were measured under a loss scale of {observation.loss_scale:g} and are reported without it")
    return records.Run(
        mode=_mode(subject),
        inputs=batch.records,
        loss=records.Loss(
            name=objective.name,
            value=observation.loss_value if finite else None,
            source=objective.source,
            undefined={} if finite else {"value": f"it is {observation.loss_value}"},
        ),
        batches=1,
        forward_s=observation.forward_s,
        backward_s=observation.backward_s,
        analysis_s=analysis_s,
        notes=tuple(said),
    )


def _tied(model: nn.Module) -> list[str]:
    """Parameters that have a second name: they are listed once, under the first."""
    first = {p: n for n, p in model.named_parameters()}
    again = [(n, first[p]) for n, p in model.named_parameters(remove_duplicate=False) if first[p] != n]
    return [f"{name} is tied to {known} and listed there" for name, known in again]


def _placed(targets: object, device: torch.device) -> object:
    return targets.to(device) if isinstance(targets, torch.Tensor) else targets


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        raise errors.UsageError(option="--device", value=name, expected=f"a device that torch can use here ({str(error).splitlines()[0]})") from error
    return device


def _dtype(name: str | None) -> torch.dtype | None:
    if name is None:
        return None
    known = _SHORT_DTYPES.get(name, name)
    if known not in _DTYPES:
        raise errors.UsageError(option="--dtype", value=name, expected=", ".join(_DTYPES))
    return _DTYPES[known]


def _amp(name: str | None) -> Amp | None:
    spellings: dict[str | None, Amp | None] = {None: None, "bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "float16": "fp16", "half": "fp16"}
    if name not in spellings:
        raise errors.UsageError(option="amp", value=name, expected="bf16 or fp16")
    return spellings[name]
