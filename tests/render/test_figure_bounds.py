"""What keeps a healthy page from looking sick: where alarms would begin, notes that are no findings, and shapes for runs of skips."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import gradflow
from gradflow.bands import fluctuation
from gradflow.judge import judge
from gradflow.numbers import number
from gradflow.records import Report, Skip
from gradflow.render.figure import PanelName, ThemeName, canvas, labels, page
from gradflow.render.figure.labels import Caption
from gradflow.render.figure.skips import places, runs
from gradflow.render.figure.theme import THEMES
from gradflow.rules import RULES, choose

from . import reports
from .test_figure import apart, said, texts


def plain(*gains: float, findings: Any = (), **changes: Any) -> Report:
    """Layers without skips, so wide that their band is next to nothing."""
    layers = [reports.layer(f"{i}", "Linear", i, gain, output_shape=(4, 10**9)) for i, gain in enumerate(gains)]
    return reports.report(layers, findings=findings, **changes)


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


@pytest.fixture(scope="module")
def shrinking() -> Report:
    """A plain network that loses some nine decades."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(*[m for _ in range(9) for m in (torch.nn.Linear(48, 48), torch.nn.Sigmoid())])
    return gradflow.profile(model, torch.randn(8, 48))


@pytest.mark.parametrize("holds", [True, False], ids=["it holds its limits", "an earlier version wrote it"])
@pytest.mark.parametrize("options", [{}, {"limits": {"GF101": 1e-2}}, {"limits": {"GF101": 1e-5}}, {"ignore": ["GF101"]}])
def test_measured_layers_are_on_the_right_side(shrinking, options, holds):
    """A layer of a plain network beyond the line has a finding, and one before it has none; where nothing tells the limit no line is drawn."""
    rules = choose(RULES, **options)
    found = judge(shrinking.layers, shrinking.skips, shrinking.highways, rules)
    report = dataclasses.replace(shrinking, findings=found, limits=rules.limits if holds else None)
    lines = [heights for heights in lines_of(report) if max(heights) < 0]
    hit = {f.where for f in report.findings if f.rule == "GF101" and f.severity != "info"}
    assert len(lines) == any(f.rule == "GF101" for f in report.findings)
    for heights in lines:
        for layer, height in zip(report.layers, heights, strict=True):
            assert (layer.name in hit) == (math.log10(layer.gain or 1.0) < height)


def lines_of(report: Report) -> list[list[float]]:
    """The heights of each line of alarm, in decades, at each layer."""
    axes = page.figure(report, panels=[PanelName.LAYERS]).axes[0]
    return [
        [float(y) for y in np.atleast_1d(line.get_ydata())[1:-1]]
        for line in axes.lines
        if line.get_linestyle() == "--" and len(np.atleast_1d(line.get_xdata())) == len(report.layers) + 2
    ]


@pytest.mark.parametrize("first", [1e-2, 2e-3, 1e-4])
def test_a_stored_limit(first: float):
    """A report that was stored says where the line is, though no finding does."""
    limits = choose(RULES, limits={"GF101": first}).limits
    report = dataclasses.replace(plain(0.5, 1e-3, 1.0), limits=limits)
    stored = Report.from_json(report.to_json())
    assert stored == report and stored.limits == limits
    below = [heights for heights in lines_of(stored) if max(heights) < 0]
    assert below == [pytest.approx([math.log10(first)] * 3, abs=1e-3)]


def test_a_rule_that_did_not_judge():
    """Its line is not drawn, nor named at the edge."""
    report = dataclasses.replace(plain(0.5, 1e-3, 1.0), limits=choose(RULES, ignore=["GF101", "GF102"]).limits)
    assert not alarms(report) and not lines_of(report)


def test_the_limits_that_a_profile_stores():
    """Those of each rule that was selected, as they were moved; null where it has none."""
    torch.manual_seed(0)
    rules = choose(RULES, select=["GF1"], ignore=["GF111"], limits={"GF101": 1e-2})
    limits = gradflow.profile(torch.nn.Linear(4, 4), torch.randn(2, 4), rules=rules).limits
    assert limits is not None and set(limits) == {code for code in RULES if code.startswith("GF1")} - {"GF111"}
    assert dataclasses.astuple(limits["GF101"]) == pytest.approx((1e-2, 1e-5, 0.3))
    assert dataclasses.astuple(limits["GF108"]) == (None, None, None)


def test_a_limit_beyond_every_number():
    """It is none in a report, which strict JSON holds."""
    rules = choose(RULES, limits={"GF102": 1e305})
    assert dataclasses.astuple(rules.limits["GF102"]) == (1e305, None, pytest.approx(3e303))
    report = dataclasses.replace(plain(1.0), limits=rules.limits)
    assert Report.from_json(report.to_json()) == report


