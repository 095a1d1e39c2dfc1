"""Parallel residual streams mixed by a matrix: found as `streams`, and measured as torch.autograd.grad measures them."""

import importlib

import pytest
import torch
from nets import Net, built, linear_loss, profiled, randn
from torch import nn

from gradflow import zoo

MIXINGS = ["identity", "random", "doubly_stochastic"]
X = randn(5, 16)


def static(mixing, blocks=3, streams=4):
    return lambda: zoo.hyper_connection_net(blocks, 16, streams=streams, mixing=mixing, spread=0.3)


def states_of(model, x):
    """The streams before each block and after the last, on the tape."""
    states = [x[:, None].expand(-1, model.streams, -1).clone().requires_grad_()]
    for block in model.blocks:
        states.append(block(states[-1]))
    return states, linear_loss(model.head(states[-1].sum(1)))


@pytest.mark.parametrize("mixing", MIXINGS)
class TestStaticMatrix:
    """X ← H·X + b ⊗ F(a·X) of the zoo."""

    def test_one_row_of_each_block(self, mixing):
        """Named by its block, around its two layers and the vector that reads the streams."""
        _, report = profiled(static(mixing), X)
        expected = [(f"blocks.{i}", "streams", "add", 3) for i in range(3)]
        assert [(skip.name, skip.kind, skip.form, skip.bypassed_layers) for skip in report.skips] == expected

    def test_numbers(self, mixing):
        """s = Hᵀg by hand: γ, the least-squares λ and its misfit; t by autograd, and f is the rest of it (in float64)."""
        model, report = profiled(static(mixing), X)
        states, loss = states_of(model, X)
        gradients = torch.autograd.grad(loss, states)
        for skip, block, t, g in zip(report.skips, model.blocks, gradients[:-1], gradients[1:], strict=True):
            s = block.mix.detach().T @ g
            lam = float((s * g).sum() / (g * g).sum())
            assert skip.gain == pytest.approx(float(s.norm() / g.norm()), rel=1e-9)
            assert skip.lam == pytest.approx(lam, rel=1e-9)
            assert skip.misfit == pytest.approx(float((s - lam * g).norm() / s.norm()), rel=1e-9, abs=1e-7)
            assert skip.total_gain == pytest.approx(float(t.norm() / g.norm()), rel=1e-9)
            assert skip.branch_gain == pytest.approx(float((t - s).norm() / g.norm()), rel=1e-9)
            assert skip.ledger_error < 1e-12

    def test_highway(self, mixing):
        """Its gain is the gradient of the network whose branches are detached."""
        model, report = profiled(static(mixing), X)
        (highway,) = report.highways
        assert highway.skips == tuple(skip.id for skip in report.skips)
        with zoo.cut_branches(model):
            states, loss = states_of(model, X)
            gradients = torch.autograd.grad(loss, states)
        top = gradients[-1].norm()
        for skip, h in zip(report.skips, gradients[:-1], strict=True):
            assert skip.highway_gain == pytest.approx(float(h.norm() / top), rel=1e-12)
        assert highway.gain == pytest.approx(float(gradients[0].norm() / top), rel=1e-12)


def test_identity_is_one():
    """H = I is λ = 1 and no misfit; a doubly stochastic H never gains."""
    for skip in profiled(static("identity"), X)[1].skips:
        assert (skip.lam, skip.misfit, skip.gain) == (1.0, 0.0, pytest.approx(1, rel=1e-15))
    for skip in profiled(static("doubly_stochastic"), X)[1].skips:
        assert 0 < skip.lam < 1
        assert skip.gain <= 1 + 1e-12


@pytest.mark.parametrize("streams", [2, 3, 8])
def test_number_of_streams(streams):
    """As many as the papers use."""
    _, report = profiled(static("random", streams=streams), X)
    assert [skip.kind for skip in report.skips] == ["streams"] * 3


class DynamicConnections(nn.Module):
    """Dynamic hyper-connections (Zhu et al. 2024, eq. 10 to 13) over [batch, streams, width]: the matrix is [streams, 1 + streams], I plus what tanh makes of
    the normed streams. Its first column is what the branch reads, the others mix."""

    def __init__(self, streams, width, product):
        super().__init__()
        self.product, self.norm = product, nn.LayerNorm(width)
        self.static = nn.Parameter(torch.cat([torch.eye(streams)[:, :1], torch.eye(streams)], 1))
        self.alpha, self.beta = nn.Linear(width, 1 + streams, bias=False), nn.Linear(width, 1, bias=False)
        self.branch = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def matrix(self, x):
        return self.static + 0.3 * torch.tanh(self.alpha(self.norm(x)))

    def mixed(self, matrix, x):
        if self.product == "einsum":
            return torch.einsum("bst,bsd->btd", matrix, x)
        return torch.bmm(matrix.transpose(1, 2), x) if self.product == "bmm" else matrix.transpose(-1, -2) @ x

    def forward(self, x):
        mixed = self.mixed(self.matrix(x), x)
        write = 1 + torch.tanh(self.beta(self.norm(x)))
        return mixed[:, 1:] + write * self.branch(mixed[:, 0])[:, None]


