"""The picture of a history: what is drawn is what was measured, whatever the size and the names; the words say when and where."""

import itertools
import math
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from matplotlib.colors import rgb_to_hsv, to_rgb
from matplotlib.image import imread
from matplotlib.patches import Rectangle

from gradflow.records import Entry, Environment, Finding, History, LayerTrack, Location, Missed, Noted, SkipTrack, Target, Turn
from gradflow.render.figure import ThemeName
from gradflow.render.figure import page as report_page
from gradflow.render.figure.theme import THEMES
from gradflow.render.history import grid, heat, page, words

from . import reports

VALUES = st.one_of(st.floats(-8, 8), st.just(-math.inf), st.just(math.nan))


def history(layers=5, steps=10, skips=2, *, name="blocks.{}.conv", gain=lambda layer, step: 0.5, findings=lambda step: (), step=lambda i: 10 * i):
    """A history whose entries are what the arguments say."""
    entries, turns, last = [], [], "healthy"
    for i in range(steps):
        found = tuple(findings(i))
        verdict = "sick" if any(n.severity == "error" for n in found) else "warnings" if found else "healthy"
        if verdict != last:
            turns.append(Turn(step=step(i), verdict=verdict, finding=None if verdict == "healthy" else finding(found[0])))
        last = verdict
        entries.append(
            Entry(
                step=step(i), loss=2.0 / (1 + i), verdict=verdict, severity=float(len(found)), gains=[gain(layer, i) for layer in range(layers)],
                update_ratios=[0.1] * layers, lams=[1.0 - 0.05 * k for k in range(skips)], skip_gains=[1.0] * skips,
                highway_gains=[0.9] if skips else [], findings=found, seconds=0.01 * (1 + i),
            )
        )  # fmt: skip
    return History(
        gradflow_version="0.1.0", environment=Environment(torch="2", python="3", platform="x", device="cpu", dtype="float32", amp=None, seed=0),
        target=Target(spec="Net", model_class="Net", parameters=1000, trainable_parameters=1000), mode="train",
        layers=[LayerTrack(name=name.format(i), type="Conv2d", depth=i, location=None) for i in range(layers)],
        skips=[SkipTrack(id=f"blocks.{k}", kind="scaled", fork_depth=k, join_depth=k + 1, location=None) for k in range(skips)],
        highways=["blocks.0 … blocks.1"] if skips else [], entries=entries, turns=turns,
    )  # fmt: skip


def finding(noted):
    return Finding(
        rule=noted.rule, severity=noted.severity, where=noted.where, value=None, limit=None, decades=1.0, message="It receives next to nothing.",
        fix="Mend it.", location=Location(file="net.py", line=7), undefined={"value": "-", "limit": "-"},
    )  # fmt: skip


def error(where, severity="error"):
    return Noted(rule="GF101", severity=severity, where=where)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [(1, 1, 0), (5, 10, 0), (5, 10, 2), (40, 30, 12), (500, 60, 60)], ids=str)
def test_the_same_history_gives_the_same_bytes(size, dark):
    """At any size, on light and on dark paper, 9 inches wide; the paper is the theme's."""
    drawn = page.render(history(*size), dark=dark, dpi=60)
    assert drawn == page.render(history(*size), dark=dark, dpi=60)
    pixels = imread(BytesIO(drawn))
    assert pixels.shape[1] == 540
    paper = THEMES[ThemeName.DARK if dark else ThemeName.LIGHT].paper
    assert np.allclose(pixels[-1, 0, :3], to_rgb(paper), atol=0.01)


@pytest.mark.parametrize("ending", [".svg", ".pdf"])
def test_other_formats(ending):
    """The same bytes each time there too."""
    one, other = (page.render(history(), ending) for _ in range(2))
    assert one == other and len(one) > 1000


@pytest.mark.parametrize("name", ["$a_{0}$ & <b>", "[red]{0}[/red]", "名前.{0}", "_hidden.{0}", ""])
def test_names_are_themselves(name):
    """Math, markup and what starts with an underscore is drawn as it stands."""
    shown = [tick.get_text() for tick in page.figure(history(3, name=name), dpi=60).axes[2].get_yticklabels()]
    assert len(shown) == 3
    if name.startswith(("$", "[", "_")):
        assert shown == [name.format(i) for i in range(3)]


