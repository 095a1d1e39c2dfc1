"""A diagram as Graphviz DOT: clusters by module, skip paths thick and in the colour of their kind. Needs no Graphviz to write.

Operators that follow each other in one call of a module are one box, unless a skip starts, ends or passes between them; repeated blocks are one box, as in
the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from textwrap import wrap

from gradflow.diagram import Diagram, Node, Skip
from gradflow.render.folding import pattern
from gradflow.render.graph.blocks import rows, shared_module
from gradflow.render.graph.colors import PRINT
from gradflow.render.names import clean, place, shorten
from gradflow.render.summary import listed, plural

_GREY, _PAPER = "#616161", "#f5f5f5"
_LONGEST = 44


def render(diagram: Diagram, *, unfold: bool = False) -> str:
    """The diagram as one digraph, the inputs at the top.

    Args:
        diagram: what to draw.
        unfold: whether every operator of every block is a box of its own.
    """
    boxes = _boxes(diagram, unfold)
    kinds = {skip.id: skip.kind for skip in diagram.skips}
    title = f"{diagram.target.model_class}: {plural(len(kinds), 'skip')}"
    lines = [
        f"digraph {quoted(diagram.target.model_class)} {{",
        f'  graph [label={quoted(title)}, labelloc=t, fontname="Helvetica", ranksep=0.3, nodesep=0.3];',
        f'  node [shape=box, style=filled, fillcolor="{_PAPER}", color="{_GREY}", fontname="Helvetica", fontsize=10, height=0.3];',
        f'  edge [color="{_GREY}", fontname="Helvetica", fontsize=9, arrowsize=0.6];',
        *_module(_tree(boxes), "", kinds, "  "),
        *(f"  {line}" for line in _edges(diagram, boxes)),
        "}",
    ]
    return "\n".join(lines) + "\n"


def quoted(*texts: str) -> str:
    """A DOT string that shows each text on a line of its own, as it is: quotes, backslashes and character entities mean nothing in it."""
    escaped = (clean(text).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return '"' + "\\n".join(escaped) + '"'


@dataclass(frozen=True, kw_only=True)
class _Box:
    """What is drawn as one: `nodes` in execution order, all of `module`. With a `title` it stands for repeated blocks."""

    nodes: Sequence[Node]
    module: str
    title: str = ""

    @property
    def id(self) -> str:
        return quoted(self.nodes[0].name)

    @property
    def forks(self) -> list[str]:
        return [skip for node in self.nodes for skip in node.fork_of]

    @property
    def joins(self) -> list[str]:
        return [skip for node in self.nodes for skip in node.join_of]


def _boxes(diagram: Diagram, unfold: bool) -> list[_Box]:
    """What is drawn, in execution order: what does not depend on an input is not."""
    boxes: list[_Box] = []
    for row in rows(diagram, unfold=unfold):
        node = row.node
        if node is None:
            boxes.append(_Box(nodes=row.nodes, module=shared_module(row.nodes), title=row.title))
        elif node.data:
            last = boxes[-1].nodes[-1] if boxes and not boxes[-1].title else None
            if unfold or last is None or not _runs_on(last, node):
                boxes.append(_Box(nodes=(node,), module=node.module or ""))
            else:
                boxes[-1] = _Box(nodes=(*boxes[-1].nodes, node), module=boxes[-1].module)
    return boxes


def _runs_on(last: Node, node: Node) -> bool:
    """Whether a node goes into the box of the one before it: no skip ends at either, and none starts between them."""
    if node.op != "call_function" or last.op != "call_function" or last.fork_of or last.join_of or node.join_of:
        return False
    return (last.module, last.call, last.on_path_of) == (node.module, node.call, node.on_path_of)


@dataclass(kw_only=True)
class _Tree:
    """A module's boxes and its modules, by name."""

    boxes: list[_Box] = field(default_factory=list)
    children: dict[str, _Tree] = field(default_factory=dict)

    def count(self) -> int:
        return len(self.boxes) + sum(child.count() for child in self.children.values())


def _tree(boxes: Sequence[_Box]) -> _Tree:
    root = _Tree()
    for box in boxes:
        at = root
        for part in box.module.split(".") if box.module else ():
            at = at.children.setdefault(part, _Tree())
        at.boxes.append(box)
    return root


