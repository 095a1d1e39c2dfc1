"""Optional packages, imported where they are used; what is missing or broken is told in one line."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from gradflow.errors import BrokenExtra, MissingExtra


def imported(module: str, *, package: str, extra: str, needed_for: str) -> Any:
    """A module, which belongs to an optional package or needs one.

    Raises:
        MissingExtra: the package is not installed.
        BrokenExtra: it is, and its import fails.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == package:
            raise MissingExtra(package=package, extra=extra, needed_for=needed_for) from error
        raise BrokenExtra(package=package, needed_for=needed_for, error=error) from error
    except Exception as error:
        raise BrokenExtra(package=package, needed_for=needed_for, error=error) from error