def test_a_report_of_an_earlier_version():
    """Its JSON has no limits, and its picture is that of the table's."""
    report = dataclasses.replace(plain(0.5, 1e-3, 1.0), limits=choose(RULES).limits)
    text = json.loads(report.to_json())
    del text["limits"]
    earlier = Report.from_json(json.dumps(text))
    assert earlier.limits is None and page.render(earlier) == page.render(report)


def test_quiet_layers():
    """What lies below the limit of the trunk inside a branch is hollow and counted in the key; what alarms there is not, nor what is closed."""
    gains = (1.0, 1e-5, 1e-6, 1e-7, 1e-12, 1.0)
    layers = [reports.layer(f"{i}", "Linear", i, gain, output_shape=(4, 10**9), closed_by="scale" if i == 3 else "") for i, gain in enumerate(gains)]
    found = [reports.finding("GF101", "4", "It vanishes.", "Normalise.", value=1e-12, limit=1e-8)]
    report = reports.report(layers, [reports.skip("block", 1, 5)], findings=found, limits=choose(RULES).limits)
    axes = page.figure(report, panels=[PanelName.LAYERS]).axes[0]
    assert "no alarm: a skip leads around (2)" in said(report)
    hollow = [c for c in axes.collections if type(c).__name__ == "PathCollection" and len(c.get_offsets()) == 2]
    assert [sorted(float(x) for x, _ in c.get_offsets()) for c in hollow] == [[1.0, 2.0]]
    assert "no alarm" not in said(dataclasses.replace(report, skips=())) and "no alarm" not in said(plain(1e-5, 1.0))


def test_a_line_that_bends():
    """Its words say what it is at the output and how wide the band makes it at the input."""
    layers = [reports.layer(f"{i}", "Linear", i, 10.0 ** (2.9 - i / 4), output_shape=(4, 64)) for i in range(12)]
    (words,) = (text for text in alarms(reports.report(layers)) if "exploding" in text)
    end = number(float(f"{10 ** (3 + fluctuation(layers)[0]):.1e}"), 2)
    assert words == f"alarm: exploding above 10³, widened by the band to {end} at the input ↑"


def test_the_band_widens_the_limit():
    """The line is as far from the rule's limit as the band is wide."""
    layers = [reports.layer(f"{i}", "Linear", i, 10.0 ** (2.9 - i / 4), output_shape=(4, 64)) for i in range(12)]
    axes = page.figure(reports.report(layers), panels=[PanelName.LAYERS]).axes[0]
    heights = next(list(line.get_ydata()) for line in axes.lines if len(line.get_xdata()) == 14 and max(line.get_ydata()) > 2.5)
    assert heights[1:-1] == pytest.approx([3 + band for band in fluctuation(layers)])


@pytest.mark.parametrize(("until", "said"), [(0, "all of the words that there are of it"), (80, "few words"), (100, "few words")])
def test_words_along_a_line(until: int, said: str):
    """They are the short ones where all of them would cover a point, and there also where these cover one too."""
    fig = Figure(figsize=(4, 1), dpi=100)
    axes = fig.add_axes((0, 0, 1, 1), xlim=(0, 100), ylim=(0, 1))
    axes.scatter(range(until), [0.6] * until)
    caption = Caption(xs=(0, 100), ys=(0.5, 0.5), text="all of the words that there are of it", above=True, short="few words")
    labels.place(axes, canvas.renderer(fig), [], THEMES[ThemeName.LIGHT], captions=[caption])
    assert [text.get_text() for text in axes.texts] == [said]


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
    """The mark of a skip that leads around others, as across a U-Net, stands at its arc's end, all others at their middle; those of one place side by side."""
    nested = [reports.skip(f"across.{i}", 10 - i, 20 + i, kind="concat", lam=None, gain=0.5) for i in range(3)]
    skips = [*nested, reports.skip("twin", 8, 22, kind="norm"), reports.skip("alone", 0, 4)]
    report = reports.report([reports.layer(f"{i}", "Linear", i, 1.0) for i in range(30)], skips)
    found = places(page.figure(report, panels=[PanelName.LAMBDA]).axes[0], report)
    assert found["alone"] == 1.5 and found["across.0"] == 14.5 and found["across.1"] == 20.5
    assert (found["across.2"] + found["twin"]) / 2 == pytest.approx(21.5) and found["across.2"] != found["twin"]
    for name in (PanelName.LAMBDA, PanelName.SHARES):
        axes = page.figure(report, panels=[name]).axes[0]
        spots = sorted(tuple(axes.transData.transform(p)) for c in axes.collections if type(c).__name__ == "PathCollection" for p in c.get_offsets())
        assert len(spots) == 5
        assert all(math.dist(a, b) > 5 * 150 / 72 for i, a in enumerate(spots) for b in spots[i + 1 :])
    stacked = reports.report(report.layers, [reports.skip(f"{i}", 0, 0) for i in range(3)])
    spots = places(page.figure(stacked, panels=[PanelName.LAMBDA]).axes[0], stacked)
    assert len(set(spots.values())) == 3


