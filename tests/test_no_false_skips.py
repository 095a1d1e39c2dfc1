"""What looks like a skip and is none, and beside each the skip that looks almost the same."""

import sys
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
            sum,
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

CHANNELS = {"split": lambda x: x.split(4, 1), "chunk": lambda x: x.chunk(2, 1), "slices": lambda x: (x[:, :4], x[:, 4:])}


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

    @pytest.mark.parametrize("take", CHANNELS.values(), ids=CHANNELS)
    def test_part_of_the_channels_beside_what_the_other_part_became(self, take):
        """Channels that are passed on bypass the layer: one concatenation. By one edge, where a split makes both parts: f cannot be told from s, and the row
        says so."""

        def forward(m, x):
            a, b = take(torch.relu(m.stem(x)))
            return m.head(torch.cat([a, torch.relu(m.f(b))], 1))

        (skip,) = profiled(lambda: Net(forward, stem=nn.Conv2d(8, 8, 1), f=nn.Conv2d(4, 4, 3, padding=1), head=nn.Conv2d(8, 2, 1)), IMAGE)[1].skips
        assert (skip.form, skip.kind, skip.bypassed_layers) == ("concat", "concat", 1)
        assert 0 < skip.gain < 1
        assert skip.ledger_error < 1e-9
        if take is CHANNELS["slices"]:
            assert skip.branch_gain > 0
            assert skip.cos_skip_branch == 0
        else:
            assert (skip.branch_gain, skip.cos_skip_branch) == (None, None)
            assert "split" in skip.undefined["branch_gain"]
            assert "split" in skip.undefined["cos_skip_branch"]

    def test_class_token_beside_the_rest(self):
        """The class token is sliced off, the patches are pooled by a convolution, and both are put together again (MViT): no position is bypassed."""

        def forward(m, x):
            x = m.embed(x)
            token, patches = x[:, :1], x[:, 1:]
            return m.head(torch.cat([token, m.pool(patches.transpose(1, 2)).transpose(1, 2)], 1))

        assert kinds(lambda: Net(forward, embed=nn.Linear(4, 4), pool=nn.Conv1d(4, 4, 3, padding=1), head=nn.Linear(4, 2)), STEPS) == []


class DiffusionBlock(nn.Module):
    """x + conv(act(conv(act(x)) + embedding)): a diffusion UNet's block, with one time embedding for all of them."""

    def __init__(self, width=8, embedding=6):
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.time, self.norm, self.after = nn.Linear(embedding, width), nn.GroupNorm(2, width), nn.GroupNorm(2, width)

    def forward(self, x, time):
        h = self.first(functional.silu(self.norm(x)))
        h = h + self.time(functional.silu(time))[:, :, None, None]
        return x + self.second(functional.silu(self.after(h)))


class AdaptiveBlock(nn.Module):
    """DiT's block: shift, scale and gate of every token from one condition."""

    def __init__(self, width=8):
        super().__init__()
        self.norm, self.condition, self.mlp = nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x, condition):
        shift, scale, gate = self.condition(functional.silu(condition)).unsqueeze(1).chunk(3, -1)
        return x + gate * self.mlp(self.norm(x) * (1 + scale) + shift)


class TestSideInputs:
    """What is told to all places at once."""

    def test_time_embedding_of_every_block(self):
        """Each block's own skip, and none from the embedding around the blocks before."""

        def forward(m, x, time):
            time = m.second(functional.silu(m.first(time)))
            x = m.stem(x)
            for block in m.blocks:
                x = block(x, time)
            return x

        def build():
            blocks = nn.ModuleList(DiffusionBlock() for _ in range(3))
            return Net(forward, stem=nn.Conv2d(8, 8, 3, padding=1), first=nn.Linear(4, 6), second=nn.Linear(6, 6), blocks=blocks)

        _, report = profiled(build, IMAGE, randn(2, 4))
        assert [(skip.name, skip.kind, skip.lam) for skip in report.skips] == [(f"blocks.{i}", "identity", 1.0) for i in range(3)]

    @pytest.mark.parametrize("pooled", [False, True], ids=["given", "pooled from the tokens"])
    def test_shift_of_adaptive_norms(self, pooled):
        """Shift and scale come from one condition of all blocks; the residual around each is the only skip."""

        def forward(m, x, condition):
            x = m.stem(x)
            condition = x.mean(1) if pooled else m.embed(condition)
            for block in m.blocks:
                x = block(x, condition)
            return x

        def build():
            return Net(forward, stem=nn.Linear(4, 8), embed=nn.Linear(4, 8), blocks=nn.ModuleList(AdaptiveBlock() for _ in range(3)))

        assert kinds(build, STEPS, randn(3, 4)) == ["identity"] * 3

    def test_first_value_added_in_every_block(self):
        """`x + a·x0 + F(x)` in a loop: x0 is no side input but a skip of each block, beside the near one."""

        def forward(m, x):
            x = start = m.stem(x)
            x = x + m.blocks[0](x)
            for scale, block in zip(m.scales, m.blocks[1:], strict=True):
                x = x + scale * start + block(x)
            return m.head(x)

        def build():
            blocks = nn.ModuleList(nn.Sequential(nn.Tanh(), nn.Linear(8, 8)) for _ in range(4))
            return Net(forward, stem=nn.Linear(8, 8), head=nn.Linear(8, 2), blocks=blocks, scales=nn.ParameterList(torch.rand(1) for _ in range(3)))

        assert rows(build, X) == [("identity", 1)] * 4 + [("scaled", 1)] * 3


