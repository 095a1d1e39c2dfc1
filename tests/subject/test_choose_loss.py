"""What is differentiated."""

import itertools
import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradflow.errors import LossError, NoGradient
from gradflow.subject import choose_loss
from gradflow.subject.losses import NAMED
from gradflow.subject.seeding import stream

MODEL = nn.Linear(2, 2)


def out(*shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(5)
    return torch.rand(shape, generator=generator).to(dtype).requires_grad_() * 1


def objective(loss=None, targets=None, file_loss=None, seed=0):
    return choose_loss(loss=loss, targets=targets, model=MODEL, seed=seed, file_loss=file_loss)


def gradients(roots, *leaves):
    return torch.autograd.grad(roots.tensors, leaves, roots.cotangents)


class Output(dict):
    loss = property(lambda self: self["loss"])


@pytest.mark.parametrize(
    ("output", "name"),
    [
        ({"loss": out(), "logits": out(2)}, "model"),
        (types.SimpleNamespace(loss=out(1)), "model"),
        (out(), "output"),
        (out(1, 1), "output"),
        (out(2, 2), "probe"),
        ({"loss": torch.ones(()), "logits": out(2)}, "probe"),
        ({"loss": out(3), "logits": out(2)}, "probe"),
        ((out(), out(2)), "probe"),
        (out(1, dtype=torch.complex64), "probe"),
    ],
    ids=["loss-key", "loss-attribute", "scalar", "one-element", "tensor", "loss-without-grad", "loss-per-sample", "tuple", "complex-scalar"],
)
def test_choice_when_nothing_is_said(output, name):
    """The model's own loss, then a scalar output, then the probe; the choice is told and kept."""
    chosen = objective()
    roots = chosen(output)
    assert chosen.name == name
    assert roots.value.shape == () and not roots.value.requires_grad
    assert all(tensor.requires_grad for tensor in roots.tensors)


def test_probe_is_the_gradient_of_an_inner_product():
    """The cotangents are those of Σ⟨v, output⟩, whose value is reported, for every differentiable output."""
    leaf = torch.ones(3, 2, requires_grad=True)
    outputs = {"a": leaf * 2, "b": [leaf.double().sin(), torch.arange(3)]}
    chosen = objective("probe")
    roots = chosen(outputs)
    total = sum((v.double() * tensor.double()).sum() for tensor, v in zip(roots.tensors, roots.cotangents, strict=True))
    assert len(roots.tensors) == 2
    assert [v.dtype for v in roots.cotangents] == [torch.float32, torch.float64]
    assert torch.allclose(roots.value.double(), total.detach())
    expected = torch.autograd.grad(total, leaf, retain_graph=True)
    assert torch.allclose(gradients(roots, leaf)[0], expected[0])
    assert "drawn with seed 0" in chosen.source


def test_probe_is_seeded_and_unlike_the_input():
    """The seed fixes the cotangent; it is not the noise that was drawn for the input, nor does it touch the global generator."""
    before = torch.get_rng_state()
    first, second, other = (objective("probe", seed=seed)(out(4, 4)).cotangents[0] for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert not torch.equal(first, torch.randn(4, 4, generator=stream(0, "inputs")))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64, torch.float64])
def test_probe_of_another_dtype(dtype):
    """The cotangent has the output's dtype, and its value does not overflow."""
    output = torch.full((2, 3), 6e4 if dtype is torch.float16 else 1.0, requires_grad=True).to(dtype)
    roots = objective("probe")(output)
    assert roots.cotangents[0].dtype == dtype
    assert bool(torch.isfinite(roots.value))


SHAPES = [(4,), (4, 3), (2, 5, 3), (2, 3, 4, 4)]


@pytest.mark.parametrize(("name", "shape"), itertools.product(NAMED, SHAPES))
def test_named_loss_with_random_targets(name, shape):
    """Every named loss works on every shape, is reproducible, and says that its targets were drawn."""
    chosen = objective(name)
    first, second = chosen(out(*shape)), objective(name)(out(*shape))
    assert torch.equal(first.value, second.value)
    assert chosen.name == name
    assert ("random targets drawn with seed 0" in chosen.source) == (name not in ("sum", "mean"))
    assert first.cotangents == (None,)


@pytest.mark.parametrize(
    ("name", "output", "targets", "expected"),
    [
        ("mse", out(3, 2), torch.zeros(3, 2), F.mse_loss),
        ("mse", out(3), [1, 2, 3], lambda o, t: F.mse_loss(o, torch.tensor([1.0, 2, 3]))),
        ("l1", out(3), torch.ones(3), F.l1_loss),
        ("bce", out(3), torch.tensor([0, 1, 1]), lambda o, t: F.binary_cross_entropy_with_logits(o, t.float())),
        ("cross_entropy", out(4, 3), torch.tensor([0, 1, 2, 0]), F.cross_entropy),
        ("cross_entropy", out(2, 5, 3), torch.zeros(2, 5).long(), lambda o, t: F.cross_entropy(o.flatten(0, 1), t.flatten())),
        ("cross_entropy", out(2, 5, 3), torch.zeros(2, 3).long(), F.cross_entropy),
        ("cross_entropy", out(2, 5, 3), torch.ones(2, 5, 3), lambda o, t: F.cross_entropy(o.flatten(0, 1), t.flatten(0, 1))),
        ("cross_entropy", out(2, 3, 4, 4), torch.zeros(2, 4, 4).long(), F.cross_entropy),
        ("mean", out(3, 2), None, lambda o, t: o.mean()),
    ],
)
def test_named_loss_with_given_targets(name, output, targets, expected):
    """Given targets are used as torch would; a 3-d output is [batch, tokens, classes] unless its targets say otherwise."""
    chosen = objective(name, targets)
    assert torch.allclose(chosen(output).value, expected(output, targets).detach())
    assert targets is None or "given targets" in chosen.source


