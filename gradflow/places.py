"""Places in the user's source that no Python frame stands at any more: TorchScript and exported programs keep them as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from types import FunctionType
from typing import Any

Call = Callable[[Callable[..., Any], Sequence[Any]], Any]

_PLACE = re.compile(r'File "(?P<file>[^"\n]+)", line (?P<line>\d+)|^(?P<traced>[^\n]+?)\((?P<at>\d+)\): ', re.MULTILINE)
_NOT_THE_USERS = re.compile(r"^code/|^<|[/\\](site|dist)-packages[/\\]torch[/\\]")


@cache
def innermost(text: str, *, last: bool) -> tuple[str, int] | None:
    """The innermost file and line of a stack in text that is neither torch's nor made up; `last` says that the innermost frame is printed last."""
    found = [(m["file"] or m["traced"], int(m["line"] or m["at"])) for m in _PLACE.finditer(text)]
    return next((place for place in (reversed(found) if last else found) if not _NOT_THE_USERS.search(place[0])), None)


@cache
def standing_at(file: str, line: int) -> Call:
    """`call(action, args)` whose frame is at this line of this file, for whoever looks up the stack: a recorder, or the traceback of an error."""
    code = (lambda action, args: action(*args)).__code__.replace(co_filename=file, co_firstlineno=line)
    return FunctionType(code, {"__builtins__": __builtins__})
