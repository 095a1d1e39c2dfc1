"""What can go wrong. Each kind owns its text, its remedy and its exit code.

An error answers "whose fault is it?": exit code 2 means that the target, the input or the usage is wrong, exit code 3 that the model itself failed.
Callers supply fields, never sentences.
"""

from __future__ import annotations

from collections.abc import Sequence


class GradflowError(Exception):
    """Base of everything that gradflow raises on purpose.

    Attributes:
        exit_code: the exit code of the command line.
        fact: what is wrong, and where.
        remedy: what to do about it.
        detail: lines shown below the message (a trimmed traceback, a list of keys); may be empty.
    """

    exit_code = 2

    def __init__(self, fact: str, remedy: str, detail: str = "") -> None:
        super().__init__(f"{fact}\n{remedy}" if remedy else fact)
        self.fact = fact
        self.remedy = remedy
        self.detail = detail


def reason_of(error: OSError) -> str:
    """What the system says of a file that cannot be read or written, as a part of a sentence: "no such file or directory"."""
    return "it is a folder" if isinstance(error, IsADirectoryError) else (error.strerror or "").lower() or str(error)


class UsageError(GradflowError):
    """An option has a value that it cannot have."""

    def __init__(self, *, option: str, value: object, expected: str) -> None:
        super().__init__(f"{option}: {str(value) or 'an empty word'} is not valid.", f"Expected {expected}.")


class ConfigurationError(GradflowError):
    """`[tool.gradflow]` says something that it cannot say, or there is nothing that it could be said to."""

    def __init__(self, *, place: str, reason: str, remedy: str) -> None:
        super().__init__(f"{place}: {reason}.", remedy)


class SameBatch(GradflowError):
    """Several batches were asked for, and there is one."""

    def __init__(self, *, batches: int, source: str) -> None:
        super().__init__(
            f"--batches {batches} needs batches that differ, and a later one is the first again ({source}).",
            "Make `inputs` a function that returns a new batch at each call, or let gradflow draw them with --input.",
        )


class NothingObserved(GradflowError):
    """A run's history is asked for before any of its steps was sampled."""

    def __init__(self, *, steps: int) -> None:
        super().__init__(
            f"There is no history: of {steps} observed steps none was sampled.",
            "Call monitor.observe(inputs, targets, loss) at each step, and give an `every` that some step fulfils.",
        )


class SickTraining(GradflowError):
    """The gradient flow of a training run turned sick, and the run was to stop there.

    Attributes:
        step: the sampled step.
        report: what was measured there, a `gradflow.Report`.
    """

    exit_code = 1

    def __init__(self, *, step: int, finding: str, fix: str, report: object) -> None:
        super().__init__(f"The gradient flow turned sick at step {step}: {finding}", fix)
        self.step = step
        self.report = report


class TargetError(GradflowError):
    """The target names nothing that can be profiled."""


class UnknownTarget(TargetError):
    def __init__(self, *, target: str, reason: str, suggestions: Sequence[str] = ()) -> None:
        near = f" Did you mean {' or '.join(suggestions)}?" if suggestions else ""
        super().__init__(
            f"Cannot find the target {target!r}: {reason}.",
            f"Use model.py, model.py:NAME, package.module:NAME, torchvision:NAME, timm:NAME, hf:MODEL_TYPE or a saved model.{near}",
        )


class TargetFileError(TargetError):
    """The user's file or module raised while it was imported, or while it built its model; or a library did while it built one."""

    def __init__(self, *, target: str, action: str, error: BaseException, traceback: str) -> None:
        library = target.startswith(("hf:", "timm:", "torchvision:"))
        remedy = "Change the --arg values it was built with" if library else _remedy_of(target, error) or "Mend the file so that it runs under plain Python"
        super().__init__(f"{target} failed while {action}: {type(error).__name__}: {error}", f"{remedy}; the last frames are below.", traceback)


def _remedy_of(target: str, error: BaseException) -> str:
    """What mends an error that has one usual cause; empty for others."""
    if isinstance(error, SystemExit):
        return "The file is imported, not run: put what reads the command line or ends the program below `if __name__ == '__main__':`"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"Install {error.name!r} beside gradflow, or run gradflow in the folder from which `import {error.name}` works"
    if isinstance(error, ImportError) and "relative import" in str(error):
        return "A file by its path belongs to no package: name it as package.module:NAME, from the folder that holds the package"
    return ""


class NotAModel(TargetError):
    def __init__(self, *, target: str, found: str, candidates: Sequence[str] = ()) -> None:
        names = f" This file also defines: {', '.join(candidates)}; name one as FILE:NAME." if candidates else ""
        super().__init__(
            f"{target} is {found}, not a torch.nn.Module or a callable that builds one.",
            f"Define `model` (a module, or a function that returns one) or name it in the target.{names}",
        )


