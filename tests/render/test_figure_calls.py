"""The panels of loops: what the skip alone brings back to each call, and λ of each call."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pytest
import torch

import gradflow
from gradflow.records import Report
from gradflow.render.figure import PanelName, page
from gradflow.render.figure.calls import Way, way_of

from . import reports
from .test_figure import apart, texts

CALLS = 200


def way(report: Report) -> Way:
    return way_of(report.highways[0], report)


@pytest.mark.parametrize("lam", [0.4, 0.9, 1.0])
def test_the_way(lam):
    """It starts at 1 behind the last call, and at call k it is λ to the number of calls from there on, as far as float32 has such numbers in full precision."""
    found = way(reports.recurrent(lam))
    assert (found.xs[0], found.gains[0]) == (CALLS + 1, 1.0)
    for x, gain in zip(found.xs, found.gains, strict=True):
        assert gain == pytest.approx(lam ** (CALLS + 1 - x), rel=1e-4)
    output, smallest = 0.25 * 0.25, 2.0**-126  # ‖g‖ at the output, then at the loop's end
    expected = [k for k in range(1, CALLS + 1) if lam ** (CALLS + 1 - k) * output <= smallest]
    assert found.lost == (max(expected) if expected else None)


def test_zeros():
    """What is 0 is told by the last call that gets nothing, and no value is drawn there or where float32's smallest numbers stand."""
    report = reports.recurrent()
    zeros = [k for k, gain in enumerate(report.highways[0].fork_gains, 1) if gain == 0]
    tail = [k for k, gain in enumerate(report.highways[0].fork_gains, 1) if 0 < gain < 2.0**-126 / (0.25 * 0.25)]
    assert zeros and len(tail) > 10
    found = way(report)
    assert found.zero == max(zeros) and found.lost == max(tail) and min(found.xs) == max(tail) + 1
    fig = page.figure(report, panels=[PanelName.CALLS])
    assert any(f"cell, exactly 0 before call {max(zeros) + 1}" in text for text in apart(fig))
    (solid,) = (line for line in fig.axes[0].lines if line.get_linewidth() == 2.0)
    assert min(solid.get_ydata()) > math.log10(2.0**-126 / (0.25 * 0.25))


@pytest.mark.parametrize(("dtype", "lost"), [("float64", False), ("float32", True), ("bfloat16", True), ("float16", True), ("float8_e4m3fn", False)])
def test_types(dtype, lost):
    """A gain of 1e-70 is a value in float64, and none in types that have no such number; of a type that is not known nothing is said."""
    report = reports.recurrent(0.4, "float64", 176)
    report = dataclasses.replace(report, environment=dataclasses.replace(report.environment, dtype=dtype))
    assert 0 < report.highways[0].fork_gains[0] < 1e-69
    assert (way(report).lost is not None) is lost and way(report).zero is None
    assert (f"too small for {dtype} before call" in " ".join(apart(page.figure(report)))) is lost


@pytest.mark.parametrize("gains", [[0.0, 0.0], [1.0, 1.0], [1e-300, 1.0]])
def test_few_calls(gains: Sequence[float]):
    """Two calls are enough for a panel, whatever comes back."""
    report = reports.recurrent(calls=2)
    road = dataclasses.replace(report.highways[0], fork_gains=tuple(gains), gain=gains[0])
    assert apart(page.figure(dataclasses.replace(report, highways=[road])))


def test_what_is_drawn_where():
    """The highway of a loop stands on the panel of calls alone, λ of each call on that of the trend, with their findings."""
    report = reports.recurrent()
    found = [
        reports.finding("GF206", "cell", "The carry brings nothing back.", "Open the gate.", severity="warning", value=0.0, limit=1e-6),
        reports.finding("GF201", "cell", "The gate closes.", "Open the gate.", severity="warning", value=0.4, limit=0.95),
    ]
    report = dataclasses.replace(report, findings=found)
    told = {name: " ".join(apart(page.figure(report, panels=[name]))) for name in PanelName}
    assert "highway" not in told[PanelName.LAYERS]
    assert "GF206 starved highway: cell, exactly 0 before call" in told[PanelName.CALLS] and "resnet.py:102" in told[PanelName.CALLS]
    assert "GF201 attenuating skip: cell, λ 0.4 · resnet.py:102" in told[PanelName.TREND] and "GF201" not in told[PanelName.LAMBDA]
    plain = page.figure(reports.half_resnet110(), panels=[PanelName.CALLS])
    assert apart(plain) == ["No loop was found whose highway could be followed from call to call."]


def test_the_page():
    """Panels of loops come first, over an axis of their own; where they have all skips, and few, those of skips are left out of the page."""
    titles = [axes.get_xlabel().split(":")[0] for axes in page.figure(reports.recurrent()).axes]
    assert titles == ["", "call", "", "depth"]
    words = " ".join(apart(page.figure(reports.recurrent())))
    assert words.index("Through the calls") < words.index("Gradient gain") and "fork to join" not in words and "Branch against skip" not in words
    assert "fork to join" in " ".join(apart(page.figure(reports.recurrent(), panels=[PanelName.SKIPS])))
    stacked = reports.recurrent()
    stacked = dataclasses.replace(stacked, skips=[dataclasses.replace(stacked.skips[0], id=f"cell#{i}") for i in range(4)])
    assert "fork to join" not in " ".join(apart(page.figure(stacked)))
    mixed = reports.recurrent()
    mixed = dataclasses.replace(mixed, skips=[*mixed.skips, reports.skip("head", 1, 2)])
    assert "fork to join" in " ".join(apart(page.figure(mixed)))
    assert "Through the calls" not in " ".join(text for text, _ in texts(page.figure(reports.gpt())))


def test_a_measured_loop():
    """A cell of λ = ½ by its bias: what is drawn is what the report says, from JSON as well."""

    class Halving(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = torch.nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(5):
                x = 0.5 * x + self.cell(x).tanh()
            return x

    torch.manual_seed(0)
    report = gradflow.profile(Halving(), torch.randn(3, 4))
    found = way(Report.from_json(report.to_json()))
    assert found.xs == [6, 5, 4, 3, 2, 1] and found.gains == pytest.approx([0.5**k for k in range(6)])
    assert "× 0.0312 at call 1" in " ".join(apart(page.figure(report, panels=[PanelName.CALLS])))
