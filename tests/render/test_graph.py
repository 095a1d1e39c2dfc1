"""The views of a diagram: table, code, DOT, and how they fold.

The golden files in tests/golden are whole outputs as people see them. After a change that is meant, write them anew and read the difference:

    GRADFLOW_UPDATE_GOLDEN=1 pytest tests/render/test_graph.py; git diff tests/golden
"""

from __future__ import annotations

import ast
import itertools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from gradflow.diagram import Diagram
from gradflow.records import Kind
from gradflow.render.graph import code, colors, dot, gutter, table
from gradflow.render.graph.blocks import rows
from gradflow.render.json_schema import schema, text

from . import diagrams, dot_grammar

GOLDEN = Path(__file__).parent.parent / "golden"
PUBLISHED = Path(__file__).parents[2] / "docs" / "graph-v1.schema.json"
Build = Callable[[], Diagram]
each = pytest.mark.parametrize("build", diagrams.EVERY, ids=lambda f: f.__name__)


def plain(shown: str) -> str:
    return Text.from_ansi(shown).plain


def _matches(name: str, found: str) -> None:
    file = GOLDEN / name
    if os.environ.get("GRADFLOW_UPDATE_GOLDEN"):
        file.write_text(found, encoding="utf-8")
    assert found == file.read_text(encoding="utf-8")


@each
@pytest.mark.parametrize("width", [80, 200])
def test_golden_table(build: Build, width: int) -> None:
    """The whole table is the one that was last looked at and approved."""
    _matches(f"graph-{build.__name__}-{width}.txt", table.render(build(), width=width))


@pytest.mark.parametrize("build", [diagrams.unet, diagrams.detached], ids=lambda f: f.__name__)
def test_golden_colors(build: Build) -> None:
    """An arc has the colour of its skip's kind."""
    _matches(f"graph-{build.__name__}-80-color.txt", table.render(build(), width=80, color=True))


@pytest.mark.parametrize("build", [diagrams.resnet, diagrams.loop], ids=lambda f: f.__name__)
def test_golden_code_and_dot(build: Build) -> None:
    """The whole text is the one that was last looked at and approved."""
    _matches(f"graph-{build.__name__}.py.txt", code.render(build()))
    _matches(f"graph-{build.__name__}.dot", dot.render(build()))


@each
@pytest.mark.parametrize("unfold", [False, True], ids=["folded", "unfolded"])
@pytest.mark.parametrize("width", [20, 60, 80, 120, 200])
def test_any_width(build: Build, width: int, unfold: bool) -> None:
    """No line is wider than the terminal (or 60, where that is narrower), and none ends in blanks."""
    for line in table.render(build(), width=width, unfold=unfold).splitlines():
        assert cell_len(line) <= max(width, table.NARROWEST), line
        assert line == line.rstrip(), repr(line)


@each
def test_color_changes_no_word(build: Build) -> None:
    """Colour and links add nothing but escape codes, and without colour there are none."""
    assert "\x1b" not in table.render(build(), links=True)
    assert plain(table.render(build(), color=True, links=True)).split() == table.render(build()).split()


@each
def test_unfolded(build: Build) -> None:
    """Every operator, every skip's id and every end of a skip has a line of its own."""
    diagram = build()
    lines = table.render(diagram, width=200, unfold=True).splitlines()
    graph = lines[next(i for i, line in enumerate(lines) if line.startswith("Graph")) :]
    assert "--all" not in "\n".join(lines)
    for node in diagram.nodes:
        found = [line for line in graph if re.search(rf"^\W* {node.id}  {node.name}( |$)", line)]
        assert len(found) == (node.op != "get_attr"), node.name
        if found:
            marker = "◉" if node.fork_of and node.join_of else "○" if node.fork_of else "●" if node.join_of else None
            assert marker is None or marker in found[0], found


@each
@pytest.mark.parametrize("unfold", [False, True], ids=["folded", "unfolded"])
def test_rows(build: Build, unfold: bool) -> None:
    """Each operator stands in exactly one row, in execution order, folded or not."""
    diagram = build()
    shown = [node.name for row in rows(diagram, unfold=unfold) for node in row.nodes]
    assert shown == [node.name for node in diagram.nodes if node.op != "get_attr"]