def test_the_map_shows_the_gains():
    """Each cell has the colour of its gain: white at 1, blue below, orange above, ink at 0, nothing where there is none."""
    values = {0: 1.0, 1: 1e-2, 2: 1e2, 3: 0.0, 4: None}
    fig = page.figure(history(5, 3, gain=lambda layer, step: values[layer]), dpi=60)
    cells = np.asarray(fig.axes[2].images[0].get_array())
    assert cells.shape == (5, 3, 4)
    hues = rgb_to_hsv(cells[:, 0, :3])
    assert hues[0, 1] < 0.05 and hues[0, 2] > 0.9
    assert 0.5 < hues[1, 0] < 0.7 and 0.0 < hues[2, 0] < 0.12
    assert np.allclose(cells[3, 0, :3], to_rgb(THEMES[ThemeName.LIGHT].ink)) and cells[4, 0, 3] == 0
    assert [name for _, name in heat.keys(history(5, 3, gain=lambda layer, step: values[layer]), THEMES[ThemeName.LIGHT])] == [
        "exactly 0", "not finite, or\nnot measured",
    ]  # fmt: skip


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(numpy_strategies.arrays(float, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=VALUES), st.integers(1, 9), st.integers(1, 9))
def test_folding_keeps_what_is_farthest(values, rows, columns):
    """No more cells than asked for; the value farthest from gain 1 is still there, a 0 is not lost, and what was measured nowhere stays so."""
    folded = grid.folded(values, rows, columns)
    assert folded.shape == (min(rows, values.shape[0]), min(columns, values.shape[1]))
    measured = values[~np.isnan(values)]
    if measured.size:
        assert np.nanmax(np.abs(folded)) == np.abs(measured).max()
    assert np.isneginf(values).any() == np.isneginf(folded).any()
    assert np.isin(folded[~np.isnan(folded)], measured).all()
    if values.shape[0] <= rows and values.shape[1] <= columns:
        assert np.array_equal(folded, values, equal_nan=True)


@settings(deadline=None, max_examples=100, derandomize=True, database=None)
@given(numpy_strategies.arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 6))))
def test_the_largest_rectangle_of_zeros(zeros):
    """Of all that reach the last column none has more cells, and each of its cells is 0."""
    rows, columns = zeros.shape
    every = [
        (bottom - top) * (columns - left)
        for top in range(rows) for bottom in range(top + 1, rows + 1) for left in range(columns) if zeros[top:bottom, left:].all()
    ]  # fmt: skip
    found = grid.dark(zeros)
    assert (found is None) == (not every)
    if found is not None:
        assert len(found[0]) * len(found[1]) == max(every) and zeros[np.ix_(*found)].all() and found[1][-1] == columns - 1


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(st.integers(1, 8).flatmap(lambda n: st.lists(st.lists(st.one_of(st.none(), st.just(1.0)), min_size=n, max_size=n), min_size=1, max_size=3)))
def test_gaps_are_where_no_curve_has_a_value(curves):
    """Runs in order, parted by a column that has one, which together are every silent column."""
    gaps = grid.gaps(curves)
    assert [i for first, last in gaps for i in range(first, last + 1)] == [i for i, column in enumerate(zip(*curves, strict=True)) if not any(column)]
    assert all(last + 1 < first for (_, last), (first, _) in itertools.pairwise(gaps))


def test_a_run_that_dies():
    """From its step on the dark says since when and where, the panels of skips are grey and say why, and a line in each marks the step."""
    dying = history(6, 20, gain=lambda layer, step: 0.0 if step >= 8 and layer < 5 else 0.5, findings=lambda i: [error("blocks.4.conv")] if i >= 8 else ())
    entries = [replace(e, lams=[None] * 2, highway_gains=[None]) if i >= 8 else e for i, e in enumerate(dying.entries)]
    fig = page.figure(replace(dying, entries=entries), dpi=60)
    said = [text.get_text() for axes in fig.axes for text in axes.texts]
    assert said.count("no gradient from step 80 on") == 2
    assert "exactly 0 from step 80 on\nblocks.0.conv to blocks.4.conv" in said
    shown = [text.get_text() for text in fig.texts]
    assert {"SICK", "Net", "sick from step 80 on"} <= set(shown) and shown[3].startswith("Step 80: ")
    assert [line.get_xdata()[0] for axes in fig.axes for line in axes.lines if line.get_color() == THEMES[ThemeName.LIGHT].alarm["error"]] == [7.5] * 3


@pytest.mark.parametrize(("first", "last", "said"), [(0, 3, "from step 0 on"), (1, 1, "at step 10"), (1, 2, "from step 10 to 20"), (3, 3, "at step 30")])
def test_a_stretch_in_words(first, last, said):
    """To the last profiled step it is open, if it is more than that one."""
    assert words.stretch(history(2, 4).entries, first, last) == said


