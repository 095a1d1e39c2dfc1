"""Saved weights into a model. Unpickles nothing but tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from gradflow.errors import WeightsError
from gradflow.subject.saved import Unreadable, read_safetensors, read_torch

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
_SHOWN = 5
_SAVE = "Save the weights alone: torch.save(model.state_dict(), FILE)."


def check_weights(path: Path) -> None:
    """Check what can be known before the model is built.

    Raises:
        WeightsError: no such file, or not a kind of file that is read.
    """
    if not path.is_file():
        raise WeightsError(file=str(path), reason="there is no such file" if not path.exists() else "it is not a file", remedy="Check the path.")
    if path.suffix not in _SUFFIXES:
        raise WeightsError(file=str(path), reason=f"{path.suffix or 'no suffix'!r} is not a format that is read", remedy=f"Give one of {', '.join(_SUFFIXES)}.")


def load_weights(model: torch.nn.Module, path: Path) -> tuple[str, ...]:
    """Load the file into the model in place, as far as its keys match.

    Returns:
        Notes: which wrapper or prefix was removed, how many keys were missing and unexpected, and the first of them.

    Raises:
        WeightsError: unreadable, not a state dict, no key matches, or shapes differ.
    """
    check_weights(path)
    notes: list[str] = []
    own = {key: value for key, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    state = _without_prefix(_state(_read(path), path, notes), own, notes)
    _check_match(state, own, path)
    try:
        model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise WeightsError(file=str(path), reason="the model refused them", remedy=_SAVE, detail=str(error)) from error
    missing = _missing(state, own)
    unexpected = sorted(state.keys() - own.keys())
    if missing:
        notes.append(f"{path.name}: {len(missing)} keys of the model are not in the file: {_first(missing)}")
    if unexpected:
        notes.append(f"{path.name}: {len(unexpected)} keys of the file are not in the model: {_first(unexpected)}")
    return tuple(notes)


def _check_match(state: dict[str, torch.Tensor], own: dict[str, torch.Tensor], path: Path) -> None:
    if not own.keys() & state.keys():
        shown = f"file: {_first(sorted(state))}\nmodel: {_first(sorted(own))}"
        raise WeightsError(file=str(path), reason="none of its keys is in the model", remedy="Give the weights of this very model.", detail=shown)
    different = [
        f"{key}: {list(state[key].shape)} in the file, {list(value.shape)} in the model"
        for key, value in own.items()
        if key in state and not is_lazy(value) and state[key].shape != value.shape
    ]
    if different:
        reason = f"{len(different)} of its tensors have another shape than in the model"
        raise WeightsError(file=str(path), reason=reason, remedy="Build the model with the sizes of the file (see --arg).", detail="\n".join(different[:20]))


def _missing(state: dict[str, torch.Tensor], own: dict[str, torch.Tensor]) -> list[str]:
    """Keys that nothing was loaded for. A tensor that shares its memory with a loaded one (an output head tied to the embedding) is not missing."""
    loaded = {value.data_ptr() for key, value in own.items() if key in state and not is_lazy(value) and value.numel()}
    return [key for key, value in own.items() if key not in state and (is_lazy(value) or value.data_ptr() not in loaded)]


def is_lazy(tensor: torch.Tensor) -> bool:
    """Whether the tensor belongs to a lazy module that has seen no input: it has no shape yet."""
    return isinstance(tensor, (torch.nn.parameter.UninitializedParameter, torch.nn.parameter.UninitializedBuffer))


def _read(path: Path) -> object:
    try:
        return read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    except Unreadable as error:
        raise WeightsError(file=str(path), reason=str(error), remedy=_SAVE) from error


def _state(content: object, path: Path, notes: list[str]) -> dict[str, torch.Tensor]:
    while isinstance(content, Mapping):
        wrapper = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if wrapper is None:
            break
        notes.append(f"{path.name}: read from its entry {wrapper!r}")
        content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not any(isinstance(value, torch.Tensor) for value in content.values()):
        raise WeightsError(file=str(path), reason=f"it holds a {type(content).__name__}, not a state dict", remedy=_SAVE)
    return {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}


def _without_prefix(state: dict[str, torch.Tensor], own: Mapping[str, torch.Tensor], notes: list[str]) -> dict[str, torch.Tensor]:
    if own.keys() & state.keys():
        return state
    for prefix in _PREFIXES:
        bare = {key.removeprefix(prefix): value for key, value in state.items()}
        if own.keys() & bare.keys():
            notes.append(f"the prefix {prefix!r} was removed from the keys of the weights")
            return bare
    return state


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", …" if len(keys) > _SHOWN else "")
