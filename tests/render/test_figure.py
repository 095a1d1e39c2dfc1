"""The picture. Texts are checked by their boxes, pictures against golden ones; how they look was judged by eye. To renew the golden pictures:

GRADFLOW_UPDATE_GOLDEN=1 pytest tests/render/test_figure.py; git diff tests/golden
"""

from __future__ import annotations

import dataclasses
import io
import os
import random
import re
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

import gradflow
from gradflow import zoo
from gradflow.bands import fluctuation
from gradflow.records import Report
from gradflow.render.figure import PanelName, ThemeName, canvas, page
from gradflow.render.figure.stages import OTHER, stages_of

from . import reports

GOLDEN = Path(__file__).parent.parent / "golden"
Build = Callable[[], Report]


def sized(count: int) -> Report:
    """A residual network of about so many layers with a long name for each block, findings of every subject, and some of what has no logarithm."""
    blocks = max(1, (count - 2) // 5)
    names = {f"encoder.layers.{'deep' * 6}": blocks - blocks // 2, "decoder": blocks // 2} if blocks > 1 else {"encoder": 1}
    layers, skips = reports.residual(names, 0.7, random.Random(count))
    layers[-1] = reports.layer(layers[-1].name, "Linear", layers[-1].depth, 0.0)
    road = reports.highway(skips, gain=1e-5, identity_gain=0.4)
    found = [
        reports.finding("GF206", road.name, "The skips alone carry little.", "Set λ = 1.", value=1e-5),
        reports.finding("GF101", "conv1", "The gradient vanishes.", "Normalise.", value=1e-5),
        *(reports.finding("GF201", s.id, "λ is 0.7.", "Set λ = 1.", severity="warning") for s in skips),
        *(reports.finding("GF109", x.name, "Dead units.", "Lower the bias.", severity="warning") for x in layers[:: max(1, count // 150)]),
        reports.finding("GF111", layers[0].parameters[0].name, "It moves too fast.", "Initialise it.", severity="warning"),
    ]
    return reports.report(layers, skips, [road], found, target=reports.target("N" * 90, 10**9))


def measured(build: Callable[[], torch.nn.Module], *shape: int) -> Build:
    def profile() -> Report:
        torch.manual_seed(0)
        return gradflow.profile(build(), torch.randn(*shape))

    return profile


SITUATIONS: dict[str, Build] = (
    {build.__name__: build for build in reports.EVERY}
    | {"recurrent": reports.recurrent}
    | {f"{n} layers": (lambda n=n: sized(n)) for n in (5, 30, 120, 400, 1000)}
    | {
        "a measured MLP": measured(lambda: zoo.mlp(3, 8), 4, 8),
        "a measured ResNet": measured(lambda: zoo.preact_resnet(14, stages=(4, 8), shortcut="scaled", scale=0.5), 2, 3, 8, 8),
        "a measured transformer": measured(lambda: zoo.pre_ln_transformer(6, 16), 2, 4, 16),
    }
)
each = pytest.mark.parametrize("situation", SITUATIONS)
themes = pytest.mark.parametrize("theme", ThemeName, ids=lambda t: t.value)


def texts(fig: Figure) -> list[tuple[str, Bbox]]:
    """The words that are drawn, with their boxes in pixels."""
    drawn: list[Text] = []
    renderer = canvas.renderer(fig)
    with pytest.MonkeyPatch.context() as patch:
        draw = Text.draw
        patch.setattr(Text, "draw", lambda self, r: (drawn.append(self), draw(self, r)))
        fig.draw(renderer)
    shown = [t for t in dict.fromkeys(drawn) if t.get_visible() and t.get_text().strip()]
    return [(t.get_text(), Text.get_window_extent(t, renderer)) for t in shown]


def apart(fig: Figure) -> list[str]:
    """The words on a figure, none of which collides with another or leaves it."""
    found = texts(fig)
    for i, (name, box) in enumerate(found):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= fig.bbox.width + 1 and box.y1 <= fig.bbox.height + 1, name
        for other, its in found[i + 1 :]:
            assert not box.padded(-1).overlaps(its.padded(-1)), (name, other)
    return [text for text, _ in found]


def said(report: Report) -> str:
    return " ".join(text for text, _ in texts(page.figure(report)))


@themes
@each
def test_words(situation: str, theme: ThemeName) -> None:
    """No two texts collide, and none leaves the picture, however large the model is."""
    assert len(apart(page.figure(SITUATIONS[situation](), theme=theme, dpi=100))) > 5


@pytest.mark.parametrize("name", PanelName, ids=lambda p: p.value)
@each
def test_one_panel(situation: str, name: PanelName) -> None:
    """It stands alone, without the header, and says what it shows or that there is nothing to show."""
    fig = page.figure(SITUATIONS[situation](), panels=[name], dpi=100)
    assert len(fig.axes) == 1 and fig.get_figheight() < 4.5
    words = apart(fig)
    assert words and not {"SICK", "WARNINGS", "HEALTHY"} & set(words)


def test_some_panels() -> None:
    """They come in the order given, each once, the last with the axis of depth."""
    fig = page.figure(reports.half_resnet110(), panels=[PanelName.LAMBDA, PanelName.LAYERS, PanelName.LAMBDA])
    words = [text for text, _ in texts(fig)]
    assert len(fig.axes) == 2
    assert words.index("λ: what each skip passes on of the gradient") < words.index("Gradient gain of each layer, input to output")
    assert fig.axes[1].get_xlabel().startswith("depth") and not fig.axes[0].get_xlabel()


@each
def test_pixels(situation: str) -> None:
    """It is a PNG of 9 inches that opens and is not blank."""
    image = Image.open(io.BytesIO(page.render(SITUATIONS[situation](), dpi=60)))
    assert image.format == "PNG"
    assert image.width == 9 * 60
    pixels = np.asarray(image.convert("L"))
    assert (pixels < 128).mean() > 0.003
    assert (pixels > 200).mean() > 0.5


GOLDEN_PICTURES: dict[str, tuple[Build, ThemeName, tuple[PanelName, ...]]] = {
    "half_resnet110": (reports.half_resnet110, ThemeName.LIGHT, ()),
    "healthy_resnet-dark": (reports.healthy_resnet, ThemeName.DARK, ()),
    "loops": (reports.loops, ThemeName.LIGHT, ()),
    "recurrent": (reports.recurrent, ThemeName.LIGHT, ()),
    "1000-layers": (lambda: sized(1000), ThemeName.LIGHT, ()),
    "densenet-skips": (reports.densenet, ThemeName.LIGHT, (PanelName.SKIPS, PanelName.SHARES)),
}
TOLERANCE = 0.5  # of 255: the root mean square off the words, in blocks of 6×6 pixels; matplotlib 3.8, 3.10 and 3.11 differ by less than 0.1


def drawn(name: str) -> tuple[Image.Image, list[Bbox]]:
    """A picture that has a golden one, and where its words and keys stand."""
    build, theme, panels = GOLDEN_PICTURES[name]
    fig = page.figure(build(), theme=theme, panels=panels, dpi=60)
    renderer = canvas.renderer(fig)
    keys = [a.get_window_extent(renderer) for axes in fig.axes for a in axes.artists]
    return Image.open(io.BytesIO(page.render(build(), theme=theme, panels=panels, dpi=60))), [*(box for _, box in texts(fig)), *keys]


def difference(one: Image.Image, other: Image.Image, words: Sequence[Bbox]) -> float:
    """Root mean square of the difference between two pictures, reduced six times, `words` left out: fonts are drawn by each version in its own way.
    Infinite where the sizes differ."""
    if one.size != other.size:
        return float("inf")
    pixels = [np.array(image.convert("RGB"), dtype=float) for image in (one, other)]
    for box in words:
        left, right = (max(0, int(x)) for x in (box.x0 - 6, box.x1 + 7))
        top, bottom = (max(0, int(one.height - y)) for y in (box.y1 + 6, box.y0 - 7))
        for picture in pixels:
            picture[top:bottom, left:right] = 0
    small = [np.asarray(Image.fromarray(p.astype(np.uint8)).reduce(6), dtype=float) for p in pixels]
    return float(np.sqrt(np.mean((small[0] - small[1]) ** 2)))


@pytest.mark.parametrize("name", GOLDEN_PICTURES)
def test_golden(name: str) -> None:
    """The picture is the one that was looked at."""
    image, words = drawn(name)
    file = GOLDEN / f"figure-{name}.png"
    if os.environ.get("GRADFLOW_UPDATE_GOLDEN"):
        image.convert("RGB").save(file, optimize=True)
    assert difference(image, Image.open(file), words) <= TOLERANCE


def test_the_tolerance_can_be_exceeded() -> None:
    """A network whose layers lose a tenth less of their decades, in the same layout, is more than the tolerance."""
    report = reports.sigmoid_mlp()
    moved = dataclasses.replace(report, layers=[dataclasses.replace(x, gain=(x.gain or 1.0) ** 0.9) for x in report.layers])
    images = [Image.open(io.BytesIO(page.render(r, panels=[PanelName.LAYERS], dpi=60))) for r in (report, moved)]
    assert images[0].size == images[1].size
    assert difference(*images, words=[]) > TOLERANCE


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_twice(ending: str) -> None:
    """The same report gives the same bytes in every format, also after a trip through JSON."""
    report = reports.cross_purposes()
    first = page.render(report, ending=ending, dpi=60)
    assert page.render(report, ending=ending, dpi=60) == first
    assert page.render(Report.from_json(report.to_json()), ending=ending, dpi=60) == first


def test_svg() -> None:
    """It is a picture for the web, with its text as text and no date."""
    text = page.render(reports.weird_names(), ending=".svg").decode()
    assert text.startswith("<?xml") and "<svg" in text[:1000] and "<dc:date>" not in text
    for words in (">SICK<", "[red]Net$", "$x_1$", "a&lt;b&amp;", "GF101 vanishing gradient ×11"):
        assert words in text


def test_pdf() -> None:
    """It is a document with its text as text, embedded fonts and no date."""
    content = page.render(reports.half_resnet110(), ending=".pdf")
    assert content.startswith(b"%PDF-") and b"CreationDate" not in content and b"/FontFile2" in content
    streams = [zlib.decompressobj().decompress(s) for s in re.findall(rb"stream\r?\n(.*?)endstream", content, re.DOTALL) if s[:1] == b"\x78"]
    shown = [
        b"".join(re.findall(rb"\((.*?)(?<!\\)\)", block, re.DOTALL)).replace(b"\0", b"") for s in streams for block in re.findall(rb"BT.*?ET", s, re.DOTALL)
    ]
    assert b"SICK" in shown and any(b"CifarResNet110" in text for text in shown)


def test_global_state() -> None:
    """Settings of the user's are left as they were, and do not change the picture."""
    usual = page.render(reports.three_layers(), dpi=60)
    with mpl.rc_context({"font.size": 30, "axes.grid": True, "text.usetex": True, "figure.dpi": 20, "savefig.bbox": "tight"}):
        before = dict(mpl.rcParams)
        assert page.render(reports.three_layers(), dpi=60) == usual
        assert dict(mpl.rcParams) == before


def test_names_that_look_like_mathematics() -> None:
    """They stand in the picture as they are; what the font has no glyph for is written as its number."""
    seen = said(reports.weird_names())
    for name in ("[red]", 'a<b&"c', "$x_1$", "_hidden", "[red]Net$", "$y^2$"):
        assert name in seen
    model = reports.report([reports.layer("模型", "Linear", 0, 1.0)], target=reports.target("😀网络", 10))
    assert "\\u7f51\\u7edc" in said(model)


def test_what_is_wrong_and_where() -> None:
    """The header says what is wrong and what to do; the panels name the layer, the highway and the skips."""
    seen = said(reports.half_resnet110())
    for words in (
        "SICK",
        "CifarResNet110",
        "severity 13.3 decades",
        "Next: Remove the factor",
        "GF101 vanishing gradient: conv1",
        "× 5.6e-17 along its 54 skips",
        "Where: …/torchvision/models/resnet.py:",
        "GF201 attenuating skip ×54: layer[1-3].[0-17], first λ 0.5",
    ):
        assert words in seen


def test_an_unbalanced_matrix() -> None:
    """It is named by the panel of updates, with its distance from the median, and not by that of layers."""
    report = sized(30)
    fast = report.layers[0].parameters[0]
    ratios = [p.update_ratio for x in report.layers for p in x.parameters if len(p.shape) > 1 and p.update_ratio]
    usual = float(np.median(ratios))
    (label,) = (t for t, _ in texts(page.figure(report, panels=[PanelName.UPDATES])) if t.startswith("GF111 unbalanced updates"))
    assert fast.name in label and fast.update_ratio is not None
    assert float(label.partition(" · ")[0].split()[-3]) == pytest.approx(max(fast.update_ratio / usual, usual / fast.update_ratio), rel=0.01)
    assert not any(t.startswith("GF111") for t, _ in texts(page.figure(report, panels=[PanelName.LAYERS])))


def test_the_counterfactual() -> None:
    """What the highway would carry with λ = 1 is drawn where it is twice as much, and not where it is the same."""
    layers, skips = reports.residual({"blocks": 6}, 1.0, random.Random(0))
    for identity, drawn in ((1e-2, True), (1.9e-3, False), (0.4e-3, True), (1e-3, False)):
        report = reports.report(layers, skips, [reports.highway(skips, gain=1e-3, identity_gain=identity)])
        assert ("highway with λ = 1" in said(report)) is drawn


def test_the_band() -> None:
    """The shaded band is that of the judge: as many decades above 1 as below, over each layer."""
    report = sized(30)
    axes = page.figure(report, panels=[PanelName.LAYERS]).axes[0]
    (band,) = [c for c in axes.collections if type(c).__name__ in ("PolyCollection", "FillBetweenPolyCollection")]
    corners = band.get_paths()[0].vertices
    for layer, width in zip(report.layers, fluctuation(report.layers), strict=True):
        heights = sorted({round(float(y), 9) for x, y in corners if x == layer.depth})
        assert heights == pytest.approx(sorted({-width, width}), abs=1e-8)


def test_a_crowd_is_folded() -> None:
    """Of 4000 layers no more marks are drawn than there is room for, and the column of an odd one still reaches it."""
    layers = [reports.layer(f"net.{i}", "Linear", i, 1.0 if i != 2345 else 1e-4) for i in range(4000)]
    axes = page.figure(reports.report(layers), panels=[PanelName.LAYERS]).axes[0]
    marks = sum(len(c.get_offsets()) for c in axes.collections if type(c).__name__ == "PathCollection")
    assert marks <= 200
    bars = [path.vertices for c in axes.collections if type(c).__name__ == "LineCollection" for path in c.get_paths()]
    assert min(float(bar[:, 1].min()) for bar in bars) == pytest.approx(-4)


def test_zeros_and_gaps() -> None:
    """What has no logarithm is counted in the key, not left out."""
    assert "exactly 0 (12)" in said(reports.all_zero())
    assert "0: closed at the start (8)" in said(reports.closed_branches())
    assert "not measured (4)" in said(reports.unmeasured())
    assert "λ undefined" in said(reports.densenet())


def test_no_skips() -> None:
    """The panels of skips give way to a sentence."""
    fig = page.figure(reports.sigmoid_mlp())
    assert len([a for a in fig.axes if a.axison]) == 2
    assert any("No skip connection was found" in text for text, _ in texts(fig))


def test_stages() -> None:
    """There are no more than colours for them; the rarest are one."""
    layers = [reports.layer(f"part{i % 9}.{i}", "Linear", i, 1.0) for i in range(100)]
    found = stages_of(layers, 6)
    assert len(set(found.values())) == 6 and OTHER in found.values() and len(found) == 100


@pytest.mark.parametrize("module", ["gradflow.render.terminal", "gradflow.render.json_schema", "gradflow.render.figure"])
def test_imports(module: str) -> None:
    """The other renderers load neither torch nor matplotlib, and no renderer loads pyplot or torch."""
    loaded = "assert not {'torch', 'matplotlib%s'} & set(sys.modules)"
    code = f"import sys, {module}; {loaded % ''}; import gradflow.render.figure.page, gradflow.render.figure.single; {loaded % '.pyplot'}"
    subprocess.run([sys.executable, "-c", code], check=True)
