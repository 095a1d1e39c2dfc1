"""The documentation as a site: every page is in the navigation, every link and anchor leads somewhere, every picture is drawn by the repository."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\]\(<?([^)\s>]+)>?\)")
FENCED = re.compile(r"^( *```).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")


def _prose(page):
    """The text without its code, in which brackets are no links and hashes no headings."""
    return FENCED.sub("", page.read_text())


def _links(page):
    return [link for link in LINK.findall(CODE.sub("", _prose(page))) if not re.match(r"[a-z]+:", link)]


def _anchors(page):
    """The ids that a reader's browser will find: of the headings, as GitHub and the site form them."""
    seen = set()
    for heading in re.findall(r"^#+ +(.+?)\s*$", _prose(page), re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        seen.add(re.sub(r"[^\w\- ]", "", words.lower()).strip().replace(" ", "-"))
    return seen


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_anchors_lead_somewhere(page):
    """Every relative link names a file that is there, and every anchor a heading in it."""
    broken = []
    for link in _links(page):
        path, _, anchor = link.partition("#")
        file = page if not path else (page.parent / path).resolve()
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_of_the_site_links_inside_the_site(page):
    """A link out of docs/ works in the repository and nowhere else."""
    assert [link for link in _links(page) if not (page.parent / link.partition("#")[0]).resolve().is_relative_to(DOCS)] == []


def test_every_page_is_in_the_navigation_once():
    """A page that is not in mkdocs.yml's nav is found by nobody."""
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text().split("\nnav:")[1], re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in PAGES[1:])


def test_every_picture_is_drawn_and_shown(tmp_path):
    """The pictures in docs/images are those that docs/images/draw.sh draws, and each stands on a page."""
    for program in ("gradflow", "python"):
        recorder = tmp_path / program
        recorder.write_text(f'#!/usr/bin/env bash\necho "$@" >> "{tmp_path}/calls"\n')
        recorder.chmod(0o755)
    subprocess.run(["bash", DOCS / "images/draw.sh"], check=True, env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    drawn = {Path(word).name for word in (tmp_path / "calls").read_text().split() if word.endswith(".png")}
    shown = {Path(link).name for page in PAGES for link in _links(page) if link.endswith(".png")}
    assert {file.name for file in (DOCS / "images").glob("*.png")} == drawn == shown
