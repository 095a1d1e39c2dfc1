"""Every example of the README and the docs is run: `console` blocks through the command line, `python` blocks as they are, each against the output shown."""

import contextlib
import doctest
import io
import re
import shlex
import sys
from pathlib import Path

import pytest

from gradflow.cli import main
from gradflow.rules.__main__ import page

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", re.MULTILINE | re.DOTALL)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
BLOCKS = [(page, match.start(), *match.groups()) for page in PAGES for match in BLOCK.finditer(page.read_text())]


def _commands(text):
    """(command, expected output) of a console block."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        yield command, expected


def _run(command, monkeypatch):
    words = shlex.split(command)
    assert words[0] == "gradflow"
    monkeypatch.setattr(sys, "argv", words)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), contextlib.suppress(SystemExit):
        main()
    return out.getvalue()


@pytest.mark.parametrize("block", BLOCKS, ids=[f"{b[0].name}:{b[2]}:{b[1]}" for b in BLOCKS])
def test_an_example_prints_what_its_page_shows(block, tmp_path, monkeypatch):
    """What the docs show is what the reader gets (`...` stands for anything)."""
    page, _, language, code, expected = block
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "80")
    if language == "python":
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, page.name, "exec"), {"__name__": "example"})
        assert doctest.OutputChecker().check_output(expected or "", out.getvalue(), FLAGS), out.getvalue()
        return
    for command, shown in _commands(code):
        printed = _run(command.replace("report.png", str(tmp_path / "report.png")).replace("report.json", str(tmp_path / "report.json")), monkeypatch)
        assert doctest.OutputChecker().check_output(shown.rstrip("\n") + "\n", printed.rstrip("\n") + "\n", FLAGS), f"$ {command}\n{printed}"


def test_every_page_has_its_links():
    """No page points to a file that is not there."""
    for page_path in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page_path.read_text()):
            if not link.startswith("http"):
                assert (page_path.parent / link).exists(), f"{page_path.name}: {link}"


def test_the_page_of_rules_is_the_table():
    """docs/rules.md is what `python -m gradflow.rules` prints."""
    assert (ROOT / "docs/rules.md").read_text() == page()
