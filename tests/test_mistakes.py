"""What people get wrong at the command line: each gets one error that names the fact, the place and the remedy, and nothing is half-written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import gradflow
from gradflow import codec
from gradflow.rules import RULES
from gradflow.stored import KINDS

PLAIN = """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
inputs = torch.randn(8, 4)
"""
NET = """
import sys
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
    def forward(self, x):
        {body}

model = Net()
inputs = torch.randn(2, 4)
"""
FILES = {
    "plain.py": PLAIN,
    "relative.py": "from .plain import model\n",
    "missing.py": "import there_is_no_such_package\n",
    "script.py": "import sys\nsys.exit(5)\n",
    "exits.py": NET.format(body="sys.exit(0)"),
    "empty.py": NET.format(body="return self.layer(x)[:0]"),
    "in_place.py": NET.format(body="y = self.layer(x).exp(); y += 1; return y"),
    "no_sample.py": PLAIN.replace("randn(8, 4)", "randn(0, 4)"),
    "whole.py": PLAIN.replace("torch.randn(8, 4)", "torch.zeros(8, 4, dtype=torch.int64)"),
    "tokens.py": PLAIN.replace("nn.Linear(4, 8)", "nn.Embedding(10, 8)").replace("torch.randn(8, 4)", "torch.full((2, 4), 10)"),
    "pack/__init__.py": "",
    "pack/net.py": PLAIN,
    "a folder 🚀/my λ.py": PLAIN,
    "half.json": "{",
    "other.json": '{"a": 1}',
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of models, records and files that are neither."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    torch.save(torch.randn(8, 4), tmp_path / "batch.pt")
    report = gradflow.profile(nn.Linear(4, 4), torch.randn(2, 4))
    (tmp_path / "report.json").write_text(report.to_json())
    for kind in set(KINDS) - {"report"}:
        (tmp_path / f"{kind}.json").write_text(json.dumps({"schema": f"gradflow/{kind}/v1"}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


MISTAKES = {
    "no target": (["profile"], 2, "gradflow profile: TARGET is missing.\nWrite gradflow profile TARGET [OPTIONS]; gradflow profile --help has the rest."),
    "no picture named": (["plot", "report.json"], 2, "gradflow plot: --png is missing.\nWrite gradflow plot FILE --png PNG [OPTIONS];"),
    "one report of two": (["diff", "report.json"], 2, "gradflow diff: AFTER is missing."),
    "a misspelt option": (["profile", "plain.py", "--pgn", "x.png"], 2, "gradflow profile: there is no option --pgn.\nDid you mean --png? "),
    "an option without its value": (["profile", "plain.py", "--png"], 2, "gradflow profile: --png has no value."),
    "two targets": (["profile", "plain.py", "plain.py"], 2, "gradflow profile: got unexpected extra argument"),
    "a misspelt command": (["profil", "plain.py"], 2, "gradflow: there is no command 'profil'.\nDid you mean gradflow profile? "),
    "a target for a command": (["plain.py"], 2, "gradflow: there is no command 'plain.py'.\nDid you mean gradflow profile plain.py? "),
    "another word": (
        ["check", "plain.py", "--fail-on", "warnings"],
        2,
        "--fail-on: warnings is not valid.\nExpected one of error, warning: the nearest is",
    ),
    "another format": (["graph", "plain.py", "--format", "tabel"], 2, "Expected one of table, code, dot, json: the nearest is table."),
    "no number": (["profile", "plain.py", "--seed", "x"], 2, "--seed: x is not valid.\nExpected a whole number of 0 or more."),
    "too small a number": (["check", "plain.py", "--repeat", "0"], 2, "--repeat: 0 is not valid.\nExpected a whole number of 1 or more."),
    "no factor": (["diff", "report.json", "report.json", "--factor", "nan"], 2, "--factor: nan is not valid.\nExpected a number of 1 or more."),
    "too large a seed": (["profile", "plain.py", "--seed", "9" * 30], 2, "Expected a whole number from 0 to 2**63 - 1."),
    "no such device": (["profile", "plain.py", "--device", "gpu"], 2, "--device: gpu is not valid.\nExpected a device that torch can use here, one of cpu"),
    "a device that is not built in": (
        ["profile", "plain.py", "--device", "hpu"],
        2,
        "--device: hpu is not valid.\nExpected a device that torch can use",
    ),
    "a panel of no picture": (
        ["profile", "plain.py", "--panel", "calls"],
        2,
        "--panel calls needs --png FILE beside it: no picture is asked for.\nGive",
    ),
    "over the target": (["profile", "plain.py:model", "--json", "./plain.py"], 2, "--json plain.py would be written over the target."),
    "over the batch": (["shatter", "plain.py", "--batch", "batch.pt", "--json", "batch.pt"], 2, "--json batch.pt would be written over the batch."),
    "over the target of a graph": (["graph", "plain.py", "--format", "code", "--output", "plain.py"], 2, "--output plain.py would be written over the target."),
    "over the target of a check": (["check", "plain.py", "--output", "plain.py"], 2, "--output plain.py would be written over the target plain.py."),
    "over the older report": (["diff", "report.json", "report.json", "--output", "report.json"], 2, "--output report.json would be written over the"),
    "two outputs in one": (["profile", "plain.py", "--json", "x", "--markdown", "x"], 2, "--markdown x would be written over what --json writes there."),
    "a relative import": (["profile", "relative.py"], 2, "name it as package.module:NAME, from the folder that holds the package"),
    "a package that is missing": (["profile", "missing.py"], 2, "Install 'there_is_no_such_package' beside gradflow"),
    "a script": (["profile", "script.py"], 2, "put what reads the command line or ends the program below `if __name__ == '__main__':`"),
    "a module without a name": (["profile", "pack.net"], 2, "Did you mean pack.net:NAME?"),
    "a misspelt family": (["profile", "torchvison:resnet18"], 2, "Did you mean torchvision:resnet18?"),
    "a report as a target": (
        ["profile", "report.json"],
        2,
        "report.json is a JSON file, which is no target.\nA report is drawn by gradflow plot report.json",
    ),
    "standard input as a target": (["profile", "-"], 2, "a model is not read from standard input"),
    "a forward that ends the process": (["profile", "exits.py"], 3, "The model failed in its forward pass: SystemExit: 0"),
    "the same in a graph": (["graph", "exits.py"], 3, "The model failed in its forward pass: SystemExit: 0"),
    "the same on a line": (["shatter", "exits.py"], 3, "The model failed in its forward pass: SystemExit: 0"),
    "an empty output": (["profile", "empty.py"], 2, "The output of Net has no gradient: it is an empty float32 tensor of shape [0, 4]."),
    "an operation in place": (["profile", "in_place.py"], 3, "overwrote what the backward pass needs: make a new tensor there."),
    "no sample on a line": (["shatter", "no_sample.py"], 2, "has no elements: nothing can flow back."),
    "whole numbers for a linear layer": (["profile", "whole.py"], 3, "in its forward pass, in 0 (Linear): "),
    "what that layer takes": (["profile", "whole.py"], 3, "\n0 has float32 weights, and takes float32. It was called with input int64[8,4]"),
    "a token too many": (["profile", "tokens.py"], 3, "\n0 takes whole numbers below 10, such as --input int64[2,16]<10."),
    "half a JSON file": (["diff", "half.json", "report.json"], 2, "Cannot read half.json: it is not JSON: "),
    "a model for a report": (["plot", "plain.py", "--png", "x.png"], 2, "A model is profiled first: gradflow profile plain.py --json FILE."),
    "JSON of something else": (["profile", "plain.py", "--against", "other.json"], 2, "it is JSON that gradflow did not write: it has no schema."),
    "a folder for a report": (["plot", "pack", "--png", "x.png"], 2, "Cannot read pack: it is a folder."),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_error(run, folder, mistake):
    """Fact, place and remedy on standard error, the right exit code, no word on standard output, no file, and the user's own files as they were."""
    words, expected, said = MISTAKES[mistake]
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    code, out, err = run(*words)
    assert code == expected and said in err
    assert err.startswith("error: ") and err.count("error: ") == 1 and "gradflow/cli" not in err and out == ""
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


