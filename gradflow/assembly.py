"""What is run, put together: from a target and its options, or from what a caller gives. Everything is loaded and checked before anything runs."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from gradflow import errors, records
from gradflow.guard import written
from gradflow.observe import Settings
from gradflow.ranks import check_whole
from gradflow.rules import EVERY, Rules
from gradflow.subject import Batch, Objective, check_inputs, check_loss, check_weights, choose_batch, choose_loss, given_batch, load
from gradflow.subject.structure import class_name, dtype_name, replaced, tensors

Amp = Literal["bf16", "fp16"]
_DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}
_SEEDS = 2**63  # torch takes twice as many: batches and repetitions count upward from the seed
_SAID = 100  # characters of torch's own reason; what is longer is a list of its backends
_SHORT_DTYPES = {"fp32": "float32", "fp64": "float64", "fp16": "float16", "bf16": "bfloat16", "half": "float16", "double": "float64", "float": "float32"}


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
    batches: int = 1
    probes: int = 0
    spectrum: bool = False


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is run: everything is loaded and checked.

    Attributes:
        batch, objective: the first batch and what is differentiated of it.
        batches: how many are run.
        draw: the batch and the objective of that number; batch 0 is the first.
        rules: what the report is judged by.
    """

    model: nn.Module
    batch: Batch
    objective: Objective
    settings: Settings
    spec: str
    notes: tuple[str, ...] = ()
    bystanders: tuple[nn.Module, ...] = ()
    batches: int = 1
    draw: Callable[[int], tuple[Batch, Objective]]
    rules: Rules = EVERY

    def runs(self) -> Iterator[tuple[Batch, Objective, Settings]]:
        """Each batch with what is run of it, seeded by its number; the second is drawn before the first is run.

        Raises:
            errors.SameBatch: a later batch is the first one again.
        """
        drawn = self._drawn(1) if self.batches > 1 else None
        yield self.batch, self.objective, self.settings
        for number in range(1, self.batches):
            batch, objective = drawn or self._drawn(number)
            drawn = None
            yield batch, objective, replace(self.settings, seed=self.settings.seed + number)

    def _drawn(self, number: int) -> tuple[Batch, Objective]:
        batch, objective = self.draw(number)
        if _equal(batch, self.batch):
            raise errors.SameBatch(batches=self.batches, source=batch.records[0].source if batch.records else "the given input")
        return batch, objective


def _equal(one: Batch, other: Batch) -> bool:
    """Whether two batches hold the same numbers; where neither holds a tensor, whether they are equal otherwise."""
    pairs = [[t for _, t in tensors((b.args, b.kwargs), "input")] for b in (one, other)]
    if not pairs[0] and not pairs[1]:
        return bool(one.args == other.args and one.kwargs == other.kwargs)
    return len(pairs[0]) == len(pairs[1]) and all(_same(a, b) for a, b in zip(*pairs, strict=True))


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a is b or a.layout is not torch.strided or b.layout is not torch.strided:
        return a is b  # sparse and nested tensors do not compare
    return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | (a.isnan() & b.isnan())).all())


def given(model: nn.Module, inputs: object, targets: object | None, loss: str | Callable[..., object] | None, settings: Settings, batches: int = 1) -> Subject:
    """What a caller of the Python API gives; callables for the inputs and the targets are called once for each batch.

    Raises:
        errors.UsageError: a number is out of its range.
        errors.GradflowError: as `check_model`, and what the batch and the loss raise.
    """
    check_counts(batches, settings.probes, settings.seed)
    check_model(model)
    model, notes = written(model)

    def draw(number: int) -> tuple[Batch, Objective]:
        batch = given_batch(inputs)
        return batch, choose_loss(loss=loss, targets=replaced(targets, torch.clone), model=model, seed=settings.seed + number)

    batch, objective = draw(0)
    return Subject(
        model=model, batch=batch, objective=objective, settings=settings, spec=class_name(model), notes=notes, bystanders=_modules(loss),
        batches=batches, draw=draw,
    )  # fmt: skip


def from_target(target: str, options: Options) -> Subject:
    """What the command line names.

    Raises:
        errors.GradflowError: the subclass says what is wrong, and its exit code whose fault it is.
    """
    check_options(options)
    device, dtype = torch.device(options.device), _dtype(options.dtype)
    loaded = load(target, arguments=options.arguments, weights=options.weights, seed=options.seed, trust=options.trust)
    check_model(loaded.model)
    model, compiled = written(loaded.model)
    if dtype is not None:
        model.to(dtype)
    model.to(device)

    def draw(number: int) -> tuple[Batch, Objective]:
        seed = options.seed + number
        batch = choose_batch(loaded, specs=options.inputs, batch_file=options.batch, seed=seed, device=device, dtype=dtype)
        return batch, choose_loss(loss=options.loss, targets=_placed(batch.targets, device), model=model, seed=seed, file_loss=loaded.loss)

    batch, objective = draw(0)
    settings = Settings(seed=options.seed, amp=amp_of(options.amp), evaluate=options.evaluate, probes=options.probes, spectrum=options.spectrum)
    return Subject(
        model=model, batch=batch, objective=objective, settings=settings, spec=target, notes=(*loaded.notes, *compiled, *batch.notes),
        bystanders=_modules(loaded.loss), batches=options.batches, draw=draw,
    )  # fmt: skip


