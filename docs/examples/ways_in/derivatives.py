"""Models that differentiate in their forward."""

import torch
from parts import Network
from torch import Tensor
from torch.func import functional_call, grad, vmap


class Potential(Network):
    """An energy and the forces, its derivatives by position: what is trained on forces is differentiated twice."""

    def __init__(self) -> None:
        super().__init__(outputs=1)

    def forward(self, positions: Tensor) -> dict[str, Tensor]:
        with torch.enable_grad():
            positions = positions if positions.requires_grad else positions.detach().requires_grad_()
            energy = super().forward(positions)
            (slope,) = torch.autograd.grad(energy.sum(), positions, create_graph=True)
        return {"energy": energy, "forces": -slope}


class Forces(Network):
    """The forces alone, by torch.func, sample by sample."""

    def __init__(self) -> None:
        super().__init__(outputs=1)

    def forward(self, positions: Tensor) -> Tensor:
        return -vmap(grad(lambda x: super(Forces, self).forward(x).squeeze()))(positions)


class Adapted(Network):
    """One inner step of gradient descent on the first half of the batch, then an answer for the second (MAML)."""

    def forward(self, x: Tensor) -> Tensor:
        support, query = x.chunk(2)
        weights = dict(self.named_parameters())
        inner = self.head(self.features(support)).square().mean()
        slopes = torch.autograd.grad(inner, list(weights.values()), create_graph=True)
        adapted = {name: w - 0.1 * slope for (name, w), slope in zip(weights.items(), slopes, strict=True)}
        return functional_call(_Plain(self), {f"net.{name}": w for name, w in adapted.items()}, (query,))


class _Plain(torch.nn.Module):
    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.head(self.net.features(x))
