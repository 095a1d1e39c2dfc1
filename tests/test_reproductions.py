"""Numbers that the report must hit. They are computed in tests/reproductions and printed in docs/reproductions.md; here the exact ones are computed again."""

from functools import cache
from pathlib import Path

import pytest
import torch
from residual_nets import built, float64, profiled

import gradflow
from gradflow import zoo
from gradflow.numbers import number
from tests.reproductions.__main__ import main
from tests.reproductions.catalogue import NUMBERS, Part, rows
from tests.reproductions.he_table import TABLE
from tests.reproductions.page import parse, parse_he, printed
from tests.reproductions.row import BOUND, bounded, exact, near, rounded

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reproductions.md"
PRINTED = parse(PAGE.read_text())
EXACT = [row for row in PRINTED if row.exact]
WHAT = {"number": 1, "source": "closed form", "quantity": "x"}


@cache
def recomputed(number):
    return {row.quantity: row for row in rows(number, exact=True)}


@pytest.mark.parametrize("row", EXACT, ids=[f"{row.number}-{row.quantity}" for row in EXACT])
def test_an_exact_reproduction(row):
    """It passes, and the page shows what is measured now, to the printed digits; of a bound the digits are rounding and may differ."""
    now = recomputed(row.number)[row.quantity]
    assert now.passed, f"expected {now.expected}, {now.tolerance}; measured {now.measured!r}"
    shown = printed(now)
    assert (shown.source, shown.expected, shown.tolerance) == (row.source, row.expected, row.tolerance)
    assert shown.tolerance == BOUND or shown.measured == row.measured


@pytest.mark.parametrize("number", sorted({row.number for row in EXACT}))
def test_the_page_leaves_out_no_exact_row(number):
    """Its exact rows are those that are computed, in their order."""
    assert [row.quantity for row in EXACT if row.number == number] == list(recomputed(number))


def test_the_page_has_every_number_and_no_failure():
    """All fourteen, and He's Table 1 row by row."""
    assert {row.number for row in PRINTED} == set(NUMBERS)
    assert [row.quantity for row in PRINTED if not row.passed] == []
    assert parse_he(PAGE.read_text()) == dict.fromkeys((row.name for row in TABLE), True)


def test_a_page_with_a_failing_row():
    """The reader of the page sees it: the check above can fail."""
    row = exact(**WHAT, expected=1.0, measured=1.1)
    assert not row.passed
    assert not printed(row).passed
    assert printed(exact(**WHAT, expected=1.0, measured=1.0)).passed


@pytest.mark.parametrize(
    ("row", "passed"),
    [
        (exact(**WHAT, expected=2.0, measured=2.0 + 1e-12), True),
        (exact(**WHAT, expected=2.0, measured=2.0 + 3e-12), False),
        (exact(**WHAT, expected=0.0, measured=1e-300), False),
        (exact(**WHAT, expected=1.0, measured=float("nan")), False),
        (exact(**WHAT, expected=True, measured=False), False),
        (rounded(**WHAT, printed="5.55e-17", measured=2.0**-54), True),
        (rounded(**WHAT, printed="0.6958", measured=0.69586), False),
        (near(**WHAT, expected=1.0, measured=[0.8, 1.3], within=0.1), True),
        (near(**WHAT, expected=1.0, measured=[1.2, 1.2], within=0.1), False),
        (near(**WHAT, expected=1e28, measured=1.1e28, within=0.05, relative=True), False),
        (near(**WHAT, expected=1.0, measured=float("nan"), within=9.0), False),
        (bounded(**WHAT, measured=2e-12, most=1e-12), False),
        (bounded(**WHAT, measured=0.5, least=0.4), True),
        (bounded(**WHAT, measured=float("nan"), least=0.4), False),
    ],
    ids=lambda value: value if isinstance(value, bool) else f"{value.expected} {value.measured} {value.tolerance}",
)
def test_when_a_row_passes(row, passed):
    """Within its tolerance, and never where the measured value is no number."""
    assert row.passed is passed


def test_seeds_are_shown_with_their_standard_error():
    """The standard deviation over √n: 0.8, 1.0, 1.2 have 0.2/√3."""
    row = near(**WHAT, expected=1.0, measured=[0.8, 1.0, 1.2], within=0.1)
    assert row.measured == pytest.approx(1.0)
    assert row.tolerance == "± 0.1; 3 seeds, s.e. 0.12"


def test_the_command_fails_where_a_row_fails(monkeypatch, capsys):
    """Exit code 1 and the failing row on standard output; 0 where all rows pass."""
    found = [exact(**WHAT, expected=1.0, measured=1.0)]
    monkeypatch.setattr("tests.reproductions.__main__.rows", lambda number, exact: found)
    assert main(["--only", "1"]) == 0
    found.append(near(**WHAT, expected=1.0, measured=2.0, within=0.1))
    assert main(["--only", "1"]) == 1
    assert "**fails**" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--only", "15"], ["--only", "0"], ["--only", "one"], ["--only", "1", "--write", "x.md"], ["--exact", "--write", "x.md"]])
def test_a_wrong_argument(words, tmp_path, monkeypatch, capsys):
    """Refused before anything is computed, and nothing is written: a number that is not there, a page of some of the rows."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "--only" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_part_without_a_module():
    """Its numbers are there as rows that fail."""
    missing = list(Part(numbers=(9, 10), module="nowhere", exact=False).rows())
    assert [(row.number, row.measured, row.passed) for row in missing] == [(9, "missing", False), (10, "missing", False)]


def test_resnet_110_with_half_a_shortcut():
    """54 skips at exactly 0.5; the first finding is about the highway, 5.55e-17, and tells the total gradient beside it."""
    report = profiled(*built(lambda: zoo.preact_resnet(110, shortcut="scaled", scale=0.5), (2, 3, 4, 4)))
    assert [skip.lam for skip in report.skips] == [0.5] * 54
    assert {skip.kind for skip in report.skips} == {"scaled"}
    (highway,) = report.highways
    first = report.findings[0]
    assert (first.rule, first.severity, first.where) == ("GF206", "error", highway.name)
    assert first.value == highway.gain
    assert "5.55e-17" in first.message
    assert number(highway.total_gain) in first.message
    assert report.verdict == "sick"


def test_a_deep_sigmoid_net():
    """30 sigmoid layers: a vanishing gradient, and the worst layer is the first."""
    with float64():
        model, x = zoo.mlp(30, 16, activation="sigmoid"), torch.randn(8, 16)
    report = gradflow.profile(model, x)
    first = report.findings[0]
    assert (first.rule, first.severity, first.where) == ("GF101", "error", "0")
    assert report.verdict == "sick"
    assert report.layers[0].gain == min(layer.gain for layer in report.layers)


def test_a_branch_that_cancels_its_skip():
    """F = −x: nothing arrives at the fork, the skip is perfect all the same, and the highway's share of nothing is undefined."""
    (skip,) = profiled(*built(lambda: zoo.cancelling_net(1.0), (4, 8))).skips
    assert (skip.lam, skip.total_gain, skip.bound_holds) == (1.0, 0.0, False)
    assert skip.highway_share is None
