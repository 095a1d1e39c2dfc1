"""Networks written as a function over named layers, and what gradflow finds in them. Shared by the tests of the search."""

import torch
from torch import Tensor, nn

import gradflow
from gradflow.observe import Settings, observe
from gradflow.residual import SkipPath
from gradflow.subject import choose_loss, given_batch


class Net(nn.Module):
    """Layers by name, and a forward `f(model, *inputs)` that uses them."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.function = (forward,)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs):
        return self.function[0](self, *inputs)


def randn(*shape, seed=1):
    """[*shape] in float64, the same for the same shape and seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear_loss(output: Tensor) -> Tensor:
    """A loss with a different slope at every element of the output, and no more than that."""
    return (output * randn(*output.shape, seed=2)).sum()


def built(build) -> nn.Module:
    """The network in float64, drawn from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().double()


def profiled(build, *inputs):
    """The model and its report under `linear_loss`."""
    model = built(build)
    return model, gradflow.profile(model, inputs, loss=linear_loss)


def rows(build, *inputs):
    """Kind and calls of each row that is found, sorted; each row's ledger closes."""
    _, report = profiled(build, *inputs)
    assert all(skip.ledger_error < 1e-9 for skip in report.skips), report.skips
    return sorted((skip.kind, skip.calls) for skip in report.skips)


def kinds(build, *inputs):
    """The kinds of the rows, sorted."""
    return [kind for kind, _ in rows(build, *inputs)]


def paths(build, *inputs) -> tuple[SkipPath, ...]:
    """What the search itself returns, call by call."""
    model = built(build)
    loss = choose_loss(loss=linear_loss, targets=None, model=model, seed=0)
    return tuple(observe(model, given_batch(inputs), loss, Settings()).skips)
