"""What a notebook shows: HTML and a picture, from the package alone."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

import gradflow
from gradflow.records import Report
from gradflow.render.names import clean, visible
from gradflow.render.notebook.html import render

from . import reports

each = pytest.mark.parametrize("build", reports.EVERY, ids=lambda f: f.__name__)
SHOWN = {"div", "style", "p", "span", "b", "code", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "ul", "li", "br"} | {
    "svg", "line", "text", "polyline", "circle", "title",
}  # fmt: skip


class Page(HTMLParser):
    """Every element is one that the view has, and is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.cells: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SHOWN, tag
        self.opened.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "br":
            self._open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SHOWN, tag
        self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "td" in self._open:
            self.cells[-1] += data


@each
def test_every_report(build: Callable[[], Report]) -> None:
    """One closed element with the verdict first; the next step is in it, and every table behind a fold."""
    report = build()
    html = render(report)
    page = Page(html)
    assert html.startswith('<div class="gradflow">') and html.endswith("</div>")
    assert page.text.split("}")[-1].split()[0] == report.verdict.upper()
    assert "next step" in page.text
    assert page.opened.count("details") == page.opened.count("summary")
    assert page.opened.count("table") == page.opened.count("thead") + 1


@each
def test_it_needs_nothing_from_elsewhere(build: Callable[[], Report]) -> None:
    """No script, no address, no attribute that runs or fetches anything."""
    html = render(build())
    page = Page(html)
    assert not {"src", "href", "onload", "onclick", "id"} & page.attributes
    assert not re.search(r"url\(|@import|https?:", html)


@each
def test_light_and_dark(build: Callable[[], Report]) -> None:
    """Text and lines take the page's colour: black and white are fixed nowhere but in the badge, which has a ground of its own."""
    html = render(build())
    assert not re.search(r"(fill|stroke)=\"(#000|#fff|black|white)", html)
    assert re.findall(r"[^-]color: ([^;]+);", html).count("inherit") >= 4 and re.findall(r"[^-]color: (#\w+);", html) == ["#fff"]


@pytest.mark.parametrize("name", ["[red]", 'a<b&"c', "<script>alert(1)</script>", "</div>", "a b\n\x1b[31mc", "'", "模型.层", "&lt;", "]]>", "-->"])
def test_a_name_that_looks_like_markup(name: str) -> None:
    """It is text wherever it stands, in the drawing too."""
    layers = [reports.layer(name, name, 0, 1e-9), reports.layer("b", "Linear", 1, 1.0)]
    skips = [reports.skip(name, 0, 1)]
    found = [reports.finding("GF101", name, f"{name} is small", f"mend {name}")]
    page = Page(render(reports.report(layers, skips, [reports.highway(skips)], found, target=reports.target(name, 12))))
    shown = visible(clean(name))
    assert f"{shown} ({shown}): gain 1e-9" in page.text and f"mend {shown}" in page.text
    assert page.cells.count(shown) >= 3


@each
def test_the_drawing(build: Callable[[], Report]) -> None:
    """It is well-formed; a mark for each layer that has a gain, inside the frame, those of an alarm red; nothing where there is none."""
    report = build()
    drawn = re.findall(r"<svg.*</svg>", render(report))
    assert len(drawn) == any(layer.gain for layer in report.layers)
    for text in drawn:
        svg = ElementTree.fromstring(text)
        _, _, width, height = map(float, svg.attrib["viewBox"].split())
        circles = svg.findall("circle")
        alarmed = {f.where for f in report.findings if f.severity != "info"}
        red = [layer for layer in report.layers if layer.gain is not None and ({layer.name} | {p.name for p in layer.parameters}) & alarmed]
        assert sum(c.attrib["fill"] == "#e53935" for c in circles) == len(red)
        if len(report.layers) <= 400:
            assert len(circles) == sum(layer.gain is not None for layer in report.layers)
        assert all(0 <= float(c.attrib["cx"]) <= width and 0 <= float(c.attrib["cy"]) <= height for c in circles)


def test_the_drawing_is_logarithmic() -> None:
    """Equal factors are equal steps, larger gains stand higher, and what was not measured parts the line."""
    gains: list[float | None] = [1e-4, 1e-2, 1.0, None, 1e-4, 1.0]
    svg = ElementTree.fromstring(re.findall(r"<svg.*</svg>", render(reports.report([reports.layer(f"l{i}", "Linear", i, g) for i, g in enumerate(gains)])))[0])
    heights = [float(c.attrib["cy"]) for c in svg.findall("circle")]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.11) and heights[0] > heights[1]
    assert heights[3] == heights[0] and heights[4] == heights[2]
    assert [len(line.attrib["points"].split()) for line in svg.findall("polyline")] == [3, 2]


def test_jupyter_asks_the_report() -> None:
    """Both views are the renderers', also of a report read back."""
    report = Report.from_json(reports.one_layer().to_json())
    assert report._repr_html_() == render(report)
    png = report._repr_png_()
    assert isinstance(png, bytes) and png.startswith(b"\x89PNG")
    assert gradflow.Report is Report


def test_views_are_imported_when_they_are_asked() -> None:
    """`import gradflow` brings neither rich nor matplotlib; the records alone show plain text."""
    code = (
        "import sys\nimport gradflow\nassert not {'torch', 'rich', 'matplotlib'} & sys.modules.keys()\n"
        "report = gradflow.Report\nassert set(report.views) == {'text/html', 'image/png'}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
