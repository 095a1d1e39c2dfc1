"""One batch forward, inside the guard and under the recorder's eyes; what the model raises is told as its own failure."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from gradflow import errors
from gradflow.guard import ParameterKeeper, eager, evaluate, plain_checkpoints, undisturbed, without_collections
from gradflow.recorder import Recorder
from gradflow.subject import Batch, Objective, Roots, differentiable_outputs, user_traceback
from gradflow.subject.failing import failing_module, place, takes
from gradflow.subject.seeding import seed_everything
from gradflow.subject.structure import described, replaced, tensors


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a batch is run. `amp` is "bf16", "fp16" or None; `evaluate` puts the model in eval mode for the run; `probes` and `spectrum` measure more."""

    seed: int = 0
    amp: str | None = None
    evaluate: bool = False
    probes: int = 0
    spectrum: bool = False


@dataclass(kw_only=True)
class Forward:
    roots: Roots
    recorder: Recorder
    inputs: tuple[tuple[str, Tensor], ...]
    sources: dict[str, Tensor]
    seconds: float
    outputs: tuple[Tensor, ...] = field(default=())


Result = TypeVar("Result")
Then = Callable[[nn.Module, Forward, Settings, bool], Result]
Around = Callable[[Recorder, Sequence[tuple[str, Tensor]]], AbstractContextManager[object]]


def tracked(modules: tuple[nn.Module, ...], batch: Batch, objective: Objective, settings: Settings, then: Then[Result], around: Around | None = None) -> Result:
    """Run `batch` forward inside the guard and hand the forward to `then`; its last argument says whether the inputs are on the tape. Errors as `observe`.

    `around` makes a context from the recorder and the model's own copies of its inputs, by name, in which the forward and the loss run.
    """
    for record in batch.records:
        if 0 in record.shape:
            raise errors.EmptyBatch(name=record.name, shape=record.shape)
    trackable = any(t.is_floating_point() or t.is_complex() for _, t in tensors((batch.args, batch.kwargs), "input"))
    if trackable:
        try:
            return _run(modules, batch, objective, settings, then, around, track=True)
        except errors.ModelFailed as failure:
            if failure.phase != "forward pass" or "grad" not in str(failure):
                raise  # an input that requires a gradient is not what it stumbled over
    return _run(modules, batch, objective, settings, then, around, track=False)


def _run(
    modules: tuple[nn.Module, ...], batch: Batch, objective: Objective, settings: Settings, then: Then[Result], around: Around | None, *, track: bool
) -> Result:
    model = modules[0]
    with undisturbed(*modules) as keeper, plain_checkpoints(), eager():
        if settings.evaluate:
            evaluate(model)
        seed_everything(settings.seed)
        forward = _forward(model, batch, objective, settings, keeper, around, track=track)
        with without_collections():
            return then(model, forward, settings, track)


def _forward(
    model: nn.Module, batch: Batch, objective: Objective, settings: Settings, keeper: ParameterKeeper, around: Around | None, *, track: bool
) -> Forward:
    sources: dict[str, Tensor] = {}
    named: list[tuple[str, Tensor]] = []
    names = iter([record.name for record in batch.records])

    copies: dict[int, Tensor] = {}

    def own(tensor: Tensor) -> Tensor:
        """The model's own copy, one for each tensor: the caller's stays as it is whatever the model does in place."""
        if id(tensor) not in copies:
            name = next(names, f"input_{len(named)}")
            leaf = tensor.clone() if tensor.is_inference() else tensor.detach()
            if track and (leaf.is_floating_point() or leaf.is_complex()):
                leaf = sources[name] = leaf.requires_grad_()
            copies[id(tensor)] = leaf.clone()
            named.append((name, copies[id(tensor)]))
        return copies[id(tensor)]

    args, kwargs = cast(tuple[tuple[object, ...], dict[str, object]], replaced((batch.args, dict(batch.kwargs)), own))
    recorder = Recorder(model, keeper.before_write)
    recorder.watch_inputs(iter(named))
    began = now()
    with recorder, _autocast(settings.amp, model), nullcontext() if around is None else around(recorder, named):
        hint = f"It was called with {_described(batch)}; other inputs are given with --input or --batch."
        with blame("forward pass", hint, model):
            output = model(*args, **kwargs)
        with blame("loss", f"The output was {described(output)}."), _name_cuts(recorder):
            roots = objective(output)
    seconds = now() - began
    ends = {id(t) for t in roots.tensors} if all(c is None for c in roots.cotangents) else set()
    outputs = tuple(t for _, t in differentiable_outputs(output) if id(t) not in ends) or roots.tensors
    return Forward(roots=roots, recorder=recorder, inputs=tuple(named), sources=sources, seconds=seconds, outputs=outputs)


def _described(batch: Batch) -> str:
    return ", ".join(f"{r.name} {r.dtype}[{','.join(map(str, r.shape))}] ({r.source})" for r in batch.records) or "no tensors"


@contextmanager
def _name_cuts(recorder: Recorder) -> Iterator[None]:
    """An output without a gradient: say where it was cut, if it was."""
    try:
        yield
    except errors.NoGradient as error:
        places = dict.fromkeys(f"{origin.ops[-1]}() at {origin.location}" for origin in recorder.cuts[-3:] if origin.location)
        if places:
            error.detail = f"A gradient was cut by {', '.join(places)}."
        raise


@contextmanager
def blame(phase: str, hint: str = "", model: nn.Module | None = None) -> Iterator[None]:
    """What the model raises, sys.exit() included, becomes a ModelFailed; gradflow's own errors and Ctrl-C go through.

    Args:
        hint: what to do about it.
        model: in whose modules the exception is looked for.
    """
    try:
        yield
    except errors.GradflowError:
        raise
    except (Exception, SystemExit) as error:
        found = None if model is None else failing_module(error, model)
        hint = takes(found, error) + hint
        raise errors.ModelFailed(phase=phase, error=error, traceback=user_traceback(error), hint=hint, place=place(found)) from error


def _autocast(amp: str | None, model: nn.Module) -> AbstractContextManager[object]:
    if amp is None:
        return nullcontext()
    device = next(model.parameters()).device.type
    return torch.autocast(device, dtype={"bf16": torch.bfloat16, "fp16": torch.float16}[amp])


def now() -> float:
    """The time in seconds, with an accelerator's work done."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    return time.perf_counter()
