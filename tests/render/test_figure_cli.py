"""The picture from the command line: formats by the file's ending, themes, single panels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gradflow.cli.picture import ending_of
from gradflow.render.figure import PanelName, ThemeName, page

from . import reports

MODEL = Path(__file__).resolve().parents[2] / "docs" / "examples" / "regression" / "model.py"


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """The current folder with a stored report; the report itself."""
    monkeypatch.chdir(tmp_path)
    report = reports.cross_purposes()
    Path("report.json").write_text(report.to_json(), encoding="utf-8")
    return report


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf", ".SVG"])
def test_formats(run, tmp_path, ending):
    """`profile` and `plot` write one and the same picture in the format of the file's ending, in the theme and with the panels asked for."""
    words = ("--theme", "dark", "--panel", "updates", "--panel", "layers")
    run("profile", MODEL, "--json", tmp_path / "r.json", "--png", tmp_path / f"a{ending}", *words)
    code, out, err = run("plot", tmp_path / "r.json", "--png", tmp_path / f"b{ending}", *words)
    assert (code, out) == (0, "") and "wrote" in err
    drawn = (tmp_path / f"a{ending}").read_bytes()
    assert drawn == (tmp_path / f"b{ending}").read_bytes()
    assert drawn.startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF-"}[ending.lower()])


@pytest.mark.parametrize("theme", ThemeName, ids=lambda t: t.value)
@pytest.mark.parametrize("panel", [None, *PanelName], ids=lambda p: "page" if p is None else p.value)
def test_options(run, stored, theme, panel):
    """Each theme and each panel is what the renderer makes of them; a panel that would be empty is refused, and nothing is written."""
    words = () if panel is None else ("--panel", panel.value)
    if panel in (PanelName.CALLS, PanelName.TREND):  # the model has no loop
        code, _, err = run("plot", "report.json", "--png", "x.svg", *words)
        assert code == 2 and f"--panel {panel.value} would be empty for" in err and "can fill: layers, skips, lambda, shares, updates." in err
        assert not Path("x.svg").exists()
        return
    assert run("plot", "report.json", "--png", "x.svg", "--theme", theme.value, *words)[0] == 0
    assert Path("x.svg").read_bytes() == page.render(stored, theme=theme, panels=() if panel is None else [panel], ending=".svg")


def test_standard_output(stored):
    """There it is a PNG."""
    done = subprocess.run([sys.executable, "-m", "gradflow", "plot", "report.json", "--png", "-", "--panel", "skips"], capture_output=True, check=True)
    assert done.stdout == page.render(stored, panels=[PanelName.SKIPS]) and ending_of(Path("-")) == ".png"


WRONG = {
    "another format": (("plot", "report.json", "--png", "x.jpg"), "ends in .png, .svg or .pdf"),
    "no ending": (("profile", MODEL, "--png", "picture"), "ends in .png, .svg or .pdf"),
    "no such panel": (
        ("plot", "report.json", "--png", "x.png", "--panel", "layer"),
        "--panel: layer is not valid.\nExpected one of calls, trend, layers, skips, lambda, shares, updates: the nearest is layers.",
    ),
    "no such theme": (("plot", "report.json", "--png", "x.png", "--theme", "blue"), "--theme: blue is not valid.\nExpected one of light, dark."),
    "a panel of no picture": (("profile", MODEL, "--panel", "lambda"), "--png FILE beside it"),
    "a theme of no picture": (("shatter", MODEL, "--theme", "dark"), "--png FILE beside it"),
}


@pytest.mark.parametrize("situation", WRONG)
def test_what_cannot_be_drawn(run, stored, situation):
    """One error with exit code 2 that says what there is; nothing runs, nothing is written."""
    words, fact = WRONG[situation]
    before = sorted(Path().iterdir())
    code, out, err = run(*words)
    assert (code, out) == (2, "") and fact in err and "Traceback" not in err and err.count("rror: ") == 1
    assert sorted(Path().iterdir()) == before
