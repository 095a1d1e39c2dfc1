"""Tensor subclasses, nested tensors, and models wrapped for several devices on one."""

import os

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.utils._pytree import tree_map
from ways_oracle import D, Net, check, rows

import gradflow
from gradflow.reduce import inner, squares

HALF = [("scaled", 0.5)]


class Labelled(torch.Tensor):
    """A subclass that adds an attribute."""


class Watched(torch.Tensor):
    """One that sees every function called on it."""

    calls = 0

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.calls += 1
        return super().__torch_function__(func, types, args, kwargs or {})


class Wrapper(torch.Tensor):
    """Holds another tensor and forwards every operator to it."""

    @staticmethod
    def __new__(cls, content):
        wrapper = torch.Tensor._make_wrapper_subclass(cls, content.shape, strides=content.stride(), dtype=content.dtype)
        wrapper.content = content
        return wrapper

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        args, kwargs = tree_map(lambda a: a.content if isinstance(a, cls) else a, (args, kwargs or {}))
        return tree_map(lambda a: cls(a) if isinstance(a, torch.Tensor) else a, operator(*args, **kwargs))


class Duck:
    """No tensor, but torch's functions take it."""

    def __init__(self, tensor):
        self.tensor = tensor

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        args = tree_map(lambda a: a.tensor if isinstance(a, cls) else a, args, is_leaf=lambda a: isinstance(a, cls))
        return cls(func(*args, **(kwargs or {})))


class Ducked(Net):
    def forward(self, x):
        x = Duck(self.stem(x))
        branch = torch.tanh(nn.functional.linear(x, self.f.weight, self.f.bias))
        return self.head(torch.add(torch.mul(x, 0.5), branch).tensor)


INPUTS = {
    "an attribute more": rows().as_subclass(Labelled),
    "its own __torch_function__": rows().as_subclass(Watched),
    "its own __torch_dispatch__": Wrapper(rows()),
}


@pytest.mark.parametrize("inputs", INPUTS.values(), ids=INPUTS)
def test_inputs_of_a_subclass(inputs):
    """Everything computed from them has the subclass's type, gradients included."""
    check(Net, inputs, skips=HALF)


def test_what_is_no_tensor_and_passes_for_one():
    """Functions reach the real tensors inside."""
    check(Ducked, rows(), skips=HALF)


def test_wrapped_gradients_are_not_taken_for_one_another():
    """A wrapper has no memory of its own: two of one shape are different tensors all the same, and λ = 0.5 is not read as 1."""
    model = Net()
    model.f.weight = nn.Parameter(Wrapper(model.f.weight.detach()))
    report = gradflow.profile(model, Wrapper(rows()))
    assert report.skips[0].lam == pytest.approx(0.5, rel=1e-12)


def ragged(seed=0):
    return torch.nested.nested_tensor([rows(seed, 3, 8), rows(seed + 1, 5, 8)], layout=torch.jagged)


class Packed(Net):
    def forward(self, x):
        return super().forward(x).values()


class Padded(Net):
    def forward(self, x):
        return super().forward(x).to_padded_tensor(0.0)


@pytest.mark.parametrize("kind", [Net, Packed, Padded])
def test_nested_tensors(kind):
    """Sequences of 3 and 5 rows: λ, and the stem's gradient, are those of the 8 rows without nesting."""
    torch.manual_seed(0)
    model = kind()
    report = gradflow.profile(model, (ragged(),), loss=lambda out: (out.values() if out.is_nested else out).square().sum())
    plain = Net()
    plain.load_state_dict(model.state_dict())
    flat = gradflow.profile(plain, torch.cat([rows(0, 3, 8), rows(1, 5, 8)]), loss=lambda out: out.square().sum())
    assert [skip.lam for skip in report.skips] == pytest.approx([0.5], rel=1e-12)
    assert report.skips[0].ledger_error < 1e-12
    assert [layer.grad_norm for layer in report.layers] == pytest.approx([layer.grad_norm for layer in flat.layers], rel=1e-12)
    assert report.layers[0].output_shape == (8, 8)
    assert report.run.inputs[0].shape == (8, 8)
    assert gradflow.Report.from_json(report.to_json()) == report


def test_a_probe_of_a_nested_output():
    """The cotangent is nested like the output; each of the samples has a sum of its own."""
    report = gradflow.profile(Net(), (ragged(),))
    assert [skip.lam for skip in report.skips] == pytest.approx([0.5], rel=1e-12)


def test_sums_of_tensors_that_are_not_plain():
    """One sum per sample of a nested tensor, whatever the lengths; the values of a sparse one; the content of a wrapper."""
    a, b = ragged(0), ragged(2)
    expected = [(x * y).sum().item() for x, y in zip(a.unbind(), b.unbind(), strict=True)]
    assert inner(a, b, 2).tolist() == pytest.approx(expected, rel=1e-14)
    dense = torch.diag(torch.arange(4.0, dtype=D))
    total = [4.0, 14.0, 0.0]
    assert squares(Wrapper(torch.arange(4.0, dtype=D))).tolist() == total
    assert squares(dense.to_sparse()).tolist()[1] == squares(dense).tolist()[1] == total[1]


@pytest.fixture
def one_rank(tmp_path):
    """A process group of this process alone."""
    if not dist.is_available():
        pytest.skip("this torch has no torch.distributed")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:DTensor random operators")
def test_distributed_tensors(one_rank):
    """Weights that are DTensors: their gradients are, too."""
    from torch.distributed.tensor import DTensor, Replicate, distribute_tensor, init_device_mesh

    mesh = init_device_mesh("cpu", (1,))
    torch.manual_seed(0)
    model = Net()
    expected = gradflow.profile(model, rows())
    for layer in (model.stem, model.f, model.head):
        for name, parameter in list(layer.named_parameters()):
            setattr(layer, name, nn.Parameter(distribute_tensor(parameter.detach(), mesh, [Replicate()])))
    report = gradflow.profile(model, DTensor.from_local(rows(), mesh, [Replicate()]))
    assert [skip.lam for skip in report.skips] == pytest.approx([0.5], rel=1e-12)
    assert [p.grad_norm for x in report.layers for p in x.parameters] == pytest.approx([p.grad_norm for x in expected.layers for p in x.parameters], rel=1e-9)
