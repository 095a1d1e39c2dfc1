"""docs/ways-in.md: every row's command is run, and what the row shows is what is printed."""

import contextlib
import io
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from gradflow.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/ways-in.md").read_text()
ROWS = [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in PAGE.splitlines() if "gradflow profile" in line and line.startswith("| ")]
NEEDS = {"message_passing.py:Convolved": "torch_geometric", "checkpoints.py:transformer": "transformers"}
PROMISED = """
    .pt2|scripted|traced|compiled|several inputs|keyword-only|dict output|dataclass|tuple output|several outputs|integer inputs|frozen|shared
    repeatedly|raw parameters|parametrisation|checkpointing|re-entrant|autograd.Function|MultiheadAttention|nn.Transformer|LSTM|GRU|written by hand
    autograd.grad|channels-last|complex|autocast|bfloat16 model|float16 model|in-place sums on views|message passing|tensor subclass
"""


def spaced(text):
    return " ".join(text.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the commands of the page write their files: `out/`."""
    return tmp_path_factory.mktemp("out")


def run(command, folder):
    """What a command prints; `python FILE ARGUMENTS` is run in this process, too, once."""
    program, *words = shlex.split(command.replace("out/", f"{folder}/"))
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), contextlib.suppress(SystemExit):
        if program == "python":
            patch.setattr(sys, "argv", words)
            patch.syspath_prepend(str(Path.cwd()))
            if not any(folder.iterdir()):
                runpy.run_path(words[0], run_name="__main__")
        else:
            assert program == "gradflow"
            patch.setattr(sys, "argv", [program, *words])
            main()
    return spaced(out.getvalue())


@pytest.mark.parametrize(("way", "commands", "result"), ROWS, ids=[row[0].replace("`", "") for row in ROWS])
def test_a_row_shows_what_its_command_prints(way, commands, result, folder, monkeypatch):
    """Coverage, the number of rows of skips and the worst of them, word for word."""
    for target, package in NEEDS.items():
        if target in commands:
            pytest.importorskip(package)
    monkeypatch.chdir(ROOT / "docs/examples/ways_in")
    monkeypatch.setenv("COLUMNS", "400")
    printed = ""
    for command in commands.strip("`").split(" && "):
        printed = run(command, folder)
    shown = re.findall(r"`([^`]+)`", result)
    assert shown
    assert [text for text in shown if spaced(text) not in printed] == [], printed


def test_the_table_covers_what_is_promised():
    """No way in is without a row."""
    ways = " ".join(row[0] for row in ROWS).replace("`", "")
    assert [word for line in PROMISED.split("\n") for word in line.strip().split("|") if word not in ways] == []
