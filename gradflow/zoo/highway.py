"""Highway networks (Srivastava et al. 2015): y = T(x)·H(x) + (1 − T(x))·x. The carry 1 − T is the skip's λ, coordinate by coordinate."""

import torch
from torch import Tensor, nn

from gradflow.zoo.choices import ACTIVATIONS, at_least, initialise, one_of
from gradflow.zoo.mlp import ResidualMLP
from gradflow.zoo.residual import Residual


class HighwayUnit(Residual):
    """T·H + (1 − T)·x on [batch, width] with H = activation(W_H x + b_H) and T = σ(W_T x + b_T): Srivastava et al. 2015, eq. 3."""

    def __init__(self, width: int, activation: str) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Linear(width, width), ACTIVATIONS[activation]())
        self.gate = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x))
        carry = self.severed(1 - gate)
        return self.severed(gate * self.transform(x)) + carry * x


def highway_net(
    depth: int = 20,
    width: int = 64,
    *,
    transfer_bias: float = -2.0,
    gate_weights: str = "he",
    activation: str = "relu",
    inputs: int | None = None,
    outputs: int | None = 10,
) -> ResidualMLP:
    """A highway network of `depth` units: [batch, inputs] -> [batch, outputs].

    Args:
        depth: highway units.
        width: features of the trunk.
        transfer_bias: b_T; the carry starts near 1 − σ(b_T) = σ(−b_T), 0.881 at −2.
        gate_weights: W_T, "he" or "zero"; with "zero" the carry is 1 − σ(b_T) exactly and the highway its power.
        activation: of H, see `mlp`.
        inputs: features of x, mapped to the trunk by a linear stem; None means that x is the trunk's first state, [batch, width].
        outputs: logits of a linear head; None means that the trunk's last state is the output.

    Raises:
        ValueError: an argument is outside its allowed values, which the message names.
    """
    one_of("gate_weights", gate_weights, ("zero", "he"))
    one_of("activation", activation, ACTIVATIONS)
    sizes = {name: size for name, size in (("inputs", inputs), ("outputs", outputs)) if size is not None}
    at_least(1, depth=depth, width=width, **sizes)
    units = [HighwayUnit(width, activation) for _ in range(depth)]
    network = ResidualMLP([*units], width, inputs, outputs)
    initialise(network, "he")
    for unit in units:
        if gate_weights == "zero":
            nn.init.zeros_(unit.gate.weight)
        nn.init.constant_(unit.gate.bias, transfer_bias)
    return network
