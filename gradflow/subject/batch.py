"""The batch that is run: from --input, from a file, from the model file, or inferred; in that order. Deterministic in its seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from gradflow import records
from gradflow.errors import BadInputSpec, NotInputs, TargetFileError
from gradflow.subject.batch_file import check_batch_file, read_batch
from gradflow.subject.infer import Guess, infer, vocabulary
from gradflow.subject.inputs import InputSpec
from gradflow.subject.seeding import seeded, stream
from gradflow.subject.signature import check_fit, forward_of
from gradflow.subject.structure import described, dtype_name, replaced, sizes, tensors
from gradflow.subject.target import Loaded
from gradflow.subject.trace import user_traceback
from gradflow.subject.transformer_inputs import infer_transformers, is_transformers

_INPUT_KEYS = ("inputs", "input", "x")
_TARGET_KEYS = ("targets", "target", "labels", "label", "y")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What forward is called with.

    Attributes:
        args, kwargs: passed as they are; containers of tensors are allowed inside.
        records: every tensor in them, in order.
        targets: what a loss compares with, None if nothing was given.
        notes: what was assumed.
    """

    args: tuple[object, ...]
    kwargs: dict[str, object]
    records: tuple[records.Input, ...]
    targets: object | None = None
    notes: tuple[str, ...] = ()


def given_batch(inputs: object) -> Batch:
    """A batch from what was given: a tensor is one positional argument, a tuple or list are several, a mapping are keyword arguments, and a
    callable is called without arguments and returns one of these. Nothing is moved or cast.

    Raises:
        NotInputs: anything else. What a callable raises goes through.
    """
    return _given(inputs, what="The given input", source="given", model=None)


def check_inputs(specs: Sequence[str], batch_file: Path | None) -> None:
    """Check what can be known of the inputs before a model is built.

    Raises:
        BadInputSpec: one is not of the grammar, a name comes twice, or there is a batch file as well.
        BatchFileError: as `check_batch_file`.
    """
    if specs and batch_file is not None:
        raise BadInputSpec(spec=specs[0], reason="--batch gives the inputs already; give one of the two")
    names = [spec.name for spec in map(InputSpec.parse, specs) if spec.name is not None]
    for name in names:
        if names.count(name) > 1:
            raise BadInputSpec(spec=name, reason="this name is given twice")
    if batch_file is not None:
        check_batch_file(batch_file)


def choose_batch(
    loaded: Loaded,
    *,
    specs: Sequence[str] = (),
    batch_file: Path | None = None,
    seed: int,
    device: torch.device | str,
    dtype: torch.dtype | None,
) -> Batch:
    """The batch for a target, on `device`, with floating tensors cast to `dtype` unless it is None.

    `specs` win, then `batch_file`, then the model file's `inputs`, then what the library tells, then the first weighted layer. A batch file with
    exactly two keys, one of inputs/input/x and one of targets/target/labels/label/y, is split into inputs and targets unless forward takes both names;
    another dict is passed by keyword if forward takes all its names, and by position if it has one entry.

    Raises:
        InputError: the subclass says what is wrong with the spec, the file or the inputs, or that none is known.
        TargetFileError: the model file's `inputs` or `targets` is a function that failed.
    """
    if specs:
        check_inputs(specs, batch_file)
        batch = _from_specs(loaded.model, specs, seed)
    elif batch_file is not None:
        batch = _from_file(loaded.model, batch_file)
    elif loaded.inputs is not None:
        batch = _from_loaded(loaded, seed)
    else:
        guess = infer_transformers(loaded.model) if is_transformers(loaded.model) else infer(loaded.model)
        batch = _from_guess(loaded.model, guess, seed)
    if batch.targets is None:
        batch = replace(batch, targets=_called(loaded, loaded.targets, "targets", seed))
    return _placed(loaded.model, batch, torch.device(device), dtype)


def _from_loaded(loaded: Loaded, seed: int) -> Batch:
    own = loaded.family == "given"
    inputs = _called(loaded, loaded.inputs, "inputs", seed)
    return _given(inputs, what="The given input" if own else f"`inputs` of {loaded.spec}", source="given" if own else loaded.inputs_source, model=loaded.model)


def _called(loaded: Loaded, value: object, name: str, seed: int) -> object:
    """`value`, or what it returns if it is a function of the model file; it draws under the seed and leaves the global generators alone."""
    if isinstance(value, torch.Tensor) or not callable(value):
        return value
    try:
        with seeded(seed):
            result: object = value()
    except (Exception, SystemExit) as error:
        if loaded.family == "given":
            raise
        raise TargetFileError(target=loaded.spec, action=f"making its `{name}`", error=error, traceback=user_traceback(error)) from error
    return result


