"""`gradflow.plot`: one panel on a user's own axes."""

from __future__ import annotations

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

import gradflow
from gradflow.errors import UsageError
from gradflow.render.figure import PanelName, ThemeName, canvas

from . import reports

BUILDS = (reports.half_resnet110, reports.sigmoid_mlp, reports.loops, reports.weird_names, reports.nothing)


@pytest.mark.parametrize("theme", ThemeName, ids=lambda t: t.value)
@pytest.mark.parametrize("name", PanelName, ids=lambda p: p.value)
@pytest.mark.parametrize("build", BUILDS, ids=lambda b: b.__name__)
def test_on_given_axes(build, name, theme):
    """The same axes come back with title, axis names and a key; names lie inside them, off each other and off the key; the neighbours are untouched."""
    fig = Figure(figsize=(11, 4), dpi=100)
    fig.add_subplot(1, 2, 2)
    ax = fig.add_subplot(1, 2, 1)
    assert gradflow.plot(build(), ax, panel=name.value, theme=theme.value) is ax
    renderer = canvas.renderer(fig)
    fig.draw(renderer)
    assert len(fig.axes) == 2 and not fig.axes[0].has_data() and not fig.texts
    if not ax.axison:
        return
    assert ax.get_title(loc="left") and ax.get_xlabel().startswith("depth")
    notes = [Text.get_window_extent(t, renderer) for t in ax.texts if isinstance(t, Annotation)]
    keys = [a.get_window_extent(renderer) for a in ax.artists]
    for i, box in enumerate(notes):
        assert ax.get_window_extent(renderer).padded(1).contains(box.x0, box.y0) and ax.get_window_extent(renderer).padded(1).contains(box.x1, box.y1)
        assert not any(box.overlaps(other) for other in [*notes[i + 1 :], *keys])


def test_a_figure_of_its_own():
    """Without axes one is made, which pyplot knows nothing of; no setting is changed."""
    before = dict(mpl.rcParams)
    ax = gradflow.plot(reports.half_resnet110(), panel="lambda", theme="dark")
    assert ax.figure.get_figwidth() == 9 and ax.figure.axes == [ax]
    assert dict(mpl.rcParams) == before


def test_in_a_subfigure():
    """The axes may lie in a part of a figure."""
    fig = Figure(figsize=(10, 4))
    left, _ = fig.subfigures(1, 2)
    ax = left.add_subplot()
    assert gradflow.plot(reports.gpt(), ax) is ax
    fig.draw(canvas.renderer(fig))


@pytest.mark.parametrize(("words", "names"), [({"panel": "layer"}, "layers, skips, lambda, shares, updates"), ({"theme": "blue"}, "light, dark")])
def test_what_there_is_not(words, names):
    """An error names what there is."""
    with pytest.raises(UsageError, match=f"Expected one of {names}"):
        gradflow.plot(reports.gpt(), **words)


def test_what_is_no_report():
    """The name of a file is none; the error says how it becomes one."""
    with pytest.raises(UsageError, match="from_json"):
        gradflow.plot("report.json")
