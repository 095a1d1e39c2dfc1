"""Files written by torch.save and safetensors. Unpickles nothing but tensors and plain containers of them."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import torch

from gradflow.subject.families import extra


class Unreadable(Exception):
    """A file that could not be read; its text is the reason, for the caller's error."""


def read_torch(path: Path) -> object:
    """What torch.save wrote, on the CPU, with weights_only=True.

    Raises:
        Unreadable: the file is damaged, or holds more than tensors; then nothing in it was run.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on plain pickles, which are refused in the next step
            content: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise Unreadable("it holds more than tensors, or is not a torch file; it was not unpickled") from error
    except Exception as error:  # a damaged file can raise almost anything
        raise Unreadable(f"it is damaged ({type(error).__name__})") from error
    return content


def read_safetensors(path: Path) -> object:
    """The tensors of a .safetensors file by name.

    Raises:
        Unreadable: the file is damaged.
        MissingExtra: safetensors is not installed.
    """
    reader = extra("safetensors.torch", "safetensors", str(path))
    try:
        content: object = reader.load_file(path)
    except Exception as error:  # its errors have no common class but Exception
        raise Unreadable(f"it is damaged ({error})") from error
    return content
