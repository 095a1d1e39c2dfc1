"""Imports the user's Python: a model file by its path, or a module by its name. Leaves no __pycache__ in the user's folders."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
    SourcelessFileLoader,
)
from pathlib import Path
from types import ModuleType

from gradflow.errors import NoSuchName, TargetFileError, UnknownTarget
from gradflow.subject.trace import user_traceback

FAMILIES = ("torchvision", "timm", "hf")
_TYPED = 0.8  # how alike a word is that was meant to be another one
_folders: set[str] = set()
"""Folders of the model files imported so far."""


def import_file(path: Path, target: str) -> ModuleType:
    """Import a model file under a private name, with its folder and the current one importable from now on (lazy imports need them later).

    Raises:
        TargetFileError: the file cannot be parsed, or raised while it was imported.
    """
    path = path.resolve()
    folder = str(path.parent)
    _forget_siblings(folder)
    _importable(str(Path.cwd()))
    _importable(folder)
    _folders.add(folder)
    name = f"_gradflow_target_{path.stem}_{hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest()}"
    loader = _SourceAlone(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None  # a loader is given
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up here
    try:
        loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, (Exception, SystemExit)):
            raise TargetFileError(target=target, action="being imported", error=error, traceback=user_traceback(error)) from error
        raise
    return module


def import_name(name: str, target: str) -> ModuleType:
    """Import `package.module`, the current directory included.

    Raises:
        UnknownTarget: there is no such module.
        TargetFileError: it raised while it was imported.
    """
    _importable(str(Path.cwd()))
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and (name == error.name or name.startswith(error.name + ".")):
            raise UnknownTarget(target=target, reason=f"there is no module {error.name!r}", suggestions=_near_modules(name, error.name, target)) from error
        raise TargetFileError(target=target, action="being imported", error=error, traceback=user_traceback(error)) from error


def lookup(module: ModuleType, dotted: str, place: str) -> object:
    """The object called `dotted` ("build", "ns.build") in a module.

    Raises:
        NoSuchName: there is none; the error lists what could be meant.
    """
    value: object = module
    for name in dotted.split("."):
        try:
            value = getattr(value, name)
        except AttributeError:
            known = [key for key in dir(value) if not key.startswith("_")]
            near = [f"{place}:{dotted.removesuffix(name)}{key}" for key in difflib.get_close_matches(name, known, n=2)]
            raise NoSuchName(place=place, name=dotted, candidates=candidates(module), suggestions=near) from None
    return value


def candidates(module: ModuleType) -> list[str]:
    """Names in a module that could be a target: the modules it holds, and the classes and functions that it defines itself."""
    import torch

    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and name not in ("inputs", "targets", "loss")
        and (isinstance(value, torch.nn.Module) or (_is_builder(value) and getattr(value, "__module__", None) == module.__name__))
    ]


def _is_builder(value: object) -> bool:
    import torch

    return issubclass(value, torch.nn.Module) if isinstance(value, type) else callable(value)


def current_folder_importable() -> None:
    """Classes that a pickle names may lie beside it."""
    _importable(str(Path.cwd()))
    importlib.invalidate_caches()


def _importable(folder: str) -> None:
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)
    _search(folder)


class _SourceAlone(SourceFileLoader):
    def set_data(self, path: str, data: object, *, _mode: int = 0o666) -> None:
        """Bytecode is not kept."""


class _Finder(FileFinder):
    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = super().find_spec(fullname, target)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            _search(folder)
        return spec


def _search(folder: str) -> None:
    """Whenever a module of the folder or of its packages is imported, in the model's forward too, no bytecode of it is kept; that of other modules is."""
    loaders = (ExtensionFileLoader, EXTENSION_SUFFIXES), (_SourceAlone, SOURCE_SUFFIXES), (SourcelessFileLoader, BYTECODE_SUFFIXES)
    sys.path_importer_cache[folder] = _Finder(folder, *loaders)


def _forget_siblings(folder: str) -> None:
    """Drop modules that an earlier model file imported from its own folder and that this folder has too.

    `gradflow check a/model.py b/model.py`, both with a `layers.py` beside them: without this the second would silently get the first one's layers.
    """
    here = Path(folder)
    for name, module in list(sys.modules.items()):
        top = sys.modules.get(name.partition(".")[0], module)
        file = getattr(top, "__file__", None)
        if not file or name.startswith("gradflow"):
            continue
        home = Path(file).parent.parent if Path(file).name == "__init__.py" else Path(file).parent
        if str(home) in _folders and home != here and _has(here, name.partition(".")[0]):
            del sys.modules[name]
    importlib.invalidate_caches()


def _has(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()


def _near_modules(name: str, missing: str, target: str) -> list[str]:
    parent = missing.rpartition(".")[0]
    folders = [Path(folder) for folder in getattr(sys.modules.get(parent), "__path__", ())] if parent else [Path.cwd()]
    known = {p.stem for folder in folders if folder.is_dir() for p in folder.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    prefix, rest = f"{parent}." if parent else "", target.removeprefix(name)
    if not parent and (family := difflib.get_close_matches(missing, FAMILIES, n=1, cutoff=_TYPED)):
        return [f"{family[0]}{rest}"]
    near = difflib.get_close_matches(missing.removeprefix(prefix), sorted(known), n=2)
    return [f"{prefix}{stem}{name.removeprefix(missing)}{rest}" for stem in near]