def _given(inputs: object, *, what: str, source: str, model: torch.nn.Module | None) -> Batch:
    if callable(inputs) and not isinstance(inputs, torch.Tensor):
        inputs = inputs()
    if isinstance(inputs, torch.Tensor):
        return _recorded((inputs,), {}, source, model)
    if isinstance(inputs, Mapping):
        if not all(isinstance(key, str) for key in inputs):
            raise NotInputs(what=what, found=f"a {type(inputs).__name__} whose keys are not all strings")
        return _recorded((), {str(key): value for key, value in inputs.items()}, source, model)
    if isinstance(inputs, tuple) and hasattr(inputs, "_fields"):
        return _recorded((inputs,), {}, source, model)
    if isinstance(inputs, (tuple, list)):
        return _recorded(tuple(inputs), {}, source, model)
    raise NotInputs(what=what, found=described(inputs))


def _recorded(args: tuple[object, ...], kwargs: dict[str, object], source: str, model: torch.nn.Module | None, notes: tuple[str, ...] = ()) -> Batch:
    known = forward_of(model).positional if model is not None else ()
    named = [(known[index] if index < len(known) else f"input[{index}]", value) for index, value in enumerate(args)] + list(kwargs.items())
    found = tuple(
        records.Input(name=path, dtype=dtype_name(tensor.dtype), shape=sizes(tensor), source=source)
        for name, value in named
        for path, tensor in tensors(value, name)
    )
    return Batch(args=args, kwargs=kwargs, records=found, notes=notes)


def _from_specs(model: torch.nn.Module, texts: Sequence[str], seed: int) -> Batch:
    specs = [InputSpec.parse(text) for text in texts]
    names = [spec.name for spec in specs if spec.name is not None]
    check_fit(model, len(specs) - len(names), names)
    notes: list[str] = []
    return _drawn(model, [_bounded(model, spec, notes) for spec in specs], "--input", seed, notes=tuple(notes))


def _bounded(model: torch.nn.Module, spec: InputSpec, notes: list[str]) -> InputSpec:
    """The spec with a HIGH: the vocabulary of the model's first embedding, and 2 for a mask or where there is none."""
    if not spec.is_integer or spec.high is not None:
        return spec
    table = None if "mask" in (spec.name or "") else vocabulary(model)
    assert spec.dtype is not None  # integers have one
    high = min(table[1], torch.iinfo(spec.dtype).max) if table is not None else 2
    why = f"the size of the embedding {table[0]}" if table is not None else "no embedding says otherwise"
    notes.append(f"--input {spec} has no <HIGH: integers were drawn below {high} ({why})")
    return replace(spec, high=high)


def _from_guess(model: torch.nn.Module, guess: Guess, seed: int) -> Batch:
    return _drawn(model, guess.specs, guess.source, seed, same=guess.same)


def _drawn(
    model: torch.nn.Module,
    specs: Sequence[InputSpec],
    source: str,
    seed: int,
    *,
    same: tuple[tuple[str, int], ...] = (),
    notes: tuple[str, ...] = (),
) -> Batch:
    generator = stream(seed, "inputs")
    default = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())
    values = [spec.drawn(generator, default) for spec in specs]
    args = tuple(value for spec, value in zip(specs, values, strict=True) if spec.name is None)
    kwargs: dict[str, object] = {spec.name: value for spec, value in zip(specs, values, strict=True) if spec.name is not None}
    kwargs.update((name, values[index].clone()) for name, index in same)
    return _recorded(args, kwargs, f"{source}, drawn at random with seed {seed}", model, notes)


def _from_file(model: torch.nn.Module, path: Path) -> Batch:
    content, targets = _split(model, read_batch(path))
    forward = forward_of(model)
    if isinstance(content, Mapping) and len(content) == 1 and not forward.accepts(str(next(iter(content)))):
        content = next(iter(content.values()))
    batch = _given(content, what=f"The content of {path}", source=f"--batch {path}", model=model)
    check_fit(model, len(batch.args), list(batch.kwargs))
    return replace(batch, targets=targets)


def _split(model: torch.nn.Module, content: object) -> tuple[object, object | None]:
    if not isinstance(content, Mapping) or len(content) != 2:
        return content, None
    inputs = next((key for key in _INPUT_KEYS if key in content), None)
    targets = next((key for key in _TARGET_KEYS if key in content), None)
    own = forward_of(model).keywords
    if inputs is None or targets is None or (inputs in own and targets in own):
        return content, None
    return content[inputs], content[targets]


def _placed(model: torch.nn.Module, batch: Batch, device: torch.device, dtype: torch.dtype | None) -> Batch:
    """Moved and cast. A tensor that appears twice stays one tensor, so that an input that is its own target remains so."""
    moved: dict[int, torch.Tensor] = {}

    def move(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in moved:
            cast = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
            moved[id(tensor)] = tensor.to(device=device, dtype=cast)
        return moved[id(tensor)]

    args = tuple(replaced(value, move) for value in batch.args)
    kwargs = {name: replaced(value, move) for name, value in batch.kwargs.items()}
    source = batch.records[0].source if batch.records else ""
    placed = _recorded(args, kwargs, source, model, batch.notes)
    return replace(placed, targets=replaced(batch.targets, move))
