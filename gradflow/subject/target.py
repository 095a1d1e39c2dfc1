"""Targets: from what the user typed to a module. Unpickles nothing."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, ModuleType

import torch

from gradflow.errors import ArgumentError, LossError, NotAModel, SavedFileError, UnknownTarget, UnsupportedTarget
from gradflow.subject.archives import open_archive
from gradflow.subject.arguments import build
from gradflow.subject.families import Built, from_timm, from_torchvision, from_transformers
from gradflow.subject.modules import candidates, import_file, import_name, lookup
from gradflow.subject.seeding import seed_everything
from gradflow.subject.structure import described
from gradflow.subject.weights import check_weights, load_weights

_UNSUPPORTED = {
    ".safetensors": "a file of weights without a model",
    ".onnx": "an ONNX graph",
}
_SAVED = frozenset({".pt2", ".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"})
_NOTHING: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A resolved target.

    Attributes:
        spec: the target as it was typed.
        model: the module itself.
        family: "file", "import", "saved", "torchvision", "timm", "hf", or "given" for a module that came through the Python API.
        inputs, targets, loss: what the model file defines under these names, else None. An exported program brings its inputs along.
        inputs_source: where `inputs` come from, as the report says it.
        notes: what was assumed, for the report.
    """

    spec: str
    model: torch.nn.Module
    family: str
    inputs: object | None = None
    inputs_source: str = "model file"
    targets: object | None = None
    loss: Callable[..., object] | str | None = None
    notes: tuple[str, ...] = ()


def load(target: str, *, arguments: Mapping[str, object] = _NOTHING, weights: Path | None = None, seed: int = 0, trust: bool = False) -> Loaded:
    """Resolve a target: `model.py[:NAME]`, `package.module:NAME`, `torchvision:NAME`, `timm:NAME`, `hf:MODEL_TYPE|DIR`, or a saved file.

    torch, `random` and numpy are seeded before any code of the user runs, so that the weights are reproducible; they stay seeded.

    Raises:
        TargetError: the target names nothing that can be profiled, or its code failed; the subclass says which.
        WeightsError: the weights cannot be read or do not fit.
    """
    if weights is not None:
        check_weights(weights)
    resolve = _resolver(target)
    seed_everything(seed)
    loaded = resolve(target, arguments, trust)
    if weights is None:
        return loaded
    return replace(loaded, notes=loaded.notes + load_weights(loaded.model, weights))


def _resolver(target: str) -> Callable[[str, Mapping[str, object], bool], Loaded]:
    head, colon, name = target.rpartition(":")
    if target.endswith(".py") or head.endswith(".py"):
        return _from_file
    if target.partition(":")[0] in _FAMILIES and colon and name:
        return _from_family
    if not target:
        raise UnknownTarget(target=target, reason="it is empty")
    path = Path(target)
    if path.suffix in _UNSUPPORTED:
        raise UnsupportedTarget(target=target, what=_UNSUPPORTED[path.suffix])
    is_file, is_folder = _found(path)
    if is_folder:
        inside = [str(path / file.name) for file in sorted(path.glob("*.py"))[:3]]
        raise UnknownTarget(target=target, reason="it is a folder", suggestions=[f"hf:{target}"] if (path / "config.json").is_file() else inside)
    if is_file and path.suffix == ".json":
        raise UnsupportedTarget(target=target, what="a JSON file", remedy=f"A report is drawn by gradflow plot {target} --png FILE; a target is a model.")
    if is_file:
        return _from_saved
    if path.suffix in _SAVED:
        raise UnknownTarget(target=target, reason=f"there is no file {target}", suggestions=_beside(path))
    if colon and name and all(part.isidentifier() for part in head.split(".")):
        return _from_import
    raise UnknownTarget(target=target, reason=_unreadable(target), suggestions=_guesses(target))


def _found(path: Path) -> tuple[bool, bool]:
    """Whether the path is a file, and whether a folder; neither for a text that cannot be a path, such as one of 5,000 letters."""
    try:
        return path.is_file(), path.is_dir()
    except (OSError, ValueError):
        return False, False


def _unreadable(target: str) -> str:
    if target == "-":
        return "a model is not read from standard input"
    if ":" not in target and all(part.isidentifier() for part in target.split(".")):
        return "it names no object in a module, and there is no such file"
    return "there is no such file, and it has none of the known forms"


def _guesses(target: str) -> list[str]:
    if ":" in target:
        return []
    module = Path(*target.split("."))
    if "." in target and (module.with_suffix(".py").is_file() or (module / "__init__.py").is_file()):
        return [f"{target}:NAME"]
    near = _alike(target.removesuffix(".py"), [file.name for file in Path().glob("*.py")], 1)
    return near or ([f"torchvision:{target}", f"timm:{target}"] if target.isidentifier() else [])


