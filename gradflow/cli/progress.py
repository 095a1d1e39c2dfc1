"""How far a run is, on one line of standard error that goes when the run ends. Nothing where that is no terminal, a dumb one, or with --quiet.

The line is written when a phase begins and not touched until the next: no thread draws while gradients are timed, and neither standard output nor standard
error is redirected while a model's own code runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from gradflow.telling import Tell, nobody


@contextmanager
def progress(quiet: bool = False) -> Iterator[Tell]:
    """What takes the phases of a run, for as long as it lasts."""
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM", "").lower() in ("dumb", "unknown"):
        yield nobody
        return
    from rich.console import Console
    from rich.control import Control
    from rich.segment import ControlType
    from rich.text import Text

    from gradflow.render.names import clean, shorten

    console = Console(file=sys.stderr)
    erase = Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2))

    def tell(phase: str) -> None:
        console.control(erase)
        shown = shorten(f"{clean(phase)} …", console.width - 1).encode(console.encoding, "replace").decode(console.encoding)
        console.print(Text(shown, style="dim"), end="", no_wrap=True, soft_wrap=True)

    try:
        yield tell
    finally:
        console.control(erase)
