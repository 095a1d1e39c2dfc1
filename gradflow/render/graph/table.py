"""A diagram as text for people: the skips first, then one line per operator with an arc from each fork to its joins. No name is read as markup."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text

from gradflow.diagram import Diagram, Node, Skip
from gradflow.numbers import count
from gradflow.records import Location
from gradflow.render import folding
from gradflow.render.columns import Column, lay_out, printed, wrap
from gradflow.render.graph import gutter
from gradflow.render.graph.blocks import Row, row_of, rows
from gradflow.render.graph.colors import TERMINAL
from gradflow.render.names import clean, link, place, shorten
from gradflow.render.summary import listed, plural

NARROWEST = 60
_LABEL = 10
_WIDE = 120
_MOST_ROWS = 30


@dataclass(frozen=True, kw_only=True)
class _View:
    width: int
    unfold: bool
    links: bool


def render(diagram: Diagram, *, width: int = 80, color: bool = False, unfold: bool = False, links: bool = False) -> str:
    """The diagram as text.

    Args:
        diagram: what to show.
        width: no line is longer, in terminal cells; at least 60.
        color: whether escape codes may be written; without it there are none, links neither.
        unfold: whether every block, and every skip in the list of skips, is shown.
        links: whether locations are hyperlinks (OSC 8).
    """
    view = _View(width=max(width, NARROWEST), unfold=unfold, links=links and color)
    blocks = [_opening(diagram, view), _skips(diagram, view), _graph(diagram, view)]
    return printed([line for i, block in enumerate(blocks) for line in ([Text("")] if i else []) + block], view.width, color)


def _opening(diagram: Diagram, view: _View) -> list[Text]:
    target, nodes = diagram.target, diagram.nodes
    operators = sum(n.op == "call_function" for n in nodes)
    sizes = [f"{count(operators)} operators", f"{count(len(nodes))} nodes", plural(len(diagram.edges), "edge")]
    inputs = [f"{clean(i.name)} {i.dtype}[{','.join(map(str, i.shape))}]" for i in diagram.inputs[:3]]
    trained = "" if target.trainable_parameters == target.parameters else f" ({count(target.trainable_parameters)} trainable)"
    facts = [
        *([clean(target.spec)] if target.spec != target.model_class else []),
        f"{count(target.parameters)} parameters{trained}",
        f"{diagram.mode} mode",
        *inputs,
        f"loss {clean(diagram.loss)}",
    ]
    of_kind = Counter({s.id: s.kind for s in diagram.skips}.values())
    kinds = ", ".join(f"{n} {kind}" for kind, n in of_kind.most_common())
    roads = [f"{clean(h.name)} ({plural(len(h.skips), 'skip')}, trunk {', '.join(h.trunk_ops) or 'nothing'})" for h in diagram.highways]
    entries = [
        ("target", " · ".join(facts)),
        ("skips", f"{of_kind.total()}: {kinds}" if of_kind else "none"),
        ("highways", f"{len(roads)}: {listed(roads)}" if roads else "none"),
        ("opaque", _opaque(diagram)),
        *(("note", clean(note)) for note in diagram.notes),
    ]
    lines = wrap(Text.assemble((clean(target.model_class), "bold"), f"  {', '.join(sizes)}"), view.width)
    for label, body in entries:
        lines += wrap(Text(body), view.width, _LABEL, label)
    return lines


def _opaque(diagram: Diagram) -> str:
    parts = [clean(f"{part.name} ({part.operator}, {part.reason})") for part in diagram.opaque]
    fixes = "; ".join(dict.fromkeys(clean(part.fix) for part in diagram.opaque))
    return f"{len(parts)}: {listed(parts)}: skips and layers inside are not seen; {fixes}" if parts else "nothing: every part could be seen"


def _skips(diagram: Diagram, view: _View) -> list[Text]:
    """One row per skip, or per run of like skips, nearest the input first."""
    if not diagram.skips:
        return [Text("Skips  none", style="bold underline")]
    members = list({skip.id: skip for skip in reversed(diagram.skips)}.values())[::-1]
    calls = Counter(skip.id for skip in diagram.skips)
    items = [folding.Item(name=s.id, key=(s.kind, s.form, calls[s.id], tuple(s.path_ops))) for s in members]
    groups = [folding.Group(name=s.id, members=(i,)) for i, s in enumerate(members)] if view.unfold else folding.fold(items)
    hidden = groups[_MOST_ROWS:] if not view.unfold else []
    groups = groups[: len(groups) - len(hidden)]
    firsts = [members[g.members[0]] for g in groups]
    columns = [
        Column(header="skip", cells=[clean(g.name) for g in groups], rank=0, right=False, floor=24, styles=[TERMINAL.get(s.kind, "") for s in firsts]),
        Column(header="kind", cells=[s.kind for s in firsts], rank=1, right=False),
        Column(header="path", cells=[clean(", ".join(s.path_ops)) or "nothing" for s in firsts], rank=3, right=False, floor=8),
        Column(header="bypasses", cells=[_layers([members[i].bypassed_layers for i in g.members]) for g in groups], rank=2),
        *([Column(header="calls", cells=[str(calls[s.id]) for s in firsts], rank=4)] if len(diagram.skips) > len(members) else []),
        Column(header="fork → join", cells=[_ends(g, members) for g in groups], rank=6, right=False, floor=30),
        Column(header="branch", cells=[clean(s.branch) for s in firsts], rank=7, right=False, floor=10),
        _locations([s.location for s in firsts], 5, view),
    ]
    shown = f" in {plural(len(groups) + len(hidden), 'row')} (--all unfolds them)" if len(groups) < len(members) else ""
    notes = [f"{len(hidden)} more rows, all nearer the output: --all shows every row"] if hidden else []
    return _titled(f"Skips  {len(members)}{shown}", columns, notes, view)


def _layers(bypassed: Sequence[int]) -> str:
    """`2 layers`, `2–24 layers`."""
    low, high = min(bypassed), max(bypassed)
    return plural(high, "layer") if low == high else f"{low}–{high} layers"


def _ends(group: folding.Group, members: Sequence[Skip]) -> str:
    first, last = members[group.members[0]], members[group.members[-1]]
    return f"{first.fork} → {first.join}" + (f" … {last.fork} → {last.join}" if len(group.members) > 1 else "")


def _locations(places: Sequence[Location | None], rank: int, view: _View) -> Column:
    links = [link(x) for x in places] if view.links else ()
    return Column(header="location", cells=[place(x) for x in places], rank=rank, right=False, floor=18, tail=True, links=links)


def _titled(title: str, columns: Sequence[Column], notes: Sequence[str], view: _View) -> list[Text]:
    lines, dropped = lay_out(columns, view.width - 2)
    return [Text(title, style="bold underline"), *(Text("  ") + line for line in lines), *_notes([*notes, *_dropped(dropped)], view)]


def _notes(notes: Sequence[str], view: _View) -> list[Text]:
    return [line for note in notes for line in wrap(Text(note, style="dim"), view.width, 2)]


def _dropped(columns: Sequence[str]) -> list[str]:
    return [f"not shown at this width: {', '.join(columns)}"] if columns else []


def _graph(diagram: Diagram, view: _View) -> list[Text]:
    """The operators in execution order, with the arcs of the skips on the left."""
    shown = rows(diagram, unfold=view.unfold)
    at = row_of(shown)
    found = gutter.arcs([(at[s.fork], at[s.join], s.kind) for s in diagram.skips if s.fork in at])
    lanes = gutter.lay(found, view.width // 8)
    arcs = gutter.draw(lanes, len(shown), TERMINAL)
    margin = 2 * len(lanes.lanes) + 2
    lines, dropped = lay_out(_columns(diagram, shown, view), view.width - margin)
    folds = sum(row.node is None for row in shown)
    title = "Graph  " + plural(len(shown) - folds, "row") + (f", {plural(folds, 'fold')} (--all unfolds them)" if folds else "")
    out = [Text(title, style="bold underline"), Text(" " * margin) + lines[0]]
    for row, arc, line in zip(shown, arcs, lines[1:], strict=True):
        body = line if row.node else Text(shorten(_folded(row), view.width - margin), style="dim")
        marked = arc + _marker(row) + Text(" ") + body
        marked.rstrip()
        out.append(marked)
    notes = ["○ fork, ● join, ◉ both, ◦ on a skip's path; an arc leads from a fork to its joins"] if diagram.skips else []
    notes += [f"{plural(lanes.left_out, 'arc')} found no room on the left; forks and joins are named all the same"] if lanes.left_out else []
    return out + _notes([*notes, *_dropped(dropped)], view)


def _columns(diagram: Diagram, shown: Sequence[Row], view: _View) -> list[Column]:
    nodes = [row.node for row in shown]
    short = {n.name: (n.parameter or "").rpartition(".")[2] or n.name for n in diagram.nodes if n.op == "get_attr"}
    kinds = {skip.id: skip.kind for skip in diagram.skips}

    def cells(of: Callable[[Node], str]) -> list[str]:
        return [of(node) if node else "" for node in nodes]

    styles = [_style(node, kinds) for node in nodes]
    return [
        Column(header="#", cells=cells(lambda n: str(n.id)), rank=3),
        Column(header="node", cells=cells(lambda n: n.name), rank=0, right=False, floor=20, styles=styles),
        Column(header="skips", cells=cells(lambda n: _skips_at(n, kinds, brief=view.width < _WIDE)), rank=1, right=False, floor=20, styles=styles),
        Column(header="ATen operator", cells=cells(_operator), rank=7, right=False, floor=12),
        Column(header="operands", cells=cells(lambda n: ", ".join(short.get(o, o) for o in n.operands)), rank=5, right=False, floor=16),
        Column(header="shape", cells=cells(lambda n: "x".join(map(str, n.shape))), rank=2, right=False),
        Column(header="module", cells=cells(lambda n: _module(n, diagram.target.model_class)), rank=4, right=False, floor=14),
        _locations([node.location if node else None for node in nodes], 6, view),
    ]


def _module(node: Node, model_class: str) -> str:
    if node.op != "call_function":
        return ""
    if node.module is None:
        return "(loss)"
    return clean(node.module or f"({model_class})") + (f" call {node.call}" if node.call else "")


def _style(node: Node | None, kinds: Mapping[str, str]) -> str:
    """The colour of the skip that closes here, else of the one that starts, else of the one whose path this is."""
    if node is None or not node.data:
        return "dim"
    near = (*node.join_of, *node.fork_of, *node.on_path_of)
    return TERMINAL.get(kinds[near[0]], "") if near else ""


def _operator(node: Node) -> str:
    return {"placeholder": "input", "output": "output"}.get(node.op, clean(node.operator).removeprefix("aten."))


def _skips_at(node: Node, kinds: Mapping[str, str], *, brief: bool) -> str:
    """`join layer1.0 (identity); fork layer1.1`: ids as in the list of skips. In brief `identity layer1.0`, and forks only where nothing else is said."""
    if brief and node.join_of:
        return clean(f"{kinds[node.join_of[0]]} {listed(folding.pattern(node.join_of), 2)}")
    said = []
    if node.join_of:
        of_kind: dict[str, list[str]] = {}
        for skip in node.join_of:
            of_kind.setdefault(kinds[skip], []).append(skip)
        said.append("join " + ", ".join(f"{listed(folding.pattern(ids))} ({kind})" for kind, ids in of_kind.items()))
    if node.fork_of:
        said.append("fork " + listed(folding.pattern(node.fork_of)))
    if node.on_path_of:
        said.append("path " + listed(folding.pattern(node.on_path_of)))
    return clean("; ".join(said))


def _marker(row: Row) -> Text:
    node = row.node
    if node is None:
        return Text("⋮", style="dim")
    return Text("◉" if node.join_of and node.fork_of else "●" if node.join_of else "○" if node.fork_of else "◦" if node.on_path_of else " ")


def _folded(row: Row) -> str:
    """`h.[1-11]: 11 more like h.0 (407 rows, 22 skips)`."""
    closed = {skip for node in row.nodes for skip in node.join_of}
    skips = f", {plural(len(closed), 'skip')}" if closed else ""
    return clean(f"{row.title} ({plural(len(row.nodes), 'row')}{skips})")
