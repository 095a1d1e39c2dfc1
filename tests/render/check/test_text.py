"""The run of `gradflow check` as text."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from rich.cells import cell_len
from rich.text import Text

from gradflow.records import Checks
from gradflow.render.check import words
from gradflow.render.check.text import NARROWEST, render
from render import reports

from . import runs

each = pytest.mark.parametrize("build", runs.EVERY, ids=lambda f: f.__name__)


@each
@pytest.mark.parametrize("width", [20, 60, 80, 200])
def test_any_width(build: Callable[[], Checks], width: int) -> None:
    """No line is wider than the terminal (or 60, where that is narrower), and none ends in blanks."""
    for line in render(build(), width=width).splitlines():
        assert cell_len(line) <= max(width, NARROWEST), line
        assert line == line.rstrip(), repr(line)


@each
def test_color_changes_no_word(build: Callable[[], Checks]) -> None:
    """Colour and links add nothing but escape codes; without colour there are none."""
    plain = render(build(), links=True)
    assert "\x1b" not in plain
    assert Text.from_ansi(render(build(), color=True, links=True)).plain.split() == plain.split()


def test_twenty_targets() -> None:
    """Each has one line in the order given, the failed and broken ones a section, and the tally comes last."""
    lines = render(runs.many(), width=120).splitlines()
    assert [line.split()[:2] for line in lines[1:21]] == [
        ["BROKEN" if i == 7 else "FAILED" if i in (3, 4, 12) else "PASSED", "models/m7.py" if i == 7 else f"models/m{i}.py:model"] for i in range(20)
    ]
    assert [line for line in lines[21:] if line.startswith("models/")] == ["models/m3.py:model", "models/m4.py:model", "models/m7.py", "models/m12.py:model"]
    assert lines[-1] == "20 targets: 16 passed, 3 failed, 1 broken; exit 2"


def test_a_failed_target() -> None:
    """It shows what stands out, the next step and the findings, folded, each with its fix and place."""
    text = " ".join(render(runs.three(), width=120).split())
    for part in ("worst layer", "worst skip", "next step", "Findings 8", "warning GF201 ×6 layer1.[0-5]", "[0.5, limit 0.95]", "models/half.py:31"):
        assert part in text, part
    assert [render(runs.three(), unfold=u).count("warning GF201") for u in (False, True)] == [1, 6]


def test_a_broken_target() -> None:
    """It shows the error, what to do, and the frames."""
    text = render(runs.three())
    assert "error forward raised ValueError: bad shape." in text
    assert "half.py:12 in forward" in text


def test_silenced_findings() -> None:
    """They are counted and not told, and a target all of whose errors are silenced reads as healthy."""
    assert "1 baseline, 1 comment" in render(runs.three(), width=160)
    assert "GF203" not in render(runs.three(), width=160).replace("unused ignore comment (GF203)", "")
    report = runs.sick()
    old = [runs.Silenced(finding=f, by="baseline") for f in report.findings]
    passed = runs.Outcome(target="a.py", state="passed", findings=(), silenced=old, report=report, trouble=None, exit_code=0, seconds=1.0)
    for width in (60, 80, 160):
        row = render(runs.checks([passed]), width=width).splitlines()[1].split()
        assert row[:6] == ["PASSED", "a.py", "healthy", "0", "8", "baseline"]


def test_a_wide_table() -> None:
    """How many findings are silenced, and by which, is shown at any width; the time goes first, and before a name is shortened."""
    head, *rows = render(runs.three(), width=60).splitlines()[:4]
    assert head.split() == ["state", "target", "verdict", "silenced"] and rows[0].endswith("sick     1 baseline, 1 comment")
    assert render(runs.three(), width=100).splitlines()[0].split()[-2:] == ["finding", "silenced"]
    assert render(runs.three(), width=160).splitlines()[0].split()[-2:] == ["silenced", "time"]


def test_the_tally() -> None:
    """Its counts add up: each target is in one of them, each finding that is left out is counted once."""
    some = runs.three().outcomes
    for outcomes in (some, [*some, *some[:2]], some[1:], some[:1] * 3, some[2:], []):
        counted, *left_out, code = words.tally(runs.checks(outcomes)).split("; ")
        total, states = counted.split(":")
        assert int(total.split()[0]) == len(outcomes) == sum(int(n) for n in re.findall(r"\d+", states))
        assert sum(int(n) for n in re.findall(r"\d+", "".join(left_out))) == sum(len(o.silenced) for o in outcomes)
        assert code == f"exit {max((o.exit_code for o in outcomes), default=0)}"
    assert words.tally(runs.checks(some[:2])) == "2 targets: 1 passed, 1 failed; silenced findings: 1 baseline, 1 comment; exit 1"
    assert words.tally(runs.all_healthy()) == "1 target: 1 passed; exit 0"


def test_warnings_in_a_target_that_passed() -> None:
    """They are not told at length, and the reader learns that there are some and how to see them."""
    report = reports.cross_purposes()
    text = render(runs.checks([runs.outcome("a.py", report)]), width=160)
    assert "1 warning in targets that passed" in text
    assert "next step" not in text


@pytest.mark.parametrize("name", [n for n in runs.HOSTILE if n.isprintable() and n.split() == [n]])
def test_a_name_that_looks_like_markup(name: str) -> None:
    """It prints as itself."""
    assert name in render(runs.hostile(name), width=200)
