"""What a notebook shows: HTML and a picture, from the package alone."""

from __future__ import annotations

import dataclasses
import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from rich.cells import cell_len

import gradflow
from gradflow.records import Report
from gradflow.render import summary
from gradflow.render.names import clean, visible
from gradflow.render.notebook.html import render

from . import reports

each = pytest.mark.parametrize("build", reports.EVERY, ids=lambda f: f.__name__)
SHOWN = {"div", "style", "p", "span", "b", "code", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "br", "i"} | {
    "svg", "line", "polyline",
}  # fmt: skip


class Page(HTMLParser):
    """Every element is one that the view has, and is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.cells: list[str] = []
        self.marks: list[dict[str, str]] = []  # of the drawing
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SHOWN, tag
        self.opened.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "i":
            self.marks.append({name: value or "" for name, value in attrs})
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

    def heights(self) -> list[float]:
        """Of the marks, in percent from the upper edge."""
        return [_percent(mark, "top") for mark in self.marks]


def _percent(mark: dict[str, str], edge: str) -> float:
    return float(re.findall(rf"{edge}:(-?[\d.]+)%", mark["style"])[0])


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
    assert page.opened.count("b") > 1


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
    assert re.findall(r"[^-]color: ?([^;]+);", html).count("inherit") >= 3 and re.findall(r"[^-]color: ?(#\w+);", html) == ["#fff"]


@each
def test_a_page_that_strips_style_and_drawing(build: Callable[[], Report]) -> None:
    """As one that does not trust the notebook: of the drawing no word is left, and the verdict keeps its colour, what stands to the left its side."""
    html = render(build())
    plot = re.findall(r'<div class="plot".*?</div>', html)
    assert all(not re.sub(r"<[^>]*>", "", drawn) for drawn in plot)
    left = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    assert re.search(r'<b style="background-color:#\w+;color:#fff', left) and 'class="left"' not in html and "text-align:left" in left


@pytest.mark.parametrize("name", ["[red]", 'a<b&"c', "<script>alert(1)</script>", "</div>", "a b\n\x1b[31mc", "'", "模型.层", "&lt;", "]]>", "-->"])
def test_a_name_that_looks_like_markup(name: str) -> None:
    """It is text wherever it stands, in the drawing too."""
    layers = [reports.layer(name, name, 0, 1e-9), reports.layer("b", "Linear", 1, 1.0)]
    skips = [reports.skip(name, 0, 1)]
    found = [reports.finding("GF101", name, f"{name} is small", f"mend {name}")]
    page = Page(render(reports.report(layers, skips, [reports.highway(skips)], found, target=reports.target(name, 12))))
    shown = visible(clean(name))
    assert f"{shown} ({shown}): gain 1e-9" in [mark["title"] for mark in page.marks] and f"mend {shown}" in page.text
    assert page.cells.count(shown) >= 3


@each
def test_the_drawing(build: Callable[[], Report]) -> None:
    """It is well-formed; a mark for each layer that has a gain, inside the frame, of an error red, of a warning orange; nothing where there is none."""
    report = build()
    html = render(report)
    marks = Page(html).marks
    drawn = re.findall(r"<svg.*?</svg>", html)
    assert len(drawn) == any(layer.gain for layer in report.layers)
    for text in drawn:
        ElementTree.fromstring(text)
        found = {severity: {f.where for f in report.findings if f.severity == severity} for severity in ("error", "warning")}
        named = [{layer.name} | {p.name for p in layer.parameters} for layer in report.layers if layer.gain is not None]
        red = [names for names in named if names & found["error"]]
        assert sum(mark["class"] == "mark error" for mark in marks) == len(red)
        assert sum(mark["class"] == "mark warning" for mark in marks) == sum(bool(names & found["warning"]) for names in named if names not in red)
        if len(report.layers) <= 400:
            assert len(marks) == len(named)
        assert all(0 <= _percent(mark, edge) <= 100 for mark in marks for edge in ("left", "top"))


def test_the_drawing_is_logarithmic() -> None:
    """Equal factors are equal steps, larger gains stand higher, and what was not measured parts the line."""
    gains: list[float | None] = [1e-4, 1e-2, 1.0, None, 1e-4, 1.0]
    html = render(reports.report([reports.layer(f"l{i}", "Linear", i, g) for i, g in enumerate(gains)]))
    heights = Page(html).heights()
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.02) and heights[0] > heights[1]
    assert heights[3] == heights[0] and heights[4] == heights[2]
    svg = ElementTree.fromstring(re.findall(r"<svg.*</svg>", html)[0])
    assert [len(line.attrib["points"].split()) for line in svg.findall("polyline")] == [3, 2]


def test_the_drawing_has_the_highway() -> None:
    """A line from its last join, where it is the whole gradient, down to its first fork; it has the colour of its alarm. That of a loop has no depth."""
    layers = [reports.layer(f"l{i}", "Linear", i, 1.0) for i in range(5)]
    skips = [reports.skip(f"s{i}", i + 1, i + 2, lam=0.1, gain=0.1) for i in range(3)]
    way = reports.highway(skips, name="way", gain=1e-3, fork_gains=(1e-3, 1e-2, 1e-1), top_gain=1.0)
    found = [reports.finding("GF206", "way", "it carries next to nothing", "mend it")]
    html = render(reports.report(layers, skips, [way], found))
    svg = ElementTree.fromstring(re.findall(r"<svg.*</svg>", html)[0])
    (line,) = [line for line in svg.findall("polyline") if line.attrib["stroke"] == "#e53935"]
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    drops = [below[1] - above[1] for below, above in itertools.pairwise(points)]
    assert len(points) == 4 and drops == [pytest.approx(drops[0], abs=0.11)] * 3 and drops[0] > 10
    _, _, _, high = map(float, svg.attrib["viewBox"].split())
    assert 100 * points[-1][1] / high == pytest.approx(Page(html).heights()[0], abs=0.1)
    looped = dataclasses.replace(way, skips=("s0", "s0", "s0"))
    assert 'stroke-width="4"' not in render(reports.report(layers, skips, [looped], found))


def test_the_worst_alarm_is_told_first() -> None:
    """What is wrong and where stands under the verdict; a healthy report has no such line."""
    page = Page(render(reports.half_resnet110()))
    told = summary.told(summary.alarms(reports.half_resnet110())[0])
    assert page.text.split("}")[-1].index(told) < page.text.split("}")[-1].index("target")
    assert not summary.alarms(reports.healthy_resnet()) and render(reports.healthy_resnet()).count("</p><p>") == 0


def test_jupyter_asks_the_report() -> None:
    """Both views are the renderers', also of a report read back."""
    report = Report.from_json(reports.one_layer().to_json())
    assert report._repr_html_() == render(report)
    png = report._repr_png_()
    assert isinstance(png, bytes) and png.startswith(b"\x89PNG")
    assert gradflow.Report is Report


@each
def test_print(build: Callable[[], Report]) -> None:
    """The verdict, what stands out and what to do, on one screen; the tables are left to the command, and options too. `repr` is one line."""
    report = build()
    lines = str(report).splitlines()
    assert lines[0].split()[0] == report.verdict.upper() and any(line.startswith("next step") for line in lines)
    assert len(lines) <= 32 and all(cell_len(line) <= 80 for line in lines)
    assert "--" not in str(report) and "\x1b" not in str(report)
    assert repr(report).startswith(f"<Report of {report.target.model_class}: {report.verdict}, severity ") and "\n" not in repr(report)
    assert len(repr([report, report])) < 400


def test_views_are_imported_when_they_are_asked() -> None:
    """`import gradflow` brings neither rich nor matplotlib; the records alone show plain text."""
    code = (
        "import sys\nimport gradflow\nassert not {'torch', 'rich', 'matplotlib'} & sys.modules.keys()\n"
        "report = gradflow.Report\nassert set(report.views) == {'text/plain', 'text/html', 'image/png'}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
