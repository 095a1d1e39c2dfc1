"""docs/ci.md and the files that it shows: their commands are run as written, in the order of the service, in a copy of docs/examples/regression."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "docs" / "examples"
PAGE = ROOT / "docs" / "ci.md"
GITHUB, GITLAB, PRE_COMMIT = (EXAMPLES / "ci" / name for name in ("github-actions.yml", "gitlab-ci.yml", "pre-commit-config.yaml"))
HOOKS = ROOT / ".pre-commit-hooks.yaml"
FILES = (GITHUB, GITLAB, PRE_COMMIT, HOOKS)
PICTURES = ["model.py-depth=24-width=64.png", "model.py.png"]
OLD = pytest.mark.parametrize(("baseline", "expected"), [(False, 1), (True, 0)], ids=["a finding", "a finding in the baseline"])


def loaded(file):
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def steps():
    (job,) = loaded(GITHUB)["jobs"].values()
    return job["steps"]


def outputs(script):
    """{format: file} of the one `gradflow check` in a script."""
    ((_, _, rest),) = [script.partition("gradflow check")]
    words = shlex.split(rest.split("||")[0])
    assert words[::4] == ["--format"] * (len(words) // 4) and words[2::4] == ["--output"] * (len(words) // 4)
    return dict(zip(words[1::4], words[3::4], strict=True))


@pytest.fixture
def repository(tmp_path):
    """repository(baseline) -> docs/examples/regression in a folder of its own, its findings in the baseline or not."""

    def build(baseline):
        folder = tmp_path / "repository"
        shutil.copytree(EXAMPLES / "regression", folder, ignore=shutil.ignore_patterns("__pycache__"))
        if baseline:
            with (folder / "pyproject.toml").open("a", encoding="utf-8") as file:
                file.write('baseline = "known.json"\n')
        return folder

    return build


def bash(script, folder, **variables):
    """One script as a service runs it, but for its `pip install` lines: gradflow is installed here."""
    kept = "\n".join(line for line in script.splitlines() if not line.startswith("pip install"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    known = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(["bash", "-e", "-c", kept], cwd=folder, env=known, capture_output=True, text=True, check=False)


def run_workflow(folder, summary):
    """{name of a step: what it did}, of those with commands: a failed one ends the job for all steps but those that run in any case."""
    done, failed = {}, False
    for step in steps():
        if "run" not in step or (failed and "!cancelled()" not in step.get("if", "")):
            continue
        found = done[step["name"]] = bash(step["run"], folder, GITHUB_STEP_SUMMARY=str(summary))
        failed |= found.returncode != 0 and not step.get("continue-on-error", False)
    return done


@OLD
def test_the_workflow(repository, tmp_path, baseline, expected):
    """The check alone fails, at the line; the summary and every file that is uploaded are there in any case."""
    folder, summary = repository(baseline), tmp_path / "summary.md"
    done = run_workflow(folder, summary)
    assert {name: one.returncode for name, one in done.items()} == {"Install": 0, "Check": expected, "Summary": 0, "Draw": 0}, done
    annotations = [line for line in done["Check"].stdout.splitlines() if line.startswith("::warning")]
    assert bool(annotations) is not baseline and all(line.startswith("::warning file=model.py,line=13,title=GF201") for line in annotations)
    assert summary.read_text(encoding="utf-8").startswith("## gradflow check: 2 targets:")
    for step in steps():
        given = step.get("with", {})
        for path in [given["sarif_file"]] if "sarif_file" in given else given.get("path", "").split():
            assert (folder / path).exists(), path
    assert sorted(file.name for file in (folder / "gradflow-pictures").iterdir()) == PICTURES


@OLD
def test_the_gitlab_job(repository, baseline, expected):
    """The whole script is one shell; its exit code is the check's, and every file that is kept is there."""
    folder = repository(baseline)
    (job,) = loaded(GITLAB).values()
    done = bash("\n".join([*job["before_script"], *job["script"]]), folder)
    assert done.returncode == expected, done.stderr
    assert f"exit {expected}" in done.stdout
    suites = ElementTree.parse(folder / job["artifacts"]["reports"]["junit"]).getroot()
    assert [suite.get("failures") for suite in suites] == [str(expected)] * 2
    assert all((folder / path).exists() for path in job["artifacts"]["paths"])
    assert sorted(file.name for file in (folder / "gradflow-pictures").iterdir()) == PICTURES


@OLD
def test_the_hooks(repository, baseline, expected):
    """Every one runs the same command; it fails on the regression and passes where that is known."""
    (repo,) = loaded(PRE_COMMIT)["repos"]
    (entry,) = {hook["entry"] for hook in [*repo["hooks"], *loaded(HOOKS)]}
    done = bash(entry, repository(baseline))
    assert done.returncode == expected and f"exit {expected}" in done.stdout, done.stderr


