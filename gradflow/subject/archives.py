"""Saved models as targets, told apart by their content: torch.export programs, TorchScript, pickled modules."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from gradflow.errors import NotAModel, SavedFileError, TargetFileError, UntrustedCode, WeightsWithoutModel
from gradflow.subject.modules import current_folder_importable
from gradflow.subject.programs import open_program
from gradflow.subject.saved import Kind, Opened, Unreadable, kind_of, pickled_names, read_pickled, read_torch
from gradflow.subject.structure import described
from gradflow.subject.trace import user_traceback

_ENTRIES = ("model", "module", "net", "network")
"""Where a checkpoint keeps its module, the likeliest first."""
_AGAIN = "Save it again; a file that was cut short or changed cannot be mended."


def open_archive(path: Path, *, target: str, trust: bool) -> Opened | None:
    """The model in a saved file, or None for a file of no kind that is known.

    Raises:
        TargetError: damaged, without a model, or to be trusted first; the subclass says which.
    """
    kind = kind_of(path)
    opener = _OPENERS.get(kind)
    return opener(path, target, trust) if opener is not None else None


def _program(path: Path, target: str, trust: bool) -> Opened:
    return open_program(path, target=target, trust=trust)


def _package(path: Path, target: str, trust: bool) -> Opened:
    raise SavedFileError(
        target=target,
        reason="it is a package of AOTInductor: machine code, through which no gradient flows",
        remedy="Profile the program that it was compiled from: torch.export.save(program, FILE).",
    )


def _script(path: Path, target: str, trust: bool) -> Opened:
    """TorchScript's own reader is C++: it makes tensors and the types that the archive itself declares, and runs no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:  # RuntimeError for most, but not for all
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        remedy = "If it needs a library's operators, write a model file that imports the library and calls torch.jit.load; else save it again."
        raise SavedFileError(target=target, reason=reason.rstrip("."), remedy=remedy) from error
    return Opened(model=model)


def _pickled(path: Path, target: str, trust: bool) -> Opened:
    if not trust:
        raise _refusal(path, target)
    current_folder_importable()
    try:
        content = read_pickled(path)
    except (ImportError, AttributeError) as error:
        remedy = (
            "Run where its classes can be imported (the current folder is importable). A class that was defined in a script is pickled as __main__'s: "
            "move it into a module and save again, or save the state dict and give it with --weights."
        )
        raise SavedFileError(target=target, reason=f"a class in it cannot be imported ({type(error).__name__}: {error})", remedy=remedy) from error
    except (pickle.UnpicklingError, EOFError) as error:
        raise SavedFileError(target=target, reason=f"it is damaged ({type(error).__name__}: {error})", remedy=_AGAIN) from error
    except (Exception, SystemExit) as error:
        raise TargetFileError(target=target, action="being unpickled", error=error, traceback=user_traceback(error)) from error
    return _module_in(content, target)


def _refusal(path: Path, target: str) -> Exception:
    """Why a pickle is not a target as it stands: it is weights alone, or it names code."""
    try:
        content = read_torch(path)
    except Unreadable as error:
        names = pickled_names(path)
        if names is None:
            return SavedFileError(target=target, reason=str(error), remedy=_AGAIN)
        return UntrustedCode(target=target, what=f"the code that its pickle names{f' ({names})' if names else ''}: a saved module is unpickled")
    return _no_module(content, target)


def _module_in(content: object, target: str) -> Opened:
    if isinstance(content, nn.Module):
        return Opened(model=content)
    held = {str(k): v for k, v in content.items() if isinstance(v, nn.Module)} if isinstance(content, Mapping) else {}
    name = next((n for n in _ENTRIES if n in held), None) or (next(iter(held)) if len(held) == 1 else None)
    if name is None:
        raise _no_module(content, target, list(held))
    others = [n for n in held if n != name]
    note = f"the model was read from the file's entry {name!r}" + (f"; it also holds {', '.join(map(repr, others))}" if others else "")
    return Opened(model=held[name], notes=(note,))


def _no_module(content: object, target: str, held: list[str] | None = None) -> Exception:
    tensors = _tensors(content)
    if held:
        return NotAModel(target=target, found=f"a checkpoint with several modules ({', '.join(map(repr, held))})")
    return WeightsWithoutModel(target=target, tensors=tensors) if tensors else NotAModel(target=target, found=described(content))


def _tensors(content: object) -> int:
    """The number of tensors in a state dict, or in the entry of a checkpoint that is one."""
    if not isinstance(content, Mapping):
        return 0
    return sum(isinstance(v, torch.Tensor) for v in content.values()) or max((_tensors(v) for v in content.values()), default=0)


_OPENERS: dict[Kind, Callable[[Path, str, bool], Opened]] = {
    "program": _program,
    "package": _package,
    "script": _script,
    "pickle": _pickled,
}
