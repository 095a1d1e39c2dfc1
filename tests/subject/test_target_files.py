"""Model files and importable modules as targets."""

import sys
from pathlib import Path

import pytest
import torch

from gradflow.errors import (
    ArgumentError,
    LossError,
    MissingArguments,
    NoSuchName,
    NotAModel,
    TargetError,
    TargetFileError,
    UnknownTarget,
    UnsupportedTarget,
)
from gradflow.subject import choose_batch, load

MLP = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4, depth=1):
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(width, width) for _ in range(depth)])
    def forward(self, x):
        return self.layers(x)
"""


@pytest.mark.parametrize(
    ("line", "target"),
    [
        ("model = Net()", "model.py"),
        ("model = Net", "model.py"),
        ("def model():\n    return Net()", "model.py"),
        ("", "model.py:Net"),
        ("net = Net()", "model.py:net"),
        ("class ns:\n    build = staticmethod(lambda: Net())", "model.py:ns.build"),
    ],
    ids=["instance", "class", "function", "named-class", "named-instance", "dotted"],
)
def test_file_that_defines_a_model(write, line, target):
    """A model file may hold a module, a class or a function, under `model` or any name, dotted or not."""
    write(MLP + line)
    loaded = load(target)
    assert type(loaded.model).__name__ == "Net"
    assert (loaded.family, loaded.spec) == ("file", target)


def test_arguments_reach_the_builder(write):
    """Arguments are keywords of the class or function."""
    assert len(load(write(MLP + "model = Net"), arguments={"depth": 3}).model.layers) == 3


def test_file_with_inputs_targets_and_loss(write):
    """What the file defines beside its model comes along."""
    write(MLP + "import torch\nmodel = Net()\ninputs = torch.ones(2, 4)\ntargets = 7\ndef loss(output, targets):\n    return output.sum()")
    loaded = load("model.py")
    assert loaded.inputs.shape == (2, 4)
    assert loaded.targets == 7
    assert callable(loaded.loss)


def test_file_that_imports_a_module_called_inputs(write):
    """An imported module of the name `inputs` is not the inputs."""
    write("X = 1", "inputs.py")
    assert load(write(MLP + "import inputs\nmodel = Net()")).inputs is None


def test_file_whose_loss_is_a_number(write):
    """A `loss` that is neither a function nor a name is refused."""
    with pytest.raises(LossError, match="defines it as an int"):
        load(write(MLP + "model = Net()\nloss = 3"))


def test_same_seed_twice(write):
    """The seed fixes the weights, whichever generator the file draws from."""
    write("import random, numpy, torch\nmodel = torch.nn.Linear(2, 2)\nmodel.noise = (random.random(), numpy.random.rand())")
    first, second, other = (load("model.py", seed=seed).model for seed in (1, 1, 2))
    assert torch.equal(first.weight, second.weight) and first.noise == second.noise
    assert not torch.equal(first.weight, other.weight) and first.noise != other.noise


def test_file_that_imports_its_neighbours_late(write, monkeypatch):
    """The file's folder stays importable, so that an import inside forward works; no __pycache__ is left there nor in its packages, but elsewhere as ever."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.syspath_prepend("installed")
    write("HEIGHT = 2", "installed/library_of_heights.py")
    write("WIDTH = 3", "sub/neighbour.py")
    write("from late_package.depths.shallow import DEPTH", "sub/late_package/__init__.py")
    write("DEPTH = 4", "sub/late_package/depths/shallow.py")
    write(
        """
        from torch import nn
        class Late(nn.Linear):
            def forward(self, x):
                import late_package
                return super().forward(x) * late_package.DEPTH
        def model():
            import neighbour, library_of_heights
            return Late(neighbour.WIDTH, library_of_heights.HEIGHT)
    """,
        "sub/net.py",
    )
    model = load("sub/net.py").model
    assert model(torch.ones(1, 3)).tolist() == (4 * torch.nn.functional.linear(torch.ones(1, 3), model.weight, model.bias)).tolist()
    assert [str(folder) for folder in Path().rglob("__pycache__")] == ["installed/__pycache__"]