def check_options(options: Options) -> None:
    """Refuse what no target could be run with, before one is loaded.

    Raises:
        errors.UsageError: a number is out of its range, or there is no such device or dtype.
        errors.InputError, errors.LossError, errors.WeightsError: an input, a loss or a file that is wrong whatever the model.
    """
    check_counts(options.batches, options.probes, options.seed)
    _check_device(options.device)
    _dtype(options.dtype)
    amp_of(options.amp)
    check_inputs(options.inputs, options.batch)
    if options.loss is not None:
        check_loss(options.loss)
    if options.weights is not None:
        check_weights(options.weights)


def check_counts(batches: object, probes: object, seed: object) -> None:
    """Refuse numbers that no run can have.

    Raises:
        errors.UsageError: fewer than one batch, fewer than no probes, or a seed that torch does not take.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < _SEEDS:
        raise errors.UsageError(option="--seed", value=seed, expected="a whole number from 0 to 2**63 - 1")
    for option, value, least in (("--batches", batches, 1), ("--probes", probes, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise errors.UsageError(option=option, value=value, expected=f"a whole number, {least} or more")


def check_model(model: object) -> None:
    """Refuse what cannot be profiled before anything runs.

    Raises:
        errors.NotAModel: it is no module (a class, a path, a function).
        errors.UninitializedModel: a lazy parameter has no shape yet.
        errors.MetaModel: a parameter has a shape and no numbers.
        errors.ShardedModel: parameters are parts of one flat tensor.
        errors.NoParameters: nothing requires a gradient.
    """
    if not isinstance(model, nn.Module):
        found = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise errors.NotAModel(target="The model", found=found)
    check_whole(model)
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise errors.UninitializedModel(name=name)
        if parameter.is_meta:
            raise errors.MetaModel(name=name)
    if not any(p.requires_grad for p in model.parameters()):
        raise errors.NoParameters(model_class=class_name(model))


def _modules(loss: object) -> tuple[nn.Module, ...]:
    return (loss,) if isinstance(loss, nn.Module) else ()


def mode_of(subject: Subject) -> Literal["train", "eval"]:
    """The mode that the run has."""
    return "train" if subject.model.training and not subject.settings.evaluate else "eval"


def target_of(subject: Subject) -> records.Target:
    """The record of what is run."""
    parameters = list(subject.model.parameters())
    return records.Target(
        spec=subject.spec,
        model_class=class_name(subject.model),
        parameters=sum(p.numel() for p in parameters),
        trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
    )


def environment_of(model: nn.Module, settings: Settings) -> records.Environment:
    """The record of where it is run."""
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


def _placed(targets: object, device: torch.device) -> object:
    return targets.to(device) if isinstance(targets, torch.Tensor) else targets


def _check_device(name: str) -> None:
    try:
        torch.empty(0, device=torch.device(name)).cpu()
    except (RuntimeError, AssertionError, ValueError, NotImplementedError, ImportError) as error:
        here = ", ".join(("cpu", *(f"{kind}:{i}" for kind, count in _accelerators() for i in range(count))))
        said = str(error).splitlines()[0]
        why = f" ({said})" if len(said) <= _SAID and "Expected one of" not in said else ""
        raise errors.UsageError(option="--device", value=name, expected=f"a device that torch can use here, one of {here}{why}") from error


def _accelerators() -> list[tuple[str, int]]:
    """The kinds of accelerators that torch sees, and how many of each."""
    found = [("cuda", torch.cuda.device_count()), ("xpu", torch.xpu.device_count()), ("mps", int(torch.backends.mps.is_available()))]
    return [(kind, count) for kind, count in found if count]


def _dtype(name: str | None) -> torch.dtype | None:
    if name is None:
        return None
    known = _SHORT_DTYPES.get(name, name)
    if known not in _DTYPES:
        raise errors.UsageError(option="--dtype", value=name, expected=f"one of {', '.join(_DTYPES)}")
    return _DTYPES[known]


def amp_of(name: str | None) -> Amp | None:
    """The autocast type by any of its spellings.

    Raises:
        errors.UsageError: it is none.
    """
    spellings: dict[str | None, Amp | None] = {None: None, "bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "float16": "fp16", "half": "fp16"}
    if name not in spellings:
        raise errors.UsageError(option="--amp", value=name, expected="bf16 or fp16")
    return spellings[name]
