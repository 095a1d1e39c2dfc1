"""Every example of the README and the docs is run: `console` blocks through the command line, `python` blocks as they are, each against the output shown.

A block with a title is a file. Where the title is a path below docs/ the block is an excerpt of that file; else the page is followed from top to bottom in a
folder of its own: its files are written, its commands run, in the order of the page. A `diff` changes a file that the page has written before.
"""

import contextlib
import doctest
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gradflow.cli import api, main, reference
from gradflow.rules.__main__ import page

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", re.MULTILINE | re.DOTALL)
FILE = re.compile(r'^```(\w+) title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
EXCERPTS = [(page, match[2], match[3]) for page in PAGES for match in FILE.finditer(page.read_text()) if match[2].startswith("docs/")]
WALKS = [page for page in PAGES if any(not match[2].startswith("docs/") for match in FILE.finditer(page.read_text()))]
NEEDS = {"hugging-face.md": "transformers", "lightning.md": "pytorch_lightning"}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
BLOCKS = [(page, match.start(), *match.groups()) for page in PAGES if page not in WALKS for match in BLOCK.finditer(page.read_text())]


def _commands(text):
    """(command, expected output) of a console block."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        yield command, expected


def _run(command, monkeypatch):
    program, *words = shlex.split(command)
    if program == "torchrun":
        launched = [sys.executable, "-m", "torch.distributed.run", *words]
        return subprocess.run(launched, check=False, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120).stdout
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), contextlib.suppress(SystemExit):
        if program == "python":
            monkeypatch.setattr(sys, "argv", words)
            runpy.run_path(words[0], run_name="__main__")
        else:
            assert program == "gradflow"
            monkeypatch.setattr(sys, "argv", [program, *words])
            main()
    return out.getvalue()


def _console(text, monkeypatch):
    for command, shown in _commands(text):
        printed = _run(command, monkeypatch)
        assert doctest.OutputChecker().check_output(shown.rstrip("\n") + "\n", printed.rstrip("\n") + "\n", FLAGS), f"$ {command}\n{printed}"


def _put(file, language, text):
    if language == "diff":
        lines = text.splitlines(keepends=True)
        old, new = ("".join(line[1:] for line in lines if line[0] in marks) for marks in ("- ", "+ "))
        assert file.read_text().count(old) == 1, f"{file.name} does not hold the lines once:\n{old}"
        text = file.read_text().replace(old, new)
    file.write_text(text)
    sys.modules.pop(file.stem, None)  # another page's, or what the file held before


def _python(code, expected, name):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, name, "exec"), {"__name__": "example"})
    assert doctest.OutputChecker().check_output(expected or "", out.getvalue(), FLAGS), out.getvalue()


@pytest.mark.parametrize("block", BLOCKS, ids=[f"{b[0].name}:{b[2]}:{b[1]}" for b in BLOCKS])
def test_an_example_prints_what_its_page_shows(block, tmp_path, monkeypatch):
    """What the docs show is what the reader gets (`...` stands for anything)."""
    page, _, language, code, expected = block
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "80")
    if language == "python":
        _python(code, expected, page.name)
    else:
        _console(code.replace("report.png", str(tmp_path / "report.png")).replace("report.json", str(tmp_path / "report.json")), monkeypatch)


@pytest.fixture
def modules():
    """Takes out what a page's examples have imported from its own files: another test's `model` is another file."""
    yield
    for name in {match[2].removesuffix(".py") for walk in WALKS for match in FILE.finditer(walk.read_text()) if match[2].endswith(".py")}:
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("page", WALKS, ids=lambda page: page.name)
def test_a_page_can_be_followed(page, tmp_path, monkeypatch):
    """From top to bottom, in an empty folder: the page's files are written and its examples run where they stand."""
    if page.name in NEEDS:
        pytest.importorskip(NEEDS[page.name])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.syspath_prepend(str(tmp_path))
    text = page.read_text()
    steps = sorted([*FILE.finditer(text), *BLOCK.finditer(text)], key=lambda match: match.start())
    for step in steps:
        if step.re is FILE:
            _put(tmp_path / step[2], step[1], step[3])
        elif step[1] == "python":
            _python(step[2], step[3], page.name)
        else:
            _console(step[2], monkeypatch)


@pytest.mark.parametrize("excerpt", EXCERPTS, ids=[f"{e[0].name}:{e[1]}" for e in EXCERPTS])
def test_an_excerpt_is_in_its_file(excerpt):
    """What a page shows of a file stands in the file, line for line."""
    _, name, shown = excerpt
    assert shown.strip("\n") in (ROOT / name).read_text()


def test_the_page_of_rules_is_the_table():
    """docs/rules.md is what `python -m gradflow.rules` prints."""
    assert (ROOT / "docs/rules.md").read_text() == page()


@pytest.mark.parametrize(("name", "printed"), [("cli.md", reference.page), ("api.md", api.page)], ids=["cli", "api"])
def test_a_page_of_the_reference_is_what_its_command_prints(name, printed):
    """docs/reference/cli.md and api.md are what `python -m gradflow.cli.reference` and `python -m gradflow.cli.api` print."""
    assert (ROOT / "docs/reference" / name).read_text() == printed()
