"""A Report as a picture. Here stand the names that people give; matplotlib is imported by the modules of this package alone, when something is drawn."""

from enum import Enum


class PanelName(str, Enum):
    """The panels, from top to bottom."""

    LAYERS, SKIPS, LAMBDA, SHARES, UPDATES = "layers", "skips", "lambda", "shares", "updates"


class ThemeName(str, Enum):
    """On white paper, or on a dark screen."""

    LIGHT, DARK = "light", "dark"


ENDINGS = (".png", ".svg", ".pdf")
