"""Inputs inferred from the first weighted layer."""

import pytest
import torch
from torch import nn

from gradflow.errors import NoInput, UninitializedModel
from gradflow.subject import Loaded, choose_batch


class Tokens(nn.Module):
    """Positional table first, and short: neither its ids nor a longer sequence would do."""

    def __init__(self):
        super().__init__()
        self.pos_emb = nn.Embedding(6, 4)
        self.tok_emb = nn.Embedding(50, 4)

    def forward(self, ids):
        return self.tok_emb(ids) + self.pos_emb(torch.arange(ids.shape[1]))


class OnlyKeyword(nn.Linear):
    def forward(self, *, x):
        return super().forward(x)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Linear(4, 4)

    def forward(self, x):
        return torch.softmax(self.query(x) @ x.mT, -1) @ x


class NoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self):
        return self.weight * 2


def batch_of(model):
    return choose_batch(Loaded(spec="m", model=model, family="given"), seed=0, device="cpu", dtype=None)


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        (nn.Linear(5, 2), [(4, 5)]),
        (nn.Sequential(nn.Flatten(), nn.Linear(5, 2)), [(4, 5)]),
        (nn.Conv1d(3, 4, 3), [(4, 3, 64)]),
        (nn.Conv2d(3, 4, 3), [(4, 3, 64, 64)]),
        (nn.Conv3d(3, 4, 3), [(2, 3, 8, 32, 32)]),
        (nn.ConvTranspose2d(3, 4, 3), [(4, 3, 16, 16)]),
        (nn.Embedding(9, 4), [(4, 16)]),
        (nn.EmbeddingBag(9, 4), [(4, 16)]),
        (nn.LSTM(3, 4), [(16, 4, 3)]),
        (nn.GRU(3, 4, batch_first=True), [(4, 16, 3)]),
        (nn.LSTMCell(3, 4), [(4, 3)]),
        (nn.BatchNorm2d(3), [(4, 3, 64, 64)]),
        (nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 2)), [(4, 16, 6)]),
        (nn.MultiheadAttention(8, 2), [(16, 4, 8)] * 3),
        (nn.MultiheadAttention(8, 2, kdim=3, vdim=5, batch_first=True), [(4, 16, 8), (4, 16, 3), (4, 16, 5)]),
        (nn.TransformerEncoderLayer(8, 2, 8, batch_first=True), [(4, 16, 8)]),
        (nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8), 1), [(16, 4, 8)]),
        (nn.TransformerDecoderLayer(8, 2, 8), [(16, 4, 8)] * 2),
        (nn.Transformer(8, 2, 1, 1, 8, batch_first=True), [(4, 16, 8)] * 2),
        (Tokens(), [(4, 6)]),
        (OnlyKeyword(3, 2), [(4, 3)]),
        (nn.Sequential(Attention()), [(4, 16, 4)]),
        (NoInputs(), []),
        (nn.ParameterList([nn.Parameter(torch.ones(1))]), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_model_runs_on_what_its_first_layer_tells(model, shapes):
    """The inferred batch passes through the model; a model without a telling layer says so."""
    if shapes is None:
        with pytest.raises(NoInput):
            batch_of(model)
        return
    batch = batch_of(model)
    assert [record.shape for record in batch.records] == shapes
    model(*batch.args, **batch.kwargs)


def test_source_names_the_layer():
    """The record says what was guessed, from what, and how it was drawn."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU()
            self.fc1 = nn.Linear(3, 2)

        def forward(self, x):
            return self.fc1(self.act(x))

    record = batch_of(Net()).records[0]
    assert record.name == "x"
    assert record.source == "inferred from the first weighted layer (fc1: Linear), drawn at random with seed 0"


def test_model_with_several_required_inputs():
    """What forward needs beyond one input is not guessed, but named."""
    with pytest.raises(NoInput, match=r"its forward needs input1, input2.\nGive --input input1=SHAPE --input input2=SHAPE \(a SHAPE is 8x32"):
        batch_of(nn.Bilinear(2, 2, 2))


def test_lazy_model():
    """A lazy module cannot tell its width yet."""
    with pytest.raises(UninitializedModel):
        batch_of(nn.Sequential(nn.LazyLinear(2)))


def test_half_precision_model():
    """The dtype is that of the parameters."""
    assert batch_of(nn.Linear(2, 2).bfloat16()).records[0].dtype == "bfloat16"