def test_every_command_is_run_here():
    """There is no `gradflow …` in these files but in the scripts and entries that the tests above run."""
    (job,) = loaded(GITLAB).values()
    run = {
        GITHUB: [step["run"] for step in steps() if "run" in step], GITLAB: [*job["before_script"], *job["script"]],
        PRE_COMMIT: [hook["entry"] for repo in loaded(PRE_COMMIT)["repos"] for hook in repo["hooks"]], HOOKS: [hook["entry"] for hook in loaded(HOOKS)],
    }  # fmt: skip
    for file, scripts in run.items():
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.lstrip("- ").startswith(("name:", "description:", "#"))]
        command = re.compile(r"\bgradflow [a-z]+")
        assert sorted(command.findall("\n".join(lines))) == sorted(command.findall("\n".join(scripts))), file.name


def test_the_steps_after_the_check():
    """They run also where it failed and cannot change the job's result; each reads what a step before it wrote, and may."""
    names = [step.get("name") for step in steps()]
    check = steps()[names.index("Check")]
    assert "if" not in check and "continue-on-error" not in check and check["run"].count("gradflow") == 1 + 3
    after = steps()[names.index("Check") + 1 :]
    assert [(step["if"], step["continue-on-error"]) for step in after] == [("${{ !cancelled() }}", True)] * 4
    written = outputs(check["run"])
    assert {**written, "github": "-"} == written and written.keys() == {"github", "sarif", "markdown", "json"}
    summary, scanning, draw, pictures = after
    assert summary["run"] == f'cat {written["markdown"]} >> "$GITHUB_STEP_SUMMARY"'
    assert scanning["uses"].startswith("github/codeql-action/upload-sarif@") and scanning["with"]["sarif_file"] == written["sarif"]
    *command, folder = draw["run"].split()
    assert command == ["gradflow", "plot", written["json"], "--png"]
    assert pictures["uses"].startswith("actions/upload-artifact@") and pictures["with"]["path"].split() == [folder, written["json"]]
    assert loaded(GITHUB)["permissions"] == {"contents": "read", "security-events": "write", "actions": "read"}


def test_what_gitlab_keeps():
    """The JUnit report and the pictures, also where the job failed; they are what the script writes."""
    (job,) = loaded(GITLAB).values()
    _, check, plot, last = job["script"]
    written = outputs(check)
    assert written == {"text": "-", "junit": job["artifacts"]["reports"]["junit"], "json": job["artifacts"]["paths"][1]}
    assert plot.split()[:5] == ["gradflow", "plot", written["json"], "--png", job["artifacts"]["paths"][0]]
    assert job["artifacts"]["when"] == "always" and last.startswith("exit $code")


def test_the_hooks_of_the_repository():
    """One has an environment of its own, the other that of the user, as the example has; a file's name is passed to none, since all targets are run."""
    own, system = loaded(HOOKS)
    assert (own["id"], own["language"], system["id"], system["language"]) == ("gradflow-check", "python", "gradflow-check-system", "system")
    (hook,) = loaded(PRE_COMMIT)["repos"][0]["hooks"]
    assert loaded(PRE_COMMIT)["repos"][0]["repo"] == "local"
    for one in (own, system, hook):
        assert (one["entry"], one["types"], one["pass_filenames"], one["require_serial"]) == ("gradflow check", ["python"], False, True)
    assert hook["language"] == "system"


def test_what_is_installed():
    """A torch without CUDA first, so that the second line finds it; and gradflow by the requirement at the top, whose address is to be put in."""
    (name,) = re.findall(r'^name = "(gradflow.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    expected = ["pip install torch --index-url https://download.pytorch.org/whl/cpu", 'pip install "$GRADFLOW"']
    (job,) = loaded(GITLAB).values()
    (install,) = [step["run"] for step in steps() if step.get("name") == "Install"]
    assert job["before_script"] == install.splitlines() == expected
    asked = [loaded(GITHUB)["env"]["GRADFLOW"], job["variables"]["GRADFLOW"]]
    assert [(r.name, r.url) for r in map(Requirement, asked)] == [(name, "git+https://HOST/OWNER/gradflow.git")] * 2
    page = PAGE.read_text(encoding="utf-8")
    assert "`https://HOST/OWNER/gradflow.git` in it is a placeholder" in page and page.count("git+https://HOST/OWNER") == 2


def test_the_page_shows_the_files():
    """Each as it is, and links to those among the examples; what it shows of a configuration names hooks that there are."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert all(file.read_text(encoding="utf-8") in blocks for file in FILES)
    assert all(f"](examples/ci/{file.name})" in text for file in FILES[:3])
    (other,) = [yaml.safe_load(block) for block in blocks if block not in {file.read_text(encoding="utf-8") for file in FILES}]
    assert {hook["id"] for repo in other["repos"] for hook in repo["hooks"]} <= {hook["id"] for hook in loaded(HOOKS)}
    assert all(f"pictures/{name}" in text for name in PICTURES)
