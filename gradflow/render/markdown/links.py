"""Links from a page of markdown to lines of the source, for what lies in the repository. Paths are text."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from gradflow.records import Location
from gradflow.render.check import places


def below(base: str) -> Callable[[Location | None], str | None]:
    """Where a location leads: below `base`, which is what stands before a path from the repository's root, "" for that folder itself.

    What lies outside the repository or among installed packages leads nowhere.
    """
    root = places.root()

    def url(location: Location | None) -> str | None:
        file = None if location is None else places.relative(location.file, root)
        return None if location is None or file is None else f"{base}{quote(file)}#L{max(location.line, 1)}"

    return url
