"""A parser of DOT's own grammar, as far as clusters, attribute lists and edges go. It accepts nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[A-Za-z_]\w*|-?\d+(?:\.\d+)?|->|[{}\[\];=,])')
_DEFAULTS = ("graph", "node", "edge")


def parse(text: str) -> tuple[dict[str, dict[str, str]], list[tuple[str, str]]]:
    """Nodes with their attributes, and edges, of one digraph; ids and values are quoted as they stand there."""
    parser = _Parser(tokens=_tokens(text)[::-1])
    parser.expect("digraph")
    parser.take()
    parser.expect("{")
    parser.statements()
    assert not parser.tokens, "something follows the graph"
    return parser.nodes, parser.edges


def _tokens(text: str) -> list[str]:
    found, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        assert match, f"no token: {text[at : at + 40]!r}"
        found.append(match[1])
        at = match.end()
    return found


@dataclass
class _Parser:
    tokens: list[str]
    nodes: dict[str, dict[str, str]] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)

    def take(self) -> str:
        return self.tokens.pop()

    def expect(self, token: str) -> None:
        found = self.take()
        assert found == token, (found, token)

    def attributes(self) -> dict[str, str]:
        """`[a=b, c=d]`, or nothing."""
        found: dict[str, str] = {}
        if self.tokens[-1] != "[":
            return found
        self.take()
        while True:
            name = self.take()
            self.expect("=")
            found[name] = self.take()
            if (end := self.take()) == "]":
                return found
            assert end == ","

    def statements(self) -> None:
        """Up to the closing brace."""
        while (first := self.take()) != "}":
            if first == "subgraph":
                assert self.take().startswith('"cluster_')
                self.expect("{")
                self.statements()
                continue
            self.statement(first)
            self.expect(";")

    def statement(self, first: str) -> None:
        if self.tokens[-1] == "->":
            self.take()
            self.edges.append((first, self.take()))
            self.attributes()
        elif self.tokens[-1] == "=":
            self.take()
            self.take()
        elif first in _DEFAULTS:
            assert self.attributes()
        else:
            assert first.startswith('"') and first not in self.nodes, "a node is quoted and declared once"
            self.nodes[first] = self.attributes()
