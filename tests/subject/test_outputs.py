"""Differentiable tensors in whatever a model returns."""

import collections
from dataclasses import dataclass

import pytest
import torch

from gradflow.subject import differentiable_outputs


def grad(*shape, dtype=torch.float32):
    return torch.ones(*shape, dtype=dtype, requires_grad=True) * 1


Pair = collections.namedtuple("Pair", "first second")


@dataclass
class Result:
    logits: torch.Tensor
    count: int = 0


class Cache:
    def __init__(self, key):
        self.key = key


@pytest.mark.parametrize(
    ("output", "names"),
    [
        (grad(2), ["output"]),
        ((grad(2), grad(3)), ["output[0]", "output[1]"]),
        ([grad(2), torch.ones(2), torch.ones(2, dtype=torch.int64), None, 3], ["output[0]"]),
        ({"out": grad(2), "a b": [grad(1)], 3: grad(1)}, ["output.out", "output['a b'][0]", "output[3]"]),
        (Pair(grad(1), {"x": grad(1)}), ["output.first", "output.second.x"]),
        (Result(grad(1)), ["output.logits"]),
        ({"logits": grad(1), "past_key_values": ((grad(1),),), "cache": Cache(grad(1))}, ["output.logits"]),
        (grad(2, dtype=torch.complex64), ["output"]),
        (None, []),
        ("text", []),
        ((), []),
    ],
    ids=["tensor", "tuple", "list", "dict", "namedtuple", "dataclass", "caches", "complex", "none", "str", "empty"],
)
def test_output(output, names):
    """Tensors with a gradient are found in every container, by path; caches and other objects are left alone."""
    assert [name for name, _ in differentiable_outputs(output)] == names


def test_transformers_output():
    """A ModelOutput is both mapping and dataclass, and is walked once."""
    from transformers.modeling_outputs import CausalLMOutputWithPast

    assert [name for name, _ in differentiable_outputs(CausalLMOutputWithPast(logits=grad(1), past_key_values=((grad(1),),)))] == ["output.logits"]


def test_output_with_one_tensor_twice_and_with_itself_inside():
    """A tensor counts once, and a container that holds itself ends."""
    tensor = grad(2)
    output = [tensor, tensor]
    output.append(output)
    assert len(differentiable_outputs(output)) == 1
