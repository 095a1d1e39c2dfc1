"""Fixtures of the zoo's tests: float64, one thread, a fixed seed; and gradients by plain autograd."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)


class Gains:
    """The gradient at x of `module`, for a Gaussian cotangent g on its output: the total, and with every branch cut."""

    def __init__(self, module, x):
        from gradflow import zoo

        self.x = x.detach().requires_grad_()
        output = module(self.x)
        self.g = torch.randn_like(output)
        (self.total,) = torch.autograd.grad(output, self.x, self.g)
        with zoo.cut_branches(module):
            cut = module(self.x)
        assert torch.equal(cut, output)
        (self.highway,) = torch.autograd.grad(cut, self.x, self.g)

    @property
    def total_gain(self):
        return (self.total.norm() / self.g.norm()).item()

    @property
    def highway_gain(self):
        return (self.highway.norm() / self.g.norm()).item()


@pytest.fixture
def gains():
    return Gains
