"""What looks like a skip and is none, and beside each the skip that looks almost the same."""

import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

sys.path.append(str(Path(__file__).parent / "residual"))
from nets import Net, kinds, profiled, randn, rows

STEPS = randn(3, 5, 4)  # [batch, steps, features]
IMAGE = randn(2, 8, 6, 6)
X = randn(3, 8)


class TestCollectedOutputs:
    """What a loop makes, gathered at its end."""

    @pytest.mark.parametrize(
        "collect",
        [
            lambda outputs: torch.cat(outputs, 1),
            lambda outputs: torch.stack(outputs, 1).mean(1),
            lambda outputs: torch.stack(outputs, 0).sum(0),
            lambda outputs: sum(outputs),
        ],
        ids=["cat", "stack and mean", "stack and sum", "sum"],
    )
    @pytest.mark.parametrize("steps", [3, 12], ids=["few", "many"])
    def test_states_of_a_plain_recurrence(self, collect, steps):
        """Each state is computed from the one before by the same layer: nothing is bypassed."""

        def forward(m, x):
            h, outputs = torch.tanh(m.first(x)), []
            for _ in range(steps):
                h = torch.tanh(m.layer(h))
                outputs.append(h)
            return collect(outputs)

        assert kinds(lambda: Net(forward, first=nn.Linear(8, 8), layer=nn.Linear(8, 8)), X) == []

    @pytest.mark.parametrize("collect", [lambda outputs: torch.cat(outputs, 1), lambda outputs: torch.stack(outputs, 1).mean(1)], ids=["cat", "mean"])
    def test_hidden_states_of_a_cell(self, collect):
        """The cell's carry is the only row."""

        def forward(m, x):
            h, outputs = x.new_zeros(len(x), 4), []
            for step in x.unbind(1):
                h = m.cell(step, h)
                outputs.append(h)
            return collect(outputs)

        assert rows(lambda: Net(forward, cell=nn.GRUCell(4, 4)), STEPS) == [("gated", 4)]

    @pytest.mark.parametrize("layers", [3, 11], ids=["few", "many"])
    def test_dense_block_of_functional_layers(self, layers):
        """The same loop over other weights is a dense block: its concatenation of k features, each computed from the last, has k − 1 rows."""

        def forward(m, x):
            features = [x]
            for weight in m.weights:
                features.append(torch.relu(functional.conv2d(features[-1], weight, padding=1)))
            return m.last(torch.cat(features, 1))

        def build():
            weights = nn.ParameterList(torch.randn(8, 8, 3, 3) / 8 for _ in range(layers))
            return Net(forward, weights=weights, last=nn.Conv2d(8 * layers + 8, 2, 1))

        assert kinds(build, IMAGE) == ["concat"] * layers

    def test_dense_net_of_functional_layers(self):
        """DenseNet itself: layer i reads a concatenation of i features (i − 1 rows), and the last one holds all (one less than it has)."""

        def forward(m, x):
            features = [x]
            for weight in m.weights:
                features.append(torch.relu(functional.conv2d(torch.cat(features, 1), weight, padding=1)))
            return m.last(torch.cat(features, 1))

        def build():
            weights = nn.ParameterList(torch.randn(4, 8 + 4 * i, 3, 3) / 8 for i in range(4))
            return Net(forward, weights=weights, last=nn.Conv2d(24, 2, 1))

        assert kinds(build, IMAGE) == ["concat"] * (0 + 1 + 2 + 3 + 4)


def packed(x):
    """The steps as packed sequences hold them: [steps · batch, features], one after the other."""
    data = x.transpose(0, 1).reshape(-1, x.shape[-1])
    return [data.narrow(0, t * len(x), len(x)) for t in range(x.shape[1])]


TAKING = {
    "select": lambda x: [x[:, t] for t in range(x.shape[1])],
    "unbind": lambda x: list(x.unbind(1)),
    "one of the second dimension": lambda x: [x[:, t : t + 1].flatten(1) for t in range(x.shape[1])],
    "split": lambda x: [part.squeeze(1) for part in x.split(1, 1)],
    "packed": packed,
}


class TestStepsOfOneInput:
    """Time steps come from one tensor and are no ways around one another."""

    @pytest.mark.parametrize("take", TAKING.values(), ids=TAKING)
    @pytest.mark.parametrize("join", [lambda m, x, h: torch.cat([x, h], 1), lambda m, x, h: x + m.u(h)], ids=["cat", "sum"])
    def test_step_beside_the_state(self, take, join):
        """`cat([x_t, h])` and `x_t + U·h`, whether x is the input or what an embedding made."""

        def forward(m, x):
            x = torch.tanh(m.embed(x))
            h = x.new_zeros(len(x), 4)
            for step in take(x):
                h = torch.tanh(m.w(join(m, step, h)))
            return h

        def build(width):
            return Net(forward, embed=nn.Linear(4, 4), w=nn.Linear(width, 4), u=nn.Linear(4, 4))

        width = join(build(4).double(), randn(3, 4), randn(3, 4)).shape[1]
        assert kinds(lambda: build(width), STEPS) == []

    @pytest.mark.parametrize("take", [lambda m, x: x.split(4, 1), lambda m, x: x.chunk(2, 1), lambda m, x: (x[:, :4], x[:, 4:])], ids=["split", "chunk", "slices"])
    def test_part_of_the_channels_beside_what_the_other_part_became(self, take):
        """Channels that are passed on bypass the layer: one concatenation. One edge leaves a split, so f cannot be told from s, and the row says so."""

        def forward(m, x):
            a, b = take(m, torch.relu(m.stem(x)))
            return m.head(torch.cat([a, torch.relu(m.f(b))], 1))

        def build():
            return Net(forward, stem=nn.Conv2d(8, 8, 1), f=nn.Conv2d(4, 4, 3, padding=1), head=nn.Conv2d(8, 2, 1))

        (skip,) = profiled(build, IMAGE)[1].skips
        assert (skip.form, skip.kind, skip.bypassed_layers) == ("concat", "concat", 1)
        assert 0 < skip.gain < 1
        assert skip.ledger_error < 1e-9
        if take(None, IMAGE)[0].grad_fn is None:
            pass

    def test_class_token_beside_the_rest(self):
        """The class token is sliced off, the patches are pooled by a convolution, and both are put together again (MViT): no position is bypassed."""

        def forward(m, x):
            x = m.embed(x)
            token, patches = x[:, :1], x[:, 1:]
            return m.head(torch.cat([token, m.pool(patches.transpose(1, 2)).transpose(1, 2)], 1))

        assert kinds(lambda: Net(forward, embed=nn.Linear(4, 4), pool=nn.Conv1d(4, 4, 3, padding=1), head=nn.Linear(4, 2)), STEPS) == []
