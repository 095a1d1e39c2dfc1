"""`[tool.gradflow]`: where it is found, what wins, and that whatever it cannot say is one error that names the place."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradflow.configuration import Settings, find, read
from gradflow.records import Checks

MODELS = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, width, factor):
        super().__init__()
        self.branch, self.factor = nn.Linear(width, width), factor
    def forward(self, x):
        return self.factor * x + torch.relu(self.branch(x))

def model(depth=3, width=8, factor=1.0):
    return nn.Sequential(*(Block(width, factor) for _ in range(depth)))

inputs = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """project(text of [tool.gradflow]) -> a folder with models.py and that pyproject.toml, and the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.py").write_text(MODELS)

    def write(text):
        (tmp_path / "pyproject.toml").write_text(f"[tool.other]\nkey = 1\n\n[tool.gradflow]\n{text}\n")
        return tmp_path

    return write


@pytest.fixture
def outcomes(run):
    """outcomes(*words) -> (exit code, the outcomes of a check)."""

    def call(*words):
        code, out, err = run("check", "--format", "json", *words)
        assert out, err
        return code, Checks.from_json(out).outcomes

    return call


def test_targets_with_their_arguments(project, outcomes):
    """Each table says how its target is run and judged; without a name on the command line all are run."""
    project("""
        targets = [
            "models.py",
            {target = "models.py", arg = {depth = 5, width = 6}, input = "2x6", eval = true, seed = 3, dtype = "float64", amp = "bf16"},
            {target = "models.py", arg = {factor = 0.9}, select = ["GF1"]},
            {target = "models.py", arg = {factor = 0.9}, limits = {GF201 = 0.8}, probes = 2, spectrum = true, batches = 1},
            {target = "models.py", arg = {factor = 0.9}},
        ]
        fail-on = "warning"
    """)
    code, found = outcomes()
    assert code == 1
    assert [o.state for o in found] == ["passed", "passed", "passed", "passed", "failed"]
    second = found[1].report
    assert (len(second.skips), second.run.mode, second.environment.seed, second.environment.dtype, second.environment.amp) == (5, "eval", 3, "float64", "bf16")
    assert second.run.inputs[0].shape == (2, 6)
    assert found[3].report.skips[0].probe is not None and found[0].report.skips[0].probe is None
    assert len({o.target for o in found}) == 5 and found[0].target == "models.py"
    assert [o.target for o in found[1:]] == [
        "models.py (depth=5, width=6)",
        "models.py (factor=0.9)",
        "models.py (factor=0.9) (batches=1, probes=2, spectrum=True)",
        "models.py (factor=0.9) #2",
    ]


def test_the_nearest_place_wins(project, outcomes):
    """The command line over a target's table over [tool.gradflow]; `arg` and `limits` name by name, everything else whole."""
    project("""
        seed = 1
        arg = {depth = 2, factor = 0.9}
        limits = {GF201 = 0.5, GF202 = 3}
        ignore = ["GF210"]
        targets = [{target = "models.py", arg = {depth = 4}, seed = 2, limits = {GF202 = 4}}]
    """)
    _, (one,) = outcomes()
    assert (len(one.report.skips), one.report.environment.seed, one.findings) == (4, 2, ())
    _, (one,) = outcomes("--seed", "5", "--arg", "depth=6", "--limit", "GF201=0.95")
    assert (len(one.report.skips), one.report.environment.seed, {f.rule for f in one.findings}) == (6, 5, {"GF201"})


@pytest.mark.parametrize(("key", "value"), [("device", "nosuch"), ("dtype", "int8"), ("loss", "nosuch"), ("input", "3xx"), ("weights", "nosuch.pt")])
def test_what_no_target_can_be_run_with(run, project, outcomes, key, value):
    """One error where it is for all targets, the trouble of one where its own table says it, none where the command line or every table replaces it."""
    good = {"device": "cpu", "dtype": "float64", "loss": "sum", "input": "2x8", "weights": "w.pt"}[key]
    torch.save({"0.branch.bias": torch.zeros(8)}, project("") / "w.pt")
    project(f'{key} = "{value}"\ntargets = ["models.py", {{target = "models.py", {key} = "{good}"}}]')
    code, out, err = run("check")
    assert (code, out) == (2, "") and err.startswith("error: [tool.gradflow]: ") and value in err and err.count("rror: ") == 1
    assert [o.state for o in outcomes(f"--{key}", good)[1]] == ["passed", "passed"]
    project(f'targets = ["models.py", {{target = "models.py", {key} = "{value}"}}]')
    assert [o.state for o in outcomes()[1]] == ["passed", "broken"]
    project(f'{key} = "{value}"\ntargets = [{{target = "models.py", {key} = "{good}"}}]')
    assert [o.state for o in outcomes()[1]] == ["passed"]