class MissingExtra(TargetError):
    def __init__(self, *, package: str, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the package {package!r}, which is not installed.",
            f"Install it: pip install {package} (gradflow's extra [{extra}] names it too).",
        )


class NoParameters(TargetError):
    def __init__(self, *, model_class: str) -> None:
        super().__init__(
            f"{model_class} has no parameters that require a gradient, so there is no gradient flow to profile.",
            "Profile a model with trainable parameters; check that it was not frozen by requires_grad_(False).",
        )


class UninitializedModel(TargetError):
    def __init__(self, *, name: str) -> None:
        super().__init__(
            f"Parameter {name!r} is not initialised yet: its lazy module has not seen an input.",
            "Run one forward pass of the model before it is profiled (in a model file: before `model` is assigned).",
        )


class MetaModel(TargetError):
    def __init__(self, *, name: str) -> None:
        super().__init__(
            f"Parameter {name!r} is on the meta device: it has a shape and no numbers.",
            "Build the model on a real device, or fill it there: model.to_empty(device='cpu') and load_state_dict.",
        )


class ShardedModel(TargetError):
    def __init__(self, *, name: str) -> None:
        super().__init__(
            f"{name or 'The model'} is held by FullyShardedDataParallel, which makes its parameters parts of one flat tensor: they cannot be profiled.",
            "Profile the module before it is wrapped, or shard it with torch.distributed.fsdp.fully_shard, which can be profiled as it is.",
        )


class RanksMissing(TargetError):
    """A model that needs several processes is profiled by some of them."""

    def __init__(self, *, ranks: int, seconds: float) -> None:
        super().__init__(
            f"The model runs on {ranks} processes together (its parameters are sharded, or its batch norm is synchronised), and not all of them came to"
            f" profile it within {seconds:g} s of each other.",
            "Call gradflow at the same step on each of them, or profile the model before it is distributed.",
        )


class ArgumentError(TargetError):
    def __init__(self, *, argument: str, reason: str, remedy: str = "Write --arg name=value with a Python literal, e.g. --arg depth=20.") -> None:
        super().__init__(f"--arg {argument}: {reason}.", remedy)


class NoSuchName(TargetError):
    """The file or module exists, the name in it does not."""

    def __init__(self, *, place: str, name: str, candidates: Sequence[str] = (), suggestions: Sequence[str] = ()) -> None:
        near = f" Did you mean {' or '.join(suggestions)}?" if suggestions else ""
        names = f" It defines: {', '.join(candidates)}; name one as {place}:NAME." if candidates else ""
        super().__init__(
            f"{place} defines no {name!r}.",
            f"Define `{name}` there (a module, or a function that returns one).{near}{names}",
        )


class UnsupportedTarget(TargetError):
    def __init__(
        self, *, target: str, what: str, remedy: str = "Write a model file that builds the module, and give saved weights with --weights FILE."
    ) -> None:
        super().__init__(f"{target} is {what}, which is no target.", remedy)


class UntrustedCode(TargetError):
    def __init__(self, *, target: str, what: str) -> None:
        super().__init__(f"{target} asks to run {what}.", "Give --trust if you trust whoever wrote it.")


class SavedFileError(TargetError):
    """A saved model that cannot be read."""

    def __init__(self, *, target: str, reason: str, remedy: str, detail: str = "") -> None:
        super().__init__(f"Cannot load the model in {target}: {reason}.", remedy, detail)


class WeightsWithoutModel(TargetError):
    def __init__(self, *, target: str, tensors: int) -> None:
        super().__init__(
            f"{target} holds a state dict ({tensors} tensors), which is weights without a model.",
            f"Name the model as the target and give the file with --weights {target}.",
        )


class FixedMode(TargetError):
    def __init__(self, *, model_class: str) -> None:
        super().__init__(
            f"{model_class} is an exported program: its mode was fixed when it was exported, and cannot be changed.",
            "Leave out --eval, or export the model again in eval mode.",
        )


class BrokenExtra(TargetError):
    """An optional package is installed, but importing it fails; `error` is the root cause."""

    def __init__(self, *, package: str, needed_for: str, error: BaseException) -> None:
        super().__init__(
            f"{needed_for} needs the package {package!r}, which is installed but cannot be imported: {type(error).__name__}: {error}",
            f"Make `python -c 'import {package}'` work; often its version does not match that of torch or of another package.",
        )