class TestGates:
    """Sums inside a gate."""

    @pytest.mark.parametrize("squash", [torch.sigmoid, functional.hardsigmoid])
    def test_argument_of_a_gate(self, squash):
        """`σ(x + W·x) · v(x)`: what is added there is no carry."""
        net = Net(lambda m, x: m.head(squash(x + m.gate(x)) * m.value(x)), gate=nn.Linear(8, 8), value=nn.Linear(8, 8), head=nn.Linear(8, 2))
        assert kinds(lambda: net, X) == []

    def test_gate_of_a_highway_layer(self):
        """The carry is the row, and the sum in the gate's argument none."""

        def forward(m, x):
            x = torch.tanh(m.stem(x))
            gate = torch.sigmoid(m.gate(torch.relu(x)) + x)
            return gate * torch.tanh(m.f(x)) + (1 - gate) * x

        assert kinds(lambda: Net(forward, stem=nn.Linear(8, 8), gate=nn.Linear(8, 8), f=nn.Linear(8, 8)), X) == ["gated"]


class TestSmallMatrices:
    """Products with a small square matrix that mix no streams."""

    def test_attention_over_few_tokens(self):
        """Its matrix is [4, 4] and comes from two of the tokens' own products."""

        def forward(m, x):
            x = m.stem(x)
            q, k, v = m.qkv(x).chunk(3, -1)
            return x + m.out((q @ k.transpose(-1, -2) / 4).softmax(-1) @ v)

        build = lambda: Net(forward, stem=nn.Linear(16, 16), qkv=nn.Linear(16, 48), out=nn.Linear(16, 16))  # noqa: E731
        assert kinds(build, randn(2, 4, 16)) == ["identity"]

    @pytest.mark.parametrize("shape", [(32, 4), (2, 32, 4)], ids=str)
    @pytest.mark.parametrize("bias", [False, True], ids=["without bias", "with bias"])
    def test_layer_of_four_features(self, shape, bias):
        """What it mixes are features: a projection."""

        def build():
            branch = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
            return Net(lambda m, x: m.shortcut(m.stem(x)) + m.branch(m.stem(x)), stem=nn.Tanh(), shortcut=nn.Linear(4, 4, bias=bias), branch=branch)

        def forward(m, x):
            x = m.stem(x)
            return m.shortcut(x) + m.branch(x)

        def once():
            model = build()
            model.function = (forward,)
            return model

        assert kinds(once, randn(*shape)) == ["projection"]


class TestMerges:
    """Sums of equally entitled maps."""

    def test_feature_pyramid_of_three_levels(self):
        """Lateral convolutions and what comes from above: a merge at each level."""

        def forward(m, x):
            maps = [x := torch.relu(m.bottom(x))]
            maps.extend(x := torch.relu(down(x)) for down in m.down)
            top, outputs = None, []
            for lateral, smooth, value in reversed(list(zip(m.lateral, m.smooth, maps, strict=True))):
                top = lateral(value) if top is None else lateral(value) + functional.interpolate(top, scale_factor=2)
                outputs.append(smooth(top).mean((2, 3)))
            return torch.stack(outputs)

        def build():
            down = nn.ModuleList(nn.Conv2d(8, 8, 3, 2, 1) for _ in range(2))
            lateral, smooth = (nn.ModuleList(nn.Conv2d(8, 8, size, padding=size // 2) for _ in range(3)) for size in (1, 3))
            return Net(forward, bottom=nn.Conv2d(8, 8, 3, padding=1), down=down, lateral=lateral, smooth=smooth)

        assert kinds(build, randn(2, 8, 8, 8)) == []