def _module(tree: _Tree, name: str, kinds: Mapping[str, str], indent: str) -> Iterator[str]:
    """A module's boxes and clusters. `name` is its path inside the cluster that is open; a module without modules is no cluster."""
    for box in tree.boxes:
        yield f"{indent}{box.id} [{_look(box, name, kinds)}];"
    for part, child in tree.children.items():
        path = f"{name}.{part}" if name else part
        if not child.children or child.count() == 1 or (not child.boxes and len(child.children) == 1):
            yield from _module(child, path, kinds, indent)
            continue
        first = next(_inside(child))
        yield f"{indent}subgraph {quoted('cluster_' + first.nodes[0].name + '_' + path)} {{"
        yield f'{indent}  label={quoted(path)}; labeljust=l; style=rounded; color="#bdbdbd"; fontcolor="{_GREY}"; fontsize=10;'
        yield from _module(child, "", kinds, indent + "  ")
        yield f"{indent}}}"


def _inside(tree: _Tree) -> Iterator[_Box]:
    yield from tree.boxes
    for child in tree.children.values():
        yield from _inside(child)


def _look(box: _Box, name: str, kinds: Mapping[str, str]) -> str:
    """The attributes of a box: forks widen downwards, joins upwards, what is both is a hexagon."""
    if box.title:
        return f"label={quoted(box.title)}, shape=box3d, style=dashed"
    node = box.nodes[0]
    lines = _said(box, name) + ([shorten("join " + listed(pattern(box.joins), 2), _LONGEST)] if box.joins else [])
    shape = (
        "hexagon" if box.forks and box.joins else "trapezium" if box.forks else "invtrapezium" if box.joins else "box" if node.op == "call_function" else "oval"
    )
    found = [f"label={quoted(*lines)}", f"shape={shape}"]
    near = (box.joins or box.forks)[:1]
    found += [f'color="{PRINT.get(kinds[near[0]], _GREY)}"', "penwidth=2", 'margin="0.02,0.01"'] if near else []
    found += [f"tooltip={quoted(place(node.location))}"] if node.location else []
    return ", ".join(found)


def _said(box: _Box, name: str) -> list[str]:
    """The module's name and its operators, runs of one counted: `qkv`, `addmm`. What only changes the layout is left out where there is more."""
    node = box.nodes[0]
    if node.op != "call_function":
        return [f"input {node.input}" if node.op == "placeholder" else "output"]
    telling = [n for n in box.nodes if n.role != "layout"] or box.nodes
    runs = [(operator, len(list(run))) for operator, run in groupby(clean(n.operator).removeprefix("aten.") for n in telling)]
    operators = wrap(", ".join(f"{operator} ×{n}" if n > 1 else operator for operator, n in runs), _LONGEST, max_lines=3, placeholder=" …")
    called = shorten(clean(name), _LONGEST) + (f", call {node.call}" if node.call else "")
    return operators if not name or [called] == operators else [called, *operators]


def _edges(diagram: Diagram, boxes: Sequence[_Box]) -> Iterator[str]:
    """One line per pair of boxes; an edge of a skip's path is thick, coloured and, where it arrives at the join, named."""
    box_of = {node.name: box.id for box in boxes for node in box.nodes}
    passing: dict[tuple[str, str], dict[str, Skip]] = {}
    arriving: dict[tuple[str, str], list[str]] = {}
    for skip in diagram.skips:
        steps = [(edge.source, edge.consumer) for edge in skip.path] or [(skip.fork, skip.join)]
        drawn = [(box_of[a], box_of[b]) for a, b in steps if a in box_of and b in box_of and box_of[a] != box_of[b]]
        for pair in drawn:
            passing.setdefault(pair, {})[skip.id] = skip
        if drawn and drawn[-1][1] == box_of[skip.join]:
            arriving.setdefault(drawn[-1], []).append(skip.id)
    pairs = ((box_of[e.source], box_of[e.consumer]) for e in diagram.edges if e.source in box_of and e.consumer in box_of)
    for pair in dict.fromkeys((*(p for p in pairs if p[0] != p[1]), *passing)):
        skips = list(passing.get(pair, {}).values())
        if not skips:
            yield f"{pair[0]} -> {pair[1]} [weight=3];"
            continue
        kind = Counter(skip.kind for skip in skips).most_common(1)[0][0]
        look = [f'color="{PRINT.get(kind, _GREY)}"', f'fontcolor="{PRINT.get(kind, _GREY)}"', "penwidth=3"]
        look += ["style=dashed"] if kind == "detached" else []
        ids = list(dict.fromkeys(arriving.get(pair, ())))
        look += [f"label={quoted(shorten(listed(pattern(ids), 2), _LONGEST), kind)}"] if ids else []
        yield f"{pair[0]} -> {pair[1]} [{', '.join(look)}];"
