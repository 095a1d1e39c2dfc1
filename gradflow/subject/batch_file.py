"""Reads --batch files: .pt, .npz, .npy and .safetensors. Unpickles nothing but tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from gradflow.errors import BatchFileError
from gradflow.subject.saved import Unreadable, read_safetensors, read_torch

_UNNAMED = "arr_"
"""numpy's names for arrays that were saved without one."""
_SAVE = "Save tensors alone: a tensor, or a tuple, list or dict of tensors, with torch.save, numpy.savez or safetensors."


def check_batch_file(path: Path) -> None:
    """Check what can be known before a model is built.

    Raises:
        BatchFileError: no such file, or not a format that is read.
    """
    if not path.is_file():
        raise BatchFileError(file=str(path), reason="it is a folder" if path.is_dir() else "there is no such file")
    if path.suffix not in _READERS:
        raise BatchFileError(file=str(path), reason=f"{path.suffix or 'no suffix'!r} is not a format that is read")


def read_batch(path: Path) -> object:
    """The content of a batch file: a tensor, a tuple or list (positional), or a dict of names.

    Raises:
        BatchFileError: as `check_batch_file`; or it is unreadable, or holds no tensor.
        MissingExtra: a .safetensors file without the package.
    """
    check_batch_file(path)
    try:
        content = _READERS[path.suffix](path)
    except Unreadable as error:
        raise BatchFileError(file=str(path), reason=str(error), remedy=_SAVE) from error
    if content is None or isinstance(content, (int, float, str)) or (isinstance(content, (Mapping, list, tuple)) and not content):
        raise BatchFileError(file=str(path), reason=f"it holds no tensor but a {type(content).__name__}")
    return content


def _numpy(path: Path) -> object:
    try:
        with path.open("rb") as file:  # numpy leaves a file that it opened itself open if it cannot read it
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return torch.from_numpy(content)
            arrays = {name: torch.from_numpy(content[name]) for name in content.files}
    except TypeError as error:
        raise Unreadable("torch has no such dtype as one of its arrays") from error
    except Exception as error:  # pickled arrays, damaged archives
        raise Unreadable(f"numpy cannot read it without unpickling ({type(error).__name__})") from error
    if arrays and all(name.startswith(_UNNAMED) for name in arrays):
        return tuple(arrays.values())
    return arrays


_READERS: dict[str, Callable[[Path], object]] = {".pt": read_torch, ".pth": read_torch, ".npz": _numpy, ".npy": _numpy, ".safetensors": read_safetensors}
