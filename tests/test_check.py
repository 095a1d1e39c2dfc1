"""`gradflow check`: many targets, one run, one exit code. What it finds is compared with what `gradflow profile` finds of each target alone."""

import gc
import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from rich.text import Text

import gradflow
from gradflow import checking
from gradflow.assembly import Options
from gradflow.checking import Plan, Target, check
from gradflow.records import Checks
from gradflow.render.rules import entries, listing
from gradflow.rules import EVERY, RULES

MODELS = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.branch, self.factor = nn.Linear(8, 8), factor
    def forward(self, x):
        return self.factor * x + torch.relu(self.branch(x))

class Raises(Block):
    def forward(self, x):
        raise RuntimeError("inside forward")

def model(depth=3, factor=1.0):
    return nn.Sequential(*(Block(factor) for _ in range(depth)))

def sick(depth=30):
    return nn.Sequential(*(m for _ in range(depth) for m in (nn.Linear(8, 8), nn.Sigmoid())))

def warned():
    return model(factor=0.9)

def raises():
    return Raises(1.0)

def faulty():
    raise ValueError("no such model")

inputs = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
"""


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder with models.py, and the current one."""
    (tmp_path / "models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checks_of(out):
    return Checks.from_json(out)


def test_twenty_targets_with_one_that_does_not_load_and_one_that_raises(run, models):
    """Each has a line of progress, none stops the others, and the worst exit code is the run's."""
    names = ["models.py"] * 20
    names[4], names[11], names[13] = "models.py:faulty", "models.py:raises", "models.py:sick"
    code, out, err = run("check", *names, "--format", "json")
    checks = checks_of(out)
    assert code == checks.exit_code == 3
    assert [o.exit_code for o in checks.outcomes] == [0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 3, 0, 1, 0, 0, 0, 0, 0, 0]
    assert [re.match(r"\[(\d+)/20\] (models\.py\S*)( #\d+)? … (healthy|sick|broken) \d+\.\d s", line)[1] for line in err.splitlines()[:20]] == [
        str(i) for i in range(1, 21)
    ]
    assert err.splitlines()[-1] == "20 targets: 17 passed, 1 failed, 2 broken; exit 3"
    assert checks.outcomes[4].trouble.kind == "TargetFileError" and "no such model" in checks.outcomes[4].trouble.fact
    assert checks.outcomes[11].trouble.kind == "ModelFailed" and "inside forward" in checks.outcomes[11].trouble.fact
    assert len({o.target for o in checks.outcomes}) == 20


def test_quiet(run, models):
    """Only the lines of progress are gone: what is asked for, the notes and the exit code are the same."""
    command = ("check", "models.py", "models.py:warned", "missing.py", "--format", "github")
    told, quiet = run(*command), run(*command, "--quiet")
    assert quiet[:2] == told[:2]
    assert [line for line in told[2].splitlines() if not re.match(r"\[\d/3\] ", line)] == quiet[2].splitlines() == ["3 targets: 2 passed, 1 broken; exit 2"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["models.py"], 0),
        (["models.py:warned"], 0),
        (["models.py", "models.py:sick"], 1),
        (["models.py:sick", "missing.py"], 2),
        (["models.py:raises", "missing.py", "models.py:sick"], 3),
    ],
)
def test_the_exit_code_is_the_same_in_every_format(run, models, names, expected):
    """What a run is worth does not depend on who reads it."""
    assert {name: run("check", *names, "--format", name)[0] for name in ("text", "json", "github", "junit", "sarif", "markdown")} == dict.fromkeys(
        ("text", "json", "github", "junit", "sarif", "markdown"), expected
    )


def test_each_outcome_is_that_of_the_target_alone(run, models):
    """A neighbour changes nothing: findings and layers are those of `gradflow profile`, in any order."""
    (models / "changes.py").write_text(
        f"import os, sys, torch\nprint('loud')\ntorch.set_default_dtype(torch.float64)\nos.chdir('/')\nsys.path.clear()\n{MODELS}"
    )
    (models / "other.py").write_text(MODELS)
    code, out, err = run("check", "models.py:sick", "changes.py", "other.py:sick", "--format", "json")
    first, middle, last = checks_of(out).outcomes
    run("profile", "other.py:sick", "--json", "alone.json")
    alone = gradflow.Report.from_json((models / "alone.json").read_text())
    assert last.findings == alone.findings and last.report.layers == alone.layers
    assert [layer.grad_norm for layer in first.report.layers] == [layer.grad_norm for layer in last.report.layers]
    assert middle.report.environment.dtype == "float64"
    assert (torch.get_default_dtype(), Path.cwd()) == (torch.float32, models)
    assert code == 1 and "loud" in err


