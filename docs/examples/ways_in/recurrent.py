"""Recurrent networks: torch's own over a whole sequence, and a cell called for each step."""

import torch
from torch import Tensor, nn


class Recurrent(nn.Module):
    def __init__(self, kind: str = "LSTM", bidirectional: bool = False) -> None:
        super().__init__()
        self.stem = nn.Linear(8, 8)
        self.cells = getattr(nn, kind)(8, 8, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(16 if bidirectional else 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(self.stem(x))[0][:, -1])


class Unrolled(nn.Module):
    """A cell, called once for each of the steps."""

    def __init__(self, kind: str = "LSTMCell") -> None:
        super().__init__()
        self.stem, self.cell, self.head = nn.Linear(8, 8), getattr(nn, kind)(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in self.stem(x).unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class ByHand(nn.Module):
    """A gated cell, written out: h ← (1 − z) · h + z · tanh(U x + V h)."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.new, self.head = nn.Linear(16, 8), nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros_like(x[:, 0])
        for step in x.unbind(1):
            z = self.gate(torch.cat([step, h], -1)).sigmoid()
            h = (1 - z) * h + z * self.new(torch.cat([step, h], -1)).tanh()
        return self.head(h)
