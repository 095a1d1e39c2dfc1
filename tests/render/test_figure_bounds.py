"""What keeps a healthy page from looking sick: where alarms would begin, notes that are no findings, and shapes for runs of skips."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import numpy as np
import pytest
import torch

import gradflow
from gradflow.bands import fluctuation
from gradflow.judge import judge
from gradflow.records import Report, Skip
from gradflow.render.figure import PanelName, page
from gradflow.render.figure.skips import places, runs
from gradflow.rules import RULES, choose

from . import reports
from .test_figure import apart, said, texts


def plain(*gains: float, findings: Any = ()) -> Report:
    """Layers without skips, so wide that their band is next to nothing."""
    layers = [reports.layer(f"{i}", "Linear", i, gain, output_shape=(4, 10**9)) for i, gain in enumerate(gains)]
    return reports.report(layers, findings=findings)


def noted(limit: float | None = None, gain: float = 332.0) -> Report:
    """A first layer with a note."""
    first = RULES["GF102"].note if limit is None else limit
    note = reports.finding("GF102", "0", "0 receives much: no alarm.", "Nothing.", severity="info", value=gain, limit=first, decades=1.04)
    return plain(gain, 20.0, 1.0, findings=[note])


def alarms(report: Report) -> list[str]:
    fig = page.figure(report, panels=[PanelName.LAYERS])
    return [text for text in apart(fig) if text[-1] in "↑↓"]


def test_a_limit_near_the_axis():
    """It is drawn as a line where the rule has it, and named."""
    report = noted()
    assert "alarm: exploding above 10³ ↑" in alarms(report)
    axes = page.figure(report, panels=[PanelName.LAYERS]).axes[0]
    heights = {round(float(y), 3) for line in axes.lines for y in np.atleast_1d(line.get_ydata())}
    assert math.log10(RULES["GF102"].warning or 0) in heights


def test_a_limit_far_from_the_axis():
    """It is named at the edge, and the axis does not grow for it."""
    report = plain(1.1, 1.0)
    assert sorted(alarms(report)) == ["exploding from 10³ on ↑", "vanishing from 10⁻³ on ↓"]
    low, high = page.figure(report, panels=[PanelName.LAYERS]).axes[0].get_ylim()
    assert -3 < low < high < 3


@pytest.mark.parametrize(("first", "words"), [(1e4, "exploding from 10⁴ on ↑"), (2e3, "alarm: exploding above 2000 ↑")])
def test_a_limit_that_was_moved(first: float, words: str):
    """The findings say by which limits the report was judged: those that hold are drawn, not the table's."""
    note = RULES["GF102"].moved(first).note
    assert [text for text in alarms(noted(note)) if "exploding" in text] == [words]


@pytest.mark.parametrize("options", [{}, {"limits": {"GF101": 1e-2}}, {"limits": {"GF101": 1e-9}}, {"ignore": ["GF101"]}])
def test_measured_layers_are_on_the_right_side(options):
    """A layer of a plain network beyond the line has a finding, and one before it has none; where nothing tells the limit no line is drawn."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(*[m for _ in range(9) for m in (torch.nn.Linear(48, 48), torch.nn.Sigmoid())])
    report = gradflow.profile(model, torch.randn(8, 48))
    report = dataclasses.replace(report, findings=judge(report.layers, report.skips, report.highways, choose(RULES, **options)))
    axes = page.figure(report, panels=[PanelName.LAYERS]).axes[0]
    lines = [line for line in axes.lines if line.get_linestyle() == "--" and len(line.get_xdata()) == len(report.layers) + 2]
    lines = [line for line in lines if max(line.get_ydata()) < 0]
    hit = {f.where for f in report.findings if f.rule == "GF101" and f.severity != "info"}
    assert len(lines) == any(f.rule == "GF101" for f in report.findings)
    for line in lines:
        for layer, height in zip(report.layers, list(line.get_ydata())[1:-1], strict=True):
            assert (layer.name in hit) == (math.log10(layer.gain or 1.0) < height)


def test_the_band_widens_the_limit():
    """The line is as far from the rule's limit as the band is wide."""
    layers = [reports.layer(f"{i}", "Linear", i, 10.0 ** (2.9 - i / 4), output_shape=(4, 64)) for i in range(12)]
    axes = page.figure(reports.report(layers), panels=[PanelName.LAYERS]).axes[0]
    heights = next(list(line.get_ydata()) for line in axes.lines if len(line.get_xdata()) == 14 and max(line.get_ydata()) > 2.5)
    assert heights[1:-1] == pytest.approx([3 + band for band in fluctuation(layers)])


def test_notes():
    """A healthy page counts them as notes, says the worst under the headline and at its mark in grey; beside an alarm it does neither."""
    report = noted()
    seen = said(report)
    assert "1 note · severity" in seen and "finding" not in seen
    assert "The gradient reaches every layer." in seen and "Noted: 0 receives much: no alarm." in seen and "noted: 0, gain 332" in seen
    alarm = reports.finding("GF109", "1", "Dead units.", "Lower the bias.", severity="warning")
    seen = said(dataclasses.replace(report, findings=[alarm, *report.findings], verdict="warnings"))
    assert "1 finding · 1 note · severity" in seen and "oted: 0" not in seen