def test_two_files_with_neighbours_of_one_name(write):
    """Each of two model files gets its own `layers.py`, not the other's."""
    for folder, width in (("a", 2), ("b", 5)):
        write(f"WIDTH = {width}", f"{folder}/layers.py")
        write("import layers\nfrom torch import nn\nmodel = nn.Linear(layers.WIDTH, 1)", f"{folder}/model.py")
    assert [load(f"{folder}/model.py").model.in_features for folder in "aba"] == [2, 5, 2]


def test_file_with_dataclasses_and_pickle(write):
    """Dataclasses under postponed annotations and pickle find the file's module by its name."""
    write("""
        from __future__ import annotations
        import pickle
        from dataclasses import dataclass
        from torch import nn
        @dataclass
        class Sizes:
            width: int = 3
        model = nn.Linear(pickle.loads(pickle.dumps(Sizes())).width, 1)
    """)
    assert load("model.py").model.in_features == 3


def test_target_of_a_package(write):
    """`package.module:NAME` is imported from the current directory, dotted names included."""
    write("", "shop/__init__.py")
    write(MLP + "class ns:\n    build = Net", "shop/nets.py")
    assert load("shop.nets:Net").family == "import"
    assert len(load("shop.nets:ns.build", arguments={"depth": 2}).model.layers) == 2
    assert load("torch.nn:Linear", arguments={"in_features": 2, "out_features": 3}).model.out_features == 3


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("def model(:", TargetFileError, "SyntaxError"),
        ("raise RuntimeError('no data here')", TargetFileError, "while being imported: RuntimeError: no data here"),
        ("import nosuchpackage_", TargetFileError, "nosuchpackage_"),
        ("import sys\nsys.exit(3)", TargetFileError, "SystemExit: 3"),
        ("x = 1", NoSuchName, "defines no 'model'"),
        ("model = 3", NotAModel, "is an int"),
        ("model = None", NotAModel, "is None"),
        ("import os as model", NotAModel, "is a Python module"),
        ("def model():\n    return {}", NotAModel, "a callable that returned an empty dict"),
        ("def model():\n    return 1 / 0", TargetFileError, "while building its model: ZeroDivisionError"),
        ("def model():\n    raise SystemExit", TargetFileError, "while building its model: SystemExit"),
        ("def model(width, depth=1, *, heads):\n    pass", MissingArguments, "without width, heads"),
        ("def model():\n    return dict().nosuch", TargetFileError, "AttributeError"),
        ("def model():\n    raise TypeError('got an unexpected keyword argument')", TargetFileError, "TypeError"),
    ],
    ids=[
        "syntax",
        "raises",
        "import-error",
        "exit",
        "no-model",
        "int",
        "none",
        "python-module",
        "returns-dict",
        "zero",
        "build-exit",
        "needs-args",
        "attribute",
        "type-error",
    ],
)
def test_file_that_is_wrong(write, text, error, words):
    """Each way to get a model file wrong has one clear error."""
    with pytest.raises(error) as caught:
        load(write(text))
    assert words in caught.value.fact
    assert caught.value.remedy and caught.value.exit_code == 2


def test_traceback_of_a_file_that_raises(write):
    """The detail shows the user's frames and none of gradflow's."""
    with pytest.raises(TargetFileError) as caught:
        load(write("def helper():\n    raise ValueError('x')\ndef model():\n    return helper()"))
    assert "in helper" in caught.value.detail and "in model" in caught.value.detail
    assert "gradflow/subject" not in caught.value.detail and "importlib" not in caught.value.detail


def test_file_with_a_syntax_error_shows_the_line(write):
    """A file that cannot be parsed has no frames; the line is shown instead."""
    with pytest.raises(TargetFileError) as caught:
        load(write("ok = 1\nmodel = = 2"))
    assert "line 2" in caught.value.detail and "model = = 2" in caught.value.detail


def test_interrupted_import(write):
    """Ctrl-C is nobody's error and goes through."""
    with pytest.raises(KeyboardInterrupt):
        load(write("raise KeyboardInterrupt"))


