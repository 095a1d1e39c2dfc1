"""Highways keep to the stream: second skips that are added to it from farther back are rows, and neither part of a highway nor a fault by their λ."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import gradflow


class Block(nn.Module):
    """x + linear(tanh(linear(x)))."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))

    def forward(self, x):
        return x + self.branch(x)


def blocks(count):
    return nn.ModuleList(Block() for _ in range(count))


def profiled(model, x):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return gradflow.profile(model().double(), x.double())


X = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))


class FirstValueAdded(nn.Module):
    """x <- a·x + b·x0 before every block, a and b learned (modded-nanoGPT)."""

    def __init__(self, far: float = 0.0) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = nn.Linear(8, 8), blocks(4), nn.Linear(8, 3)
        self.mixes = nn.Parameter(torch.tensor([[1.0, far]] * 4))

    def forward(self, x):
        first = x = self.stem(x)
        for block, mix in zip(self.blocks, self.mixes, strict=True):
            x = block(mix[0] * x + mix[1] * first)
        return self.head(x)


class Averaged(nn.Module):
    """x <- Σ aₖ·xₖ over all values so far, a learned (DenseFormer), starting at the latest alone."""

    def __init__(self, others: float = 0.0) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = nn.Linear(8, 8), blocks(3), nn.Linear(8, 3)
        self.weights = nn.ParameterList(torch.tensor([others] * (k + 1) + [1.0]) for k in range(3))

    def forward(self, x):
        values = [self.stem(x)]
        x = values[0]
        for block, weights in zip(self.blocks, self.weights, strict=True):
            values.append(block(x))
            x = sum(w * v for w, v in zip(weights, values, strict=True))
        return self.head(x)


@pytest.mark.parametrize(
    ("network", "far", "identities", "scaled"), [(FirstValueAdded, 0.0, 4, 3), (FirstValueAdded, 0.3, 4, 3), (Averaged, 0.0, 3, 6), (Averaged, 0.1, 3, 6)]
)
def test_the_highway_goes_through_the_stream(network, far, identities, scaled):
    """One highway of all blocks with gain 1, whatever the weight of the values from farther back; no finding for it."""
    report = profiled(lambda: network(far), X)
    kinds = [skip.kind for skip in report.skips]
    assert (kinds.count("identity"), kinds.count("scaled"), len(kinds)) == (identities, scaled, identities + scaled)
    (highway,) = report.highways
    assert len(highway.skips) == identities
    assert highway.gain == pytest.approx(1, rel=1e-12)
    assert not [finding for finding in report.findings if finding.rule.startswith("GF2")]
    assert all(skip.lam == pytest.approx(float(torch.tensor(far)), abs=1e-12) and skip.highway_gain is None for skip in report.skips if skip.kind == "scaled")


class Normalised(nn.Module):
    """x <- (x + a·(F(x) − x)) / ‖·‖, a learned (nGPT)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layers, self.head = nn.Linear(8, 8), nn.ModuleList(nn.Linear(8, 8) for _ in range(3)), nn.Linear(8, 3)
        self.step = nn.Parameter(torch.tensor(0.05))

    def forward(self, x, cut=lambda t: t):
        self.first = x = self.stem(x)
        for layer in self.layers:
            self.last = (1 - self.step) * x + cut(self.step * layer(x)) if cut is torch.detach else x + self.step * (layer(x) - x)
            x = functional.normalize(self.last, dim=-1)
        return self.head(x)


def test_interpolation_by_a_parameter():
    """One carry a block with λ = 1 − a, and the highway of the net whose branches are detached."""
    torch.manual_seed(0)
    model = Normalised().double()
    report = gradflow.profile(model, X.double(), loss=lambda out: (out**2).sum())
    assert [skip.kind for skip in report.skips] == ["scaled"] * 3
    assert [skip.lam for skip in report.skips] == pytest.approx([1 - model.step.item()] * 3, rel=1e-12)
    out = model(X.double(), torch.detach)
    g, h = torch.autograd.grad((out**2).sum(), [model.last, model.first])
    assert report.highways[0].gain == pytest.approx(float(h.norm() / g.norm()), rel=1e-12)


class Pooling(nn.Module):
    """x + γ·(pool(x) − x), γ learned (PoolFormer): the difference is the block's branch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.scale, self.head = nn.Conv2d(2, 4, 1), nn.Parameter(torch.full((4, 1, 1), 0.1)), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.scale * (functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False) - x))


def test_difference_to_a_pool_is_a_branch():
    """One identity, as the architecture's authors draw it."""
    report = profiled(Pooling, torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(0)))
    assert [(skip.kind, skip.lam) for skip in report.skips] == [("identity", 1.0)]


def test_stacked_recurrent_layers_are_two_highways():
    """The last step of one layer is not the first of the next: each layer's carry is a highway of its own, and neither is 0."""
    report = profiled(lambda: nn.LSTM(8, 8, num_layers=2), torch.randn(6, 3, 8, generator=torch.Generator().manual_seed(0)))
    assert [(len(highway.skips), len(set(highway.skips))) for highway in report.highways] == [(5, 1), (5, 1)]
    assert all(highway.gain > 0 for highway in report.highways)


class Penalised(nn.Module):
    """A critic with a gradient penalty (WGAN-GP): the backward of layer norms is on the tape, whose other outputs get no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norms, self.blocks, self.head = nn.Linear(8, 8), nn.ModuleList(nn.LayerNorm(8) for _ in range(3)), blocks(3), nn.Linear(8, 1)

    def critic(self, x):
        x = self.stem(x)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + block.branch(norm(x))
        return self.head(x)

    def forward(self, x):
        x = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(x).sum(), x, create_graph=True)
        return ((slope.norm(dim=1) - 1) ** 2).mean() + self.critic(x).mean()


def test_gradient_penalty_through_norms():
    """It is profiled, its ledger closes, and every skip of the forward is an identity."""
    report = profiled(Penalised, X)
    assert len(report.skips) >= 3
    assert {skip.kind for skip in report.skips} == {"identity"}
    assert max(skip.ledger_error for skip in report.skips) < 1e-9
    assert not report.run.notes