def test_where():
    """The header has file and line of the worst finding, or of the layer or skip that it is about; labels have them where there is room."""
    here = reports.finding("GF102", "0", "It explodes.", "Normalise.", value=1e8, limit=1e7)
    assert "Where: …/torchvision/models/resnet.py:102" in said(plain(1e8, 1.0, findings=[here]))
    there = dataclasses.replace(here, location=None)
    seen = said(plain(1e8, 1.0, findings=[there]))
    assert "Where: …/torchvision/models/resnet.py:92" in seen and "gain 1e8 · resnet.py:92" in seen
    assert "Where" not in said(plain(1.0))


def chain(*kinds: str, gain: float = 1.0, at: int = 0) -> list[Skip]:
    return [reports.skip(f"{at}.{i}", at + 5 * i, at + 5 * i + 5, kind=kind, gain=gain) for i, kind in enumerate(kinds)]


def test_runs():
    """Like skips in a row are one run, whatever lies over them; another kind, another gain, a gap, or an overlap ends it."""
    assert [len(r) for r in runs(chain(*["identity"] * 7, "pooled", *["identity"] * 4))] == [7, 1, 4]
    assert [len(r) for r in runs(chain(*["identity"] * 3) + chain(*["identity"] * 3, gain=0.4, at=15))] == [3, 3]
    assert [len(r) for r in runs(chain(*["identity"] * 3) + chain(*["identity"] * 3, at=30))] == [3, 3]
    dense = [reports.skip(f"{i}.{j}", 2 * i, 2 * j) for i in range(9) for j in range(i + 2, 9, 2)]
    assert {len(r) for r in runs(dense)} == {1}
    assert sorted(len(r) for r in runs([*chain(*["identity"] * 6), reports.skip("across", 0, 30, kind="concat")])) == [1, 6]


def test_every_skip_is_in_one_run():
    """None is lost and none is told twice, of any net."""
    rng = random.Random(0)
    for _ in range(30):
        forks = [rng.randrange(60) for _ in range(rng.randrange(1, 60))]
        skips = [
            reports.skip(f"{i}", f, f + rng.randrange(0, 9), kind=rng.choice(["identity", "pooled"]), gain=rng.choice([1.0, 0.0, 0.3]))
            for i, f in enumerate(forks)
        ]
        assert sorted(s.id for run in runs(skips) for s in run) == sorted(s.id for s in skips)


@pytest.mark.parametrize("count", [5, 60, 61, 1000])
def test_arcs(count: int):
    """Few are arcs, each of its own; of many each run is one shape with its count in it, and single odd ones are arcs still."""
    kinds = ["identity" if i != count // 2 else "pooled" for i in range(count)]
    skips = chain(*kinds)
    layers = [reports.layer(f"{i}", "Linear", i, 1.0) for i in range(5 * count)]
    fig = page.figure(reports.report(layers, skips), panels=[PanelName.SKIPS])
    lines = [c for c in fig.axes[0].collections if type(c).__name__ == "LineCollection"]
    drawn = sum(len(c.get_paths()) for c in lines)
    labels = [text for text in apart(fig) if "× identity" in text]
    if count <= 60:
        assert drawn == count and not labels
    else:
        assert drawn == 1 and labels == [f"{count // 2} × identity, gain 1", f"{count - count // 2 - 1} × identity, gain 1"]
    assert f"{count} skip connections, fork to join" in [text for text, _ in texts(fig)]


def test_marks_of_one_middle():
    """Skips nested in each other, as across a U-Net, stand side by side in the panels of λ and shares, and the others at their middle."""
    nested = [reports.skip(f"across.{i}", 10 - i, 20 + i, kind="concat", lam=None, gain=0.5) for i in range(3)]
    skips = [*nested, reports.skip("alone", 0, 4)]
    report = reports.report([reports.layer(f"{i}", "Linear", i, 1.0) for i in range(30)], skips)
    for name in (PanelName.LAMBDA, PanelName.SHARES):
        axes = page.figure(report, panels=[name]).axes[0]
        spots = sorted(tuple(axes.transData.transform(p)) for c in axes.collections if type(c).__name__ == "PathCollection" for p in c.get_offsets())
        assert len(spots) == 4
        assert all(math.dist(a, b) > 5 * 150 / 72 for i, a in enumerate(spots) for b in spots[i + 1 :])
    stacked = reports.report(report.layers, [reports.skip(f"{i}", 0, 0) for i in range(3)])
    spots = places(page.figure(stacked, panels=[PanelName.LAMBDA]).axes[0], stacked)
    assert len(set(spots.values())) == 3
    found = places(page.figure(report, panels=[PanelName.LAMBDA]).axes[0], report)
    assert found["alone"] == 1.5 and np.mean([found[s.id] for s in nested]) == pytest.approx(14.5)
