"""`gradflow graph` and `gradflow.graph` as a user meets them."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import torch
from torch import nn

import gradflow
from gradflow.diagram import Diagram
from gradflow.render.json_schema import schema

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"


def test_the_table(run, monkeypatch):
    """Facts, then the skips in the first screen, then the operators; no escape codes in a pipe."""
    monkeypatch.setenv("COLUMNS", "100")
    code, out, err = run("graph", EXAMPLES / "small_gpt.py")
    assert (code, err) == (0, "")
    assert out.startswith("SmallGPT  ") and "\x1b" not in out
    lines = out.splitlines()
    assert "skips     8: 8 identity" in lines[:24]
    assert any(line.startswith("  blocks.[0-3]#1  identity") for line in lines[:24])
    assert any(line.startswith("├─◉") and "identity blocks.0#1" in line for line in lines)
    assert any("blocks.[1-3]: 3 more like blocks.0" in line for line in lines)
    assert "blocks.3.mlp.2" in run("graph", EXAMPLES / "small_gpt.py", "--all")[1]


@pytest.mark.parametrize("form", ["code", "dot", "json"])
def test_machine_output_is_alone_on_standard_output(run, form):
    """It can be piped into a parser; notes go to standard error."""
    words = ("graph", *TARGETS["a transformer of transformers"], "--format")
    code, out, err = run(*words, form)
    diagram = Diagram.from_json(run(*words, "json")[1])
    assert code == 0 and diagram.notes and err == "".join(f"note: {note}\n" for note in diagram.notes)
    if form == "code":
        compile(out, "graph", "exec")
    elif form == "dot":
        assert out.startswith("digraph ") and out.endswith("}\n")
    else:
        jsonschema.Draft202012Validator(schema(Diagram)).validate(json.loads(out))


@pytest.mark.parametrize("form", ["table", "code", "dot", "json"])
def test_a_file(run, tmp_path, form):
    """--output writes what standard output would have shown, and only says so."""
    words = ("graph", EXAMPLES / "small_gpt.py", "--format", form)
    code, out, err = run(*words, "--output", tmp_path / "graph.txt")
    assert (code, out) == (0, "") and err.endswith(f"wrote {tmp_path / 'graph.txt'}\n")
    text = (tmp_path / "graph.txt").read_text(encoding="utf-8")
    assert text == run(*words)[1] or (form == "table" and text.startswith("SmallGPT  "))


SOURCE = """
import torch
from torch import nn

class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
    def forward(self, h):
        return h + torch.tanh(self.layer(h))

class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.cell = nn.Linear(3, 3), Cell()
        setattr(self, "[red]", nn.Linear(3, 3))
    def forward(self, x):
        h = self.stem(x)
        for _ in range(7):
            h = self.cell(h)
        return h.detach() + getattr(self, "[red]")(h)

class Cursed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1
    @staticmethod
    def backward(ctx, grad):
        raise RuntimeError("inside backward")

class RaisesBack(Cell):
    def forward(self, x):
        return Cursed.apply(super().forward(x))

class Raises(Cell):
    def forward(self, x):
        raise RuntimeError("inside [red] forward")

