"""Saved models as targets: exported programs, TorchScript, pickled modules; and compiled modules, which run eagerly."""

import contextlib
import io
import json
import pickle
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export import Dim

import gradflow
from gradflow import errors
from gradflow.profiling import Options, profile_target
from gradflow.subject import load
from gradflow.zoo import preact_resnet


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.lam = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.lam * x + self.bn2(self.conv2(y)))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList([Block() for _ in range(3)])
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Tokens(nn.Module):
    """Integer and keyword-only inputs, an output in a dict, a module called twice."""

    def __init__(self):
        super().__init__()
        self.embedding, self.positions = nn.Embedding(11, 8), nn.Embedding(32, 8)
        self.branch = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))

    def forward(self, ids, *, scale):
        x = self.embedding(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        x = x + scale * self.branch(x)
        x = x + scale * self.branch(x)
        return {"logits": x @ self.embedding.weight.T}


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        x = self.first(x)
        return x.detach() + torch.relu(self.second(x))


class Quiet(nn.Module):
    """TorchScript's own switch of the gradient, a list that is written to, and a branch on data."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(2)])
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        kept: list[torch.Tensor] = []
        with torch.no_grad():
            shift = self.layers[0](x).mean()
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
            kept.append(x)
        if bool(shift > 1e9):
            x = x * 2
        return torch.cat(kept, 1) + shift


def built(kind, *args):
    torch.manual_seed(0)
    return kind(*args)


def images():
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def seen(report):
    """What a saved copy must share with the model that it was saved from."""
    skips = [(s.kind, s.lam, s.gain, s.bypassed_layers, s.location and s.location.line) for s in report.skips]
    measured = {p.name: p.grad_norm for layer in report.layers for p in layer.parameters}
    return skips, report.run.loss.value, measured


def scripted(model, *_):
    return torch.jit.script(model)


def traced(model, *inputs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a trace warns of every size that it fixes
        return torch.jit.trace(model, inputs, check_trace=False)


@pytest.mark.parametrize("compile_", [scripted, traced])
def test_torchscript_is_seen_as_the_model_it_came_from(compile_):
    """Skips with their names, λ and source lines, the loss and every parameter's gradient are those of the eager model, in each of four profiles."""
    model, x = built(ResNet), images()
    script = compile_(model, x)
    script.save("net.pt")
    eager = gradflow.profile(model, x)
    loaded = torch.jit.load("net.pt")
    for one in (script, script, loaded, loaded):
        report = gradflow.profile(one, x)
        assert seen(report) == seen(eager)
        assert [s.name for s in report.skips] == [s.name for s in eager.skips] == ["blocks.0", "blocks.1", "blocks.2"]
        assert {(layer.name, layer.type) for layer in report.layers} == {(layer.name, layer.type) for layer in eager.layers}
        assert all(s.location.file == __file__ for s in report.skips)


def test_torchscript_that_was_optimised_before():
    """A script that training has made into differentiable graphs is run operator by operator, and is optimised again afterwards."""
    model, x = built(ResNet), images()
    script = torch.jit.script(model)

    def nodes():
        found, stack = set(), [script(x).grad_fn]
        while stack:
            node = stack.pop()
            if node is not None and node not in found:
                found.add(node)
                stack.extend(n for n, _ in node.next_functions)
        return {node.name() for node in found}

    for _ in range(3):
        script(x).sum().backward()
    fused = {name for name in nodes() if "DifferentiableGraph" in name}
    assert fused, "torch no longer fuses this: the test says nothing"
    model.load_state_dict(script.state_dict())
    assert seen(gradflow.profile(script, x)) == seen(gradflow.profile(model, x))
    for _ in range(3):
        script(x)
    assert {name for name in nodes() if "DifferentiableGraph" in name} == fused


def test_torchscript_is_left_as_it_was():
    """Attributes that the script's code assigns, buffers, mode and gradients come back, also in eval mode; torch's flag too."""
    script, x = torch.jit.script(built(Quiet)), torch.randn(2, 4)
    before = {k: v.clone() for k, v in script.state_dict().items()}
    flag = torch._C._get_graph_executor_optimize()
    for evaluate in (False, True):
        gradflow.profile(script, x, evaluate=evaluate)
        assert script.calls == 0 and script.training and flag == torch._C._get_graph_executor_optimize()
        assert all(torch.equal(before[k], v) for k, v in script.state_dict().items())
        assert all(p.grad is None for p in script.parameters())
    script(x)
    assert script.calls == 1, "the script's own forward is back"


def test_control_flow_and_switches_inside_torchscript():
    """Lists, no_grad() and branches inside a script have their Python meaning: the numbers are the eager model's, bit for bit."""
    model, x = built(Quiet), torch.randn(2, 4)
    assert seen(gradflow.profile(torch.jit.script(model), x)) == seen(gradflow.profile(model, x))


@pytest.mark.parametrize("compile_", [scripted, traced])
def test_a_cut_inside_torchscript_is_found(compile_):
    """detach() in compiled code is a detached skip, with its line."""
    model, x = built(Detached), torch.randn(3, 4)
    eager, report = gradflow.profile(model, x), gradflow.profile(compile_(model, x), x)
    assert [(s.kind, s.location) for s in report.skips] == [(s.kind, s.location) for s in eager.skips]
    assert report.skips[0].kind == "detached"


def test_a_script_that_only_cpp_can_run(monkeypatch):
    """Where an operator has no Python counterpart the module runs in C++: skips are found, parameters measured, and a note says what is not seen."""
    model, ids = built(Tokens), torch.randint(0, 11, (3, 6))
    inputs = {"ids": ids, "scale": torch.tensor(2.0)}
    eager = gradflow.profile(model, inputs)
    monkeypatch.setattr("gradflow.scripted.why_opaque", lambda module: "it uses prim::fork")
    for _ in range(3):
        report = gradflow.profile(torch.jit.script(model), inputs)
        assert {(s.kind, s.lam) for s in report.skips} == {(s.kind, s.lam) for s in eager.skips} == {("identity", 1.0)}
        assert sum(s.calls for s in report.skips) == len(eager.skips) == 2, "without lines, the two sums are calls of one site"
        assert all(p.status == "measured" for layer in report.layers for p in layer.parameters)
        assert any("runs as TorchScript (it uses prim::fork)" in note for note in report.run.notes)


def test_a_fork_is_left_to_cpp():
    """torch.jit.fork is not run here; the module is named with the reason, and the rest of the model is seen."""

    class Forked(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            later = torch.jit.fork(torch.relu, x)
            return self.layer(x) + torch.jit.wait(later)

    report = gradflow.profile(nn.Sequential(nn.Linear(4, 4), torch.jit.script(Forked())), torch.randn(2, 4))
    assert [note for note in report.run.notes if note.startswith("1 runs as TorchScript")]
    assert all(p.status == "measured" for layer in report.layers for p in layer.parameters)


def test_a_module_that_holds_scripts():
    """Scripted parts of an ordinary model keep their names and their insides."""
    model, x = built(ResNet), images()
    eager = gradflow.profile(model, x)
    model.blocks[1] = torch.jit.script(model.blocks[1])
    report = gradflow.profile(model, x)
    assert seen(report) == seen(eager) and [s.name for s in report.skips] == ["blocks.0", "blocks.1", "blocks.2"]
    assert "blocks.1.conv1" in {layer.name for layer in report.layers}


@pytest.mark.parametrize("compile_", [scripted, traced])
def test_torchscript_target(compile_):
    """A script under any name is known by its content; its input is guessed from the classes that were compiled."""
    compile_(built(ResNet), images()).save("model.weights")
    report = profile_target("model.weights", Options())
    assert report.target.model_class == "ResNet" and len(report.skips) == 3
    assert report.run.inputs[0].shape == (4, 3, 64, 64) and "stem: Conv2d" in report.run.inputs[0].source
    assert profile_target("model.weights", Options(inputs=("x=2x3x8x8",))).run.inputs[0].shape == (2, 3, 8, 8)


def export(model, args, kwargs=None, path="net.pt2", decompose=False, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, while it copies a program
        program = torch.export.export(model, args, kwargs, **options)
        torch.export.save(program.run_decompositions() if decompose else program, path)
    return path


@pytest.mark.parametrize("decompose", [False, True], ids=["training", "inference"])
@pytest.mark.parametrize("no_grad", [False, True], ids=["grad", "no_grad"])
def test_exported_residual_network(decompose, no_grad):
    """λ, skips, source lines and gradients of a program are the model's, whichever IR it is in and however it was exported; it runs with its own inputs."""
    model, x = built(ResNet), images()
    with torch.set_grad_enabled(not no_grad):
        export(model, (x,), decompose=decompose)
    eager, report = gradflow.profile(model, x), profile_target("net.pt2", Options())
    (skips, loss, measured), (expected, eager_loss, eager_measured) = seen(report), seen(eager)
    assert [s[:1] + s[3:] for s in skips] == [s[:1] + s[3:] for s in expected]
    assert [s[1] for s in skips] == pytest.approx([s[1] for s in expected]) == [0.5] * 3
    assert measured == pytest.approx(eager_measured, rel=1e-4) and loss == pytest.approx(eager_loss, rel=1e-5)
    assert report.target.model_class == "ResNet" and report.target.trainable_parameters == eager.target.trainable_parameters
    assert report.run.inputs[0].source == "the program's example inputs" and report.run.mode == "train"
    assert any("exported in train mode" in note for note in report.run.notes)


def test_exported_zoo_network_has_the_modules_names():
    """A program is written out as the modules that it came from: layers and skips have their names and classes."""
    model, x = built(preact_resnet, 20), images()
    export(model, (x,))
    eager, report = gradflow.profile(model, x), profile_target("net.pt2", Options())
    assert [(s.name, s.kind, s.lam) for s in report.skips] == [(s.name, s.kind, s.lam) for s in eager.skips]
    with_weights = {(layer.name, layer.type) for layer in eager.layers if layer.parameters}
    assert {(layer.name, layer.type) for layer in report.layers if layer.parameters} == with_weights


def test_exported_module_through_the_api():
    """program.module() has no classes and no source files left, but its skips and parameters are all there."""
    model, x = built(ResNet), images()
    module = torch.export.export(model, (x,)).module()
    report = gradflow.profile(module, x)
    assert [s.lam for s in report.skips] == [0.5] * 3 and all(s.location is None for s in report.skips)
    assert seen(report)[2] == seen(gradflow.profile(model, x))[2]
    with pytest.raises(errors.FixedMode):
        gradflow.profile(module, x, evaluate=True)


def test_exported_with_keyword_only_inputs_and_a_dict_output():
    """Inputs keep their names, dynamic sizes their range, and an output in a dict is differentiated."""
    model = built(Tokens)
    sizes = {"ids": {0: Dim("batch", min=2, max=64), 1: Dim("length", min=3, max=32)}, "scale": None}
    export(model, (torch.randint(0, 11, (4, 6)),), {"scale": torch.tensor(2.0)}, dynamic_shapes=sizes)
    report = profile_target("net.pt2", Options())
    assert [(i.name, i.shape) for i in report.run.inputs] == [("ids", (4, 6)), ("scale", ())]
    assert [s.lam for s in report.skips] == [1.0, 1.0]
    assert {layer.name: layer.calls for layer in report.layers}["branch.1"] == 2
    given = profile_target("net.pt2", Options(inputs=("ids=int64[2,9]<11", "scale=float32[]")))
    assert given.run.inputs[0].shape == (2, 9)


def test_exported_without_example_inputs():
    """The shapes in the program say what to draw: sizes inside their range, ids below the table that they look up."""
    program = torch.export.export(
        built(Tokens),
        (torch.randint(0, 11, (20, 6)),),
        {"scale": torch.tensor(2.0)},
        dynamic_shapes={"ids": {0: Dim("batch", min=8, max=64), 1: Dim("length", min=3, max=12)}, "scale": None},
    )
    program._example_inputs = None
    torch.export.save(program, "net.pt2")
    report = profile_target("net.pt2", Options())
    assert report.run.inputs[0].shape == (8, 12)
    assert report.run.inputs[0].source == "the program's input specs, drawn at random"
    assert report == profile_target("net.pt2", Options()) or report.run.loss == profile_target("net.pt2", Options()).run.loss


def test_inputs_that_an_exported_program_does_not_take():
    """A size that the export fixed, and an unknown name, are the input's fault: exit code 2, with what is taken."""
    export(built(ResNet), (images(),))
    for spec, words in (("2x3x8x8", "to be equal to 4, but got 2"), ("y=4x3x8x8", "no parameter 'y'")):
        with pytest.raises(errors.WrongInputs, match=words) as caught:
            profile_target("net.pt2", Options(inputs=(spec,)))
        assert caught.value.exit_code == 2 and "It takes: x" in caught.value.remedy


def test_mode_of_an_exported_program():
    """A program exported in eval mode is reported so, and --eval cannot change one that was not."""
    export(built(ResNet).eval(), (images(),), path="eval.pt2")
    export(built(ResNet), (images(),))
    assert profile_target("eval.pt2", Options()).run.mode == "eval"
    with pytest.raises(errors.FixedMode, match="fixed when it was exported"):
        profile_target("net.pt2", Options(evaluate=True))


def test_a_cut_inside_an_exported_program_is_found():
    """detach() in a training program is a detached skip."""
    export(built(Detached), (torch.randn(3, 4),))
    (skip,) = profile_target("net.pt2", Options()).skips
    assert skip.kind == "detached" and skip.location.file == __file__


class Bomb:
    """Unpickled, it leaves a file behind."""

    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def rewritten(path, change):
    """The archive with each entry passed through `change(name, content)`."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(name, change(name, content))


def saved_bomb():
    buffer = io.BytesIO()
    torch.save(((Bomb(),), {}), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("entry", ["inputs", "constants", "weights"])
def test_exported_program_with_a_pickle_that_runs_code(entry):
    """Whichever pickle of a program names code, nothing of it runs without --trust; torch.export.load itself would run it."""
    export(built(ResNet), (images(),))
    marks = {"inputs": ("example_inputs.pt", "sample_inputs/model.pt"), "constants": ("serialized_constants.pt",), "weights": ("serialized_state_dict.pt",)}
    hit = []

    def change(name, content):
        if name.endswith(marks[entry]):
            hit.append(name)
            return saved_bomb()
        return content

    rewritten("net.pt2", change)
    if not hit:
        pytest.skip("this torch keeps these as bytes, not as a pickle")
    with pytest.raises(errors.UntrustedCode, match="not tensors") as caught:
        load("net.pt2")
    assert not Path("exploded").exists() and "--trust" in caught.value.remedy
    with contextlib.suppress(errors.GradflowError):
        load("net.pt2", trust=True)
    assert Path("exploded").exists(), "the file was not a bomb: the test says nothing"


def poisoned(text, where):
    def change(name, content):
        if not name.endswith(("model.json", "serialized_exported_program.json")):
            return content
        program = json.loads(content)
        graph = program["graph_module"]["graph"]
        if where == "size":
            sizes = graph["tensor_values"]["x"]["sizes"]
            sizes[0] = {"as_expr": {"expr_str": text, "hint": None}}
        elif where == "guard":
            if "guards_code" not in program:
                pytest.skip("this torch saves no guards")
            program["guards_code"] = [text]
        else:
            node = graph["nodes"][0]
            node["name"] = node["outputs"][0]["as_tensor"]["name"] = text
        return json.dumps(program).encode()

    return change


@pytest.mark.parametrize("where", ["size", "name", "guard"])
def test_exported_program_with_code_in_its_text(where):
    """Sizes are evaluated, names are written into Python and guards are Python: none is run where it is more than it should be."""
    export(built(ResNet), (images(),))
    code = "__import__('pathlib').Path('exploded').touch()"
    rewritten("net.pt2", poisoned(code, where))
    if where == "guard":
        profile_target("net.pt2", Options())
    else:
        with pytest.raises(errors.TargetError):
            load("net.pt2")
    assert not Path("exploded").exists()


def test_package_of_machine_code():
    """An AOTInductor package has no program to differentiate; it is refused before anything in it is loaded."""
    with zipfile.ZipFile("net.pt2", "w") as archive:
        archive.writestr("net/archive_format", "pt2")
        archive.writestr("net/data/aotinductor/model/code.so", b"")
    with pytest.raises(errors.SavedFileError, match="AOTInductor"):
        load("net.pt2")


def test_damaged_and_newer_files():
    """A file that was cut short, one of another version and plain rubbish each give one error, and nothing is logged."""
    export(built(Detached), (torch.randn(3, 4),))
    whole = Path("net.pt2").read_bytes()
    Path("cut.pt2").write_bytes(whole[: len(whole) // 2])
    Path("empty.pt").write_bytes(b"")
    Path("text.pth").write_text("hello")
    torch.save(built(Detached), "cut.pt")
    Path("cut.pt").write_bytes(Path("cut.pt").read_bytes()[:700])
    rewritten("net.pt2", lambda name, content: b"999999" if name.endswith(("archive_version", "/version")) or name == "version" else content)
    for name in ("cut.pt2", "empty.pt", "text.pth", "cut.pt", "net.pt2"):
        with pytest.raises(errors.SavedFileError) as caught:
            load(name)
        assert caught.value.exit_code == 2 and caught.value.remedy, name


@pytest.fixture
def importable(write):
    """A module `shop` whose Net is pickled."""
    write("""
        from torch import nn
        class Net(nn.Sequential):
            def __init__(self):
                super().__init__(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    """, "shop_nets.py")  # fmt: skip
    sys.path.insert(0, str(Path.cwd()))
    import shop_nets

    yield shop_nets.Net()
    sys.modules.pop("shop_nets", None)


def forgotten():
    sys.path.remove(str(Path.cwd()))
    del sys.modules["shop_nets"]


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_pickled_module(importable, form):
    """It is unpickled with --trust alone; the current folder is importable then. Without, the error names the class and --trust."""
    if form == "pickle":
        Path("net.pkl").write_bytes(pickle.dumps(importable))
    else:
        torch.save(importable, "net.pkl", _use_new_zipfile_serialization=form == "zip")
    forgotten()
    with pytest.raises(errors.UntrustedCode, match=r"shop_nets\.Net") as caught:
        load("net.pkl")
    assert "--trust" in caught.value.remedy and caught.value.exit_code == 2 and "shop_nets" not in sys.modules
    report = profile_target("net.pkl", Options(trust=True))
    assert report.target.model_class == "Net" and report.run.inputs[0].shape == (4, 3)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_pickle_that_runs_code(form):
    """Nothing of it runs without --trust."""
    if form == "pickle":
        Path("net.pt").write_bytes(pickle.dumps(Bomb()))
    else:
        torch.save(Bomb(), "net.pt", _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(errors.UntrustedCode):
        load("net.pt")
    assert not Path("exploded").exists()
    with pytest.raises(errors.NotAModel):
        load("net.pt", trust=True)
    assert Path("exploded").exists(), "the file was not a bomb: the test says nothing"


def test_pickled_class_that_is_gone(importable):
    """A class that cannot be imported is named, with what to do."""
    torch.save(importable, "net.pt")
    forgotten()
    Path("shop_nets.py").unlink()
    with pytest.raises(errors.SavedFileError, match="No module named 'shop_nets'") as caught:
        load("net.pt", trust=True)
    assert "__main__" in caught.value.remedy and "--weights" in caught.value.remedy


def test_checkpoint_with_a_module():
    """The module of a checkpoint is taken from its entry, 'model' first, and a note says which; of several others none is guessed."""
    torch.save({"epoch": 3, "ema": nn.Linear(3, 1), "model": nn.Linear(2, 1)}, "ck.pth")
    loaded = load("ck.pth", trust=True)
    assert loaded.model.in_features == 2 and loaded.notes == ("the model was read from the file's entry 'model'; it also holds 'ema'",)
    torch.save({"teacher": nn.Linear(3, 1)}, "one.pth")
    assert load("one.pth", trust=True).model.in_features == 3
    torch.save({"teacher": nn.Linear(3, 1), "student": nn.Linear(2, 1)}, "two.pth")
    with pytest.raises(errors.NotAModel, match="'teacher', 'student'"):
        load("two.pth", trust=True)


@pytest.mark.parametrize("trust", [False, True])
def test_weights_as_target(trust):
    """A state dict, bare or in a checkpoint, is for --weights, and the error says so."""
    state = nn.Linear(2, 1).state_dict()
    for content in (state, {"state_dict": state, "epoch": 3}):
        torch.save(content, "w.pt")
        with pytest.raises(errors.WeightsWithoutModel, match="2 tensors") as caught:
            load("w.pt", trust=trust)
        assert "--weights w.pt" in caught.value.remedy


def test_arguments_and_weights_for_a_saved_model():
    """A saved model takes no --arg, and --weights loads into it."""
    torch.jit.script(nn.Sequential(nn.Linear(2, 1))).save("net.pt")
    with pytest.raises(errors.ArgumentError, match="already built"):
        load("net.pt", arguments={"depth": 3})
    torch.save({"0.weight": torch.ones(1, 2), "0.bias": torch.ones(1)}, "w.pt")
    assert all(p.eq(1).all() for p in load("net.pt", weights=Path("w.pt")).model.parameters())


def test_saved_file_that_is_not_there():
    """A misspelled file gets its neighbour."""
    torch.save({}, "model.pt")
    with pytest.raises(errors.UnknownTarget, match=r"no file modle\.pt") as caught:
        load("modle.pt")
    assert "model.pt" in caught.value.remedy


def compiled_parts():
    model = built(ResNet)
    model.blocks[0] = torch.compile(model.blocks[0])
    return model


def compiled_in_place():
    model = built(ResNet)
    model.compile()
    return model


@pytest.mark.parametrize(
    ("make", "what"),
    [(lambda: torch.compile(built(ResNet)), "the model"), (compiled_parts, "blocks.0"), (compiled_in_place, "the model")],
    ids=["whole", "part", "in-place"],
)
def test_compiled_modules_run_eagerly(make, what, monkeypatch):
    """Nothing is compiled; names are those that the user wrote, a note says what was run eagerly, and the wrappers are back afterwards."""
    monkeypatch.setenv("CXX", "/nowhere/c++")
    model, x = make(), images()
    names = [name for name, _ in model.named_modules()]
    report, eager = gradflow.profile(model, x), gradflow.profile(built(ResNet), x)
    assert seen(report) == seen(eager) and [s.name for s in report.skips] == [s.name for s in eager.skips]
    assert not any("_orig_mod" in layer.name for layer in report.layers) and report.target.model_class == "ResNet"
    assert f"compiled by torch.compile and run eagerly here: {what}" in report.run.notes
    assert names == [name for name, _ in model.named_modules()]


def test_compiled_function_inside_forward():
    """A compiled function among a module's attributes is no opaque node either."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.act = torch.compile(lambda x: torch.relu(x) * 2)

        def forward(self, x):
            return x + self.act(self.layer(x))

    report = gradflow.profile(Net(), torch.randn(3, 4))
    assert [s.lam for s in report.skips] == [1.0] and not report.run.notes[1:]
    assert report.run.notes == ("compiled by torch.compile and run eagerly here: act",)


def test_compiled_model_in_a_file(write):
    """The same from a model file."""
    write("import torch\nfrom torch import nn\nmodel = torch.compile(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)))")
    report = profile_target("model.py", Options())
    assert [layer.name for layer in report.layers] == ["0", "1", "2"] and "run eagerly" in " ".join(report.run.notes)
