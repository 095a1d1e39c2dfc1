"""Text that stays itself in GitHub-flavoured markdown: no emphasis, emoji, mention, link or cell border is read out of it."""

from __future__ import annotations

from gradflow.render.names import clean, visible

_SIGNIFICANT = frozenset("\\`*_{}[]<>()#+!|~&@:$\"'")
_REFERENCES = frozenset("@#")  # GitHub looks for mentions and issues in the finished text, entities resolved; a comment parts the sign from the name


def escape(text: str) -> str:
    """`text` such that it prints as itself anywhere in markdown, a table's cell included; a line break becomes its Python escape."""
    return "".join(f"{_entity(c)}<!-- -->" if c in _REFERENCES else _entity(c) for c in visible(text, keep="\t"))


def code(text: str) -> str:
    """A name, in a `<code>` element, in which GitHub looks for no references."""
    return f"<code>{''.join(map(_entity, clean(text)))}</code>"


def _entity(c: str) -> str:
    return f"&#{ord(c)};" if c in _SIGNIFICANT else c