def test_a_model_is_released_before_the_next_target(tmp_path):
    """Also one that its file builds when it is imported: the memory of one does not add to the next one's."""
    (tmp_path / "one.py").write_text("import torch\nmodel = torch.nn.Linear(3, 3)\nmodel.mark = 'one.py'\ninputs = torch.randn(2, 3)\n")
    checks = check([Target(spec=str(tmp_path / "one.py"), label="one", options=Options(), rules=EVERY)], Plan())
    assert checks.exit_code == 0
    assert [o for o in gc.get_objects() if type(o) is torch.nn.Linear and getattr(o, "mark", None) == "one.py"] == []


def test_an_interrupt_ends_the_run_and_what_there_is_is_written(run, models):
    """The interrupted target is broken, those after it were not run, and the run cannot pass."""
    (models / "slow.py").write_text("raise KeyboardInterrupt")
    code, out, err = run("check", "models.py", "slow.py", "models.py:sick", "models.py:warned", "--format", "json")
    checks = checks_of(out)
    assert code == checks.exit_code == 2
    assert [(o.target, o.state) for o in checks.outcomes] == [("models.py", "passed"), ("slow.py", "broken")]
    assert "note: interrupted at slow.py: 2 of 4 targets were not run" in err


def test_a_fault_of_gradflow_breaks_one_target(run, models, monkeypatch):
    """It is told with its frames, as what it is, and the others are checked."""
    whole = checking.profile_target

    def faulty(spec, *rest):
        if spec == "models.py:warned":
            raise KeyError("oops")
        return whole(spec, *rest)

    monkeypatch.setattr(checking, "profile_target", faulty)
    code, out, _ = run("check", "models.py:warned", "models.py:sick", "--format", "json")
    broken, sick = checks_of(out).outcomes
    assert (code, broken.exit_code, sick.exit_code) == (2, 2, 1)
    assert "KeyError: 'oops'" in broken.trouble.fact and "in faulty" in broken.trouble.detail and "report" in broken.trouble.remedy


def test_warnings_fail_where_they_are_asked_to(run, models):
    """--fail-on warning."""
    assert run("check", "models.py:warned")[0] == 0
    assert run("check", "models.py:warned", "--fail-on", "warning")[0] == 1
    assert run("check", "models.py", "--fail-on", "warning")[0] == 0


def test_rules_are_selected_ignored_and_moved(run, models):
    """By a code, its beginning or a name; the report's own verdict follows."""

    def rules(*words):
        code, out, _ = run("check", "models.py:warned", "--format", "json", *words)
        (outcome,) = checks_of(out).outcomes
        assert outcome.report.findings == outcome.findings
        return code, {f.rule for f in outcome.findings}

    assert rules() == (0, {"GF201"})
    assert rules("--select", "GF1") == (0, set())
    assert rules("--ignore", "attenuating-skip") == (0, set())
    assert rules("--limit", "GF201=0.85") == (0, set())
    assert rules("--select", "gf2", "--limit", "GF201=0.95", "--fail-on", "warning") == (1, {"GF201"})


