"""`gradflow plot`: the picture of a report that was stored is the one that its profile drew, and what cannot be drawn is one error."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from render import reports
from render.check import runs
from render.test_history import history

from gradflow.cli.plot import file_names
from gradflow.difference import difference
from gradflow.records import SCHEMA, Report
from gradflow.render.check import words
from gradflow.render.figure import page
from gradflow.render.history import page as history_page

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "docs" / "examples" / "regression" / "model.py"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with the JSON of a report, of a check and of others, a file and a folder."""
    monkeypatch.chdir(tmp_path)
    report = reports.three_layers()
    contents = {
        "report.json": report.to_json(), "check.json": runs.three().to_json(), "difference.json": difference(report, report).to_json(),
        "graph.json": '{"schema": "gradflow/graph/v1"}', "shatter.json": '{"schema": "gradflow/shatter/v1"}', "later.json": '{"schema": "gradflow/report/v2"}',
        "part.json": f'{{"schema": "{SCHEMA}"}}', "list.json": "[]", "none.json": "{}", "text.json": "no JSON", "deep.json": "[" * 100_000, "taken": "",
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / "image.json").write_bytes(b"\x89PNG")
    (tmp_path / "folder").mkdir()
    return tmp_path


def test_a_stored_report(run, tmp_path):
    """Byte for byte the picture that `profile --png` wrote, of a model whose verdict is not healthy: the exit code is 0 all the same."""
    run("profile", MODEL, "--json", tmp_path / "r.json", "--png", tmp_path / "profiled.png")
    code, out, err = run("plot", tmp_path / "r.json", "--png", tmp_path / "plotted.png")
    assert (code, out) == (0, "") and "wrote" in err
    assert (tmp_path / "plotted.png").read_bytes() == (tmp_path / "profiled.png").read_bytes()


