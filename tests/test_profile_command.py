"""`gradflow profile --markdown` and `--against`, and where their output goes."""

import io
import sys
from pathlib import Path

import pytest

from gradflow.cli.output import put, source_base, write

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
MODEL = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        return {skip} + self.fc(x)

torch.manual_seed(0)
model = nn.Sequential(*(Block() for _ in range(6)))
inputs = torch.randn(4, 8)
"""


@pytest.fixture(autouse=True)
def no_runner(monkeypatch):
    """Whatever runs the tests, links are those of a developer's machine."""
    for name in ("GITHUB_REPOSITORY", "GITHUB_SHA", "GITHUB_SERVER_URL", "CI_PROJECT_URL", "CI_COMMIT_SHA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with a model file whose skip is an identity, and one whose skip is halved."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "nets").mkdir()
    (tmp_path / "reports").mkdir()
    (tmp_path / "nets" / "good.py").write_text(MODEL.format(skip="x"))
    (tmp_path / "nets" / "half.py").write_text(MODEL.format(skip="0.5 * x"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_markdown_in_a_file(run, project):
    """Its links lead from the file to the lines; the terminal shows the report as ever, and the exit code is the verdict's."""
    code, out, err = run("profile", "nets/half.py", "--markdown", "reports/half.md")
    text = Path("reports/half.md").read_text(encoding="utf-8")
    assert text.startswith("## ") and "(../nets/half.py#L11)" in text
    assert out.lstrip().split()[0] in text.splitlines()[0].upper() and "wrote reports/half.md" in err
    assert code == (1 if "is sick" in text else 0)


def test_markdown_on_standard_output(run, project):
    """It is alone there; links are the repository's own paths."""
    _, out, err = run("profile", "nets/good.py", "--markdown", "-")
    assert out.startswith("## ✅") and "(nets/good.py#L11)" in out
    assert "HEALTHY" in err


@pytest.mark.parametrize(
    "variables, base",
    [
        ({"GITHUB_REPOSITORY": "ada/nets", "GITHUB_SHA": "0123abc"}, "https://github.com/ada/nets/blob/0123abc/"),
        ({"GITHUB_SERVER_URL": "https://git.lab", "GITHUB_REPOSITORY": "a/b", "GITHUB_SHA": "0"}, "https://git.lab/a/b/blob/0/"),
        ({"CI_PROJECT_URL": "https://gitlab.com/ada/nets", "CI_COMMIT_SHA": "0123abc"}, "https://gitlab.com/ada/nets/-/blob/0123abc/"),
        ({"GITHUB_REPOSITORY": "ada/nets"}, ""),
    ],
)
def test_links_on_a_runner(run, project, monkeypatch, variables, base):
    """Relative links lead nowhere in a comment: on a runner they are the commit's page."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert source_base(Path("-"), project) == base
    assert source_base(project / "report.md", project) == base
    _, out, _ = run("profile", "nets/good.py", "--markdown", "-")
    assert f"({base}nets/good.py#L11)" in out


def test_against_an_older_report(run, project):
    """The report, then what changed; the exit code is that of the new verdict alone."""
    first, _, _ = run("profile", "nets/good.py", "--json", "reports/good.json")
    code, out, _ = run("profile", "nets/half.py", "--against", "reports/good.json", "--markdown", "reports/half.md")
    alone, _, _ = run("profile", "nets/half.py", "--json", "reports/half.json")
    assert first == 0 and code == alone
    changed = out.split("python 3")[-1].split("\n", 1)[1]
    assert changed.lstrip().startswith("WORSE")
    assert "kind identity → scaled, λ 1 → 0.5" in changed
    _, diff, _ = run("diff", "reports/good.json", "reports/half.json")
    assert changed.strip() == diff.strip()
    assert "Worse than" in Path("reports/half.md").read_text(encoding="utf-8")
    _, out, _ = run("profile", "nets/good.py", "--against", "reports/good.json")
    assert " NO CHANGE " in out


@pytest.mark.parametrize(
    "words, said",
    [
        (("--against", "gone.json"), "Cannot read gone.json"),
        (("--against", "nets/good.py"), "Cannot read nets/good.py"),
        (("--markdown", "nowhere/x.md"), "there is no folder nowhere"),
        (("--markdown", "nets"), "it is a folder"),
        (("--markdown", "-", "--json", "-"), "a file, since --json takes standard output"),
        (("--markdown", "-", "--png", "-"), "a file, since --markdown takes standard output"),
    ],
)
def test_bad_usage_is_refused_before_the_model_runs(run, project, words, said):
    """Exit code 2 and one clear error, though the model would fail."""
    (project / "broken.py").write_text("raise SystemExit('the model ran')\n")
    code, out, err = run("profile", "broken.py", *words)
    assert code == 2 and not out
    assert said in " ".join(err.split()) and "the model ran" not in err and "Traceback" not in err


def test_quiet(run, project):
    """It is a flag of every command that runs a model and shows progress."""
    for command in ("profile", "graph"):
        assert run(command, "nets/good.py", "--quiet")[0] == 0


def test_standard_output_without_unicode(monkeypatch):
    """For people a λ that it cannot show is its Python escape; what machines read is UTF-8 whatever it says."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    put(stream, "λ = ½\n")
    assert stream.buffer.getvalue() == b"\\u03bb = \\xbd\n"
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    write(Path("-"), "λ = ½\n")
    assert stream.buffer.getvalue().decode() == "λ = ½\n"
