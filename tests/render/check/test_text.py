"""The run of `gradflow check` as text."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import pytest
from rich.cells import cell_len
from rich.text import Text

from gradflow.records import Checks, Location
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
    """They are counted and not told; the verdict is the model's own: with what is known, without what a comment silences."""
    assert "known: 1, by comments: 1" in render(runs.three(), width=160)
    assert "GF203" not in render(runs.three(), width=160).replace("unused ignore comment (GF203)", "")
    report = runs.sick()
    for by, verdict, found in (("baseline", "sick 2", "known: 8"), ("ignored", "healthy 0", "by comments: 8")):
        old = [runs.Silenced(finding=f, by=by) for f in report.findings]
        passed = runs.Outcome(target="a.py", state="passed", findings=(), silenced=old, report=report, trouble=None, exit_code=0, seconds=1.0)
        for width in (60, 80, 160):
            row = " ".join(render(runs.checks([passed]), width=width).splitlines()[1].split())
            assert row.startswith(f"PASSED a.py {verdict}") and found in row, row


def test_a_target_that_fails_beside_known_findings() -> None:
    """Its verdict and severity are those of all, what is told are those that count, and the worst finding is the worst of these."""
    report = runs.sick()
    new = [f for f in report.findings if f.rule == "GF201"]
    old = [runs.Silenced(finding=f, by="baseline") for f in report.findings if f.rule != "GF201"]
    failed = runs.Outcome(target="a.py", state="failed", findings=new, silenced=old, report=report, trouble=None, exit_code=1, seconds=1.0)
    text = render(runs.checks([failed], fail_on="warning"), width=160)
    assert text.splitlines()[1].split()[:6] == ["FAILED", "a.py", "sick", "2", "GF201", "attenuating-skip"]
    assert "Findings  6" in text and "GF206" not in text and " SICK " in text


def test_equally_bad_findings() -> None:
    """The one nearest the input stands for them, whatever the rounding of their extents; one that is worse stands for itself."""
    report = reports.half_resnet110()
    found = [dataclasses.replace(f, severity="warning", decades=0.02 + i * 1e-9) for i, f in enumerate(f for f in report.findings if f.rule == "GF201")]
    names = [f.where for f in found]
    assert names == sorted(names, key=lambda name: next(s.fork_depth for s in report.skips if s.id == name))
    outcome = runs.outcome("a.py", dataclasses.replace(report, findings=tuple(reversed(found))))
    assert [f.where for f in words.own(outcome)] == names
    found[7] = dataclasses.replace(found[7], decades=0.5)
    outcome = runs.outcome("a.py", dataclasses.replace(report, findings=(found[7], *reversed(found[8:]), *reversed(found[:7]))))
    assert [f.where for f in words.own(outcome)] == [names[7], *names[:7], *names[8:]]


def test_a_wide_table() -> None:
    """How many findings are silenced, and by which, is shown at any width; the time goes first, and before a name is shortened."""
    head, *rows = render(runs.three(), width=60).splitlines()[:4]
    assert head.split() == ["state", "target", "verdict", "silenced"] and rows[0].endswith("sick     known: 1, by comments: 1")
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
    assert words.tally(runs.checks(some[:2])) == "2 targets: 1 passed, 1 failed; silenced findings (known: 1, by comments: 1); exit 1"
    assert words.tally(runs.all_healthy()) == "1 target: 1 passed; exit 0"


def test_warnings_in_a_target_that_passed() -> None:
    """Each rule is one line: how often, where, at which line of the source."""
    report = runs.sick()
    weak = tuple(dataclasses.replace(f, location=Location(file=runs.FILE, line=31 + i % 2)) for i, f in enumerate(report.findings) if f.rule == "GF201")
    for width in (160, 60):
        text = render(runs.checks([runs.outcome("a.py", dataclasses.replace(report, findings=weak))]), width=width)
        assert "warning GF201 ×6 layer1.[0-5] models/half.py:31 and 1 more place note" in " ".join(text.split())
        assert " ".join(text.split()).count("6 warnings in targets that passed") == 1
        assert "next step" not in text


@pytest.mark.parametrize("name", [n for n in runs.HOSTILE if n.isprintable() and n.split() == [n]])
def test_a_name_that_looks_like_markup(name: str) -> None:
    """It prints as itself."""
    assert name in render(runs.hostile(name), width=200)