def test_failed_import_leaves_no_module(write):
    """A file that failed can be mended and loaded again in the same process."""
    with pytest.raises(TargetFileError):
        load(write("oops"))
    assert not [name for name in sys.modules if name.startswith("_gradflow_target_model") and "oops" in dir(sys.modules[name])]
    assert load(write(MLP + "model = Net")).model


def test_misspelled_name(write):
    """A wrong NAME gets the nearest right one and the file's candidates."""
    with pytest.raises(NoSuchName) as caught:
        load(write(MLP) + ":Nett")
    assert "Did you mean model.py:Net?" in caught.value.remedy and "It defines: Net" in caught.value.remedy


def test_unknown_argument(write):
    """An argument that the builder does not take is an error that lists what it takes."""
    with pytest.raises(ArgumentError, match=r"did you mean depth\?\); it takes width, depth"):
        load(write(MLP + "model = Net"), arguments={"dept": 3})


def test_unknown_argument_behind_keywords(write):
    """A builder with **kwargs hides the signature; the class behind it is asked."""
    with pytest.raises(ArgumentError, match=r"did you mean depth\?"):
        load(write(MLP + "def model(**kwargs):\n    return Net(**kwargs)"), arguments={"dept": 3})


def test_arguments_for_a_module_that_is_built(write):
    """An instance takes no arguments."""
    with pytest.raises(ArgumentError, match="already built"):
        load(write(MLP + "model = Net()"), arguments={"depth": 3})


@pytest.mark.parametrize("suffix", ["safetensors", "onnx"])
def test_file_without_a_model_as_target(suffix):
    """Files that hold no torch module say what to do instead."""
    with pytest.raises(UnsupportedTarget) as caught:
        load(f"net.{suffix}", trust=True)
    assert "--weights" in caught.value.remedy and "model file" in caught.value.remedy


def test_nothing_is_there(write):
    """A file that is missing, a folder, an unknown module and a bare word each say so, with what could be meant."""
    write(MLP, "model.py")
    write("", "shop/nets.py")
    write("", "shop/__init__.py")
    cases = {
        "modle.py": ("there is no file modle.py", "Did you mean model.py?"),
        "shop/nest.py": ("there is no file shop/nest.py", "Did you mean shop/nets.py?"),
        "nosuch/model.py:Net": ("there is no file nosuch/model.py", ""),
        "shop": ("it is a folder", "shop/nets.py"),
        "shopp.nets:Net": ("there is no module 'shopp'", "shop.nets:Net"),
        "shop.netz:Net": ("there is no module 'shop.netz'", "shop.nets:Net"),
        "resnet18": ("it names no object in a module", "torchvision:resnet18"),
        "model": ("it names no object in a module", "model.py"),
        "": ("it is empty", ""),
        "model.py:": ("no name follows the colon", "model.py"),
        "a b:c": ("there is no such file", ""),
        "x" * 5000: ("it names no object in a module", ""),
        "x" * 5000 + ".py": ("there is no file xxx", ""),
        "timm:": ("there is no such file", ""),
    }
    for target, (reason, remedy) in cases.items():
        with pytest.raises(UnknownTarget) as caught:
            load(target)
        assert reason in caught.value.fact, target
        assert remedy in caught.value.remedy, target


def test_file_that_is_not_python(write):
    """Another kind of file is not guessed at."""
    with pytest.raises(TargetError, match="not a Python file"):
        load(write("hello", "notes.txt"))


def test_module_that_raises(write):
    """An importable module that fails is the user's file too, also when what it misses is another module."""
    write("import nosuchpackage_", "broken.py")
    with pytest.raises(TargetFileError, match="nosuchpackage_"):
        load("broken:model")


def test_inputs_that_raise(write):
    """A failing `inputs` function is told apart from a failing model."""
    loaded = load(write(MLP + "model = Net()\ndef inputs():\n    return 1 / 0"))
    with pytest.raises(TargetFileError, match="while making its `inputs`: ZeroDivisionError"):
        choose_batch(loaded, seed=0, device="cpu", dtype=None)
