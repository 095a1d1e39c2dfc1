"""What the command line alone can refuse, before or after anything runs. As in `gradflow.errors`, each kind owns its text, and callers supply fields."""

from __future__ import annotations

from collections.abc import Sequence

from gradflow.errors import GradflowError


class UnreadableCommand(GradflowError):
    """The words after `gradflow` are none that it can read: a command or an option that is not there, or one that is missing."""

    def __init__(self, *, command: str, reason: str, usage: str, suggestion: str = "") -> None:
        near = f"Did you mean {suggestion}? " if suggestion else ""
        super().__init__(f"{command}: {reason.removesuffix('.')}.", f"{near}Write {usage}; {command} --help has the rest.")


class IncompleteUsage(GradflowError):
    """An option that means nothing without another one."""

    def __init__(self, *, option: str, needs: str, reason: str) -> None:
        super().__init__(f"{option} needs {needs} beside it: {reason}.", f"Give {needs}, or leave out {option}.")


class EmptyPicture(GradflowError):
    """Panels were asked for that have nothing to show of this report."""

    def __init__(self, *, panels: Sequence[str], report: str, reasons: Sequence[str], full: Sequence[str]) -> None:
        super().__init__(
            f"--panel {' --panel '.join(panels)} would be empty for {report}, so no picture is written. {' '.join(reasons)}",
            f"Leave out --panel for the whole page, or choose from what this report can fill: {', '.join(full)}." if full else "Leave out --panel.",
        )


class OverwritesInput(GradflowError):
    """An output would be written over what the run reads, or over another output."""

    def __init__(self, *, option: str, file: str, other: str) -> None:
        super().__init__(f"{option} {file} would be written over {other}.", "Name a file of its own for it.")
