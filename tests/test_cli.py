"""The command line as a user meets it: what it prints, what it writes, and with which exit code it ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gradflow
from gradflow.numbers import number

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"


def test_a_healthy_model_ends_with_exit_code_0_and_writes_what_was_asked(run, tmp_path):
    """Verdict first on standard output, notes on standard error, both files written."""
    code, out, err = run("profile", EXAMPLES / "residual_cnn.py", "--png", tmp_path / "r.png", "--json", tmp_path / "r.json")
    assert code == 0
    assert out.lstrip().startswith("HEALTHY")
    assert "wrote" in err and "wrote" not in out
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    report = gradflow.Report.from_json((tmp_path / "r.json").read_text())
    assert len(report.skips) == 28 and {s.lam for s in report.skips} == {1.0}
    assert report.to_json() == (tmp_path / "r.json").read_text()


def test_a_sick_model_ends_with_exit_code_1_and_names_the_highway_first(run):
    """The halved shortcut is the first finding, at its line."""
    code, out, _ = run("profile", EXAMPLES / "half_skip_cnn.py")
    line = next(i for i, text in enumerate((EXAMPLES / "half_skip_cnn.py").read_text().splitlines(), 1) if "0.5 * x" in text and "return" in text)
    assert code == 1
    assert out.lstrip().startswith("SICK")
    first = out.index("error GF206")
    assert first < out.index("GF201")
    assert f"half_skip_cnn.py:{line}" in out[first : out.index("GF201")]


def test_json_on_standard_output_is_alone_there(run):
    """`--json -` can be piped into a parser; the tables go to standard error."""
    code, out, err = run("profile", EXAMPLES / "small_gpt.py", "--json", "-")
    report = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not strict JSON"))
    assert code == 0 and report["schema"] == "gradflow/report/v1"
    assert "HEALTHY" in err


def test_gpt2_of_12_layers_has_24_identity_skips(run, tmp_path):
    """Two skips a block, all identities, on one highway."""
    code, _, _ = run(
        "profile", "hf:gpt2", "--arg", "n_embd=48", "--arg", "n_head=4", "--arg", "vocab_size=100", "--arg", "bos_token_id=1", "--arg", "eos_token_id=2",
        "--arg", "n_layer=12", "--input", "input_ids=int64[2,16]<100", "--json", tmp_path / "r.json",
    )  # fmt: skip
    report = gradflow.Report.from_json((tmp_path / "r.json").read_text())
    assert code == 0
    assert [s.kind for s in report.skips] == ["identity"] * 24
    assert [len(h.skips) for h in report.highways] == [24]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_resnet18_has_5_identities_and_3_projections(run, tmp_path, dtype):
    """The identities are 1 to 1e-6 in any precision, λ of the projections is undefined for a reason, and each location is an addition in torchvision's file."""
    code, _, _ = run("profile", "torchvision:resnet18", "--input", "4x3x96x96", "--dtype", dtype, "--json", tmp_path / "r.json")
    skips = gradflow.Report.from_json((tmp_path / "r.json").read_text()).skips
    assert code == 0
    identities, projections = ([s for s in skips if s.kind == kind] for kind in ("identity", "projection"))
    assert (len(identities), len(projections)) == (5, 3)
    assert all(abs(s.lam - 1) < 1e-6 and s.misfit < 1e-6 for s in identities)
    assert all(s.lam is None and "differ in shape" in s.undefined["lam"] and s.gain > 0 for s in projections)
    for skip in skips:
        assert Path(skip.location.file).read_text().splitlines()[skip.location.line - 1].strip() == "out += identity"


def test_the_zoo_at_110_layers_with_half_skips(run, tmp_path):
    """54 skips at exactly 0.5; the highway is 0.5^54 to 1e-12 and the first finding, with the total gradient beside it."""
    code, _, _ = run(
        "profile", "gradflow.zoo:preact_resnet", "--arg", "depth=110", "--arg", "shortcut=scaled", "--arg", "scale=0.5",
        "--dtype", "float64", "--input", "4x3x8x8", "--json", tmp_path / "r.json",
    )  # fmt: skip
    report = gradflow.Report.from_json((tmp_path / "r.json").read_text())
    assert code == 1
    assert [s.lam for s in report.skips] == [0.5] * 54
    assert report.highways[0].gain == pytest.approx(0.5**54, rel=1e-12)
    assert report.findings[0].rule == "GF206" and report.findings[0].where == report.highways[0].name
    assert f"with the branches it is {number(report.highways[0].total_gain)}" in report.findings[0].message
    assert max(s.ledger_error for s in report.skips) < 1e-12


MODELS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
    def forward(self, x):
        return self.layer(x)

class Detached(Net):
    def forward(self, x):
        return self.layer(x).detach()

class Integer(Net):
    def forward(self, x):
        return self.layer(x).argmax(1)

class Raises(Net):
    def forward(self, x):
        raise RuntimeError("inside [red] forward")

class Cursed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1
    @staticmethod
    def backward(ctx, grad):
        raise RuntimeError("inside backward")

