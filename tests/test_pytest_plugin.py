"""The pytest plugin and `assert_healthy`: a test that fails says what is wrong with the model, and where."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from torch import nn

import gradflow
from gradflow import errors

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[1]
INSTALLED = any(point.name == "gradflow" for point in entry_points(group="pytest11"))
PLUGIN = ["-p", "no:cacheprovider", *([] if INSTALLED else ["-p", "gradflow.pytest_plugin"])]
MODEL = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor
            self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.Tanh()) for _ in range(4))

        def forward(self, x):
            for block in self.blocks:
                x = self.factor(x) + block(x)
            return x
"""


class Net(nn.Module):
    """Residual blocks whose skips pass through `factor`."""

    def __init__(self, factor, depth=4):
        super().__init__()
        self.factor = factor
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.Tanh()) for _ in range(depth))

    def forward(self, x):
        for block in self.blocks:
            x = self.factor(x) + block(x)
        return x


def healthy():
    torch.manual_seed(0)
    return Net(lambda x: x)


def detached():
    torch.manual_seed(0)
    return Net(lambda x: x.detach())


def halved():
    torch.manual_seed(0)
    return Net(lambda x: 0.5 * x)


def batch():
    return torch.randn(4, 16, generator=torch.Generator().manual_seed(0))


def test_a_healthy_model():
    """The report comes back, that of `profile`."""
    model, inputs = healthy(), batch()
    report = gradflow.assert_healthy(model, inputs, fail_on="warning")
    assert report.verdict == "healthy"
    assert report.skips == gradflow.profile(model, inputs).skips


def test_a_sick_model():
    """The message names the model, the verdict, each rule, its place, what is wrong, the fix and the line."""
    with pytest.raises(AssertionError) as caught:
        gradflow.assert_healthy(detached(), batch())
    said = str(caught.value)
    first, _, rest = said.partition("\n")
    assert first.startswith("the gradient flow of Net is not healthy: sick, severity ")
    line = next(i for i, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "Net(lambda x: x.detach())" in text)
    for part in ("error GF208", "(Net)", "no gradient comes back", "Fix: ", f"test_pytest_plugin.py:{line}"):
        assert part in rest, part


def test_a_warning():
    """It fails where warnings do, is in the report where not, and a limit that allows it is one."""
    inputs = batch()
    report = gradflow.assert_healthy(halved(), inputs, select=["GF201"])
    assert {f.rule for f in report.findings} == {"GF201"} and report.verdict == "warnings"
    with pytest.raises(AssertionError, match="GF201"):
        gradflow.assert_healthy(halved(), inputs, select="attenuating-skip", fail_on="warning")
    assert gradflow.assert_healthy(halved(), inputs, select=["GF201"], limits={"GF201": 0.4}, fail_on="warning").findings == ()
    assert gradflow.assert_healthy(halved(), inputs, ignore=["GF2"], fail_on="warning").verdict == "healthy"


def test_lesser_findings():
    """They are counted and not shown where only errors fail."""
    model = nn.Sequential(detached(), halved())
    for fail_on, shown in (("error", False), ("warning", True)):
        with pytest.raises(AssertionError) as caught:
            gradflow.assert_healthy(model, batch(), select=["GF201", "GF208"], fail_on=fail_on)
        assert "GF208" in str(caught.value)
        assert ("GF201" in str(caught.value)) is shown
        assert ("(4 lesser findings not shown)" in str(caught.value)) is not shown


def test_a_comment_in_the_source():
    """It silences a finding here too."""
    torch.manual_seed(0)
    model = nn.Sequential(Commented(), Commented())
    report = gradflow.assert_healthy(model, batch(), select=["GF201"], fail_on="warning")
    assert report.findings == () and report.verdict == "healthy" and report.severity == 0
    assert {skip.lam for skip in report.skips} == {0.5}


class Commented(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16))

    def forward(self, x):
        return 0.5 * x + self.branch(x)  # gradflow: ignore[GF201]


@pytest.mark.parametrize("wrong", [{"select": ["GF9"]}, {"limits": {"GF201": -1.0}}, {"fail_on": "info"}], ids=str)
def test_a_wrong_argument(wrong):
    """It is no finding: the error names what is expected, before anything runs."""

    class Never(nn.Module):
        def forward(self, x):
            raise SystemError("it ran")

    with pytest.raises(errors.UsageError, match=f"^{next(iter(wrong))}: .*\n?Expected"):
        gradflow.assert_healthy(Never(), batch(), **wrong)


def test_the_model_afterwards():
    """It is as it was, also where the assertion fails."""
    model = detached()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(AssertionError):
        gradflow.assert_healthy(model, batch())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_the_fixture(pytester):
    """A healthy model passes and the report is at hand; a sick one fails with its findings and the test's own line, and no frame of gradflow's."""
    pytester.makepyfile(model=MODEL)
    pytester.makepyfile(
        """
        import torch
        from model import Net

        def test_healthy(gradient_flow):
            report = gradient_flow(Net(lambda x: x), torch.randn(4, 16), seed=3)
            assert len(report.skips) == 4 and report.environment.seed == 3

        def test_sick(gradient_flow):
            gradient_flow(Net(lambda x: x.detach()), torch.randn(4, 16))
        """
    )
    result = pytester.runpytest_inprocess(*PLUGIN)
    result.assert_outcomes(passed=1, failed=1)
    shown = result.stdout.str()
    result.stdout.fnmatch_lines(
        [">*gradient_flow(Net(lambda x: x.detach())*", "E*the gradient flow of Net is not healthy: sick*", "E*error GF208*", "E*Fix: *"]
    )
    assert "asserting.py" not in shown and "raise AssertionError" not in shown


def test_the_fixture_in_the_list_of_fixtures(pytester):
    """`pytest --fixtures` explains it."""
    result = pytester.runpytest_inprocess(*PLUGIN, "--fixtures")
    result.stdout.fnmatch_lines(["gradient_flow*", "*Check the gradient flow of a model*"])


def test_loading_the_plugin():
    """It imports no torch, since pytest loads it in projects that have no use for it at every start."""
    code = "import sys, gradflow.pytest_plugin; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_entry_point():
    """pytest finds the plugin by what pyproject.toml declares, and pytest is no runtime dependency."""
    text = (ROOT / "pyproject.toml").read_text()
    assert '[project.entry-points.pytest11]\ngradflow = "gradflow.pytest_plugin"\n' in text
    dependencies = next(line for line in text.splitlines() if line.startswith("dependencies"))
    assert "pytest" not in dependencies
