"""gradflow: does the gradient reach every layer, and if not, which connection is to blame?

`import gradflow` does not import torch; `gradflow.profile`, `gradflow.graph`, `gradflow.shatter`, `gradflow.assert_healthy` and `gradflow.Monitor` do, when
they are first used; `gradflow.plot` imports matplotlib alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from gradflow import notebook
from gradflow.records import History, Report
from gradflow.shatter_records import ShatterReport

if TYPE_CHECKING:
    from gradflow.asserting import assert_healthy
    from gradflow.monitoring import Monitor
    from gradflow.profiling import graph, profile
    from gradflow.render.figure.single import plot
    from gradflow.shattered import shatter

__version__ = "0.1.0"
__all__ = ["History", "Monitor", "Report", "ShatterReport", "__version__", "assert_healthy", "graph", "plot", "profile", "shatter"]

Report.views = notebook.VIEWS


def __getattr__(name: str) -> object:
    if name in ("graph", "profile"):
        return getattr(import_module("gradflow.profiling"), name)
    if name == "shatter":
        return import_module("gradflow.shattered").shatter
    if name == "assert_healthy":
        return import_module("gradflow.asserting").assert_healthy
    if name == "plot":
        return import_module("gradflow.render.figure.single").plot
    if name == "Monitor":
        return import_module("gradflow.monitoring").Monitor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
