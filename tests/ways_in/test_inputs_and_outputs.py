"""What goes in and what comes out: containers of every sort, and clear errors for those that hold no gradient."""

from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from ways_oracle import Half, Net, check, example, linear, rows

import gradflow
from gradflow import errors
from gradflow.cli import main
from gradflow.subject.infer import infer

HALF = [("scaled", 0.5)]


class Embedded(nn.Module):
    """A table or a bag of them before the block."""

    def __init__(self, table):
        super().__init__()
        self.table, self.block, self.head = table.double(), Half(), linear()

    def forward(self, *args):
        return self.head(self.block(self.table(*args)))


IDS = torch.randint(11, (4, 5), generator=torch.Generator().manual_seed(0))
TABLES = {
    "int32": (lambda: nn.Embedding(11, 8), IDS.int()),
    "sparse gradients": (lambda: nn.Embedding(11, 8, sparse=True), IDS),
    "padding and frequencies": (lambda: nn.Embedding(11, 8, padding_idx=0, scale_grad_by_freq=True), IDS),
    "a bag": (lambda: nn.EmbeddingBag(11, 8), IDS),
    "a bag with offsets": (lambda: nn.EmbeddingBag(11, 8, mode="max"), (IDS.flatten(), torch.tensor([0, 5, 9, 12]))),
    "a sparse bag": (lambda: nn.EmbeddingBag(11, 8, mode="sum", sparse=True), (IDS.flatten(), torch.tensor([0, 5, 9, 12]))),
}


@pytest.mark.parametrize(("table", "ids"), TABLES.values(), ids=TABLES)
def test_integer_inputs(table, ids):
    """Integers are not on the tape; what is looked up by them is, sparse gradients of the table included."""
    check(lambda: Embedded(table()), ids, skips=HALF)


INPUTS = {
    "channels strided": rows(0, 8, 4).t(),
    "expanded": rows(0, 1, 8).expand(4, 8),
    "made under inference mode": torch.inference_mode()(rows)(),
    "with a gradient of its own": rows().requires_grad_(),
}


@pytest.mark.parametrize("inputs", INPUTS.values(), ids=INPUTS)
def test_inputs_of_every_layout(inputs):
    """The caller's tensor is cloned as it lies."""
    check(Net, inputs, skips=HALF)


def test_arguments_that_the_signature_does_not_name():
    """forward(*args, **kwargs): what was given by name is taken from kwargs."""
    with pytest.raises(errors.ModelFailed, match="tuple index out of range"):
        gradflow.profile(example("several_inputs.py:Anything")(), {"context": rows()})


def test_a_skip_that_starts_at_an_input():
    """The input is on the tape: the first block has a skip as well."""

    class First(Half):
        def forward(self, x):
            return x + self.f(x)

    check(First, rows(), skips=[("identity", 1.0)])


@dataclass(frozen=True)
class Frozen:
    logits: torch.Tensor
    steps: int = 3


class Bare:
    """No container that anybody knows."""

    __slots__ = ("logits",)

    def __init__(self, logits):
        self.logits = logits


class Returning(Net):
    def __init__(self, how):
        super().__init__()
        self.side, self.how = linear(), how

    def forward(self, x):
        out = super().forward(x)
        return self.how(out, self.side(out))


OUTPUTS = {
    "an ordered dict": lambda a, b: OrderedDict(z=a, y=b),
    "a frozen dataclass": lambda a, b: Frozen(a * b),
    "with None and text": lambda a, b: (a, None, "text", [b, b.argmax(-1)]),
    "slices of one tensor": lambda a, b: ((a * b)[:, :2], (a * b)[:, 2:]),
    "the same twice": lambda a, b: (a * b, a * b),
}


@pytest.mark.parametrize("how", OUTPUTS.values(), ids=OUTPUTS)
def test_outputs_of_every_kind(how):
    """Every differentiable tensor of the output is probed."""
    check(lambda: Returning(how), rows(), skips=HALF)


def test_an_output_that_the_loss_does_not_use():
    """The head that leads nowhere is named, with the reason."""
    loss = lambda output: output[0].square().sum()  # noqa: E731
    report = check(lambda: Returning(lambda a, b: (a, b)), rows(), skips=HALF, loss=loss, unmeasured={"side"})
    assert next(x for x in report.layers if x.name == "side").undefined["grad_norm"] == "its output does not lead to the loss"


def test_an_output_of_an_own_class_with_an_own_loss():
    """What the loss can read, gradflow need not."""
    loss = lambda output: output.logits.square().sum()  # noqa: E731
    check(lambda: Returning(lambda a, b: Bare(a * b)), rows(), skips=HALF, loss=loss)


def generator(a, b):
    yield a
    yield b


REFUSED = {
    "a generator": generator,
    "nothing": lambda a, b: None,
    "a set": lambda a, b: {a},
    "class ids": lambda a, b: a.argmax(-1),
    "slots": lambda a, b: Bare(a),
}


@pytest.mark.parametrize("how", REFUSED.values(), ids=REFUSED)
def test_an_output_without_a_gradient(how):
    """One error that says what was found and what to do."""
    with pytest.raises(errors.NoGradient, match=r"The output of Returning has no gradient: it is .*\n.*or give --loss"):
        gradflow.profile(Returning(how), rows())


def lazy():
    return nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d())


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize(
    ("build", "error", "match"),
    [(lazy, errors.UninitializedModel, "'0.weight' is not initialised"), (lambda: Net().to("meta"), errors.MetaModel, "'stem.weight' is on the meta device")],
    ids=["lazy", "meta"],
)
def test_models_without_numbers(build, error, match):
    """Refused before anything runs, with the way out."""
    with pytest.raises(error, match=match):
        gradflow.profile(build(), rows())


def test_the_meta_device_on_the_command_line(monkeypatch, capsys):
    """A device that holds no numbers is refused as a usage error."""
    monkeypatch.setattr("sys.argv", ["gradflow", "profile", "docs/examples/ways_in/parts.py:Network", "--device", "meta"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert (stopped.value.code, "--device: meta is not valid" in capsys.readouterr().err) == (2, True)


@pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
def test_inputs_that_are_inferred_for_complex_weights():
    """A first layer with complex weights is fed complex numbers, another one the model's own floats."""
    assert infer(nn.Sequential(nn.Linear(8, 8, dtype=torch.complex128))).specs[0].dtype is torch.complex128
    assert infer(Net()).specs[0].dtype is None
