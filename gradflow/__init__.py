"""gradflow: does the gradient reach every layer, and if not, which connection is to blame?

`import gradflow` does not import torch; `gradflow.profile` does, when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from gradflow.records import Report

if TYPE_CHECKING:
    from gradflow.profiling import profile

__version__ = "0.1.0"
__all__ = ["Report", "__version__", "profile"]


def __getattr__(name: str) -> object:
    if name == "profile":
        return import_module("gradflow.profiling").profile
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
