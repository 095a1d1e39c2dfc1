"""Markdown for a step's summary, rendered to HTML by a CommonMark parser with tables and read back."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from gradflow.records import Checks
from gradflow.render.check.markdown import render
from gradflow.render.markdown.escape import code, escape
from gradflow.render.names import clean
from render import reports

from . import runs

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


class Page(HTMLParser):
    """The text of each element, by tag, and how often each tag opens."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(MARKDOWN.render(text))
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.opened.append(tag)
        if tag not in ("br", "hr"):
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.texts[tag][-1] += data


def page(checks: Checks) -> Page:
    return Page(render(checks))


@pytest.mark.parametrize("build", runs.EVERY, ids=lambda f: f.__name__)
def test_the_table(build: Callable[[], Checks]) -> None:
    """It has one row of six cells per target, behind a heading with the tally; every element is closed."""
    found = page(build())
    count = len(build().outcomes)
    assert found.opened.count("td") == 6 * count
    assert found.opened.count("h2") == 1
    assert found.texts["h2"][0].startswith(f"gradflow check: {count} target")


def test_a_run() -> None:
    """The failed and the broken target have a section with findings, fix, place and error; the healthy one has its row alone."""
    found = page(runs.three())
    assert [t.split(":")[0] for t in found.texts["summary"]] == ["models/half.py", "models/gone.py"]
    items = found.texts["li"]
    assert len(items) == 4
    assert "warning GF201 attenuating-skip ×6 layer1.[0-5]" in items[2] and "[0.5, limit 0.95]" in items[2]
    assert "Fix: Let the skip be the identity" in items[2] and "half.py:31" in items[2]
    assert "x @ w" in found.texts["pre"][0]
    assert "known: 1, by comments: 1" in found.texts["tr"][1]
    assert items[3].startswith("models/half.py:12: unused ignore comment")


def test_warnings_in_a_target_that_passed() -> None:
    """They stand in a closed section, those of a failed target in an open one."""
    assert "<details><summary>" in render(runs.checks([runs.outcome("a.py", reports.cross_purposes())]))
    assert "<details open><summary>" in render(runs.checks([runs.outcome("a.py", runs.sick())]))


@pytest.mark.parametrize("name", runs.HOSTILE, ids=ascii)
def test_a_hostile_name(name: str) -> None:
    """It prints as itself (on one line, control characters as Python escapes) and adds no element."""
    found, plain = page(runs.hostile(name)), page(runs.hostile("plain"))
    shown = clean(name)
    assert sum(shown in t for t in found.texts["code"]) >= 4
    assert set(found.opened) <= set(plain.opened)
    assert found.opened.count("td") == plain.opened.count("td") == 12
    assert found.opened.count("a") == 0


@settings(deadline=None)
@given(st.text())
def test_any_name(name: str) -> None:
    """A name in a cell of a table, in a list and in a paragraph is one element with itself in it."""
    for text in (f"| a |\n| --- |\n| {code(name)} |\n", f"- {code(name)}\n", f"x {code(name)} y\n"):
        found = Page(text)
        assert found.texts["code"] == [clean(name)]
        assert not {"em", "strong", "a", "img", "s", "h1"} & set(found.opened)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Zs", "Cf", "Cn", "Co"])))
def test_any_text(text: str) -> None:
    """Running text reads as itself."""
    assert Page(f"x{escape(text)}y\n").texts["p"] == [f"x{text}y\n"] or Page(f"x{escape(text)}y\n").texts["p"] == [f"x{text}y"]
