"""The text and the picture of a ShatterReport: nothing is lost, nothing overflows, no name is read as markup."""

import re
from dataclasses import replace

import pytest
from rich.cells import cell_len

from gradflow.noise import references
from gradflow.records import Environment, Input, Location, Target
from gradflow.render.figure import ThemeName, canvas
from gradflow.render.shatter import png, terminal, words
from gradflow.shatter_records import Curve, Line, ShatterReport

FIELDS = ("variation", "acf", "correlation_length", "correlation_share")


def curve(name, depth, share=0.5, *, like="between", kind="Linear"):
    """A curve whose ACF falls as share^k; a constant one has share None."""
    defined = share is not None
    reason = "its gradient is the same at every point of the line, to rounding: 0/0"
    return Curve(
        name=name, type=kind, depth=depth, location=Location(file="net.py", line=depth + 2), output_shape=(64, 8), variation=0.5 if defined else 0.0,
        acf=tuple(share**k for k in range(6)) if defined else None, correlation_length=2.5 if defined else None,
        correlation_share=0.04 if defined else None, mean_cosine=0.25, like=like if defined else "constant",
        undefined={} if defined else dict.fromkeys(FIELDS[1:], reason),
    )  # fmt: skip


def lost(name, depth):
    reason = "it was not called in the forward pass"
    return Curve(
        name=name, type="Linear", depth=depth, location=None, output_shape=(), variation=None, acf=None, correlation_length=None, correlation_share=None,
        mean_cosine=None, like="undefined", undefined=dict.fromkeys((*FIELDS, "mean_cosine"), reason),
    )  # fmt: skip


def report(curves, **changes):
    given = ShatterReport(
        gradflow_version="0.1.0",
        environment=Environment(torch="2.9", python="3.11", platform="linux", device="cpu", dtype="float32", amp=None, seed=0),
        target=Target(spec="net.py", model_class="Net", parameters=1234, trainable_parameters=1234),
        mode="train",
        inputs=(Input(name="x", dtype="float32", shape=(4, 8), source="given"),),
        samples=4,
        line=Line(kind="between", ends=(0.0, 1.0), points=64, step=0.125, inputs=("x",), held=("mask",)),
        lags=5,
        curves=tuple(curves),
        references=references(64, 5),
        like=next((c.like for c in curves if c.like != "undefined"), "undefined"),
        notes=("a note",),
    )
    return replace(given, **changes)


REPORTS = {
    "white": report(
        [curve("x", -1, 0.01, like="white noise", kind="input"), *(curve(f"blocks.{i}", i, 0.02, like="white noise") for i in range(40)), curve("head", 40)]
    ),
    "smooth": report([curve("x", -1, 0.97, like="Brownian motion", kind="input"), curve("a", 0, 0.98, like="Brownian motion"), curve("b", 1, None)]),
    "constant": report([curve("x", -1, None, kind="input"), curve("a", 0, None)]),
    "nothing": report([lost("a", 0)]),
    "no curves": report([]),
    "weird names": report([curve("[red]", -1, kind="input"), curve('a<b&"c$x$_', 0), curve("长" * 40, 1), curve("new\nline", 2), curve("_under", 3)]),
    "a deep net": report([curve(f"n{i % 7}.{'x' * (i % 5)}{i}", i, 0.1 + 0.8 * (i * 7 % 10) / 10) for i in range(300)]),
}


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("name", REPORTS)
def test_no_line_is_longer_than_the_terminal(name, width):
    """At any width, and without escape codes."""
    text = terminal.render(REPORTS[name], width=width)
    assert max(cell_len(line) for line in text.splitlines()) <= width and "\x1b" not in text


