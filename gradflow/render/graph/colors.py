"""A colour for every kind of skip, the same in the terminal and in the drawing."""

from __future__ import annotations

from collections.abc import Mapping

TERMINAL: Mapping[str, str] = {
    "identity": "green", "scaled": "yellow", "gated": "cyan", "projection": "blue", "pooled": "bright_blue", "norm": "bright_cyan", "dropout": "bright_yellow",
    "concat": "magenta", "detached": "red", "streams": "bright_magenta",
}  # fmt: skip
PRINT: Mapping[str, str] = {
    "identity": "#2e7d32", "scaled": "#b28704", "gated": "#00838f", "projection": "#1565c0", "pooled": "#5c6bc0", "norm": "#00acc1", "dropout": "#ef6c00",
    "concat": "#8e24aa", "detached": "#c62828", "streams": "#d81b60",
}  # fmt: skip