MIXED_UP = {
    "a rule that is not there": (["--select", "GF29"], "--select: GF29 is not valid"),
    "a limit without a number": (["--limit", "GF201"], "RULE=X"),
    "a limit twice": (["--limit", "GF201=1", "--limit", "GF201=2"], "one limit for GF201"),
    "a limit of a rule without": (["--limit", "GF203=1"], "--limit: GF203=1 is not valid"),
    "a limit that an identity breaks": (["--limit", "GF201=30"], "Expected a limit of 0 or more and below 1"),
    "a limit that every identity breaks": (["--limit", "GF202=1"], "Expected a finite limit above 1"),
    "no rule left": (["--ignore", "GF"], "to leave a rule"),
    "two formats on standard output": (["--format", "json", "--format", "sarif"], "json takes standard output"),
    "more files than formats": (["--format", "json", "--output", "a.json", "--output", "b.json"], "paired in order"),
    "two formats in one file": (["--format", "json", "--format", "sarif", "--output", "a", "--output", "a"], "json takes a;"),
    "files in another order than formats": (["--format", "text", "--format", "sarif", "--output", "r.sarif"], "--output: r.sarif is not valid"),
    "an unknown format": (["--format", "html"], "html"),
    "a folder that is not there": (["--format", "json", "--output", "nowhere/r.json"], "there is no folder nowhere"),
    "a baseline that is not there": (["--baseline", "known.json"], "known.json"),
    "a baseline to write without its name": (["--update-baseline"], "there is no file to write"),
    "a bad argument": (["--arg", "depth"], "name=value"),
    "a configuration that is not there": (["--config", "none.toml"], "none.toml"),
    "no seeds": (["--repeat", "0"], "--repeat"),
    "no such device": (["--device", "nosuch"], "--device: nosuch is not valid"),
    "a device that is not here": (["--device", "cuda:99"], "--device: cuda:99 is not valid"),
    "no such dtype": (["--dtype", "int8"], "--dtype: int8 is not valid"),
    "no such autocast": (["--amp", "fp8"], "amp: fp8 is not valid"),
    "no such loss": (["--loss", "crossentropy"], "Did you mean cross_entropy?"),
    "an input that is none": (["--input", "3xx"], "--input '3xx'"),
    "one name for two inputs": (["--input", "x=3x4", "--input", "x=5"], "this name is given twice"),
    "an input and a batch": (["--input", "3x4", "--batch", "b.pt"], "give one of the two"),
    "a batch that is not there": (["--batch", "nowhere.pt"], "nowhere.pt: there is no such file"),
    "weights that are not there": (["--weights", "nowhere.pt"], "nowhere.pt: there is no such file"),
}


@pytest.mark.parametrize("situation", MIXED_UP)
def test_wrong_usage_is_one_error_before_anything_runs(run, models, situation):
    """Exit code 2, standard output untouched, and the model file was not imported."""
    words, fact = MIXED_UP[situation]
    (models / "loud.py").write_text("raise SystemExit('the file ran')")
    code, out, err = run("check", "loud.py", "loud.py:other", *words)
    assert (code, out) == (2, "")
    assert fact in err and "[1/2]" not in err and "the file ran" not in err and "Traceback" not in err
    assert err.count("rror: ") == 1


def test_several_formats_in_one_run(run, models):
    """Each goes to its file, the one without to standard output, and the run is done once."""
    code, out, err = run(
        "check", "models.py:sick", "models.py", "--format", "sarif", "--output", "r.sarif", "--format", "junit", "--output", "r.xml", "--format", "json"
    )
    assert code == 1 and err.count("[1/2]") == 1
    checks = checks_of(out)
    assert json.loads((models / "r.sarif").read_text())["version"] == "2.1.0"
    assert ElementTree.parse(models / "r.xml").getroot().tag == "testsuites"
    assert [o.state for o in checks.outcomes] == ["failed", "passed"]


def test_junit_has_a_case_for_each_rule_that_was_selected(run, models):
    """And for no other."""
    _, out, _ = run("check", "models.py", "--select", "GF10", "--format", "junit")
    names = [case.get("name") for case in ElementTree.fromstring(out).iter("testcase")]
    assert sorted(name.split()[0] for name in names) == sorted([code for code in RULES if code.startswith("GF10")] + ["profiled"])


def test_a_place_is_told_as_seen_from_here(run, models):
    """In messages and in JUnit, wherever the file lies below the current folder; the record has the whole path."""
    (models / "nets").mkdir()
    (models / "nets" / "cut.py").write_text(MODELS.replace("self.factor * x +", "x.detach() +"))
    code, out, _ = run("check", "nets/cut.py", "--format", "junit", "--format", "json", "--output", "-", "--output", "r.json")
    (outcome,) = checks_of((models / "r.json").read_text()).outcomes
    found = {f.rule: f for f in outcome.findings}
    assert code == 1 and "detach" in found["GF208"].message and " at nets/cut.py:10" in found["GF208"].message
    assert found["GF208"].location.file == str(models / "nets" / "cut.py")
    assert "At: nets/cut.py:10" in out and str(models) not in out