def test_what_is_not_defined_is_not_called_silent():
    """A step at which a skip was not called, say, has no λ though the gradient reaches every layer."""
    assert words.silent(history(2, 4), 1, 3) == "not defined from step 10 on"


def test_a_history_on_one_line():
    """`repr` counts and does not list; `to_json` has everything."""
    sick = history(2, 4, findings=lambda step: [error("blocks.1.conv")] if step else ())
    assert repr(sick) == "<History of Net: profiles 4, steps 0 to 30, at worst sick>"
    assert repr(replace(sick, entries=())) == "<History of Net: profiles 0>"


def test_the_header_is_that_of_a_report():
    """The bar has the same height and colour as on the page of a report with the same verdict."""
    sick = history(2, 4, findings=lambda step: [error("blocks.1.conv")])
    bars = []
    for fig in (page.figure(sick, dpi=60), report_page.figure(reports.half_resnet110(), dpi=60)):
        (bar,) = [artist for artist in fig.artists if isinstance(artist, Rectangle)]
        bars.append((bar.get_facecolor(), round(bar.get_height() * fig.get_figheight(), 6), bar.get_width()))
    assert bars[0] == bars[1]


@pytest.mark.parametrize(
    ("name", "said"),
    [("cell", "cell"), ("blocks.0 … blocks.5", "blocks.0 … 5"), ("down.0.0 … up.2.1", "….0.0 … up.2.1"), ("a.0 … a.1.b", "a.0 … 1.b"), ("0 … 7", "0 … 7")],
)
def test_the_key_of_a_highway(name, said):
    """It is named as it is, from its first skip to its last, with the gain that it had at the last step."""
    drawn = page.figure(replace(history(), highways=[name]))
    assert f"{said}  0.9" in [text.get_text() for axes in drawn.axes for text in (axes.get_legend().get_texts() if axes.get_legend() else [])]


def test_marks_stand_at_their_layers():
    """A parameter's finding at its layer, the innermost of that name; an error over a warning; what is no layer's nowhere."""
    found = {2: [error("blocks.1.conv.weight"), error("blocks.1.conv", "warning"), error("blocks.0", "warning"), error("blocks.3.conv", "info")]}
    marks = grid.marks(history(5, 4, findings=lambda step: found.get(step, ())))
    assert marks.shape == (5, 4) and marks[1, 2] == grid.ERROR and marks.sum() == grid.ERROR


@pytest.mark.parametrize(("sick", "said"), [
    ((), "healthy throughout"), ((0, 1, 2, 3), "sick from step 0 on"), ((2, 3), "sick from step 20 on"), ((1,), "sick at 1 of 4 steps, first at 10"),
    ((1, 3), "sick at 2 of 4 steps, first at 10"), ((0, 2, 3), "sick from step 20 on, first at 0"),
])  # fmt: skip
def test_the_course_in_words(sick, said):
    """When it turned, and whether it stayed so."""
    assert words.title(history(2, 4, findings=lambda step: [error("blocks.1.conv")] if step in sick else ())) == said


def test_the_first_alarm_in_words():
    """The first sick step's worst finding, its fix and its line, rather than an earlier warning's."""
    found = {1: [error("blocks.0.conv", "warning")], 2: [error("blocks.1.conv")]}
    told = history(2, 4, findings=lambda step: found.get(step, ()))
    assert words.sentence(told) == "Step 20: blocks.1.conv: It receives next to nothing."
    assert words.next_step(told) == "Mend it. (net.py:7)"
    assert words.sentence(history(2, 4)).startswith("No alarm") and words.next_step(history(2, 4)) == ""
    assert "1 step could not be profiled" in words.facts(replace(told, missed=[Missed(step=5, reason="x")]))
    assert "0.025 s a profile (median)" in words.facts(told)


@pytest.mark.parametrize(("step", "label"), [(lambda i: 10 * i, "training step, profiled every 10"), (lambda i: 2**i, "one column for each")])
def test_the_axis_of_steps(step, label):
    """Round steps where they are even, each column's own where they are not."""
    axes = page.figure(history(3, 10, 0, step=step), dpi=60).axes[2]
    assert label in axes.get_xlabel()
    shown = [tick.get_text() for tick in axes.get_xticklabels()]
    assert len(shown) > 3
    for text, at in zip(shown, axes.get_xticks(), strict=True):
        assert int(text.replace(",", "")) == (10 * at if label.endswith("10") else step(round(at)))
