"""How much of a batch's gradient one sample carries, against gradients that autograd gives sample by sample."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import gradflow


def shares(report):
    return {share.where: share for share in report.run.sample_shares}


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)).double()


def entropy(target):
    return lambda output: F.cross_entropy(output, target)


def weight_gradients(model, x, target, weight):
    """‖∇W‖² of each sample's part of the mean loss, [samples]."""
    losses = F.cross_entropy(model(x), target, reduction="none") / len(x)
    return torch.stack([torch.autograd.grad(loss, weight, retain_graph=True)[0].square().sum() for loss in losses])


@pytest.mark.parametrize("poison", [1.0, 30.0, 1e4])
def test_the_first_layer(poison):
    """For a linear layer on vectors it is the sample's share of the squared weight gradients, exactly, and the index is that sample's."""
    model, x, target = net(), torch.randn(8, 6, dtype=torch.float64), torch.arange(8) % 3
    x[5] *= poison
    squares = weight_gradients(model, x, target, model[0].weight)
    share = shares(gradflow.profile(model, x, loss=entropy(target)))["0"]
    assert share.largest == pytest.approx(float(squares.max() / squares.sum()), rel=1e-9)
    assert (share.sample, share.batch, share.samples) == (int(squares.argmax()), 0, 8)


def test_the_output():
    """max ‖gᵢ‖²/Σ‖gᵢ‖² of the gradient at the model's output."""
    model, x, target = net(), torch.randn(8, 6, dtype=torch.float64), torch.zeros(8, dtype=torch.long)
    output = model(x)
    squares = torch.autograd.grad(F.mse_loss(output, torch.eye(8, 3, dtype=torch.float64) * 100, reduction="sum"), output)[0].square().sum(1)
    report = gradflow.profile(model, x, loss=lambda out: F.mse_loss(out, torch.eye(8, 3, dtype=torch.float64) * 100, reduction="sum"))
    assert shares(report)["output"].largest == pytest.approx(float(squares.max() / squares.sum()), rel=1e-9)
    assert target.sum() == 0 and shares(report)["output"].sample == int(squares.argmax())


def test_a_convolution():
    """‖gᵢ‖²‖xᵢ‖², with the gradient at its output that autograd gives; it bounds the sample's part of the weight gradient (Cauchy-Schwarz)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 36, 3)).double()
    x = torch.randn(5, 2, 6, 6, dtype=torch.float64)
    x[1] *= 50
    hidden = model[0](x)
    grad = torch.autograd.grad(model[1:](hidden).square().sum(), hidden)[0]
    weights = grad.square().sum((1, 2, 3)) * x.square().sum((1, 2, 3))
    share = shares(gradflow.profile(model, x, loss=lambda out: out.square().sum()))["0"]
    assert share.largest == pytest.approx(float(weights.max() / weights.sum()), rel=1e-9) and share.sample == 1


def test_tokens():
    """A layer on [batch, tokens, width] is weighed sample by sample though the tape flattens both; an embedding by its gradient alone."""
    torch.manual_seed(0)
    linear, table = nn.Sequential(nn.Linear(4, 4)).double(), nn.Sequential(nn.Embedding(9, 4)).double()
    x, ids = torch.randn(3, 7, 4, dtype=torch.float64), torch.randint(0, 9, (3, 7))
    factor = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)[:, None, None]
    at = shares(gradflow.profile(linear, x, loss=lambda out: (out * factor).sum()))["0"]
    weights = 16 ** torch.arange(3).div(2) * 28 * x.square().sum((1, 2))
    assert at.largest == pytest.approx(float(weights.max() / weights.sum()), rel=1e-9)
    looked_up = shares(gradflow.profile(table, ids, loss=lambda out: (out * factor).sum()))["0"]
    assert looked_up.largest == pytest.approx(16 / 21, rel=1e-9) and looked_up.sample == 2


def test_the_samples_of_several_batches():
    """They are weighed against one another, and the batch of the largest is told."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).double()
    batches = [torch.randn(4, 6, dtype=torch.float64) for _ in range(3)]
    batches[1][2] *= 1e3
    again = iter(batches)
    share = shares(gradflow.profile(model, lambda: next(again), batches=3, loss=lambda out: out.square().sum()))["0"]
    assert (share.samples, share.batch, share.sample) == (12, 1, 2)


@pytest.mark.parametrize("samples", [4, 8, 64])
@pytest.mark.parametrize("squared", [False, True], ids=["cross_entropy", "mse"])
def test_one_poisoned_sample(samples, squared):
    """A sample 10⁴ times the others is a warning that names it, in batches of 4 to 64, under a loss that saturates too; without it there is none."""

    def loss(output):
        wrong = output.detach().argmin(dim=1)
        return output.square().mean() if squared else F.cross_entropy(output, wrong)

    torch.manual_seed(samples)
    model, x = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)), torch.randn(samples, 6)
    assert "GF112" not in {f.rule for f in gradflow.profile(model, x, loss=loss).findings}
    x[3] *= 1e4
    (finding,) = (f for f in gradflow.profile(model, x, loss=loss).findings if f.rule == "GF112")
    assert finding.severity == "warning" and "Sample 3 carries" in finding.message