def test_a_target_that_cannot_be_found(run, models):
    """An annotation stands at its line in the configuration; at none where the command line named it, for there is no such file."""
    listed = ['"models.py",  # "gone.py"?', '"gone.py", "models.py:raises",', "'gone.nets:Net',", "]"]
    targets = "\n".join(["[tool.gradflow]", '# targets = ["gone.py"]', "seed = 1", "targets = [", *listed])
    (models / "pyproject.toml").write_text(targets)
    code, out, _ = run("check", "--format", "github", "--format", "sarif", "--output", "-", "--output", "r.sarif")
    (first, second, third) = [line.split("::")[1] for line in out.splitlines()]
    assert code == 3
    assert (first, second) == ("error file=pyproject.toml,line=6,title=gradflow UnknownTarget", "error file=models.py,line=1,title=gradflow ModelFailed")
    assert third.startswith("error file=pyproject.toml,line=7,")
    (invocation,) = json.loads((models / "r.sarif").read_text())["runs"][0]["invocations"]
    found = [told["locations"][0]["physicalLocation"] for told in invocation["toolExecutionNotifications"]]
    assert [(f["artifactLocation"]["uri"], f["region"]["startLine"]) for f in found] == [("pyproject.toml", 6), ("models.py", 1), ("pyproject.toml", 7)]
    _, out, _ = run("check", "lost.py", "--format", "github")
    assert out.startswith("::error title=gradflow UnknownTarget::")


def test_the_text_opens_with_the_targets_and_ends_with_the_summary(run, models):
    """Text is what people get; the summary is there once."""
    code, out, err = run("check", "models.py:sick", "models.py")
    assert code == 1 and "2 targets: 1 passed, 1 failed; exit 1" in out
    assert "exit 1" not in err and "[2/2] models.py … healthy" in err


def test_a_baseline_lets_old_findings_pass_and_new_ones_fail(run, models):
    """Written once, it silences what it holds; a finding that got worse fails again."""
    assert run("check", "models.py:sick", "models.py:warned")[0] == 1
    code, _, err = run("check", "models.py:sick", "models.py:warned", "--baseline", "known.json", "--update-baseline")
    assert code == 0 and "wrote known.json" in err
    _, out, err = run("check", "models.py:sick", "models.py:warned", "--baseline", "known.json", "--format", "json")
    assert re.search(r"models.py:sick … sick .* \(passed; known: \d+\)\n.*models.py:warned … warnings .*: GF201 at 0 \(passed; known: 3\)\n", err)
    assert [o.report.verdict for o in checks_of(out).outcomes] == ["sick", "warnings"]
    _, out, _ = run("check", "models.py:sick", "--baseline", "known.json")
    assert out.splitlines()[1].split()[:3] == ["PASSED", "models.py:sick", "sick"]
    written = (models / "known.json").read_text()
    code, out, _ = run("check", "models.py:sick", "models.py:warned", "--baseline", "known.json", "--fail-on", "warning", "--format", "json")
    assert code == 0
    assert all(o.findings == () and {s.by for s in o.silenced} == {"baseline"} for o in checks_of(out).outcomes)
    (models / "models.py").write_text(MODELS.replace("factor=0.9", "factor=0.1"))
    code, out, _ = run("check", "models.py:sick", "models.py:warned", "--baseline", "known.json", "--fail-on", "warning", "--format", "json")
    assert code == 1
    sick, warned = checks_of(out).outcomes
    assert {f.severity for f in sick.findings} <= {"info"} and "GF201" in {f.rule for f in warned.findings}
    run("check", "models.py:sick", "--baseline", "known.json", "--update-baseline")
    assert (models / "known.json").read_text() == written  # of a target that was not run nothing is forgotten


def test_a_comment_on_the_line_silences_and_an_unused_one_is_told(run, models):
    """A comment is used if any target of the run needs it."""
    line = "        return self.factor * x + torch.relu(self.branch(x))"
    (models / "models.py").write_text(MODELS.replace(line, f"{line}  # gradflow: ignore[GF201]"))
    code, out, err = run("check", "models.py:warned", "models.py", "--fail-on", "warning", "--format", "json")
    warned, healthy = checks_of(out).outcomes
    assert code == 0 and {s.by for s in warned.silenced} == {"ignored"} and healthy.silenced == ()
    assert "unused" not in err
    code, _, err = run("check", "models.py", "--format", "json")
    assert code == 0 and "note: models.py:10: unused: gradflow: ignore[GF201]" in err


