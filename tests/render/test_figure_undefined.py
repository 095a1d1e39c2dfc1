"""What is undefined, 0 or routed past is said in words or has a mark of its own; it is never drawn as a measurement."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D

from gradflow.records import Report
from gradflow.render.figure import PanelName, ThemeName, canvas, page
from gradflow.render.figure.lambdas import scale_of
from gradflow.render.figure.text import fill
from gradflow.render.figure.theme import THEMES

from . import reports
from .reports import SKIP_NUMBERS
from .test_figure import apart

LOST = "the gradient at the last join is exactly 0"


def stack(count: int = 4, **changes: Any) -> Report:
    """A highway of identities, one after another."""
    layers = [reports.layer(f"blocks.{i}", "Linear", i, 1.0) for i in range(2 * count)] + [reports.layer("head", "Linear", 2 * count, 1.0)]
    skips = [reports.skip(f"blocks.{i}", 2 * i, 2 * i + 2) for i in range(count)]
    return reports.report(layers, skips, [reports.highway(skips, **changes)])


def unknown(report: Report, *which: int) -> Report:
    """The same without any number of those skips, or of all."""
    gone: Any = dict.fromkeys(SKIP_NUMBERS)
    why = dict.fromkeys(SKIP_NUMBERS, "the gradient at the join is exactly 0")
    return dataclasses.replace(
        report, skips=tuple(dataclasses.replace(s, **gone, undefined=why) if i in which or not which else s for i, s in enumerate(report.skips))
    )


def panel(report: Report, name: PanelName) -> tuple[Axes, list[str]]:
    fig = page.figure(report, panels=[name])
    return fig.axes[0], apart(fig)


def roads(axes: Axes) -> list[Line2D]:
    return [line for line in axes.lines if line.get_linewidth() == 2.0]


def at(axes: Axes, marker: str) -> list[float]:
    return sorted(x for line in axes.lines if line.get_marker() == marker for x in line.get_xdata())


def test_a_highway_without_a_gain():
    """It has no line and no key; that its gain is undefined, and why, is said in the panel."""
    lost: Any = {"gain": None, "total_gain": None, "identity_gain": None, "top_gain": 0.0, "fork_gains": (0.0,) * 4}
    axes, words = panel(stack(**lost, undefined=dict.fromkeys(("gain", "total_gain", "identity_gain"), LOST)), PanelName.LAYERS)
    assert not roads(axes) and "highway: the skips alone" not in words
    assert f"highway: gain undefined: {LOST}" in words
    axes, words = panel(stack(), PanelName.LAYERS)
    assert len(roads(axes)) == 1 and "highway: the skips alone" in words and "undefined" not in " ".join(words)


@pytest.mark.parametrize("severity", ["info", "warning"])
def test_a_highway_that_is_routed_past_its_first_skips(severity):
    """Where it is only noted its line ends at the first fork that it reaches, and says so; where it alarms it falls to the edge."""
    report = stack(gain=0.0, identity_gain=0.0, fork_gains=(0.0, 0.0, 0.5, 1.0))
    note = reports.finding("GF206", report.highways[0].name, "The skips carry 0.", "Nothing.", severity=severity, value=0.0)
    axes, words = panel(dataclasses.replace(report, findings=(note,)), PanelName.LAYERS)
    (road,) = roads(axes)
    xs, ys = road.get_xdata(), road.get_ydata()
    if severity == "info":
        assert list(xs) == [3.5, 5.5, 7.5] and ys[0] == pytest.approx(-0.30103)
        assert "no alarm: from here on the gradient is routed past the highway's other 2 skips" in words
    else:
        assert list(xs) == [-0.5, 1.5, 3.5, 5.5, 7.5] and ys[0] == ys[1] < -1
        assert any(word.startswith("GF206 starved highway: × 0 along its 4 skips") for word in words)


def test_a_highway_that_is_routed_past_all_its_skips():
    """No line, and words."""
    report = stack(gain=0.0, identity_gain=0.0, fork_gains=(0.0,) * 4)
    note = reports.finding("GF206", report.highways[0].name, "The skips carry 0.", "Nothing.", severity="info", value=0.0)
    axes, words = panel(dataclasses.replace(report, findings=(note,)), PanelName.LAYERS)
    assert not roads(axes) and "highway: no alarm: the gradient is routed past it" in words


def test_some_skips_without_numbers():
    """They have crosses at the lower edge, below every value, in both panels of skips, and a key with their number."""
    for name, key in ((PanelName.LAMBDA, "neither λ nor gain is defined (2)"), (PanelName.SHARES, "not defined (2)")):
        axes, words = panel(unknown(stack(), 1, 3), name)
        assert at(axes, "x") == [2.5, 6.5] and key in words
    assert scale_of([0.0, 1.0], unknown=True).limits.floor < -0.05


def test_no_place_on_a_logarithmic_axis():
    """λ of 0 or less has a triangle at the edge in the colour of its kind, and a key only where there is one."""
    report = stack()
    values = {"blocks.0": 1e-4, "blocks.1": -0.5}
    skips = tuple(dataclasses.replace(s, **dict.fromkeys(("lam", "lam_low", "lam_high"), values.get(s.id, 1.0))) for s in report.skips)
    axes, words = panel(dataclasses.replace(report, skips=skips), PanelName.LAMBDA)
    assert at(axes, "v") == [2.5] and "0 or less: at the edge (1)" in words
    _, words = panel(dataclasses.replace(report, skips=tuple(s for s in skips if s.id != "blocks.1")), PanelName.LAMBDA)
    assert "at the edge" not in " ".join(words)


def test_a_panel_with_nothing_defined():
    """One sentence with the reason, no axes and no keys; on the page it is said once, and the axis of depth is below the last panel that has one."""
    report = unknown(stack())
    for name, start in (
        (PanelName.LAMBDA, "Neither λ nor gain is defined on any of the 4 skips"),
        (PanelName.SHARES, "Branch against skip is defined on none"),
    ):
        axes, words = panel(report, name)
        assert not axes.axison and len(words) == 1
        assert words[0].startswith(start) and words[0].endswith(": the gradient at the join is exactly 0.")
    still = [dataclasses.replace(x, parameters=tuple(dataclasses.replace(p, grad_norm=0.0, update_ratio=0.0) for p in x.parameters)) for x in report.layers]
    fig = page.figure(dataclasses.replace(report, layers=tuple(still)))
    words = apart(fig)
    assert sum("is exactly 0" in word for word in words) == 2 and "No matrix has an update ‖∇W‖ ÷ ‖W‖ above 0: it is exactly 0 on 9 of 9." in words
    assert [axes.get_xlabel() != "" for axes in fig.axes] == [False, True, False, False]


def test_layers_without_any_gain():
    """They are a sentence with the commonest reason; where an alarm names one of them its place is shown, without a band or limits around it."""
    layers = [reports.layer(f"{i}", "Linear", i, None, why=f"{i} gradient elements are not finite") for i in range(3)]
    axes, words = panel(reports.report(layers), PanelName.LAYERS)
    assert not axes.axison and words == ["No gain is defined on any of the 3 layers: gradient elements are not finite."]
    found = reports.finding("GF103", "1", "It is not finite.", "Look.", value=None, limit=None)
    axes, words = panel(reports.report(layers, findings=[found]), PanelName.LAYERS)
    assert at(axes, "x") == [0, 1, 2] and any(word.startswith("GF103") for word in words)
    assert "what chance explains (2σ)" not in words and not [word for word in words if word[-1] in "↑↓"]


def test_keys_of_stages():
    """A stage none of whose layers has a dot has no key."""
    layers = [
        reports.layer(f"{stage}.{i}", "Linear", 3 * k + i, gain) for k, (stage, gain) in enumerate((("a", 1.0), ("b", 0.0), ("c", 0.5))) for i in range(3)
    ]
    _, words = panel(reports.report(layers), PanelName.LAYERS)
    assert {"a", "c"} <= {*words} and "b" not in words


@pytest.mark.parametrize(
    ("names", "key"),
    [
        (("attn.q_proj", "attn.key"), "no alarm: queries and keys, small by attention's initialisation; a skip leads around (2)"),
        (("attn.to_q", "attn.norm"), "no alarm: a skip leads around, as around queries and keys (2)"),
        (("mlp.up", "mlp.queue"), "no alarm: a skip leads around (2)"),
    ],
)
def test_why_what_is_small_is_no_alarm(names, key):
    """Queries and keys are called by their name where all or some of the hollow marks are theirs."""
    gains = ((names[0], 1e-5), (names[1], 1e-5), ("out", 1.0), ("head", 1.0))
    layers = [reports.layer(name, "Linear", i, gain) for i, (name, gain) in enumerate(gains)]
    _, words = panel(reports.report(layers, [reports.skip("block", 0, 3)]), PanelName.LAYERS)
    assert key in words


def test_alarms_on_branches():
    """They have their ring and name where the branch is held against the skip, and none beside λ, which has nothing to do with them."""
    report = stack()
    skips = tuple(dataclasses.replace(s, branch_gain=1e4) if s.id == "blocks.2" else s for s in report.skips)
    found = reports.finding("GF212", "blocks.2", "The branch dominates.", "Scale it.", severity="warning", value=1e4)
    report = dataclasses.replace(report, skips=skips, findings=(found,), verdict="warnings")
    _, words = panel(report, PanelName.SHARES)
    assert any(word.startswith("GF212 dominating branch: blocks.2, × 10000 · ") for word in words) and "warning (1)" in words
    _, words = panel(report, PanelName.LAMBDA)
    assert not [word for word in words if "GF212" in word or "warning" in word]


def test_arcs_that_nothing_comes_back_along():
    """They have a cross on their top in the colour of their alarm, and a key with their number."""
    report = stack()
    skips = tuple(dataclasses.replace(s, kind="detached", gain=0.0, lam=0.0) if s.id == "blocks.1" else s for s in report.skips)
    found = reports.finding("GF208", "blocks.1", "It is cut.", "Remove the detach().")
    axes, words = panel(dataclasses.replace(report, skips=skips, findings=(found,)), PanelName.SKIPS)
    (cross,) = [line for line in axes.lines if line.get_marker() == "X"]
    assert list(cross.get_xdata()) == [2.5] and cross.get_color() == THEMES[ThemeName.LIGHT].alarm["error"]
    assert "nothing comes back (1)" in words
    assert "nothing comes back" not in " ".join(panel(report, PanelName.SKIPS)[1])


@pytest.mark.parametrize("identity", [1e-5, 1.0])
def test_what_makes_a_highway_starve(identity):
    """Its label names the trunk where λ = 1 would change nothing, and not where it would."""
    report = stack(gain=1e-5, fork_gains=(1e-5, 1e-3, 0.1, 1.0), identity_gain=identity, trunk_ops=("layer_norm",))
    found = reports.finding("GF206", report.highways[0].name, "It starves.", "Look.", value=1e-5)
    _, words = panel(dataclasses.replace(report, findings=(found,)), PanelName.LAYERS)
    blamed = any(word.startswith("GF206 starved highway: × 1e-5 along its 4 skips, by layer_norm on its trunk, not by λ") for word in words)
    assert blamed == (identity == 1e-5)


def test_a_sentence_that_is_too_long():
    """It stands on several lines inside the page."""
    layers = [reports.layer(f"{i}", "Linear", i, None, why=f"it is {'far ' * 30}away") for i in range(3)]
    axes, (words,) = panel(reports.report(layers), PanelName.LAYERS)
    assert "\n" in words and not axes.axison


def test_a_line_does_not_end_within_a_value_of_lambda():
    """`λ = 0.5` stays together, however wide the line is."""
    measure = canvas.renderer(Figure())
    for width in range(60, 400, 20):
        lines = fill("the skips alone (λ = 0.5 ×48) carry it", measure, FontProperties(size=9), width, 9)
        assert any("λ = 0.5" in line for line in lines) or width < 80