def test_marks_of_crossing_skips():
    """Those of a dense block stand at the middle of their arcs."""
    forks = (0, 4, 8, 12)
    dense = [reports.skip(f"{f}.{j}", f, j, kind="concat", lam=None, gain=0.5) for j in (4, 8, 12, 16) for f in forks if f < j]
    report = reports.report([reports.layer(f"{i}", "Linear", i, 1.0) for i in range(17)], dense)
    found = places(page.figure(report, panels=[PanelName.LAMBDA]).axes[0], report)
    assert all(abs(found[s.id] - (s.fork_depth + s.join_depth) / 2 + 0.5) < 1 for s in dense)


def post_ln(gain: float, lam: float = 1.0, severity: str = "warning") -> Report:
    """Four blocks of two layers with a norm after each sum."""
    layers = [reports.layer(f"{b}.{i}", "LayerNorm" if i == 2 else "Linear", 3 * b + i, 1.0) for b in range(4) for i in range(3)]
    skips = [reports.skip(f"{b}", 3 * b, 3 * b + 2, lam=lam) for b in range(4)]
    road = reports.highway(skips, trunk_ops=("layer_norm",), gain=gain, identity_gain=gain / lam**4)
    found = [reports.finding("GF205", road.name, "layer_norm lies on the trunk.", "Move it.", severity="info", value=None, limit=None)]
    if gain < 1e-2:
        found.insert(0, reports.finding("GF206", road.name, "The skips alone carry little.", "Move it.", severity=severity, value=gain, limit=1e-2))
    return reports.report(layers, skips, [road], found)


def test_norms_on_the_trunk():
    """Each gap between two sums has a mark, in the colour of the alarm where the highway has one; that λ does not do it is said beside λ, where it does not."""
    for report, blamed, color in ((post_ln(1e-3), True, "warning"), (post_ln(0.5), False, None), (post_ln(1e-3, lam=0.5), False, "warning")):
        fig = page.figure(report, panels=[PanelName.SKIPS, PanelName.LAMBDA])
        seen = apart(fig)
        assert "layer_norm on the trunk, between the sums (3)" in seen
        assert ("not λ but layer_norm, between the sums: highway × 0.001" in seen) == blamed
        bars = next(c for c in fig.axes[0].collections if len(c.get_paths()) == 3)
        assert [path.vertices[0][0] for path in bars.get_paths()] == [2.0, 5.0, 8.0]
        theme = THEMES[ThemeName.LIGHT]
        assert to_hex(bars.get_colors()[0]) == (theme.alarm[color] if color else theme.grey).lower()
    without = dataclasses.replace(post_ln(1e-3), findings=())
    assert "on the trunk, between" not in " ".join(apart(page.figure(without, panels=[PanelName.SKIPS])))


def test_what_the_severity_counts():
    """The header names the finding that counts most; where nothing counts, or the number is another's, it is silent."""
    worst = reports.finding("GF102", "0", "It explodes.", "Normalise.", value=1e6, limit=1e3, decades=3.0)
    assert "severity: GF102 counts most, in powers of ten beyond where it begins to count" in said(plain(1e6, 1.0, findings=[worst]))
    capped = reports.finding("GF206", "h", "It starves.", "Set λ = 1.", value=1e-9, limit=1e-2, decades=7.0)
    assert "GF206 counts most, 1 power of ten at most" in said(plain(1.0, findings=[capped], severity=1.0))
    assert "counts most" not in said(plain(1.0)) and "counts most" not in said(plain(1.0, findings=[worst], severity=9.0))


def test_the_height_of_a_small_net():
    """Its panels over depth are flatter than those of a deep one."""
    heights = [page.figure(plain(*[1.0] * count), panels=[PanelName.LAYERS]).axes[0].bbox.height for count in (1, 3, 6, 12, 40)]
    assert heights[0] == pytest.approx(heights[1]) and heights[1] < heights[2] < heights[3] and heights[3] == pytest.approx(heights[4])
