"""A Report as a picture. Here stand the names that people give; matplotlib is imported by the modules of this package alone, when something is drawn."""

from difflib import get_close_matches
from enum import Enum
from typing import TypeVar

from gradflow.errors import UsageError


class PanelName(str, Enum):
    """The panels, from top to bottom."""

    CALLS, TREND = "calls", "trend"
    LAYERS, SKIPS, LAMBDA, SHARES, UPDATES = "layers", "skips", "lambda", "shares", "updates"


class ThemeName(str, Enum):
    """On white paper, or on a dark screen."""

    LIGHT, DARK = "light", "dark"


Name = TypeVar("Name", bound=Enum)


def named(option: str, given: object, names: type[Name]) -> Name:
    """The panel or the theme of that name.

    Raises:
        UsageError: of `option`, with the nearest name and all of them: there is none.
    """
    try:
        return names(given)
    except ValueError as error:
        words = [str(name.value) for name in names]
        near = get_close_matches(str(given).lower(), words, n=1)
        nearest = f": the nearest is {near[0]}" if near else ""
        raise UsageError(option=option, value=given, expected=f"one of {', '.join(words)}{nearest}") from error


ENDINGS = (".png", ".svg", ".pdf")