def _folds(diagram: Diagram) -> list[str]:
    return [row.title for row in rows(diagram, unfold=False) if row.title]


def test_what_folds() -> None:
    """Blocks by index or by call, and turns of a loop by their lines; each row says what it stands for."""
    assert _folds(diagrams.gpt()) == ["h.[1-11]: 11 more like h.0"]
    assert _folds(diagrams.resnet()) == ["layer1.[1-2]: 2 more like layer1.0", "layer3: 1 more like layer2"]
    assert [title.partition(", from")[0] for title in _folds(diagrams.loop())] == ["cell: calls 2–5 like call 1", "4 more turns like the one above"]


def test_an_odd_block_does_not_fold() -> None:
    """A block with another kind of skip, another operator or another source stays in sight."""
    for change in ("kind", "operator", "source"):
        draft = diagrams.Draft("Odd")
        x = stem = draft.op("convolution", draft.input(), module="stem", weight=True)
        for b in range(6):
            odd = b == 3
            y = draft.op("addmm", stem if odd and change == "source" else x, module=f"h.{b}.a", weight=True)
            y = draft.op("tanh" if odd and change == "operator" else "relu", y, module=f"h.{b}.b", role="activation")
            y = draft.op("addmm", y, module=f"h.{b}.c", weight=True)
            y = draft.op("relu", y, module=f"h.{b}.d", role="activation")
            join = draft.op("add", x, y, module=f"h.{b}", role="add")
            draft.skip(f"h.{b}", x, join, "scaled" if odd and change == "kind" else "identity")
            x = join
        shown = [row.node.module for row in rows(draft.done(x), unfold=False) if row.node and row.node.module]
        assert "h.3" in shown and "h.1" not in shown, change


spans = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.sampled_from(["identity", "concat"])), max_size=30)


@given(spans, st.integers(1, 12))
def test_arcs(ends: list[tuple[int, int, str]], most: int) -> None:
    """Every arc is drawn once or counted as left out, two arcs in one lane share no more than an end, and every end meets the row's own mark."""
    found = gutter.arcs(ends)
    assert {(a.start, stop, a.kind) for a in found for stop in a.stops} == {(f, j, k) for f, j, k in ends if j > f}
    laid = gutter.lay(found, most)
    drawn = [arc for lane in laid.lanes for arc in lane]
    assert len(laid.lanes) <= most and len(drawn) + laid.left_out == len(found) and set(drawn) <= set(found)
    for lane in laid.lanes:
        assert all(a.end <= b.start for a, b in itertools.pairwise(lane))
    lines = [line.plain for line in gutter.draw(laid, 31, colors.TERMINAL)]
    for row, line in enumerate(lines):
        assert len(line) == 2 * len(laid.lanes)
        meets = any(row == arc.start or row in arc.stops for arc in drawn)
        assert line.endswith("─") == meets, (row, line)
        for lane, arcs in enumerate(reversed(laid.lanes)):
            passes = any(arc.start < row < arc.end and row not in arc.stops for arc in arcs)
            assert not passes or line[2 * lane] in "│╎┼"


@each
def test_code(build: Build) -> None:
    """It is valid Python, has one statement per node with the node's own name, and names each skip at its fork and its join."""
    diagram = build()
    written = code.render(diagram)
    function = next(s for s in ast.parse(written).body if isinstance(s, ast.FunctionDef))
    assigned = [s.target.id for s in function.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)]
    order = {n.name: i for i, n in enumerate(diagram.nodes)}
    assert set(assigned) == {n.name for n in diagram.nodes if n.op in ("call_function", "get_attr")}
    assert [order[name] for name in assigned] == sorted(order[name] for name in assigned)
    assert [a.arg for a in function.args.args][1:] == [n.name for n in diagram.nodes if n.op == "placeholder"]
    for node in diagram.nodes:
        line = next((line for line in written.splitlines() if line.lstrip("# ").startswith((f"{node.name}: ", f"{node.name} "))), "")
        for skip in node.join_of:
            assert f"join of {table.clean(skip)} (" in line
        for skip in node.fork_of:
            assert f"fork of {table.clean(skip)} (" in line
    assert written == code.render(build())