READERS = {"diff": ({"report"}, ["diff", "report.json"]), "plot": ({"report", "checks", "history"}, ["plot", "--png", "x.png"])} | {
    "--against": ({"report"}, ["profile", "plain.py", "--against"]),
    "--baseline": ({"baseline", "report", "checks"}, ["check", "plain.py", "--baseline"]),
}


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("reader", READERS)
def test_a_file_for_another_purpose(run, folder, reader, kind):
    """Whatever gradflow wrote, each command that does not read it says what it is and what one can do with it."""
    takes, words = READERS[reader]
    if kind in takes:
        return
    code, _, err = run(*words, f"{kind}.json")
    assert code == 2 and f"Cannot read {kind}.json: it is {KINDS[kind].what}, not a" in err
    assert KINDS[kind].use.format(file=f"{kind}.json") in err


def test_every_kind_of_file_is_known():
    """The schemas of all documents that gradflow writes, and no others."""
    from gradflow import baseline, diagram, difference, records, shatter_records

    documents = {cls.schema for module in (baseline, diagram, difference, records, shatter_records) for cls in vars(module).values()
                 if isinstance(cls, type) and issubclass(cls, codec.Document) and cls is not codec.Document} | {baseline.BASELINE_SCHEMA}  # fmt: skip
    assert {f"gradflow/{kind}/v1" for kind in KINDS} == documents


