"""Names and places as people read them. Pure text; a name that holds markup, control codes or a dollar sign stays itself."""

from __future__ import annotations

from pathlib import Path, PurePath

from rich.cells import cell_len

from gradflow.records import Location

ELLIPSIS = "…"


def clean(text: str) -> str:
    """`text` on one line: whitespace runs become one space, other characters that cannot be printed their Python escape."""
    line = " ".join(text.split())
    return line if line.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def visible(text: str, keep: str = "") -> str:
    """`text` with control characters and lone surrogates as their Python escapes, but for those in `keep`; all else stays itself."""
    return "".join(c if c in keep or not _hidden(c) else c.encode("unicode_escape").decode() for c in text)


def _hidden(c: str) -> bool:
    code = ord(c)
    return code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000 or code in (0x2028, 0x2029, 0xFFFE, 0xFFFF)


def shorten(text: str, width: int) -> str:
    """`text` in at most `width` terminal cells, shortened in the middle: `encoder.lay…tion.query`."""
    if cell_len(text) <= width:
        return text
    if width <= 1:
        return ELLIPSIS[:width]
    head, tail = text, text
    room = width - 1
    while cell_len(tail) > room - room // 2:
        tail = tail[1:]
    while cell_len(head) > room - cell_len(tail):
        head = head[:-1]
    return head + ELLIPSIS + tail


def keep_end(text: str, width: int) -> str:
    """`text` in at most `width` terminal cells, its beginning cut: `…/resnet.py:92`."""
    if cell_len(text) <= width:
        return text
    while cell_len(text) > width - 1:
        text = text[1:]
    return ELLIPSIS + text


def place(location: Location | None) -> str:
    """`file:line`, relative to the current directory where the file lies in it, else its last three parts."""
    if location is None:
        return ""
    path = PurePath(location.file)
    if path.is_absolute():
        here = Path.cwd()
        if path.is_relative_to(here):
            path = path.relative_to(here)
        elif len(path.parts) > 4:
            path = PurePath(ELLIPSIS, *path.parts[-3:])
    return clean(f"{path}:{location.line}")


def link(location: Location | None) -> str | None:
    """A file URL of the location, or None where it names no file (`<string>`)."""
    if location is None or location.file.startswith("<"):
        return None
    try:
        return Path(location.file).absolute().as_uri()
    except (ValueError, UnicodeError):
        return None