@pytest.mark.parametrize("name", REPORTS)
def test_color_changes_no_text(name):
    """With the escape codes taken out it reads the same."""
    colored = terminal.render(REPORTS[name], color=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == terminal.render(REPORTS[name])


def test_what_stands_out_comes_first():
    """The word for the gradient at the input, its numbers beside the references', then the table with both references."""
    text = terminal.render(REPORTS["white"], width=100)
    lines = text.splitlines()
    assert lines[0].startswith(" WHITE NOISE   Net  the gradient at the input x is like white noise")
    flat = " ".join(text.split())
    assert "ACF 0.01 at lag 1 (white noise -0.016 ± 0.12, Brownian motion 0.89 ± 0.063)" in flat
    assert "64 points from sample 0 to sample 1 of x, 0.125 apart; mask held" in flat
    assert "It is white from blocks.39 back to the input: 41 of 42 curves." in flat and "note a note" in flat
    assert any(line.startswith("  blocks.[0-39]") and "█▁▁▁▁▁" in line for line in lines)
    assert any(line.startswith("  Brownian motion") and "0.89 ± 0.06" in line for line in lines)


def test_repeated_layers_fold_and_unfold():
    """One row for 40 like blocks, 40 rows with --all; too many rows are thinned out, and the line says how many."""
    assert "Curves  42 in 3 rows (--all unfolds them)" in terminal.render(REPORTS["white"])
    assert "blocks.17 " in terminal.render(REPORTS["white"], unfold=True)
    deep = terminal.render(REPORTS["a deep net"])
    assert "270 more rows between them" in deep and "\nCurves  300\n" in deep and "  n0.0 " in deep and "299 " in deep


def test_every_dash_has_its_reason():
    """0/0 and what was not called, each with the layers that it holds for."""
    assert "– its gradient is the same at every point of the line, to rounding: 0/0: b" in " ".join(terminal.render(REPORTS["smooth"], width=160).split())
    nothing = terminal.render(REPORTS["nothing"])
    assert "no gradient was measured" in nothing and "– it was not called in the forward pass: a" in nothing


def test_names_print_as_themselves():
    """Square brackets, dollars and line breaks are text."""
    text = terminal.render(REPORTS["weird names"], width=120)
    assert "  [red] " in text and 'a<b&"c$x$_' in text and "  new line" in text


@pytest.mark.parametrize("name", REPORTS)
def test_the_picture_is_a_file(name):
    """A PNG 9 inches wide, the same bytes each time."""
    image = png.render(REPORTS[name], dpi=60)
    assert image.startswith(b"\x89PNG") and int.from_bytes(image[16:20], "big") == 540
    assert image == png.render(REPORTS[name], dpi=60)


@pytest.mark.parametrize(("ending", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF-")])
def test_the_picture_in_the_dark(ending, start):
    """Every format has it in both themes, which differ, the same bytes each time."""
    light, dark = (png.render(REPORTS["white"], theme=theme, ending=ending, dpi=60) for theme in ThemeName)
    assert light.startswith(start) and dark.startswith(start) and light != dark
    assert dark == png.render(REPORTS["white"], theme=ThemeName.DARK, ending=ending, dpi=60)


@pytest.mark.parametrize("name", REPORTS)
def test_texts_stay_on_the_picture(name):
    """Every text lies inside, and neither the header, the panels with their labels nor the legends overlap."""
    fig = png.figure(REPORTS[name], dpi=80)
    renderer = canvas.renderer(fig)
    header = [t.get_window_extent(renderer) for t in fig.texts]
    panels = [axes.get_tightbbox(renderer, bbox_extra_artists=[]) for axes in fig.axes]
    plots = [axes.get_window_extent(renderer) for axes in fig.axes]
    keys = [axes.get_legend().get_window_extent(renderer) for axes in fig.axes if axes.get_legend()]
    for box in (*header, *keys):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= fig.bbox.width and box.y1 <= fig.bbox.height
    assert not any(h.overlaps(p) for h in header for p in plots) and not any(a.overlaps(b) for i, a in enumerate(header) for b in header[:i])
    assert not any(k.overlaps(p) for k in keys for p in plots) and len(keys) == 2 and not keys[0].overlaps(keys[1])
    assert not plots[0].overlaps(plots[1]) and panels[0].x0 >= 0


def test_the_curves_that_are_drawn():
    """At most six, both ends among them; undefined ones never."""
    drawn = png.chosen(REPORTS["white"].curves)
    assert [c.name for c in drawn] == ["x", "blocks.7", "blocks.15", "blocks.24", "blocks.32", "head"]
    assert [c.name for c in png.chosen(REPORTS["smooth"].curves)] == ["x", "a"] and png.chosen(REPORTS["constant"].curves) == []


def test_words_of_a_gradient_without_an_acf():
    """A constant gradient is said to be constant, and why there is no ACF."""
    assert words.headline(REPORTS["constant"]) == "the gradient at the input x is constant along the line"
    assert words.evidence(REPORTS["constant"]).endswith("to rounding: 0/0.")
