"""The picture. Texts are checked by their boxes, pictures by their pixels; how they look was judged by eye."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from gradflow.records import Report
from gradflow.render import png

from . import reports

Build = Callable[[], Report]
each = pytest.mark.parametrize("build", reports.EVERY, ids=lambda f: f.__name__)


def texts(fig: Figure) -> list[tuple[str, Bbox]]:
    """The words that are drawn, with their boxes in pixels."""
    drawn: list[Text] = []
    renderer = png._renderer(fig.canvas)
    with pytest.MonkeyPatch.context() as patch:
        draw = Text.draw
        patch.setattr(Text, "draw", lambda self, r: (drawn.append(self), draw(self, r)))
        fig.draw(renderer)
    shown = [t for t in dict.fromkeys(drawn) if t.get_visible() and t.get_text().strip()]
    return [(t.get_text(), Text.get_window_extent(t, renderer)) for t in shown]


@each
def test_words(build: Build) -> None:
    """No two texts collide, and none leaves the picture."""
    fig = png.figure(build(), dpi=100)
    found = texts(fig)
    assert len(found) > 5
    for i, (name, box) in enumerate(found):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= fig.bbox.width + 1 and box.y1 <= fig.bbox.height + 1, name
        for other, its in found[i + 1 :]:
            assert not box.padded(-1).overlaps(its.padded(-1)), (name, other)


@each
def test_pixels(build: Build) -> None:
    """It is a PNG of 9 inches that opens and is not blank."""
    image = Image.open(io.BytesIO(png.render(build(), dpi=60)))
    assert image.format == "PNG"
    assert image.width == 9 * 60
    pixels = np.asarray(image.convert("L"))
    assert (pixels < 128).mean() > 0.003
    assert (pixels > 200).mean() > 0.5


def test_twice() -> None:
    """The same report gives the same bytes, also after a trip through JSON."""
    report = reports.cross_purposes()
    first = png.render(report, dpi=60)
    assert png.render(report, dpi=60) == first
    assert png.render(Report.from_json(report.to_json()), dpi=60) == first


def test_global_state() -> None:
    """Settings of the user's are left as they were, and do not change the picture."""
    usual = png.render(reports.three_layers(), dpi=60)
    with mpl.rc_context({"font.size": 30, "axes.grid": True, "text.usetex": True, "figure.dpi": 20, "savefig.bbox": "tight"}):
        before = dict(mpl.rcParams)
        assert png.render(reports.three_layers(), dpi=60) == usual
        assert dict(mpl.rcParams) == before


def test_names_that_look_like_mathematics() -> None:
    """They stand in the picture as they are."""
    seen_texts = " ".join(text for text, _ in texts(png.figure(reports.weird_names())))
    for name in ("[red]", 'a<b&"c', "$x_1$", "_hidden", "[red]Net$", "$y^2$"):
        assert name in seen_texts


def test_what_is_wrong_and_where() -> None:
    """The header says what is wrong and what to do; the panels name the layer, the highway and the skips."""
    said = " ".join(text for text, _ in texts(png.figure(reports.half_resnet110())))
    for words in (
        "SICK",
        "severity 13.3 decades",
        "Next: Remove the factor",
        "GF101  conv1",
        "highway of 54 skips: gain 5.55e-17",
        "GF201 ×54  layer[1-3].[0-17]",
    ):
        assert words in said


def test_zeros_and_gaps() -> None:
    """What has no logarithm is counted in the legend, not left out."""
    assert any("exactly 0 (12)" in text for text, _ in texts(png.figure(reports.all_zero())))
    assert any("0: closed at the start (8)" in text for text, _ in texts(png.figure(reports.closed_branches())))
    assert any("not measured (4)" in text for text, _ in texts(png.figure(reports.unmeasured())))
    assert any("λ undefined" in text for text, _ in texts(png.figure(reports.densenet())))


def test_no_skips() -> None:
    """The panels of skips give way to a sentence."""
    fig = png.figure(reports.sigmoid_mlp())
    assert len([a for a in fig.axes if a.axison]) == 1
    assert any("No skip connection was found" in text for text, _ in texts(fig))


@pytest.mark.parametrize("module", ["gradflow.render.terminal", "gradflow.render.json_schema"])
def test_imports(module: str) -> None:
    """The other renderers load neither torch nor matplotlib, and no renderer loads pyplot or torch."""
    loaded = "assert not {'torch', 'matplotlib%s'} & set(sys.modules)"
    code = f"import sys, {module}; {loaded % ''}; import gradflow.render.png; {loaded % '.pyplot'}"
    subprocess.run([sys.executable, "-c", code], check=True)
