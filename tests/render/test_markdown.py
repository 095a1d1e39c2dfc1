"""The markdown of a report, rendered to HTML by a CommonMark parser with tables and read back.

After a change that is meant, write the golden files anew and read the difference:

    GRADFLOW_UPDATE_GOLDEN=1 pytest tests/render/test_markdown.py; git diff tests/golden
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from gradflow.difference import difference
from gradflow.records import Location, Report
from gradflow.render.markdown import links
from gradflow.render.markdown.report import render
from gradflow.render.names import clean

from . import reports

GOLDEN = Path(__file__).parent.parent / "golden"
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
BASE = "https://git.example/ada/nets/blob/0123abc/"
each = pytest.mark.parametrize("build", reports.EVERY, ids=lambda f: f.__name__)
HOSTILE = (
    "[red]",
    "a|b",
    "a<b>&amp;`c`",
    "*x*_y_~z~",
    "@ada",
    "#12",
    "](http://x)",
    "<img src=x>",
    "</details>",
    "\\",
    "a\nb",
    "$x$",
    "<!-- -->",
    ":smile:",
    "模型",
)


def nowhere(location: Location | None) -> None:
    return None


class Page(HTMLParser):
    """The text of each element, by tag, the links, and how often each tag opens; every element has to be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.links: dict[str, str] = {}
        self._open: list[str] = []
        self._link = ""
        self.feed(MARKDOWN.render(text))
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append(tag)
        if tag == "a":
            self._link = dict(attrs)["href"] or ""
        if tag not in ("br", "hr"):
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "a":
            self.links[self.texts["a"][-1]] = self._link

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.texts[tag][-1] += data


@pytest.mark.parametrize("build", [reports.half_resnet110, reports.broken_batches, reports.counted_note, reports.weird_names], ids=lambda f: f.__name__)
def test_golden(build: Callable[[], Report]) -> None:
    """The whole page is the one that was last looked at and approved."""
    file = GOLDEN / f"report-markdown-{build.__name__}.md"
    text = render(build(), source=nowhere)
    if os.environ.get("GRADFLOW_UPDATE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@each
@pytest.mark.parametrize("unfold", [False, True], ids=["folded", "unfolded"])
def test_every_report(build: Callable[[], Report], unfold: bool) -> None:
    """It parses; the verdict is the heading, the next step is in sight, and each table stands whole in a fold of its own."""
    report = build()
    page = Page(render(report, source=nowhere, unfold=unfold))
    assert len(page.texts["h2"]) == 1 and clean(report.target.model_class) in page.texts["h2"][0]
    assert {"healthy": "is healthy", "warnings": "has warnings", "sick": "is sick"}[report.verdict] in page.texts["h2"][0]
    facts, *tables = page.texts["table"]
    assert "coverage" in facts and "next step" in facts
    assert len(tables) + page.texts["summary"].count("Skips: none") + page.texts["summary"].count("Layers: none") + 1 == len(page.texts["summary"])
    if unfold:
        layers = next((t for t in tables if t.split()[0] == "layer"), "")
        assert len(layers.strip().splitlines()) >= len(report.layers)


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_hostile_name(name: str) -> None:
    """It prints as itself on one line, and adds no element and no link."""

    def named(what: str) -> Report:
        here = Location(file=f"{what}.py", line=3)
        layers = [reports.layer(what, what, 0, 1e-9, location=here), reports.layer("b", "Linear", 1, 1.0, location=here)]
        skips = [reports.skip(what, 0, 1, location=here)]
        found = [reports.finding("GF101", what, f"{what} is small", f"mend {what}", location=here)]
        whole = reports.report(layers, skips, [reports.highway(skips)], found, target=reports.target(what, 12))
        return dataclasses.replace(whole, run=dataclasses.replace(whole.run, notes=(f"on {what}",)))

    page, plain = Page(render(named(name), source=nowhere)), Page(render(named("plain"), source=nowhere))
    assert sum(clean(name) in text for text in page.texts["code"]) >= 6
    assert f"mend {clean(name)}" in page.texts["strong"]
    assert any(text.endswith(f"on {clean(name)}") for text in page.texts["li"])
    assert page.opened == plain.opened


def test_no_mention_and_no_issue_outside_of_code() -> None:
    """A sign that GitHub reads in the finished text is parted from the name after it; inside `<code>` it reads none."""
    text = render(reports.broken_batches(), source=nowhere)
    assert "@" not in text and "&#64;<!-- -->home" in text and "&#64;<!-- -->ada" in text


def test_links_to_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in the repository links to its line at the commit; what lies outside, or among installed packages, is text."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    places = [tmp_path / "my nets" / "a(1).py", tmp_path / "lib" / "site-packages" / "torch.py", Path("/elsewhere/b.py"), Path("<string>")]
    layers = [reports.layer(f"part{'abcd'[i]}", "Linear", i, 1.0, location=Location(file=str(place), line=7)) for i, place in enumerate(places)]
    page = Page(render(reports.report(layers), source=links.below(BASE)))
    assert set(page.links.values()) == {f"{BASE}my%20nets/a%281%29.py#L7"}
    assert all(text.endswith("a(1).py:7") for text in page.links)


def test_what_changed() -> None:
    """Against an older report: open where it got worse, with the view of `gradflow diff` in it."""
    before, after = reports.healthy_resnet(), reports.half_resnet110()
    worse = render(after, source=nowhere, against=difference(before, after))
    assert "<details open><summary>Worse than" in worse
    assert any(" WORSE   verdict healthy → sick" in text for text in Page(worse).texts["pre"])
    better = render(before, source=nowhere, against=difference(after, before))
    assert "<details><summary>No worse than" in better
    assert "<pre>" not in render(after, source=nowhere)


def test_a_thousand_layers_fit_a_comment() -> None:
    """GitHub takes 65,536 characters."""
    assert len(render(reports.thousand_layers(), source=links.below(BASE))) < 65_536
    assert len(render(reports.half_resnet110(), source=links.below(BASE))) < 65_536