model = Loop
inputs = torch.randn(2, 3)
"""


@pytest.fixture
def models(tmp_path, monkeypatch):
    (tmp_path / "models.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)


def test_a_model_whose_backward_fails(run, models):
    """It can still be looked at; `profile` ends with exit code 3."""
    code, out, _ = run("graph", "models.py:RaisesBack")
    assert code == 0 and "identity (RaisesBack)" in out
    assert run("profile", "models.py:RaisesBack")[0] == 3


BAD = {
    "a target that is not there": (["missing.py"], 2, "there is no file missing.py"),
    "a wrong shape": (["models.py", "--input", "4x7"], 3, "It was called with x float32[4,7]"),
    "a forward that raises": (["models.py:Raises"], 3, "inside [red] forward"),
    "an unknown format": (["models.py", "--format", "svg"], 2, "svg"),
    "a file in a folder that is not there": (["models.py", "--output", "nowhere/g.dot"], 2, "there is no folder nowhere"),
    "an output over a folder": (["models.py", "--output", "."], 2, "it is a folder"),
    "an unknown loss": (["models.py", "--loss", "crossentropy"], 2, "cross_entropy"),
}


@pytest.mark.parametrize("situation", BAD)
def test_bad_input_gets_one_clear_error(run, models, situation):
    """It names the fact, ends with the right exit code, and shows no frame of gradflow."""
    words, expected, fact = BAD[situation]
    code, out, err = run("graph", *words)
    assert (code, out) == (expected, "")
    assert fact in err and "Traceback" not in err and "/gradflow/" not in err


TARGETS = {
    "a GPT": [EXAMPLES / "small_gpt.py"],
    "a ResNet": ["torchvision:resnet18", "--input", "2x3x32x32"],
    "a loop with a cut skip": ["models.py"],
    "a Highway network": ["gradflow.zoo:highway_net"],
    "a transformer of transformers": ["hf:gpt2", "--arg", "n_layer=2", "--arg", "n_embd=32", "--arg", "n_head=2", "--arg", "vocab_size=64",
                                      "--arg", "bos_token_id=1", "--arg", "eos_token_id=2", "--input", "input_ids=int64[2,8]<64"],
}  # fmt: skip


@pytest.mark.parametrize("which", TARGETS)
def test_skips_are_those_of_the_profile(run, models, tmp_path, which):
    """Same ids in the same order, same kinds, ends, places and numbers of calls; every highway of the profile is there."""
    diagram = Diagram.from_json(run("graph", *TARGETS[which], "--format", "json")[1])
    run("profile", *TARGETS[which], "--json", tmp_path / "r.json")
    report = gradflow.Report.from_json((tmp_path / "r.json").read_text())
    fields = ("id", "name", "kind", "form", "fork", "join", "path_ops", "branch", "bypassed_layers", "location")
    firsts = [s for s in diagram.skips if s.call == 0]
    assert [[getattr(s, f) for f in fields] for s in firsts] == [[getattr(s, f) for f in fields] for s in report.skips]
    assert [sum(s.id == f.id for s in diagram.skips) for f in firsts] == [s.calls for s in report.skips]
    assert {h.name for h in report.highways} <= {h.name for h in diagram.highways}
    assert diagram.target == report.target and diagram.inputs == report.run.inputs and diagram.opaque == report.opaque


def test_a_loop_is_folded(run, models):
    """Its calls are one row of the graph; a module's name prints as itself."""
    out = run("graph", "models.py")[1]
    assert "cell: calls 1–6 like call 0" in out and "[red]" in out
    assert "tanh" in out and "tanh_1" not in out and "detached (Loop)" in out


def test_a_reader_that_has_seen_enough():
    """`| head` is no failure: no traceback, and the exit code stays what it is."""
    for words, expected in ((["graph", EXAMPLES / "residual_cnn.py", "--format", "json"], 0), (["profile", EXAMPLES / "half_skip_cnn.py", "--json", "-"], 1)):
        command = [sys.executable, "-m", "gradflow", *map(str, words)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            process.stdout.read(1)
            process.stdout.close()
            errors = process.stderr.read()
        assert process.returncode == expected, errors
        assert "Traceback" not in errors and "BrokenPipe" not in errors


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.norm, self.drop = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout()

    def forward(self, x):
        return x + self.drop(self.norm(self.inner(x)))


def test_the_torch_fx_graph():
    """It passes torch.fx's own check, reads like the model, and each node says where it comes from and which skips start and end there."""
    lifted = gradflow.graph(nn.Sequential(nn.Linear(4, 4), Residual(), Residual()), torch.randn(3, 4))
    lifted.graph.lint()
    nodes = {node.name: node for node in lifted.graph.nodes}
    assert [n.target.__name__ for n in lifted.graph.nodes if n.op == "call_function" and n.meta["data"]] == [
        "addmm", *(["addmm", "native_batch_norm", "mul", "add"] * 2)
    ]  # fmt: skip
    assert nodes["add"].meta["joins"] == ("1",) and nodes["add"].meta["forks"] == ("2",) and nodes["addmm"].meta["forks"] == ("1",)
    assert list(nodes["native_batch_norm"].meta["nn_module_stack"]) == ["", "1", "1.norm"]
    assert nodes["add"].meta["shape"] == (3, 4) and "test_graph.py" in nodes["add"].meta["stack_trace"]
    assert [node.name for node in lifted.diagram.nodes] == list(nodes)


def test_the_graph_outlives_the_tape():
    """No node holds on to autograd: what the forward saved is freed."""
    import gc
    import weakref

    saved = []

    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            y = self.layer(x).exp()
            saved.append(weakref.ref(y))
            return x + y

    lifted = gradflow.graph(Keeps(), torch.randn(3, 4))
    gc.collect()
    assert saved[0]() is None and lifted.diagram.skips


def test_the_model_is_left_as_it_was():
    """Parameters, buffers, gradients, modes, hooks and random states: bit for bit, and no backward is run."""
    model = nn.Sequential(nn.Linear(4, 4), Residual(), Residual())
    model[2].eval()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    called = []
    handle = model[0].weight.register_hook(called.append)
    state = torch.get_rng_state()
    gradflow.graph(model, torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(state, torch.get_rng_state()) and not called
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert [m.training for m in model] == [True, True, False]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    handle.remove()