def test_no_batch_dimension():
    """One sample, or an output that has lost the batch: no share, and the reason."""
    one = shares(gradflow.profile(net(), torch.randn(1, 6, dtype=torch.float64)))
    assert one["output"].largest is None and "one sample" in one["output"].undefined["largest"]

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)

        def forward(self, x):
            return self.b(self.a(x).mean(dim=0))

    lost = shares(gradflow.profile(Pooled(), torch.randn(8, 6)))
    assert lost["output"].largest is None


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**20])
def test_a_scaled_loss(scale):
    """The shares do not depend on the scale of the loss."""
    model, x = net(), torch.randn(8, 6, dtype=torch.float64)
    plain, scaled = (shares(gradflow.profile(model, x, loss=lambda out, s=s: s * out.square().sum())) for s in (1.0, scale))
    assert {w: s.largest for w, s in plain.items()} == pytest.approx({w: s.largest for w, s in scaled.items()}, rel=1e-12)


class Rearranged(nn.Module):
    """A layer on a rearrangement of [samples, 4, 6, features], undone behind it."""

    def __init__(self, rearrange, width=3):
        super().__init__()
        self.layer, self.rearrange = nn.Linear(width, 4), rearrange

    def forward(self, x):
        places = torch.arange(x[..., 0].numel()).reshape(x.shape[:-1])
        there = self.rearrange(places.unsqueeze(-1)).flatten()
        return self.layer(self.rearrange(x)).reshape(-1, 4)[there.argsort()].reshape(*x.shape[:-1], 4)


REARRANGEMENTS = {
    "as it is": lambda x: x,
    "merged": lambda x: x.reshape(-1, x.shape[-1]),
    "time outermost": lambda x: x.transpose(0, 1),
    "time outermost and merged": lambda x: x.permute(1, 2, 0, 3).reshape(-1, x.shape[-1]),
    "heads merged into the batch": lambda x: x.transpose(1, 2).reshape(-1, 4, x.shape[-1]),
    "windows of 2 by 3": lambda x: x.reshape(-1, 2, 2, 2, 3, x.shape[-1]).transpose(2, 3).reshape(-1, 6, x.shape[-1]),
    "rolled": lambda x: x.roll(3, dims=0),
    "scaled, then merged": lambda x: (x * 1).transpose(0, 2).flatten(0, 2),
}


@pytest.mark.parametrize("samples", [4, 6, 7])
@pytest.mark.parametrize("name", REARRANGEMENTS)
def test_rearranged_rows(name, samples):
    """The share is that of the sample wherever its rows stand, also where another dimension has the batch's size."""
    torch.manual_seed(0)
    model, x = Rearranged(REARRANGEMENTS[name]).double(), torch.randn(samples, 4, 6, 3, dtype=torch.float64)
    factor = torch.linspace(1, 2, samples, dtype=torch.float64).reshape(-1, 1, 1, 1)
    weights = factor.flatten().square() * x.square().sum((1, 2, 3))
    share = shares(gradflow.profile(model, x, loss=lambda out: (out * factor).sum()))["layer"]
    assert share.largest == pytest.approx(float(weights.max() / weights.sum()), rel=1e-9) and share.sample == int(weights.argmax())


class Moved(nn.Module):
    """The sum of squares of a layer on [samples, a, b, c] with its dimensions in another order and the first `cut` of them merged into rows."""

    def __init__(self, order, cut, sizes):
        super().__init__()
        self.order, self.cut = order, cut
        self.layer = nn.Linear(math.prod(sizes[d] for d in order[cut:]), 3)

    def forward(self, x):
        return self.layer(x.permute(self.order).reshape(math.prod(x.shape[d] for d in self.order[: self.cut]), -1)).square().sum()


