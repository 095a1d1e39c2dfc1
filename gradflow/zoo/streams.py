"""Hyper-connections (Zhu et al. 2024): n parallel residual streams, mixed by a matrix. The skip's λ is that matrix."""

import torch
from torch import Tensor, nn

from gradflow.zoo.choices import at_least, one_of
from gradflow.zoo.residual import Residual


class StreamUnit(Residual):
    """H·X + b ⊗ F(a·X) on [batch, streams, width]: `mix` is H [streams, streams], `read` is a [streams], `write` is b [streams]. F is linear, ReLU, linear."""

    def __init__(self, mix: Tensor, width: int, reads: int) -> None:
        super().__init__()
        streams = len(mix)
        self.mix = nn.Parameter(mix)
        self.read = nn.Parameter(torch.eye(streams)[reads % streams].clone())
        self.write = nn.Parameter(torch.ones(streams))
        self.branch = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.branch(self.read @ x)
        return self.mix @ x + self.severed(self.write[:, None] * branch[:, None])


class HyperConnectionNet(nn.Module):
    """[batch, width] -> [batch, outputs]: x is copied into the streams, runs through `blocks`, and the streams' sum goes to a linear head."""

    def __init__(self, units: list[StreamUnit], width: int, outputs: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*units)
        self.head = nn.Linear(width, outputs)
        self.streams = len(units[0].mix)

    def forward(self, x: Tensor) -> Tensor:
        streams: Tensor = self.blocks(x[:, None].expand(-1, self.streams, -1))
        logits: Tensor = self.head(streams.sum(1))
        return logits


def hyper_connection_net(
    blocks: int = 8, width: int = 32, *, streams: int = 4, mixing: str = "identity", spread: float = 0.1, outputs: int = 10
) -> HyperConnectionNet:
    """Static hyper-connections (Zhu et al. 2024, eq. 2): X ← H·X + b ⊗ F(a·X), with a = e_(block mod streams) and b = 1 as the paper starts them.

    Args:
        blocks: residual units.
        width: features of a stream.
        streams: n.
        mixing: H at the start: "identity" (the paper's), "random" (I plus N(0, spread²)) or "doubly_stochastic" (rows and columns sum to 1, as in mHC).
        spread: how far H lies from the identity where it is not; for "doubly_stochastic" the share of a random average of permutations, in [0, 1].
        outputs: logits.

    Raises:
        ValueError: an argument is outside its allowed values, which the message names.
    """
    one_of("mixing", mixing, ("identity", "random", "doubly_stochastic"))
    at_least(1, blocks=blocks, width=width, streams=streams, outputs=outputs)
    if mixing == "doubly_stochastic" and not 0 <= spread <= 1:
        raise ValueError(f"spread={spread!r} must lie in [0, 1] for doubly stochastic mixing")
    return HyperConnectionNet([StreamUnit(_mix(mixing, streams, spread), width, block) for block in range(blocks)], width, outputs)


def _mix(mixing: str, streams: int, spread: float) -> Tensor:
    identity = torch.eye(streams)
    if mixing == "identity":
        return identity
    if mixing == "random":
        return identity + spread * torch.randn(streams, streams)
    shares = torch.softmax(torch.randn(streams), 0)
    average = torch.stack([share * identity[torch.randperm(streams)] for share in shares]).sum(0)
    return (1 - spread) * identity + spread * average
