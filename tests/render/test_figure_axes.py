"""`gradflow.plot`: one panel on a user's own axes."""

from __future__ import annotations

import matplotlib as mpl
import pytest
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

import gradflow
from gradflow.errors import UsageError
from gradflow.render.figure import PanelName, ThemeName, canvas
from gradflow.render.figure.theme import THEMES

from . import reports

BUILDS = (reports.half_resnet110, reports.sigmoid_mlp, reports.loops, reports.recurrent, reports.weird_names, reports.nothing)


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
    assert ax.get_title(loc="left") and ax.get_xlabel().startswith("call:" if name in (PanelName.CALLS, PanelName.TREND) else "depth:")
    notes = [Text.get_window_extent(t, renderer) for t in ax.texts if isinstance(t, Annotation)]
    keys = [a.get_window_extent(renderer) for a in ax.artists]
    for i, box in enumerate(notes):
        assert ax.get_window_extent(renderer).padded(1).contains(box.x0, box.y0) and ax.get_window_extent(renderer).padded(1).contains(box.x1, box.y1)
        assert not any(box.overlaps(other) for other in [*notes[i + 1 :], *keys])


PAPERS = ("white", "#f0e6d0", "#0d1117", "#303a4a", (1, 1, 1, 0))


@pytest.mark.parametrize("paper", PAPERS, ids=str)
@pytest.mark.parametrize("theme", ThemeName, ids=lambda t: t.value)
@pytest.mark.parametrize("build", [reports.half_resnet110, reports.nothing], ids=lambda b: b.__name__)
def test_on_a_figure_of_another_colour(build, theme, paper):
    """All words can be read: inside the axes on the theme's paper, outside on the figure's; only where that is transparent is it taken for the theme's."""
    fig = Figure(figsize=(9, 4), dpi=100, facecolor=paper)
    ax = gradflow.plot(build(), fig.add_subplot(), theme=theme.value)
    under = THEMES[theme].paper if to_rgba(paper)[3] == 0 else paper
    outside = (
        [
            *ax.findobj(lambda a: isinstance(a, Text) and a.get_text() == ax.get_title(loc="left")),
            ax.xaxis.label,
            ax.yaxis.label,
            *ax.get_xticklabels(),
            *ax.get_yticklabels(),
        ]
        if ax.axison
        else ax.texts
    )
    assert outside and all(contrast(text.get_color(), under) >= 4.5 for text in outside)
    assert not ax.axison or all(contrast(text.get_color(), ax.get_facecolor()) >= 4.5 for text in ax.texts)


def contrast(one, other):
    """The ratio of WCAG 2: 1 for the same colour, 21 for black on white."""
    levels = [[c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)] for color in (one, other)]
    darker, lighter = sorted(0.2126 * red + 0.7152 * green + 0.0722 * blue for red, green, blue in levels)
    return (lighter + 0.05) / (darker + 0.05)


def test_in_a_dark_part_of_a_light_figure():
    """What counts is the part that the axes lie on."""
    fig = Figure(figsize=(10, 4), facecolor="white")
    dark, clear = fig.subfigures(1, 2)
    dark.set_facecolor("black")
    inks = [gradflow.plot(reports.gpt(), part.add_subplot(), theme="dark").xaxis.label.get_color() for part in (dark, clear)]
    assert inks == [THEMES[ThemeName.DARK].ink, THEMES[ThemeName.LIGHT].ink]


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


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ({"panel": "layer"}, "calls, trend, layers, skips, lambda, shares, updates: the nearest is layers"),
        ({"panel": "loss"}, "calls, trend, layers, skips, lambda, shares, updates[.]"),
        ({"theme": "Drak"}, "light, dark: the nearest is dark"),
    ],
)
def test_what_there_is_not(words, names):
    """An error names the word, all that there is, and what is nearest."""
    with pytest.raises(UsageError, match=f"Expected one of {names}"):
        gradflow.plot(reports.gpt(), **words)


def test_what_is_no_report():
    """The name of a file is none; the error says how it becomes one."""
    with pytest.raises(UsageError, match="from_json"):
        gradflow.plot("report.json")