@settings(max_examples=80, deadline=None)
@given(order=st.permutations(range(4)), cut=st.integers(1, 4), sizes=st.tuples(*[st.integers(2, 5)] * 4), outlier=st.integers(0, 4))
def test_a_poisoned_sample_in_any_layout(order, cut, sizes, outlier):
    """It is found among the rows, and where the rows are not of one sample each nothing is said."""
    x = torch.randn(*sizes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    outlier %= sizes[0]
    x[outlier] *= 1e6
    share = shares(gradflow.profile(Moved(order, cut, sizes).double(), x))["layer"]
    if order.index(0) < cut:
        assert share.sample == outlier and share.largest > 0.999
    else:
        assert share.largest is None and "not certain" in share.undefined["largest"]


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("steps", [5, 9])
def test_a_recurrent_layer_that_runs_time_major(kind, steps):
    """`batch_first` is turned into time-major rows inside; of 9 steps and 9 samples the samples are told from the steps."""
    torch.manual_seed(0)
    model = Last(kind(3, 8, batch_first=True)).double()
    x = torch.randn(9, steps, 3, dtype=torch.float64)
    factor = torch.ones(9, 1, dtype=torch.float64)
    factor[6] = 1e4
    report = gradflow.profile(model, x, loss=lambda out: (out * factor).square().sum())
    share = shares(report)["layer"]
    assert share.sample == 6 and share.largest > 0.999


class Last(nn.Module):
    """The last step of a recurrent layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0][:, -1]


def test_a_cell_in_a_loop():
    """Every call counts: Σ over the steps of ‖gᵢₜ‖²‖xᵢₜ‖², as autograd gives it for the cell's projection of its input."""
    torch.manual_seed(0)
    model, x = Looped().double(), torch.randn(6, 5, 3, dtype=torch.float64)
    share = shares(gradflow.profile(model, x, loss=lambda out: out.square().sum()))["into"]
    model.kept = []
    out = model(x)
    grads = torch.autograd.grad(out.square().sum(), model.kept)
    weights = sum(g.square().sum(1) * x[:, t].square().sum(1) for t, g in enumerate(grads))
    assert share.largest == pytest.approx(float(weights.max() / weights.sum()), rel=1e-9) and share.sample == int(weights.argmax())


class Looped(nn.Module):
    def __init__(self):
        super().__init__()
        self.into, self.within, self.kept = nn.Linear(3, 8), nn.Linear(8, 8), []

    def forward(self, x):
        h = x.new_zeros(len(x), 8)
        self.kept = []
        for t in range(x.shape[1]):
            self.kept.append(self.into(x[:, t]))
            h = torch.tanh(self.kept[-1] + self.within(h))
        return h


class Tokens(nn.Module):
    """An embedding of ids in another order; its output has the samples outermost again."""

    def __init__(self, turned):
        super().__init__()
        self.table, self.turned = nn.Embedding(9, 4), turned

    def forward(self, ids):
        return self.table(self.turned(ids)).reshape(ids.shape[1], ids.shape[0], 4).transpose(0, 1)


@pytest.mark.parametrize("steps", [3, 7])
def test_tokens_time_major(steps):
    """Ids that are a transposed view of the input are weighed by sample; of a copy it is not certain, and said so."""
    torch.manual_seed(0)
    ids = torch.randint(0, 9, (3, steps))
    factor = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)[:, None, None]
    view, merged, copy = (
        shares(gradflow.profile(Tokens(turned).double(), ids, loss=lambda out: (out * factor).sum()))["table"]
        for turned in (lambda t: t.t(), lambda t: t.t().unflatten(0, (steps, 1)).flatten(0, 1), lambda t: t.t().contiguous())
    )
    for share in (view, merged):
        assert share.largest == pytest.approx(16 / 21, rel=1e-9) and share.sample == 2
    assert copy.largest is None and "not certain" in copy.undefined["largest"]


class Summed(nn.Module):
    """Rows that are sums over the samples, or each sample repeated across the rows."""

    def __init__(self, mix):
        super().__init__()
        self.layer, self.mix = nn.Linear(3, 3), mix

    def forward(self, x):
        return self.layer(self.mix(x)).square().sum()


@pytest.mark.parametrize("mix", [lambda x: x.cumsum(0).repeat(2, 1), lambda x: x.expand(4, 6, 3).transpose(0, 1).reshape(-1, 3)], ids=["cumsum", "repeated"])
def test_rows_of_no_one_sample(mix):
    """Where it is not certain there is no share."""
    share = shares(gradflow.profile(Summed(mix), torch.randn(6, 3)))["layer"]
    assert share.largest is None and "not certain" in share.undefined["largest"]


class Steps(nn.Module):
    """A layer that is time-major by default, given its input as it is or turned."""

    def __init__(self, layer, *, turn):
        super().__init__()
        self.layer, self.turn = layer, turn

    def forward(self, x):
        x = x.transpose(0, 1) if self.turn else x
        y = self.layer(x, x, x)[0] if isinstance(self.layer, nn.MultiheadAttention) else self.layer(x)[0]
        return y.transpose(0, 1) if self.turn else y


@pytest.mark.parametrize("layer", [lambda: nn.RNN(4, 4), lambda: nn.GRU(4, 4), lambda: nn.MultiheadAttention(4, 2)], ids=["RNN", "GRU", "attention"])
@pytest.mark.parametrize(("shape", "turn", "known"), [((5, 7, 4), False, False), ((6, 6, 4), False, False), ((6, 6, 4), True, False), ((5, 7, 4), True, True)])
def test_steps_are_no_samples(layer, shape, turn, known):
    """Where a time-major layer's leading dimension may be the input's own, nothing is said of samples; where the model turns its input, everything is."""
    torch.manual_seed(0)
    factor = torch.ones(shape[0], 1, 1)
    factor[3] = 1e3
    share = shares(gradflow.profile(Steps(layer(), turn=turn), torch.randn(shape), loss=lambda out: (out * factor).square().sum()))["output"]
    assert (share.sample, share.largest is not None) == ((3, True) if known else (None, False))
