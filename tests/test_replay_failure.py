"""Where a node of the tape cannot be called by hand, the report says so, and nothing is blamed on the model."""

import torch
from torch import nn

import gradflow
from gradflow import highway


class Projecting(nn.Module):
    """relu(conv(x) + F(x)): its trunk is replayed through a ReLU, its skips are read at the forks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)) for _ in range(2))

    def forward(self, x):
        for block in self.blocks:
            x = torch.relu(x + block(x))
        return x


def test_a_node_that_cannot_be_called(monkeypatch):
    """The skips keep their λ, the highway is missing, a note names the operator, and the model is not called sick for it."""
    called = highway.call

    def call(node, grads, positions):
        if node.name().startswith("Relu"):
            raise RuntimeError("no such way in")
        return called(node, grads, positions)

    monkeypatch.setattr(highway, "call", call)
    torch.manual_seed(0)
    report = gradflow.profile(Projecting(), torch.randn(4, 8))
    assert any("could not replay ReluBackward0: no such way in" in note for note in report.run.notes)
    assert [skip.lam for skip in report.skips] == [1.0, 1.0]
    first = report.skips[0]
    assert first.highway_gain is None and first.undefined["highway_gain"]
    assert report.highways == ()
    assert report.verdict != "sick"
