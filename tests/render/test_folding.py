"""Folding of names, and numbers as text."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradflow.judge
from gradflow.numbers import count, number, percent, span, sparkline
from gradflow.render.folding import Item, fold, pattern
from gradflow.render.names import clean, keep_end, shorten


def items(names: str, **numbers: tuple[float | None, ...]) -> list[Item]:
    return [Item(name=name, key=None, **numbers) for name in names.split()]


@pytest.mark.parametrize(
    "names, folded",
    [
        ("b.0.x b.1.x b.2.x", ["b.[0-2].x"]),
        ("net.0 net.2 net.4", ["net.[0,2,4]"]),
        ("net.0 net.2", ["net.0", "net.2"]),
        ("b.0.e.0 b.0.e.1 b.1.e.0 b.1.e.1", ["b.[0-1].e.[0-1]"]),
        ("layer1 layer2", ["layer1", "layer2"]),
        ("layer1 layer2 layer3", ["layer[1-3]"]),
        ("b.00 b.01", ["b.00", "b.01"]),
        ("a.0 b.1", ["a.0", "b.1"]),
        ("0 1 2", ["[0-2]"]),
        ("b.0 b.5 b.6 b.7", ["b.0", "b.[5-7]"]),
        ("[red] [blue]", ["[red]", "[blue]"]),
        ("", []),
    ],
)
def test_names(names: str, folded: list[str]) -> None:
    """Names that differ by one index fold; others stay as they are."""
    assert pattern(names.split()) == folded


def test_an_odd_one_out() -> None:
    """A block whose λ differs is never folded into its neighbours."""
    rows = [Item(name=f"b.{i}", key="identity", near=(0.5 if i == 3 else 1.0,)) for i in range(8)]
    assert [g.name for g in fold(rows)] == ["b.[0-2]", "b.3", "b.[4-7]"]


def test_a_spike_in_a_slow_drift() -> None:
    """Gains that drift from block to block fold; a jump breaks the fold."""
    drifting = [Item(name=f"b.{i}", key=None, drift=(0.5**i,)) for i in range(40)]
    assert [g.name for g in fold(drifting)] == ["b.[0-39]"]
    spiked = [Item(name=f"b.{i}", key=None, drift=(1e6 if i == 5 else 1.0,)) for i in range(9)]
    assert [g.name for g in fold(spiked)] == ["b.[0-4]", "b.5", "b.[6-8]"]


@pytest.mark.parametrize("pair", [(0.0, 1.0), (None, 1.0), (1.0, None), (0.0, 1e-300)])
def test_a_zero_or_an_unknown_beside_a_number(pair: tuple[float | None, float | None]) -> None:
    """They never fold into one row."""
    assert len(fold([Item(name=f"b.{i}", key=None, near=(v,)) for i, v in enumerate(pair)])) == 2
    assert len(fold([Item(name=f"b.{i}", key=None, drift=(v,)) for i, v in enumerate(pair)])) == 2


@given(st.lists(st.tuples(st.text("ab01.", max_size=6), st.sampled_from([None, 0.0, 1.0, 1e300, 1e-300])), max_size=30, unique_by=lambda x: x[0]))
def test_any_names(rows: list[tuple[str, float | None]]) -> None:
    """Every row is in exactly one group, and a group of one keeps its name."""
    groups = fold([Item(name=name, key=None, near=(v,), drift=(v,)) for name, v in rows])
    assert sorted(i for g in groups for i in g.members) == list(range(len(rows)))
    assert all(g.name == rows[g.members[0]][0] for g in groups if len(g.members) == 1)
    assert [g.members[0] for g in groups] == sorted(g.members[0] for g in groups)


@pytest.mark.parametrize(
    "value, text",
    [
        (None, "–"), (0.0, "0"), (0.5, "0.5"), (1.0, "1"), (-1.0, "-1"), (1 - 1e-10, "1"), (0.99999, "0.99999"), (-0.99999, "-0.99999"), (1.00001, "1.00001"),
        (5.5511e-17, "5.55e-17"), (1e300, "1e300"), (7.9e28, "7.9e28"), (12345.6, "12346"), (0.0343, "0.0343"), (0.001, "0.001"), (2.302585, "2.303"),
        (5e-324, "4.94e-324"), (123456.0, "1.23e5"),
    ],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    """Three to four digits, and 1 only for 1."""
    assert number(value) == text


@given(st.floats(min_value=-1e308, max_value=1e308))
def test_any_number(value: float) -> None:
    """It prints to within half a percent of itself, and as 1 only within 1e-9 of it."""
    printed = float(number(value))
    assert printed == pytest.approx(value, rel=6e-3, abs=0) or abs(value) < 1e-320
    assert (printed == 1) == (abs(value - 1) <= 1e-9)


def test_ranges_and_shares() -> None:
    """A range is one number where both ends print the same; a share below 1 is never 100 %."""
    assert span([0.5, 0.50000001]) == "0.5"
    assert span([None, 0.25, 3.0]) == "0.25–3"
    assert span([-0.5, 0.5]) == "-0.5 to 0.5"
    assert span([]) == "–"
    assert [percent([v]) for v in (0.0, 1.0, 0.9999, 1e-9, 0.37)] == ["0 %", "100 %", "99.9 %", "<0.1 %", "37 %"]
    assert [count(n) for n in (0, 999, 27_300, 999_950, 1_727_962, 7_241_732_096)] == ["0", "999", "27.3k", "1.00M", "1.73M", "7.24B"]


def test_sparklines() -> None:
    """The bars follow the logarithm; a flat model looks flat; zeros and gaps are told apart."""
    assert sparkline([10.0**-i for i in range(8, 0, -1)], 80) == "▁▂▃▄▅▆▇█"
    assert set(sparkline([1.0, 1.1, 0.9], 80)) <= {"▄", "▅"}
    assert sparkline([0.0, None, 1.0], 80) == "0?▅"
    assert len(sparkline([1.0] * 1000, 40)) == 40


@given(st.text(), st.integers(1, 30))
def test_any_name(name: str, width: int) -> None:
    """It is one printable line, and shortens to the width it is given."""
    from rich.cells import cell_len

    text = clean(name)
    assert text.isprintable()
    assert cell_len(shorten(text, width)) <= width
    assert cell_len(keep_end(text, width)) <= width


@pytest.mark.parametrize("value, text", [(float("inf"), "inf"), (float("-inf"), "-inf"), (float("nan"), "nan")])
def test_what_is_not_finite(value: float, text: str) -> None:
    """A ratio of two defined numbers can overflow: it is said, not raised."""
    assert number(value) == text


@pytest.mark.parametrize("file", sorted(Path(gradflow.judge.__file__).parent.glob("*.py")), ids=lambda f: f.name)
def test_messages_have_the_numbers_of_the_tables(file: Path) -> None:
    """A finding's message formats no number of its own: 3.73e-9 in a table is 3.73e-9 in a message."""
    specs = [node.format_spec for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FormattedValue) and node.format_spec]
    assert not [text for spec in specs if re.search(r"\.\d+[gf]|e|%", text := ast.unparse(spec))]