def _beside(path: Path) -> list[str]:
    files = [other.name for other in path.parent.glob(f"*{path.suffix}")] if _found(path.parent)[1] else []
    return [str(path.with_name(name)) for name in _alike(path.stem, files, 2)]


def _alike(stem: str, names: list[str], most: int) -> list[str]:
    """The names whose stem is like that one: folder and ending are alike in all of them."""
    stems = {Path(name).stem: name for name in names}
    return [stems[near] for near in difflib.get_close_matches(stem, stems, n=most)]


def _from_saved(target: str, arguments: Mapping[str, object], trust: bool) -> Loaded:
    path = Path(target)
    opened = open_archive(path, target=target, trust=trust)
    if opened is None and path.suffix in _SAVED:
        raise SavedFileError(target=target, reason="it is damaged, or not a file that torch wrote", remedy="Save the model again.")
    if opened is None:
        raise UnsupportedTarget(target=target, what="not a Python file")
    model = _module(opened.model, arguments, target, ())
    return Loaded(spec=target, model=model, family="saved", inputs=opened.inputs, inputs_source=opened.source, notes=opened.notes)


def _from_file(target: str, arguments: Mapping[str, object], trust: bool) -> Loaded:
    if target.endswith(".py"):
        file, name = target, "model"
    else:
        file, _, name = target.rpartition(":")
    path = Path(file)
    is_file, is_folder = _found(path)
    if is_folder:
        raise UnknownTarget(target=target, reason=f"{file} is a folder")
    if not is_file:
        raise UnknownTarget(target=target, reason=f"there is no file {file}", suggestions=_beside(path))
    if not name:
        raise UnknownTarget(target=target, reason="no name follows the colon", suggestions=[file])
    module = import_file(path, target)
    loss = _defined(module, "loss")
    return Loaded(
        spec=target,
        model=_module(lookup(module, name, file), arguments, target, candidates(module)),
        family="file",
        inputs=_defined(module, "inputs"),
        targets=_defined(module, "targets"),
        loss=_usable_loss(loss),
    )


def _from_import(target: str, arguments: Mapping[str, object], trust: bool) -> Loaded:
    head, _, name = target.rpartition(":")
    module = import_name(head, target)
    return Loaded(spec=target, model=_module(lookup(module, name, head), arguments, target, ()), family="import")


def _from_family(target: str, arguments: Mapping[str, object], trust: bool) -> Loaded:
    family, _, name = target.partition(":")
    built = _FAMILIES[family](name, arguments, target, trust)
    if not isinstance(built.model, torch.nn.Module):
        raise NotAModel(target=target, found=described(built.model))
    return Loaded(spec=target, model=built.model, family=family, notes=built.notes)


_FAMILIES: dict[str, Callable[[str, Mapping[str, object], str, bool], Built]] = {
    "torchvision": lambda name, arguments, target, trust: from_torchvision(name, arguments, target=target),
    "timm": lambda name, arguments, target, trust: from_timm(name, arguments, target=target),
    "hf": lambda name, arguments, target, trust: from_transformers(name, arguments, target=target, trust=trust),
}


def _module(value: object, arguments: Mapping[str, object], target: str, others: object) -> torch.nn.Module:
    """The module that a target's object is, or builds."""
    names = [str(name) for name in others] if isinstance(others, (list, tuple)) else []
    names = [name for name in names if name != "model"]
    if isinstance(value, torch.nn.Module):
        if arguments:
            reason = f"{target} is a module that is already built, so it takes no arguments"
            raise ArgumentError(argument=next(iter(arguments)), reason=reason, remedy="Leave --arg out, or name what builds the module.")
        return value
    if not callable(value):
        raise NotAModel(target=target, found=described(value), candidates=names)
    built = build(value, arguments, target=target)
    if not isinstance(built, torch.nn.Module):
        raise NotAModel(target=target, found=f"a callable that returned {described(built)}", candidates=names)
    return built


def _defined(module: ModuleType, name: str) -> object | None:
    """What the file calls `name`; an imported module of that name is not meant."""
    value = getattr(module, name, None)
    return None if isinstance(value, ModuleType) else value


def _usable_loss(loss: object) -> Callable[..., object] | str | None:
    if loss is None or isinstance(loss, str) or callable(loss):
        return loss
    raise LossError(loss="loss", reason=f"the model file defines it as {described(loss)}", remedy="Define a function loss(output, targets), or a name.")