def test_seeds_that_agree_and_seeds_that_do_not(run, models):
    """With --repeat each seed is a run; whatever one of them finds counts, and a verdict that depends on the seed is told."""
    (models / "moody.py").write_text(
        MODELS + "\ndef model():\n    return nn.Sequential(*(Block(0.9 if torch.initial_seed() == 1 else 1.0) for _ in range(3)))\n"
    )
    code, out, err = run("check", "models.py", "moody.py", "--repeat", "3", "--fail-on", "warning", "--format", "json")
    checks = checks_of(out)
    assert code == 1
    assert [o.state for o in checks.outcomes] == ["passed", "failed"]
    assert checks.outcomes[1].report.environment.seed == 1 and {f.rule for f in checks.outcomes[1].findings} == {"GF201"}
    assert checks.notes == ("moody.py: the verdict depends on the seed: healthy with seed 0, 2; warnings with seed 1. The worst counts",)
    assert "[1/2] models.py … healthy with 3 seeds" in err
    assert run("check", "moody.py", "--repeat", "2", "--seed", "2", "--fail-on", "warning")[0] == 0


def test_a_finding_of_any_seed_counts_once(run, models):
    """Findings at different places under different seeds are united, so that a baseline of one such run lets the next one pass."""
    (models / "moody.py").write_text(
        MODELS
        + "\ndef model():\n    seed = torch.initial_seed()\n    return nn.Sequential(*(Block(0.9 - 0.1 * seed if i == seed else 1.0) for i in range(3)))\n"
    )
    _, out, _ = run("check", "moody.py", "--repeat", "3", "--format", "json")
    assert sorted((f.rule, f.where) for f in checks_of(out).outcomes[0].findings if f.severity == "warning") == [("GF201", str(i)) for i in range(3)]
    run("check", "moody.py", "--repeat", "3", "--baseline", "known.json", "--update-baseline")
    assert run("check", "moody.py", "--repeat", "3", "--baseline", "known.json", "--fail-on", "warning")[0] == 0


@pytest.mark.parametrize("given", ["GF201", "gf201", "attenuating-skip"])
def test_gradflow_rule_explains_one(run, given):
    """By its code or its name: all that the table says, as plain text in lines that fit."""
    code, out, _ = run("rule", given)
    rule, told = RULES["GF201"], " ".join(out.split())
    assert code == 0 and all(text in told for text in (rule.code, rule.name, rule.what, rule.why, rule.example, rule.fix, "warning below 0.95"))
    assert "**" not in out and "##" not in out and "\x1b" not in out and max(map(len, out.splitlines())) <= 80


def test_the_rules_on_a_terminal():
    """No line is wider than it, nor does a name run into what stands beside it; a line each where nobody looks at the width."""
    rules = [*RULES.values()]
    for width in (60, 80, 200):
        for color in (False, True):
            text = Text.from_ansi(listing(rules, width=width, color=color) + entries(rules, width=width, color=color)).plain
            examples = [line for rule in rules for line in rule.example.splitlines()]
            assert all(len(line) <= width or any(example in line for example in examples) for line in text.splitlines())
    lines = listing(rules, width=None).splitlines()
    assert [line.split(maxsplit=3) for line in lines] == [[rule.code, rule.severities[0], rule.name, rule.what] for rule in rules]
    assert not [rule.code for rule in rules if rule.what.startswith("The same")]


def test_gradflow_rule_lists_all_and_names_the_nearest(run):
    """A line for each rule; an unknown one is an error with the nearest right one."""
    code, out, _ = run("rule")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == list(RULES)
    code, out, err = run("rule", "starved-higway")
    assert (code, out) == (2, "") and "the nearest is starved-highway" in err


def test_the_rules_are_told_without_torch():
    """`gradflow rule` is instant."""
    script = (
        "import sys, gradflow.cli\nsys.argv = ['gradflow', 'rule', 'GF1']\ntry: gradflow.cli.main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "GF101" in done.stdout, done.stderr
