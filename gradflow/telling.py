"""How far a run is: phases, told to whoever listens. Told between phases and never from a hook, so that no phase is longer for it."""

from __future__ import annotations

from collections.abc import Callable

Tell = Callable[[str], None]


def nobody(phase: str) -> None:
    """Nobody listens."""
