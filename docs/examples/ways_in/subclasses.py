"""Tensor subclasses: by __torch_function__, by __torch_dispatch__, and torch's own nested tensors."""

import torch
from parts import Network
from torch import Tensor, nn
from torch.utils._pytree import tree_map


class Labelled(Tensor):
    """Carries a label; torch wraps the result of every function again."""

    label = "features"


class Wrapped(Tensor):
    """Holds another tensor and forwards every operator to it."""

    content: Tensor

    @staticmethod
    def __new__(cls, content: Tensor) -> "Wrapped":
        wrapper = Tensor._make_wrapper_subclass(cls, content.shape, strides=content.stride(), dtype=content.dtype, device=content.device)
        wrapper.content = content
        return wrapper

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        inside = tree_map(lambda a: a.content if isinstance(a, Wrapped) else a, (args, kwargs or {}))
        return tree_map(lambda a: Wrapped(a) if isinstance(a, Tensor) else a, operator(*inside[0], **inside[1]))


class OnLabelled(Network):
    def features(self, x: Tensor) -> Tensor:
        return super().features(x.as_subclass(Labelled))


def wrapped_weights() -> nn.Module:
    """Every weight is a wrapper."""
    model = Network()
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.weight = nn.Parameter(Wrapped(layer.weight.detach()))
    return model


class Ragged(Network):
    """Sequences of 3 and of 5 tokens in one nested tensor."""

    def forward(self, tokens: Tensor) -> Tensor:
        x = torch.nested.nested_tensor_from_jagged(tokens, offsets=torch.tensor([0, 3, 8]))
        return super().forward(x)
