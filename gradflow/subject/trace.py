"""Tracebacks as the user should see them: their own frames, none of gradflow's."""

from __future__ import annotations

import traceback
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_ZOO = _PACKAGE / "zoo"
_PLUMBING = ("torch/nn/modules/module.py", "importlib/__init__.py", "torch/overrides.py", "torch/autograd/__init__.py", "torch/autograd/graph.py")
_LAST = 8


def user_traceback(error: BaseException) -> str:
    """The last frames of `error` that are the user's or the model's, formatted as Python does, without the exception itself.

    Frames in gradflow (its zoo counts as the model's own), in importlib and in the machinery of torch that calls modules and runs backward are left out.
    Where Python could not even parse a file, there is no frame: then the line with the mistake is shown. Empty if nothing is left.
    """
    if isinstance(error, SyntaxError):
        return "".join(traceback.format_exception_only(error)).rstrip("\n")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    return "".join(traceback.format_list(frames[-_LAST:])).rstrip("\n")


def root_cause(error: BaseException) -> BaseException:
    """The first exception of a chain: what a lazy importer's "could not import module" hides."""
    seen = {id(error)}
    while (earlier := error.__cause__ or error.__context__) is not None and id(earlier) not in seen:
        seen.add(id(earlier))
        error = earlier
    return error


def _is_users(filename: str) -> bool:
    if filename.startswith("<frozen ") or filename.replace("\\", "/").endswith(_PLUMBING):
        return False
    path = Path(filename)
    return _ZOO in path.parents or _PACKAGE not in path.parents
