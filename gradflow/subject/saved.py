"""Files written by torch.save and safetensors. Unpickles nothing but tensors and plain containers of them, `read_pickled` apart."""

from __future__ import annotations

import io
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

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


Kind = Literal["program", "package", "script", "pickle", "other"]
_PICKLE = b"\x80"
_ZIP = b"PK\x03\x04"
_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # how torch.save began a file before it wrote zips
_NAMED = 3
_HARMLESS = ("torch", "collections", "__builtin__", "builtins", "_codecs")


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A model from a saved file, with inputs that the file brings along (or a function that draws them) and where they are from."""

    model: nn.Module
    notes: tuple[str, ...] = ()
    inputs: object | None = None
    source: str = ""


def kind_of(path: Path) -> Kind:
    """What a file holds, by its first bytes and the names in it; nothing is unpickled. A damaged file is taken for what it began as."""
    with path.open("rb") as file:
        start = file.read(4)
    if start[:1] == _PICKLE:
        return "pickle"
    if start != _ZIP:
        return "other"
    names = [name.partition("/")[2] or name for name in _entries(path)] + _entries(path)
    if any(name.startswith("data/aotinductor/") for name in names):
        return "package"
    if "serialized_exported_program.json" in names or "archive_format" in names or any(n.startswith("models/") for n in names):
        return "program"
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        return "script"
    return "program" if path.suffix == ".pt2" else "pickle"


def _entries(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return []


def read_pickled(path: Path) -> object:
    """What torch.save or pickle wrote, on the CPU. This runs code that the file names."""
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
    if start.startswith(_ZIP) or start == _MAGIC:
        content: object = torch.load(path, map_location="cpu", weights_only=False)
        return content
    with path.open("rb") as file:
        return pickle.load(file)


def pickled_names(path: Path) -> str | None:
    """The first names outside of torch that a pickle would import, for a message, read without running it; None where it is no pickle."""
    try:
        data = _pickle_in(path)
    except Exception:  # whatever a damaged archive makes of its reader
        return None
    found: dict[str, None] = {}
    strings: list[str] = []
    try:
        for opcode, argument in _opcodes(data):
            if opcode == "GLOBAL" or (opcode == "STACK_GLOBAL" and len(strings) > 1):
                name = argument.replace(" ", ".") if opcode == "GLOBAL" else ".".join(strings[-2:])
                found |= {name: None} if name.partition(".")[0] not in _HARMLESS else {}
            if "UNICODE" in opcode:
                strings.append(argument)
            elif opcode != "MEMOIZE":
                strings.clear()
    except Exception:  # it is cut short, or tensors follow the pickles
        return ", ".join(list(found)[:_NAMED]) if found else None
    return ", ".join(list(found)[:_NAMED])


def _pickle_in(path: Path) -> bytes:
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def _opcodes(data: bytes) -> Iterator[tuple[str, Any]]:
    """Those of one pickle, or of the row of them that torch's first format begins with."""
    stream = io.BytesIO(data)
    while stream.tell() < len(data):
        for opcode, argument, _ in pickletools.genops(stream):
            yield opcode.name, argument
        if not data.startswith(_MAGIC):
            return