def test_named_loss_looks_at_the_logits():
    """Of several outputs, the logits count, else the first differentiable one."""
    logits, hidden = out(3, 2), out(3, 9)
    assert objective("sum")({"hidden": hidden, "logits": logits}).value == logits.sum()
    assert objective("sum")((torch.ones(1), hidden)).value == hidden.sum()


@pytest.mark.parametrize(
    ("name", "output", "targets"),
    [
        ("mse", out(3, 1), torch.zeros(3)),
        ("cross_entropy", out(3, 2), torch.zeros(4).long()),
        ("cross_entropy", out(3, 2), torch.full((3,), 7)),
        ("cross_entropy", out(), None),
        ("mse", out(3), {"y": 1}),
        ("mse", out(3), "words"),
        ("sum", out(3, dtype=torch.complex64), None),
        ("bce", out(3, dtype=torch.complex64), None),
    ],
    ids=["broadcast", "count", "class-out-of-range", "no-classes", "dict", "str", "complex-sum", "complex-bce"],
)
def test_named_loss_that_does_not_fit(name, output, targets):
    """Targets or outputs of the wrong shape, range or kind are a LossError, not a traceback."""
    with pytest.raises(LossError):
        objective(name, targets)(output)


def test_unknown_name():
    """A wrong name gets the nearest right one, before anything runs."""
    with pytest.raises(LossError) as caught:
        objective("cross_entrpy")
    assert "Did you mean cross_entropy?" in caught.value.remedy


def test_model_loss_that_is_not_there():
    """--loss model needs a `.loss`."""
    with pytest.raises(LossError, match=r"no `\.loss`"):
        objective("model")(out(3))


def both(output, targets):
    return (output * targets).sum()


def alone(output):
    return output.sum()


def optional(output, targets=None):
    return output.sum() if targets is None else both(output, targets)


class Method:
    def __call__(self, output, targets):
        return both(output, targets)


@pytest.mark.parametrize(
    ("loss", "targets", "value"),
    [
        (both, torch.tensor(2.0), 6.0),
        (alone, None, 3.0),
        (alone, torch.tensor(2.0), 3.0),
        (optional, None, 3.0),
        (optional, torch.tensor(2.0), 6.0),
        (Method(), torch.tensor(2.0), 6.0),
        (nn.MSELoss(), torch.zeros(3), 1.0),
        (lambda *args: args[0].sum() * len(args), torch.zeros(3), 6.0),
        (both, lambda: torch.tensor(2.0), 6.0),
        (torch.sum, None, 3.0),
    ],
    ids=["both", "alone", "alone-with-targets", "optional-without", "optional-with", "object", "module", "star", "targets-callable", "builtin"],
)
def test_custom_loss(loss, targets, value):
    """A callable takes (output, targets) or (output), whichever its signature allows."""
    roots = objective(loss, targets)(torch.ones(3, requires_grad=True) * 1)
    assert float(roots.value) == value


def test_loss_of_the_model_file():
    """The file's loss is used when none is given, may be a name, and gives way to --loss."""
    assert objective(file_loss=alone).source == "model file's `loss`"
    assert objective(file_loss="mse").name == "mse"
    assert objective("probe", file_loss=alone).name == "probe"
    assert objective(alone).name == "alone"


@pytest.mark.parametrize("loss", [both, lambda: 1, lambda a, b, c: 1], ids=["no-targets", "nothing", "three"])
def test_callable_that_cannot_be_called(loss):
    """A loss that needs targets without any, or takes the wrong number of arguments, is refused before anything runs."""
    with pytest.raises(LossError):
        objective(loss)


@pytest.mark.parametrize(
    ("loss", "error", "words"),
    [
        (lambda o: 3.0, LossError, "returned a float"),
        (lambda o: None, LossError, "returned None"),
        (lambda o: o, LossError, "returned a float32 tensor of shape [3], not one number"),
        (lambda o: o.argmax(), NoGradient, "an int64 tensor of shape []"),
        (lambda o: o.detach().sum(), NoGradient, "a float32 tensor without grad_fn"),
        (lambda o: o.sum() * 1j, LossError, "only a real number"),
    ],
    ids=["float", "none", "vector", "integer", "detached", "complex"],
)
def test_custom_loss_that_is_no_loss(loss, error, words):
    """What cannot be differentiated is named."""
    with pytest.raises(error) as caught:
        objective(loss)(out(3))
    assert words in caught.value.fact


def test_custom_loss_that_raises():
    """The user's exception goes through unchanged: the model's failure is not gradflow's to rename here."""
    with pytest.raises(ZeroDivisionError):
        objective(lambda o: 1 / 0)(out(3))


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (torch.zeros(4, dtype=torch.int64), "an int64 tensor of shape [4]"),
        (torch.zeros(4), "a float32 tensor without grad_fn, of shape [4]"),
        (None, "None"),
        ({}, "an empty dict"),
        ({"x": torch.zeros(1)}, "a dict of a float32 tensor without grad_fn, of shape [1]"),
        ("text", "a str"),
    ],
    ids=["int", "detached", "none", "empty", "dict", "str"],
)
@pytest.mark.parametrize("loss", [None, "probe", "mse", "sum"])
def test_output_without_a_gradient(loss, output, found):
    """Nothing to walk back from is an error that says what was found."""
    with pytest.raises(NoGradient) as caught:
        objective(loss)(output)
    assert found in caught.value.fact