def dynamic(product, blocks=3):
    def forward(m, x):
        x = m.stem(x)[:, None].expand(-1, 4, -1)
        for block in m.blocks:
            x = block(x)
        return m.head(x.sum(1))

    def build():
        units = nn.ModuleList(DynamicConnections(4, 16, product) for _ in range(blocks))
        return Net(forward, stem=nn.Linear(16, 16), blocks=units, head=nn.Linear(16, 2))

    return build


@pytest.mark.parametrize("product", ["einsum", "bmm", "matmul"])
class TestDynamicMatrix:
    """The matrix is computed from the streams themselves."""

    def test_one_row_of_each_block(self, product):
        """The branch reads a column of the same mixture, so that f cannot be told from s; γ is defined and the ledger closes."""
        _, report = profiled(dynamic(product), X)
        assert [(skip.name, skip.kind) for skip in report.skips] == [(f"blocks.{i}", "streams") for i in range(3)]
        for skip in report.skips:
            assert (skip.branch_gain, skip.cos_skip_branch) == (None, None)
            assert "mixture of streams" in skip.undefined["branch_gain"]
            assert "mixture of streams" in skip.undefined["cos_skip_branch"]
            assert skip.ledger_error < 1e-9

    def test_gain(self, product):
        """s = Mᵀg with the matrix frozen, the branch's column left out."""
        model, report = profiled(dynamic(product), X)
        x = model.stem(X)[:, None].expand(-1, 4, -1)
        states = [x]
        for block in model.blocks:
            states.append(block(states[-1]))
        loss = linear_loss(model.head(states[-1].sum(1)))
        gradients = torch.autograd.grad(loss, states)
        for skip, block, x, t, g in zip(report.skips, model.blocks, states[:-1], gradients[:-1], gradients[1:], strict=True):
            s = block.matrix(x).detach()[:, :, 1:] @ g
            assert skip.gain == pytest.approx(float(s.norm() / g.norm()), rel=1e-9)
            assert skip.total_gain == pytest.approx(float(t.norm() / g.norm()), rel=1e-9)


class Connected(nn.Module):
    """Blocks of a norm and an MLP, joined by the reference implementation of one of the variants."""

    def __init__(self, file, blocks=3, streams=4):
        super().__init__()
        package = pytest.importorskip("hyper_connections")
        connect, self.expand, self.reduce = importlib.import_module(f"{package.__name__}.{file}").get_init_and_expand_reduce_stream_functions(streams)
        branches = (nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)) for _ in range(blocks))
        self.blocks = nn.ModuleList(connect(dim=16, branch=branch, layer_index=i) for i, branch in enumerate(branches))

    def forward(self, x):
        x = self.expand(x)
        for block in self.blocks:
            x = block(x)
        return self.reduce(x)


@pytest.mark.parametrize("file", ["hyper_connections", "manifold_constrained_hyper_connections", "mHCv2"])
def test_reference_implementation(file):
    """HyperConnections, ManifoldConstrainedHyperConnections and mHCv2: a row of each block, γ measured, f undefined with its reason."""

    def build():
        model = Connected(file)
        with torch.no_grad():
            for parameter in model.parameters():  # away from the start, where the matrices are the identity and dynamic parts are zero
                parameter.add_(0.1 * torch.randn_like(parameter))
        return model

    _, report = profiled(build, randn(2, 6, 16))
    assert [skip.kind for skip in report.skips] == ["streams"] * 3
    for skip in report.skips:
        assert skip.gain > 0
        assert (skip.branch_gain, skip.cos_skip_branch) == (None, None)
        assert "mixture of streams" in skip.undefined["branch_gain"]
        assert skip.ledger_error < 1e-9


def test_one_stream_is_a_residual_network():
    """With one stream the reference implementation adds: an identity of each block."""
    pytest.importorskip("hyper_connections")
    _, report = profiled(lambda: Connected("hyper_connections", streams=1), randn(2, 6, 16))
    assert [(skip.kind, skip.lam) for skip in report.skips] == [("identity", 1.0)] * 3


def test_more_than_eight_are_features():
    """A square matrix over many is taken for a layer: a projection."""
    model = built(static("random", streams=9))
    assert model.streams == 9
    assert {skip.kind for skip in profiled(static("random", streams=9), X)[1].skips} == {"projection"}