def test_a_stored_check(run, tmp_path, monkeypatch):
    """A picture for each target that was profiled, byte for byte what its own report gives; the broken one is named; the folder is made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL.read_text(encoding="utf-8"), encoding="utf-8")
    assert run("check", "model.py", "model.py:model", "gone.py", "--format", "json", "--output", "check.json")[0] == 2
    code, out, err = run("plot", "check.json", "--png", "deep/pictures")
    assert (code, out) == (0, "")
    assert sorted(file.name for file in Path("deep/pictures").iterdir()) == ["model.py-model.png", "model.py.png"]
    assert err.count("wrote deep/pictures/model.py") == 2
    assert "note: no picture of gone.py, which is broken: Cannot find the target 'gone.py'" in err
    for name, outcome in zip(("model.py.png", "model.py-model.png"), json.loads(Path("check.json").read_text())["outcomes"], strict=False):
        assert Path("deep/pictures", name).read_bytes() == page.render(Report.from_json(json.dumps(outcome["report"])))


def test_a_check_with_old_findings(run, folder):
    """The picture says what is the matter with the model: findings of the baseline are in it, those that a comment silences are not."""
    report = reports.half_resnet110()
    silenced = tuple(runs.Silenced(finding=f, by="ignored" if f.rule == "GF101" else "baseline") for f in report.findings)
    outcome = dataclasses.replace(runs.outcome("model.py", report), state="passed", exit_code=0, findings=(), silenced=silenced)
    Path("old.json").write_text(runs.checks([outcome]).to_json(), encoding="utf-8")
    assert run("plot", "old.json", "--png", "pictures")[0] == 0
    shown = words.report(outcome)
    assert shown.verdict == report.verdict == "sick"
    assert {f.rule for f in shown.findings} == {f.rule for f in report.findings} - {"GF101"}
    assert Path("pictures/model.py.png").read_bytes() == page.render(shown) != page.render(report)


def test_a_check_in_which_every_target_broke(run, folder):
    """The folder is there and empty, the targets are named on one line each, and that is no failure."""
    Path("broken.json").write_text(runs.checks([runs.broken("a.py"), runs.broken("b\n.py")]).to_json(), encoding="utf-8")
    code, _, err = run("plot", "broken.json", "--png", "pictures")
    assert code == 0 and not any(Path("pictures").iterdir())
    assert [line.split(",")[0] for line in err.splitlines()] == ["note: no picture of a.py", "note: no picture of b .py"]


def test_a_picture_on_standard_output(folder):
    """It is alone there, as that of `profile --png -`."""
    done = subprocess.run([sys.executable, "-m", "gradflow", "plot", "report.json", "--png", "-"], capture_output=True, check=False)
    assert done.returncode == 0 and done.stdout == page.render(reports.three_layers()) and not done.stderr


WRONG = {
    "no such file": (["gone.json", "--png", "x.png"], "Cannot read gone.json: no such file"),
    "a folder to read": (["folder", "--png", "x.png"], "Cannot read folder: "),
    "not JSON": (["text.json", "--png", "x.png"], "Cannot read text.json: it is not JSON"),
    "no text": (["image.json", "--png", "x.png"], "Cannot read image.json: it is no text"),
    "JSON too deep to read": (["deep.json", "--png", "x.png"], "Cannot read deep.json: "),
    "a list": (["list.json", "--png", "x.png"], "it has no schema"),
    "no schema": (["none.json", "--png", "x.png"], "it has no schema"),
    "a graph": (["graph.json", "--png", "x.png"], "it is the graph of a model, not a report"),
    "a shatter report": (["shatter.json", "--png", "x.png"], "it is a report of gradflow shatter, not a report"),
    "a difference": (["difference.json", "--png", "x.png"], "it is the difference of two reports, not a report"),
    "a report of a later version": (["later.json", "--png", "x.png"], "its schema is 'gradflow/report/v2'"),
    "a report that is not whole": (["part.json", "--png", "x.png"], "missing key"),
    "a report into a folder": (["report.json", "--png", "folder"], "--png: folder (a folder) is not valid"),
    "a report into no .png file": (["report.json", "--png", "x.jpg"], "ends in .png"),
    "a report into a folder that is not there": (["report.json", "--png", "nowhere/x.png"], "there is no folder nowhere"),
    "a check into a file": (["check.json", "--png", "taken"], "--png: taken (a file) is not valid"),
    "a check into one picture": (["check.json", "--png", "x.png"], "--png: x.png (the name of one picture) is not valid"),
    "a check into standard output": (["check.json", "--png", "-"], "--png: - (standard output) is not valid"),
    "a check into a folder below a file": (["check.json", "--png", "taken/pictures"], "--png: taken/pictures (not a directory) is not valid"),
    "no picture": (["report.json"], "--png"),
}


@pytest.mark.parametrize("situation", WRONG)
def test_what_cannot_be_drawn(run, folder, situation):
    """One error with exit code 2 that names the fact and the place, then the remedy; nothing is written."""
    words, fact = WRONG[situation]
    before = sorted(folder.rglob("*"))
    code, out, err = run("plot", *words)
    assert (code, out) == (2, "") and "Traceback" not in err
    assert fact in err and err.count("rror: ") == 1
    assert situation == "no picture" or len(err.splitlines()) == 2
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("words", [("report.json", "--png", "folder/x.png"), ("check.json", "--png", "folder")])
def test_a_folder_that_cannot_be_written(run, folder, monkeypatch, words):
    """It is told before anything is drawn."""
    monkeypatch.setattr(os, "access", lambda path, mode, **_: not mode & os.W_OK)
    code, _, err = run("plot", *words)
    assert code == 2 and "permission denied" in err and "folder" in err and not any(Path("folder").iterdir())


@pytest.mark.parametrize("words", [("report.json", "--png", "folder/x.png"), ("check.json", "--png", "folder/in")])
def test_a_folder_that_may_not_be_searched(run, folder, monkeypatch, words):
    """Whether something is a folder cannot even be asked: that is the same error and no traceback."""

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", denied)
    monkeypatch.setattr(Path, "mkdir", lambda path, **_: denied(path))
    code, _, err = run("plot", *words)
    assert code == 2 and "permission denied" in err and "Traceback" not in err


def test_a_folder_in_the_place_of_a_picture(run, folder):
    """Nothing is drawn, not even the pictures before it."""
    (name, *_) = file_names([runs.three().outcomes[1].target])
    Path("folder", name).mkdir()
    code, _, err = run("plot", "check.json", "--png", "folder")
    assert code == 2 and f"Cannot write folder/{name}: it is a folder" in err
    assert [file.name for file in Path("folder").iterdir()] == [name]


def test_plotting_leaves_torch_alone(folder):
    """torch is not imported, nor is matplotlib where there is nothing to draw."""
    script = (
        "import sys, gradflow.cli\nsys.argv = ['gradflow', 'plot', {0!r}, '--png', 'x.png']\ntry: gradflow.cli.main()\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules\nassert ('matplotlib' in sys.modules) is {1}"
    )
    for name, drawn in (("report.json", True), ("text.json", False), ("check.json", False)):
        done = subprocess.run([sys.executable, "-c", script.format(name, drawn)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert Path("x.png").read_bytes() == page.render(reports.three_layers())


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["model.py (depth=24, width=64)"], ["model.py-depth=24-width=64"]), (["docs/unet.py", "timm:vit"], ["docs-unet.py", "timm-vit"]),
        (["a/b.py", "a:b.py", "A_b.py", "A/b.py"], ["a-b.py", "a-b.py-2", "A_b.py", "A-b.py-3"]), (["a", "a-2", "a/", "a:"], ["a", "a-2", "a-3", "a-4"]),
        (["con.py", "NUL", "com1", "console.py"], ["target-con.py", "target-NUL", "target-com1", "console.py"]),
        (["", "../..", "模型", "é.py"], ["target", "target-2", "target-3", "e.py"]), (["x" * 300, "x" * 301], ["x" * 100, "x" * 100 + "-2"]),
    ],
)  # fmt: skip
def test_the_names_of_the_pictures(labels, names):
    """They read as the targets do, and are told apart where what tells those apart cannot stand in a file's name."""
    assert file_names(labels) == [f"{name}.png" for name in names]


@given(st.lists(st.text(max_size=120) | st.sampled_from(runs.HOSTILE), max_size=12))
def test_whatever_the_labels(labels):
    """Each has a name that every file system takes, no two are alike where case is ignored, and the last point is that of `.png`."""
    names = file_names(labels)
    assert len(names) == len(labels) == len({name.lower() for name in names})
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9_=][A-Za-z0-9._=-]*\.png", name) and len(name) < 120
        assert not re.match(r"(?i)(con|prn|aux|nul|com\d|lpt\d)\.", name)


def test_a_history(run, tmp_path, monkeypatch):
    """Its heat map, as `save` draws it, light and dark; there is no panel of it."""
    monkeypatch.chdir(tmp_path)
    stored = history()
    Path("h.json").write_text(stored.to_json(), encoding="utf-8")
    assert run("plot", "h.json", "--png", "h.png")[0] == 0
    assert Path("h.png").read_bytes() == history_page.render(stored, ".png", dark=False)
    assert run("plot", "h.json", "--png", "d.svg", "--theme", "dark")[0] == 0
    assert Path("d.svg").read_bytes() == history_page.render(stored, ".svg", dark=True)
    code, _, err = run("plot", "h.json", "--png", "x.png", "--panel", "layers")
    assert (code, "holds a history" in err, Path("x.png").exists()) == (2, True, False)
