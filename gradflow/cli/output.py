"""Where output goes: paths checked before anything runs, standard output and error, files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

import typer

from gradflow import errors
from gradflow.cli.refusals import OverwritesInput
from gradflow.render.figure import ENDINGS

FILE_WIDTH = 160
Reads = Mapping[str, Path | str | None]
_NOTHING: Reads = MappingProxyType({})


def check_outputs(png: Path | None, json: Path | None, markdown: Path | None = None, reads: Reads = _NOTHING) -> None:
    """What `check_writable` and `check_apart` ask of the files, and that the picture's name says so and standard output is asked for once.

    Raises:
        errors.UsageError, errors.OutputFileError, OverwritesInput: they cannot be written so.
    """
    if png is not None and png != Path("-") and png.suffix.lower() not in ENDINGS:
        raise errors.UsageError(option="--png", value=png, expected="a name that ends in .png, .svg or .pdf")
    asked = [option for option, file in (("--json", json), ("--markdown", markdown), ("--png", png)) if file == Path("-")]
    if len(asked) > 1:
        raise errors.UsageError(option=asked[1], value="-", expected=f"a file, since {asked[0]} takes standard output")
    for file in (png, json, markdown):
        check_writable(file)
    check_apart([("--png", png), ("--json", json), ("--markdown", markdown)], reads)


def check_apart(outputs: Sequence[tuple[str, Path | None]], reads: Reads) -> None:
    """No output is a file that the run reads, and no two are one file.

    Args:
        outputs: (option, file).
        reads: what an error calls a file -> the file; a target counts as the file that it names.

    Raises:
        OverwritesInput: one is.
    """
    taken = {_file(file).resolve(): name for name, file in reads.items() if file is not None}
    for option, output in outputs:
        if output is None or output == Path("-") or (output.exists() and not output.is_file()):  # /dev/null takes any number
            continue
        place = output.resolve()
        if place in taken:
            raise OverwritesInput(option=option, file=str(output), other=taken[place])
        taken[place] = f"what {option} writes there"


def _file(named: Path | str) -> Path:
    """The file in which a target is: `model.py` of `model.py:build`."""
    text = str(named)
    return Path(text.rpartition(":")[0] if ".py:" in text else text)


def source_base(markdown: Path, root: Path) -> str:
    """What stands before a path from the repository's root in a link: on GitHub's and GitLab's runners the commit's page, elsewhere the way from the file.

    Args:
        markdown: where the links will stand; "-" for standard output, which counts as a file in `root`.
        root: the repository's first folder.
    """
    known = os.environ.get
    if known("GITHUB_REPOSITORY") and known("GITHUB_SHA"):
        return f"{known('GITHUB_SERVER_URL', 'https://github.com')}/{known('GITHUB_REPOSITORY')}/blob/{known('GITHUB_SHA')}/"
    if known("CI_PROJECT_URL") and known("CI_COMMIT_SHA"):
        return f"{known('CI_PROJECT_URL')}/-/blob/{known('CI_COMMIT_SHA')}/"
    way = "." if markdown == Path("-") else Path(os.path.relpath(root, markdown.absolute().parent)).as_posix()
    return "" if way == "." else f"{way}/"


def show(text: Callable[[int, bool], str], stream: TextIO) -> None:
    """Print what `text` makes of the stream's width and colour."""
    from rich.console import Console

    console = Console(file=stream)
    color = console.is_terminal and not console.no_color and not console.is_dumb_terminal
    shown = text(console.width, color)
    put(stream, shown if shown.endswith("\n") else shown + "\n")


def open_streams() -> None:
    """Standard output and standard error that were closed (`>&-`) take what is written and keep nothing."""
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 -- it stays open until Python ends
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 -- it stays open until Python ends


def put(stream: TextIO, content: str | bytes) -> None:
    """Write to standard output or standard error. A reader that has seen enough (`| head`) is no failure: the exit code stays what it is.

    Raises:
        errors.OutputFileError: it leads to a file that cannot be written.
    """
    try:
        buffer = getattr(stream, "buffer", None)  # a stream in memory has none
        if isinstance(content, bytes) and buffer is not None:
            stream.flush()
            buffer.write(content)
        elif isinstance(content, bytes):
            stream.write(content.decode(errors="replace"))
        else:
            encoding = stream.encoding or "utf-8"  # a λ is no reason to fail on a terminal that has none
            stream.write(content.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # what is left in the buffer would fail again when Python ends
        raise errors.OutputFileError(file="standard error" if stream is sys.stderr else "standard output", reason=errors.reason_of(error)) from error


def check_writable(file: Path | None) -> None:
    """Output paths are checked before the model runs, which may take minutes.

    Raises:
        errors.OutputFileError: the file cannot be written.
    """
    if file is None or file == Path("-"):
        return
    if file.is_dir():
        raise errors.OutputFileError(file=str(file), reason="it is a folder")
    folder = file.parent
    if not folder.is_dir():
        raise errors.OutputFileError(file=str(file), reason=f"there is no folder {folder}")
    if not os.access(file if file.exists() else folder, os.W_OK):
        raise errors.OutputFileError(file=str(file), reason="permission denied")


def write(file: Path, content: str | bytes) -> None:
    """Write to a file, and say so on standard error; or, for "-", to standard output.

    Raises:
        errors.OutputFileError: the file cannot be written.
    """
    if file == Path("-"):
        put(sys.stdout, content if isinstance(content, bytes) else content.encode())
        return
    new = not file.exists()
    try:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    except OSError as error:
        if new:
            file.unlink(missing_ok=True)  # half of a report is none
        raise errors.OutputFileError(file=str(file), reason=errors.reason_of(error)) from error
    typer.echo(f"wrote {file}", err=True)