class RaisesBack(Net):
    def forward(self, x):
        return Cursed.apply(self.layer(x))

class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.LazyLinear(3)
    def forward(self, x):
        return self.layer(x)

def frozen():
    return Net().requires_grad_(False)

model = Net
inputs = torch.randn(2, 3)
"""

BAD = {
    "a target that is not there": (["missing.py"], 2, "there is no file missing.py"),
    "a name that is not there": (["models.py:Nett"], 2, "defines no 'Nett'"),
    "a package that is not there": (["no.such.package:Net"], 2, "no.such.package"),
    "an unknown torchvision model": (["torchvision:resnet19"], 2, "torchvision:resnet18"),
    "an unknown argument": (["models.py", "--arg", "depth=3"], 2, "depth"),
    "a bad argument": (["models.py", "--arg", "depth"], 2, "name=value"),
    "a bad input spec": (["models.py", "--input", "4xfoo"], 2, "--input '4xfoo'"),
    "a negative size": (["models.py", "--input", "x=float32[-1,3]"], 2, "--input"),
    "a wrong shape": (["models.py", "--input", "4x7"], 3, "It was called with x float32[4,7]"),
    "a missing batch": (["models.py", "--batch", "batch.npz"], 2, "batch.npz"),
    "missing weights": (["models.py", "--weights", "none.pt"], 2, "none.pt"),
    "a model without parameters": (["models.py:nn.ReLU"], 2, "no parameters"),
    "a frozen model": (["models.py:frozen"], 2, "requires_grad_(False)"),
    "a lazy model": (["models.py:Lazy"], 2, "'layer.weight' is not initialised"),
    "an output without a gradient": (["models.py:Detached"], 2, "cut by detach() at"),
    "an integer output": (["models.py:Integer"], 2, "an int64 tensor"),
    "a forward that raises": (["models.py:Raises"], 3, "inside [red] forward"),
    "a backward that raises": (["models.py:RaisesBack"], 3, "inside backward"),
    "an unknown loss": (["models.py", "--loss", "crossentropy"], 2, "cross_entropy"),
    "an unknown dtype": (["models.py", "--dtype", "int8"], 2, "bfloat16"),
    "an unknown device": (["models.py", "--device", "warp0"], 2, "--device"),
    "a picture in a folder that is not there": (["models.py", "--png", "nowhere/r.png"], 2, "there is no folder nowhere"),
    "a report over a folder": (["models.py", "--json", "."], 2, "it is a folder"),
    "an unknown option": (["models.py", "--colour"], 2, "--colour"),
    "a negative seed": (["models.py", "--seed", "-1"], 2, "--seed"),
}


@pytest.mark.parametrize("situation", BAD)
def test_bad_input_gets_one_clear_error(run, tmp_path, monkeypatch, situation):
    """It names the fact, ends with the right exit code, and shows no frame of gradflow."""
    words, expected, fact = BAD[situation]
    (tmp_path / "models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    code, out, err = run("profile", *words)
    assert (code, out) == (expected, "")
    assert fact in err
    assert "Traceback" not in err and "/gradflow/" not in err.replace(str(tmp_path), "")
    assert err.count("rror: ") >= 1


def test_an_output_path_is_checked_before_the_model_runs(run, tmp_path, monkeypatch):
    """A long run is not lost to a typing mistake in --png."""
    (tmp_path / "loud.py").write_text("raise SystemExit('the file ran')")
    monkeypatch.chdir(tmp_path)
    code, _, err = run("profile", "loud.py", "--png", "nowhere/r.png")
    assert code == 2 and "the file ran" not in err


def test_amp_and_eval_reach_the_report(run, tmp_path):
    """The report says under which autocast and mode it was made."""
    run("profile", EXAMPLES / "small_gpt.py", "--amp", "bf16", "--eval", "--json", tmp_path / "r.json")
    report = gradflow.Report.from_json((tmp_path / "r.json").read_text())
    assert (report.environment.amp, report.run.mode) == ("bf16", "eval")


def test_help_and_import_leave_torch_alone():
    """`import gradflow` and `gradflow --help` are instant: torch is not imported."""
    script = (
        "import sys, gradflow, gradflow.cli\nsys.argv = ['gradflow', '--help']\n"
        "try: gradflow.cli.main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "profile" in done.stdout


def test_colour_follows_no_color_and_the_terminal(run, monkeypatch):
    """A pipe gets no escape codes."""
    monkeypatch.setenv("NO_COLOR", "1")
    _, out, _ = run("profile", EXAMPLES / "sigmoid_mlp.py")
    assert "\x1b" not in out


def test_the_same_command_twice_gives_the_same_numbers(run, tmp_path):
    """Weights, inputs and probes depend on the seed alone."""
    reports = []
    for name in ("a", "b"):
        run("profile", "gradflow.zoo:mlp", "--arg", "depth=3", "--json", tmp_path / name)
        torch.rand(3)
        reports.append(gradflow.Report.from_json((tmp_path / name).read_text()))
    assert reports[0].layers == reports[1].layers