def test_a_check_of_a_model_that_ends_the_process(run, folder):
    """It is that model's failure, not gradflow's, and the other targets are run."""
    code, out, _ = run("check", "exits.py", "plain.py")
    assert code == 3 and "SystemExit: 0" in out and "1 passed" in out and "fault of gradflow" not in out


def test_panels_of_which_one_is_empty(run, folder):
    """The others are drawn, and standard error says which is not."""
    code, _, err = run("plot", "report.json", "--png", "x.png", "--panel", "layers", "--panel", "calls")
    assert code == 0 and Path("x.png").is_file()
    assert "note: --panel calls is empty for Linear: No loop was found" in err


def test_panels_that_are_all_empty(run, folder):
    """The report is shown and kept, since the model has run; the picture is refused."""
    code, out, err = run("profile", "plain.py", "--png", "x.png", "--panel", "skips", "--panel", "calls", "--json", "kept.json")
    assert code == 2 and "HEALTHY" in out and Path("kept.json").is_file() and not Path("x.png").exists()
    assert "error: --panel skips --panel calls would be empty for plain.py" in err and "can fill: layers, updates." in err


@pytest.mark.parametrize(
    ("given", "near"),
    [("GF999", ""), ("xyz", ""), ("GF20l", "GF201"), ("gf1o1", "GF101"), ("vanishing", "vanishing-gradient"), ("exploding_gradiant", "exploding-gradient")],
)
def test_a_rule_that_is_not_there(run, given, near):
    """Only a near one is suggested: one character of a code, or a name that is alike."""
    code, _, err = run("rule", given)
    assert code == 2 and "gradflow rule lists them" in err
    assert err.rstrip().endswith(f"; the nearest is {near}." if near else "(gradflow rule lists them).")
    assert not near or near in {*RULES, *(r.name for r in RULES.values())}


def _python(*words, **settings):
    return subprocess.run([sys.executable, "-m", "gradflow", *words], capture_output=True, check=False, timeout=120, **settings)


@pytest.mark.parametrize("stream", [1, 2])
@pytest.mark.parametrize(("words", "code"), [(("rule", "GF101"), 0), (("plot", "gone.json", "--png", "x.png"), 2)])
def test_a_stream_that_is_closed(folder, stream, words, code):
    """`>&-` and `2>&-` lose what would be written, and change no exit code."""
    command = ["bash", "-c", f'exec "$@" {stream}>&-', "bash", sys.executable, "-m", "gradflow", *words]
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    assert done.returncode == code and b"Traceback" not in done.stdout + done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk(folder):
    """Standard output that cannot take the text is an error, not a traceback."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([sys.executable, "-m", "gradflow", "rule"], stdout=full, stderr=subprocess.PIPE, check=False, timeout=120)
    assert done.returncode == 2 and done.stderr.startswith(b"error: Cannot write standard output: no space left") and b"Traceback" not in done.stderr


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # the children of a shell's background job are deaf to Ctrl-C
print("begun", file=sys.stderr, flush=True)
time.sleep(60)
"""


def test_an_interrupt(folder):
    """Ctrl-C ends a run with the shell's own exit code, no traceback and no file."""
    (folder / "slow.py").write_text(SLOW)
    with subprocess.Popen([sys.executable, "-m", "gradflow", "profile", "slow.py", "--json", "x.json"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == "begun\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130 and process.stderr.read() == ""
    assert not Path("x.json").exists()


@pytest.mark.parametrize(
    "settings",
    [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii"}, {"COLUMNS": "10"}, {"TERM": "dumb"}],
)
def test_a_poor_terminal(folder, settings):
    """A path that it cannot show, or a page that is wider, is no reason to fail."""
    done = _python("plot", "report.json", "--png", "a folder 🚀/my λ.png", env=os.environ | settings)
    assert done.returncode == 0 and (folder / "a folder 🚀" / "my λ.png").is_file() and b"Traceback" not in done.stderr
    assert _python("profile", "--help", env=os.environ | settings).returncode == 0


def test_a_write_that_fails_leaves_no_half(run, folder, monkeypatch):
    """A file that was not there before is not there afterwards."""

    def torn(file, content):
        with file.open("wb") as stream:
            stream.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", torn)
    code, _, err = run("graph", "plain.py", "--format", "json", "--output", "new.json")
    assert code == 2 and "Cannot write new.json: no space left on device." in err and not Path("new.json").exists()


def test_a_device_takes_several_outputs(run, folder):
    """Nothing is lost where nothing is kept."""
    assert run("profile", "plain.py", "--json", os.devnull, "--markdown", os.devnull)[0] == 0


def test_no_word_at_all(run):
    """It asks for the list of commands."""
    _, out, err = run()
    assert "Commands:" in out + err and "error" not in err