def shown(label: str) -> list[str]:
    """What Graphviz draws for a label."""
    lines = re.sub(r"\\(.)", lambda m: "\x00" if m[1] == "n" else m[1], label[1:-1]).split("\x00")
    return [line.replace("&amp;", "&") for line in lines]


@each
@pytest.mark.parametrize("unfold", [False, True], ids=["folded", "unfolded"])
def test_dot(build: Build, unfold: bool) -> None:
    """It follows DOT's grammar, and every edge leads from a declared node to another."""
    diagram = build()
    nodes, edges = dot_grammar.parse(dot.render(diagram, unfold=unfold))
    assert {end for edge in edges for end in edge} <= nodes.keys()
    assert all(a != b for a, b in edges) and len(set(edges)) == len(edges)
    if unfold:
        assert nodes.keys() == {f'"{n.name}"' for n in diagram.nodes if n.op != "get_attr" and n.data}
        assert {(s.fork, s.join) for s in diagram.skips if not s.path} <= {(a.strip('"'), b.strip('"')) for a, b in edges}


def test_forks_and_joins_are_shaped() -> None:
    """A fork widens downwards, a join upwards, what is both is a hexagon; the skip's edge is thick and has the colour of its kind."""
    written = dot.render(diagrams.unet(), unfold=True)
    nodes, _ = dot_grammar.parse(written)
    assert nodes['"convolution"']["shape"] == "trapezium"
    assert nodes['"cat"']["shape"] == "invtrapezium"
    assert dot_grammar.parse(dot.render(diagrams.gpt()))[0]['"add_1"']["shape"] == "hexagon"
    line = next(line for line in written.splitlines() if line.strip().startswith('"convolution" -> "cat_3"'))
    assert "penwidth=3" in line and colors.PRINT["concat"] in line and "(UNet)#4" in line
    cut = next(line for line in dot.render(diagrams.detached()).splitlines() if '"convolution" -> "add"' in line)
    assert "style=dashed" in cut and colors.PRINT["detached"] in cut


@pytest.mark.parametrize("name", diagrams.NAMES)
def test_a_name_that_looks_like_markup(name: str) -> None:
    """It prints as itself in every format; control codes cannot pass."""
    diagram = diagrams.weird_names()
    told = table.clean(name)
    assert told in table.render(diagram, width=200, unfold=True) and told in plain(table.render(diagram, width=200, color=True))
    assert f"join of {told} (identity)" in code.render(diagram)
    assert any(told in " ".join(shown(n["label"])) for n in dot_grammar.parse(dot.render(diagram))[0].values())
    assert json.loads(diagram.to_json())["skips"][diagrams.NAMES.index(name)]["id"] == name
    for written in (table.render(diagram), code.render(diagram), dot.render(diagram)):
        assert "\x1b" not in written and "\t" not in written


def test_every_kind_has_a_colour() -> None:
    """In the terminal and in the drawing."""
    assert set(get_args(Kind)) <= colors.TERMINAL.keys() == colors.PRINT.keys()
    assert len(set(colors.PRINT.values())) == len(colors.PRINT)


@each
def test_json(build: Build) -> None:
    """It is strict, valid by the published schema, and read back equals the original."""
    diagram = build()
    plain_json = json.loads(diagram.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is not strict JSON"))
    jsonschema.Draft202012Validator(schema(Diagram)).validate(plain_json)
    assert Diagram.from_json(diagram.to_json()) == diagram
    assert table.render(Diagram.from_json(diagram.to_json())) == table.render(diagram)


def test_another_schema() -> None:
    """It is refused."""
    with pytest.raises(ValueError, match="expected 'gradflow/graph/v1'"):
        Diagram.from_json(diagrams.gpt().to_json().replace("gradflow/graph/v1", "gradflow/graph/v2"))


def test_the_published_schema() -> None:
    """It is what the records say now; else: python -m gradflow.render.json_schema graph > docs/graph-v1.schema.json."""
    jsonschema.Draft202012Validator.check_schema(schema(Diagram))
    assert PUBLISHED.read_text(encoding="utf-8") == text(Diagram)