class MissingArguments(TargetError):
    def __init__(self, *, target: str, names: Sequence[str]) -> None:
        super().__init__(
            f"{target} cannot be built without {', '.join(names)}.",
            f"Give {' '.join(f'--arg {name}=VALUE' for name in names)}, or name a function that needs no arguments.",
        )


class WeightsError(GradflowError):
    def __init__(self, *, file: str, reason: str, remedy: str, detail: str = "") -> None:
        super().__init__(f"Cannot load the weights in {file}: {reason}.", remedy, detail)


class InputError(GradflowError):
    """The input, the batch file or the targets are wrong."""


class BadInputSpec(InputError):
    def __init__(self, *, spec: str, reason: str) -> None:
        super().__init__(
            f"--input {spec!r}: {reason}.",
            "Write SHAPE as 8x3x224x224, or NAME=DTYPE[SHAPE]<HIGH such as ids=int64[2,128]<50257.",
        )


class NoInput(InputError):
    """No input can be guessed; `names` are of those that forward needs, where they are known."""

    def __init__(self, *, model_class: str, reason: str, names: Sequence[str] = ()) -> None:
        flags = " ".join(f"--input {name}=SHAPE" for name in names)
        what = f"{flags} (a SHAPE is 8x32, or 'int64[8,32]<100' for indices below 100)" if names else "one with --input 8x3x224x224"
        super().__init__(f"No input is known for {model_class}: {reason}.", f"Give {what}, with --batch FILE, or define `inputs` in the model file.")


class WrongInputs(InputError):
    """The inputs do not fit the signature of the model's forward."""

    def __init__(self, *, model_class: str, reason: str, accepted: Sequence[str], suggestions: Sequence[str] = ()) -> None:
        near = f" Did you mean {' or '.join(suggestions)}?" if suggestions else ""
        super().__init__(f"The inputs do not fit {model_class}.forward: {reason}.", f"It takes: {', '.join(accepted) or 'nothing'}.{near}")


class NotInputs(InputError):
    def __init__(self, *, what: str, found: str) -> None:
        super().__init__(
            f"{what} is {found}, which cannot be passed to a model.",
            "Give a tensor, a tuple or list (positional arguments), a dict with string keys (keyword arguments), or a callable that returns one.",
        )


class EmptyBatch(InputError):
    def __init__(self, *, name: str, shape: Sequence[int]) -> None:
        super().__init__(f"Input {name} of shape {list(shape)} has no elements: nothing can flow back.", "Give a batch of at least one sample.")


class BatchFileError(InputError):
    def __init__(self, *, file: str, reason: str, remedy: str = "Give a .pt, .npz or .safetensors file that holds tensors.") -> None:
        super().__init__(f"Cannot read the batch {file}: {reason}.", remedy)


class LossError(GradflowError):
    def __init__(self, *, loss: str, reason: str, remedy: str) -> None:
        super().__init__(f"Loss {loss!r}: {reason}.", remedy)


class NoGradient(GradflowError):
    """The output or loss has no gradient: nothing to walk back from."""

    def __init__(self, *, what: str, found: str) -> None:
        super().__init__(
            f"{what} has no gradient: it is {found}.",
            "Return a floating-point tensor computed from the parameters; look for detach(), no_grad(), argmax() or .item() on the way, or give --loss.",
        )


class OutputFileError(GradflowError):
    def __init__(self, *, file: str, reason: str) -> None:
        super().__init__(f"Cannot write {file}: {reason}.", "Name a file in a folder that exists and can be written.")


class RecordFileError(GradflowError):
    """A report, a check or a baseline that cannot be read back."""

    def __init__(self, *, file: str, reason: str, remedy: str) -> None:
        super().__init__(f"Cannot read {file}: {reason}.", remedy)


class ForeignRecord(RecordFileError):
    """A file that gradflow wrote, and that is something else than what is asked for."""

    def __init__(self, *, file: str, what: str, wanted: str, remedy: str) -> None:
        super().__init__(file=file, reason=f"it is {what}, not {wanted}", remedy=remedy)


_IN_PLACE = "An operation in place (+=, relu_(), x[...] = …) overwrote what the backward pass needs: make a new tensor there."


class ModelFailed(GradflowError):
    """The model raised in forward, in its loss or in backward; or ended the process there, as sys.exit does."""

    exit_code = 3

    def __init__(self, *, phase: str, error: BaseException, traceback: str, hint: str = "", place: str = "") -> None:
        super().__init__(
            f"The model failed in its {phase}{place}: {type(error).__name__}: {error}",
            " ".join(part for part in (hint, _IN_PLACE if "inplace operation" in str(error) else "", "Its own frames are below." if traceback else "") if part),
            traceback,
        )
        self.phase = phase
