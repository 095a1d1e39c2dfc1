"""Two reports over each other: `gradflow diff --png`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradflow.alignment import Alignment
from gradflow.difference import difference
from gradflow.records import Report
from gradflow.render.figure import ThemeName, comparison
from gradflow.rules import RULES, choose

from . import reports
from .test_figure import apart, sized

PAIRS = {
    "mended": (reports.half_resnet110, reports.healthy_resnet), "itself": (reports.gpt, reports.gpt), "skips gone": (reports.gpt, reports.sigmoid_mlp),
    "nothing before": (reports.nothing, reports.cross_purposes), "nothing after": (reports.cross_purposes, reports.nothing),
    "nothing at all": (reports.nothing, reports.nothing), "extremes": (reports.extremes, reports.weird_names), "zeros": (reports.all_zero, reports.unmeasured),
    "deeper": (lambda: sized(30), lambda: sized(120)), "shallower": (lambda: sized(1000), lambda: sized(5)), "loops": (reports.loops, reports.loops),
    "opened gates": (reports.recurrent, lambda: reports.recurrent(0.96)), "loops gone": (reports.recurrent, reports.sigmoid_mlp),
}  # fmt: skip


@pytest.mark.parametrize("theme", ThemeName, ids=lambda t: t.value)
@pytest.mark.parametrize("pair", PAIRS)
def test_words(pair, theme):
    """None collides with another or leaves the picture, and both verdicts are there."""
    before, after = (build() for build in PAIRS[pair])
    fig = comparison.figure(before, after, difference(before, after), theme=theme, dpi=100)
    assert f"{before.verdict.upper()} → {after.verdict.upper()}" in apart(fig)


def test_what_changed():
    """The findings that went are counted by rule, each λ that changed has its line, and both highways are named."""
    before, after = reports.half_resnet110(), reports.report(*reports.residual({"layer1": 18, "layer2": 18, "layer3": 18}, 1.0, random.Random(2)))
    fig = comparison.figure(before, after, difference(before, after))
    words = " ".join(apart(fig))
    assert "Findings gone:" in words and "GF201 attenuating skip ×54" in words and "× 5.6e-17 along its 54 skips" in words
    changed = sum(s.lam is not None and t.lam is not None and s.lam != t.lam for s, t in zip(before.skips, after.skips, strict=True))
    assert f"changed ({changed})" in words and changed > 50


def test_limits():
    """Where an alarm would begin is drawn of the newer report, and of the older one too where it was judged by others, each as it was stored."""

    def judged(first: float) -> Report:
        layers = [reports.layer(f"{i}", "Linear", i, gain, output_shape=(4, 10**9)) for i, gain in enumerate((0.5, 1e-3, 1.0))]
        return reports.report(layers, limits=choose(RULES, limits={"GF101": first}).limits)

    for old, words in ((1e-2, {"alarm: vanishing below 10⁻⁴ ↓", "alarm: before: vanishing below 10⁻² ↓"}), (1e-4, {"alarm: vanishing below 10⁻⁴ ↓"})):
        before, after = judged(old), judged(1e-4)
        fig = comparison.figure(before, after, difference(before, after))
        assert {text for text in apart(fig) if "vanishing" in text} == words, old


def test_loops():
    """What they bring back to each call is drawn before and after, over the calls and not over the depth."""
    before, after = reports.recurrent(), reports.recurrent(0.96)
    fig = comparison.figure(before, after, difference(before, after))
    words = " ".join(apart(fig))
    assert "Through the calls, before and after" in words and "highway before" not in words
    assert "before: cell, exactly 0 before call" in words and "after: cell, × 2.8e-4 at call 1" in words


@given(gone=st.sets(st.integers(0, 11), max_size=11), came=st.integers(0, 3))
def test_the_axis_of_depth(gone, came):
    """Each layer that both have stands where it is now, whatever came and went; the others in between, in order; a skip from fork to join."""
    kept = [f"part{i}" for i in range(12) if i not in gone]
    new = [reports.layer(n, "Linear", d, 1.0) for d, n in enumerate([*(f"new{i}" for i in range(came)), *kept])]
    old = [reports.layer(f"part{i}", "Linear", i, 1.0) for i in range(12)]
    before, after = reports.report(old, [reports.skip(f"part{i}", i, i + 1) for i in range(12)]), reports.report(new)
    shown = comparison.moved(before, after, Alignment({x.name: x.type for x in old}, {x.name: x.type for x in new}))
    now = {x.name: x.depth for x in new}
    depths = [x.depth for x in shown.layers]
    assert all(x.depth == now[x.name] for x in shown.layers if x.name in now)
    assert depths == sorted(depths) and all(0 <= d <= max(now.values(), default=0) for d in depths)
    assert all(s.fork_depth <= s.join_depth for s in shown.skips)


@pytest.mark.parametrize(("ending", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF-")])
def test_from_the_command_line(run, tmp_path, ending, start):
    """The picture in each format beside the text, the same bytes each time, and the exit code is that of the difference."""
    before, after = reports.healthy_resnet(), reports.half_resnet110()
    for name, report in (("a", before), ("b", after)):
        (tmp_path / f"{name}.json").write_text(report.to_json(), encoding="utf-8")
    code, out, err = run("diff", tmp_path / "a.json", tmp_path / "b.json", "--png", tmp_path / f"d{ending}", "--theme", "dark")
    assert code == 1 and "WORSE" in out and "wrote" in err
    drawn = Path(tmp_path / f"d{ending}").read_bytes()
    assert drawn.startswith(start)
    again = Report.from_json(before.to_json()), Report.from_json(after.to_json())
    assert comparison.render(*again, difference(*again), theme=ThemeName.DARK, ending=ending) == drawn


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (("--png", "x.gif"), "ends in .png, .svg or .pdf"), (("--png", "-", "--output", "-"), "the difference takes standard output"),
        (("--png", "-", "--format", "json"), "the difference takes standard output"), (("--theme", "dark"), "--theme dark needs --png FILE beside it"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn(run, tmp_path, words, fact):
    """One error, before anything is read or written."""
    code, out, err = run("diff", tmp_path / "a.json", tmp_path / "b.json", *words)
    assert (code, out) == (2, "") and fact in err and err.count("rror: ") == 1