def test_a_configured_target_by_its_name(project, outcomes):
    """What the configuration says of a target holds where it is named, however its path is written; another target gets the defaults alone."""
    folder = project('seed = 7\ntargets = [{target = "models.py", arg = {depth = 5}}, "missing.py"]')
    for name in ("models.py", "./models.py", folder / "models.py"):
        code, (one,) = outcomes(name)
        assert (code, len(one.report.skips), one.report.environment.seed) == (0, 5, 7)
    _, (one,) = outcomes("models.py:model")
    assert (len(one.report.skips), one.report.environment.seed) == (3, 7)


def test_from_a_folder_below(project, outcomes, monkeypatch):
    """The file is found upward; its targets, baseline and outputs are where it lies, those of the command line here."""
    folder = project('targets = ["models.py"]\nbaseline = "known.json"')
    (folder / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(folder / "deep" / "er")
    code, (one,) = outcomes("--update-baseline")
    assert (code, one.target, one.report.target.spec) == (0, "models.py", "models.py")
    assert (folder / "known.json").exists()
    (folder / "deep" / "er" / "models.py").write_text(MODELS.replace("depth=3", "depth=2"))
    _, (one,) = outcomes("models.py")
    assert len(one.report.skips) == 2


def test_outputs_of_the_command_line_lie_here(project, run, monkeypatch):
    """Also where the targets are those of a file in a folder above."""
    folder = project('targets = ["models.py"]\nformat = ["json", "markdown"]\noutput = ["top.json"]')
    (folder / "deep").mkdir()
    monkeypatch.chdir(folder / "deep")
    code, out, _ = run("check", "--format", "junit", "--output", "here.xml")
    assert (code, out) == (0, "") and (folder / "deep" / "here.xml").exists() and not (folder / "top.json").exists()
    code, out, _ = run("check")
    assert code == 0 and out.startswith("## gradflow check") and Checks.from_json((folder / "top.json").read_text()).exit_code == 0


def test_a_file_without_the_table_is_passed_over(tmp_path):
    """The nearest pyproject.toml that speaks of gradflow is the one."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "pyproject.toml").write_text("[tool.other]\n")
    (tmp_path / "a" / "pyproject.toml").write_text("[tool.gradflow]\nseed = 1\n")
    (tmp_path / "pyproject.toml").write_text("[tool.gradflow]\nseed = 2\n")
    assert find(tmp_path / "a" / "b") == tmp_path / "a" / "pyproject.toml"
    assert read(tmp_path / "a" / "pyproject.toml").defaults.seed == 1


def test_no_targets_at_all(run, project):
    """One error that shows both ways to name them."""
    project("seed = 1")
    code, out, err = run("check")
    assert (code, out) == (2, "") and "there are no targets" in err and "targets = [" in err and err.count("rror: ") == 1


WRONG = {
    "an unknown key": ("sede = 1", "[tool.gradflow]: unknown key 'sede'", "'seed'"),
    "an underscore": ("fail_on = 'error'", "unknown key 'fail_on'", "'fail-on'"),
    "an unknown key of a target": ("targets = ['a.py', {target = 'b.py', selct = []}]", "[tool.gradflow] targets[1]: unknown key 'selct'", "'select'"),
    "a key that a target cannot have": ("targets = [{target = 'b.py', fail-on = 'error'}]", "targets[0]: unknown key 'fail-on'", "It takes: "),
    "a target without a name": ("targets = [{seed = 1}]", "targets[0]: it has no key 'target'", "{target ="),
    "a number as a target": ("targets = [3]", "targets[0]: 3 is not valid", "a target"),
    "one target without a list": ("targets = 'a.py'", "targets: 'a.py' is not valid", "a list of targets"),
    "a word as a seed": ("seed = 'one'", "seed: 'one' is not valid", "a whole number of 0 or more"),
    "a flag as a seed": ("seed = true", "seed: True is not valid", "a whole number"),
    "a negative seed": ("seed = -1", "seed: -1 is not valid", "a whole number of 0 or more"),
    "no batches": ("batches = 0", "batches: 0 is not valid", "1 or more"),
    "a number as a flag": ("eval = 1", "eval: 1 is not valid", "true or false"),
    "an unknown autocast": ("amp = 'int8'", "amp: 'int8' is not valid", "'bf16' or 'fp16'"),
    "an unknown severity": ("fail-on = 'info'", "fail-on: 'info' is not valid", "'error' or 'warning'"),
    "an unknown format": ("format = ['text', 'html']", "format: ['text', 'html'] is not valid", "sarif"),
    "a list of numbers as inputs": ("input = [4, 3]", "input: [4, 3] is not valid", "a string, or a list of strings"),
    "an unknown rule": ("select = ['GF1', 'GF999']", "select: 'GF999' is no rule", "the code"),
    "a rule in other words": ("ignore = ['vanishing-gradients']", "ignore: 'vanishing-gradients' is no rule", "vanishing-gradient"),
    "a limit of an unknown rule": ("limits = {GF999 = 1}", "limits: GF999 = 1 is not valid", "the code"),
    "a limit of a rule without": ("limits = {GF203 = 1}", "limits: GF203 = 1 is not valid", "that has a limit"),
    "a word as a limit": ("limits = {GF201 = 'high'}", "limits: {'GF201': 'high'} is not valid", "a table of numbers"),
    "an infinite limit": ("limits = {GF202 = inf}", "limits: GF202 = inf is not valid", "finite"),
    "a limit of the wrong side": ("limits = {GF201 = 30}", "limits: GF201 = 30 is not valid", "below 1"),
    "a list of arguments": ("arg = ['depth=3']", "arg: ['depth=3'] is not valid", "a table"),
    "an argument that is no name": ("arg = {'1st' = 3}", "is not valid", "a table"),
    "an empty path": ("baseline = ''", "baseline: '' is not valid", "a string"),
    "no TOML": ("seed = = 1", "pyproject.toml: it cannot be read", "line"),
}


@pytest.mark.parametrize("situation", WRONG)
def test_what_the_table_cannot_say_is_one_error(run, project, situation):
    """It names the file, the place and the nearest right one or what is expected; nothing is run."""
    text, fact, remedy = WRONG[situation]
    project(text)
    code, out, err = run("check", "models.py")
    assert (code, out) == (2, "")
    assert err.startswith("error: pyproject.toml") and err.count("rror: ") == 1 and "Traceback" not in err
    assert fact in err and remedy in err


def test_a_config_file_of_another_name(run, project, outcomes):
    """--config names it; its table is the same, and a file without one is an error."""
    folder = project("sede = 1")
    (folder / "ci.toml").write_text("[tool.gradflow]\ntargets = ['models.py']\n")
    (folder / "empty.toml").write_text("")
    code, (one,) = outcomes("--config", "ci.toml")
    assert (code, one.target) == (0, "models.py")
    code, _, err = run("check", "--config", "empty.toml")
    assert code == 2 and "it has no table [tool.gradflow]" in err


_NUMBERS = st.none() | st.integers(0, 3)
_TABLES = st.none() | st.dictionaries(st.sampled_from("abc"), st.integers(0, 3), max_size=3)
_SETTINGS = st.builds(Settings, seed=_NUMBERS, batches=_NUMBERS, arg=_TABLES, limits=_TABLES)


@given(_SETTINGS, _SETTINGS, _SETTINGS)
def test_places_in_any_grouping(near, middle, far):
    """`over` is associative and has an identity: only the order of the places counts."""
    assert near.over(middle).over(far) == near.over(middle.over(far))
    assert near.over(Settings()) == near == Settings().over(near)
