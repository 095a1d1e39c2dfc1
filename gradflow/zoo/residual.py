"""One residual unit, y = S(x) + F(x), and the knife that cuts its branch. No forward value depends on whether the branch is cut."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


class Residual(nn.Module):
    """A unit y = S(x) + F(x) whose branch can be cut.

    `cut_branch` is the oracle for the highway. Where it is True the branch's output is detached and the gates, if there are any, are
    frozen: the output keeps its value, and the gradient that comes back to x is the skip's alone.
    """

    cut_branch: bool = False

    def severed(self, branch: Tensor) -> Tensor:
        """The branch's output (or a gate's value) of any shape: detached where the branch is cut, itself otherwise."""
        return branch.detach() if self.cut_branch else branch


@contextmanager
def cut_branches(model: nn.Module) -> Iterator[nn.Module]:
    """Cut the branch of every residual unit of `model` while the context lasts; on leaving, also by an exception, each unit is as it was.

    The gradient of the network inside the context is its highway, by plain autograd: the oracle for gradflow's replay.

    Raises:
        ValueError: `model` holds no `Residual` unit, so that nothing would be cut.
    """
    units = [module for module in model.modules() if isinstance(module, Residual)]
    if not units:
        raise ValueError(f"{type(model).__name__} holds no residual unit of the zoo: there is no branch to cut")
    before = [unit.cut_branch for unit in units]
    try:
        for unit in units:
            unit.cut_branch = True
        yield model
    finally:
        for unit, cut in zip(units, before, strict=True):
            unit.cut_branch = cut
