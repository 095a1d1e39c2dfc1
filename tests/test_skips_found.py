"""Which skips are found: every kind with its λ and its line, in the networks people use; and what looks like a skip and is none."""

import inspect
import math

import pytest
import torch
from residual_nets import SEED
from torch import nn
from torch.nn import functional

import gradflow


def lines_of(module, text):
    """Line numbers of a source file that hold `text`."""
    return {i for i, line in enumerate(inspect.getsource(module).splitlines(), 1) if text in line}


def profiled(model, inputs, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return gradflow.profile(model() if isinstance(model, type) or inspect.isfunction(model) else model, inputs, seed=SEED, **options)


def randn(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


X = randn(4, 8)
TOKENS = randn(2, 5, 8)
IMAGE = randn(2, 4, 8, 8)


class TestNetworksPeopleUse:
    """Counts, kinds and places in torchvision, torch, transformers and timm."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_torchvision_resnet18(self, dtype):
        """Five identities with λ = 1, three projections whose λ is undefined with a reason; all at the line of the in-place addition."""
        resnet = pytest.importorskip("torchvision.models.resnet")
        report = profiled(resnet.resnet18(num_classes=10).to(dtype), randn(2, 3, 32, 32, dtype=dtype))
        kinds = [skip.kind for skip in report.skips]
        assert (len(kinds), kinds.count("identity"), kinds.count("projection")) == (8, 5, 3)
        for skip in report.skips:
            assert skip.location.file == resnet.__file__
            assert skip.location.line in lines_of(resnet, "out += identity")
            if skip.kind == "identity":
                assert abs(skip.lam - 1) < 1e-6
                assert skip.misfit < 1e-6
            else:
                assert skip.lam is None and skip.undefined["lam"]
                assert skip.gain > 0

    @pytest.mark.parametrize("norm_first", [True, False], ids=["pre-LN", "post-LN"])
    def test_torch_transformer_encoder(self, norm_first):
        """Two identities a layer; the norm lies on the trunk where it follows the sum, and only there."""
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=norm_first)
        report = profiled(nn.TransformerEncoder(layer, 6), randn(2, 5, 16))
        assert [skip.kind for skip in report.skips] == ["identity"] * 12
        assert all(abs(skip.lam - 1) < 1e-6 for skip in report.skips)
        (highway,) = report.highways
        assert len(highway.skips) == 12
        assert highway.trunk_ops == (() if norm_first else ("layer_norm",))

    def test_transformers_gpt2(self):
        """24 identities in 12 layers, found through the model's own loss."""
        transformers = pytest.importorskip("transformers")
        config = transformers.GPT2Config(n_layer=12, n_embd=16, n_head=2, vocab_size=50, n_positions=16)
        ids = torch.randint(50, (2, 8), generator=torch.Generator().manual_seed(0))
        report = profiled(transformers.GPT2LMHeadModel(config), {"input_ids": ids, "labels": ids})
        assert [skip.kind for skip in report.skips] == ["identity"] * 24
        assert {skip.lam for skip in report.skips} == {1.0}
        assert len(report.highways) == 1

    def test_timm_resnet50_as_it_comes(self):
        """16 skips under in-place ReLUs; the zero-initialised last norms close the branches, which is explained and is no sickness."""
        timm = pytest.importorskip("timm")
        report = profiled(timm.create_model("resnet50", num_classes=10), randn(2, 3, 64, 64))
        assert len(report.skips) == 16
        assert [skip.kind for skip in report.skips].count("projection") == 4
        assert report.verdict != "sick"
        assert any(f.rule == "GF105" for f in report.findings)
        assert not any(f.rule in ("GF101", "GF104") for f in report.findings)


class Net(nn.Module):
    """A stem, one unit written by `join`, and a head."""

    width = 8

    def __init__(self):
        super().__init__()
        w = self.width
        self.stem, self.f, self.gate, self.head = (nn.Linear(w, w) for _ in range(4))
        self.scale, self.channel = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.full((w,), 0.6))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.head(self.join(torch.tanh(self.stem(x))))

    def branch(self, x):
        return torch.tanh(self.f(x))


def net(join, parts=("f",)):
    """A `Net` whose join is this function of (model, x); parts of it that are not used are dropped."""

    def build():
        model = Net()
        for name in {"f", "gate", "scale", "channel"} - set(parts):
            delattr(model, name)
        model.join = join.__get__(model)
        return model

    return build


SCALARS = {
    "x + F": (lambda m, x: x + m.branch(x), "identity", 1.0, ("f",)),
    "F + x": (lambda m, x: m.branch(x) + x, "identity", 1.0, ("f",)),
    "x - F": (lambda m, x: x - m.branch(x), "identity", 1.0, ("f",)),
    "+=": (lambda m, x: m.f(x).add_(x), "identity", 1.0, ("f",)),
    "views": (
        lambda m, x: (x.view(2, 2, 8).transpose(0, 1) + m.branch(x).view(2, 2, 8).transpose(0, 1)).transpose(0, 1).reshape(4, 8),
        "identity",
        1.0,
        ("f",),
    ),
    "casts": (lambda m, x: (x.double() + m.branch(x).double()).float(), "identity", 1.0, ("f",)),
    "F - x": (lambda m, x: m.branch(x) - x, "scaled", -1.0, ("f",)),
    "a constant": (lambda m, x: 0.5 * x + m.branch(x), "scaled", 0.5, ("f",)),
    "a quotient": (lambda m, x: x / 4 + m.branch(x), "scaled", 0.25, ("f",)),
    "a parameter": (lambda m, x: m.scale * x + m.branch(x), "scaled", 0.7, ("f", "scale")),
    "a parameter per channel": (lambda m, x: m.channel * x + m.branch(x), "scaled", 0.6, ("f", "channel")),
    "alpha=": (lambda m, x: torch.add(m.branch(x), x, alpha=0.3), "scaled", 0.3, ("f",)),
    "sub with alpha=": (lambda m, x: torch.sub(m.branch(x), x, alpha=0.3), "scaled", -0.3, ("f",)),
    "lerp by a constant": (lambda m, x: torch.lerp(x, m.branch(x), 0.2), "scaled", 0.8, ("f",)),
    "addmm": (lambda m, x: torch.addmm(x, torch.tanh(x), m.f.weight), "identity", 1.0, ("f",)),
    "addmm with beta": (lambda m, x: torch.addmm(x, torch.tanh(x), m.f.weight, beta=0.4), "scaled", 0.4, ("f",)),
    "baddbmm": (lambda m, x: torch.baddbmm(x[None], m.branch(x)[None], m.gate.weight[None])[0], "identity", 1.0, ("f", "gate")),
    "addcmul": (lambda m, x: torch.addcmul(x, m.branch(x), torch.sigmoid(m.gate(x))), "identity", 1.0, ("f", "gate")),
    "stack().sum()": (lambda m, x: torch.stack([x, m.branch(x)]).sum(0), "identity", 1.0, ("f",)),
    "sum()": (lambda m, x: sum([x, m.branch(x)]), "identity", 1.0, ("f",)),
    "stack().mean()": (lambda m, x: torch.stack([x, m.branch(x)]).mean(0), "scaled", 0.5, ("f",)),
    "parallel attention and MLP": (lambda m, x: x + m.branch(x) + torch.relu(m.gate(x)), "identity", 1.0, ("f", "gate")),
    "parallel, grouped": (lambda m, x: x + (m.branch(x) + torch.relu(m.gate(x))), "identity", 1.0, ("f", "gate")),
    "a branch of one LayerScale": (lambda m, x: x + m.channel * torch.tanh(x), "identity", 1.0, ("channel",)),
}


class TestScalarSkips:
    """x, or a number times x."""

    @pytest.mark.parametrize(("join", "kind", "lam", "parts"), SCALARS.values(), ids=SCALARS)
    def test_written_as(self, join, kind, lam, parts):
        """One skip, of this kind, with exactly this λ, an identity or multiple of it, at the line of the sum."""
        report = profiled(net(join, parts), X)
        (skip,) = report.skips
        assert (skip.kind, skip.form) == (kind, "add")
        assert skip.lam == pytest.approx(lam, rel=1e-6)
        assert skip.misfit < 1e-3
        assert skip.ledger_error < 1e-6
        assert (skip.location.file, skip.location.line) == (__file__, join.__code__.co_firstlineno)

    def test_a_skip_that_starts_at_the_input(self):
        """The model's input is a fork as well."""

        class FromInput(nn.Module):
            def __init__(self):
                super().__init__()
                self.f = nn.Linear(8, 8)

            def forward(self, x):
                return x + self.f(x)

        (skip,) = profiled(FromInput, X).skips
        assert (skip.kind, skip.lam, skip.fork_depth) == ("identity", 1.0, 0)

    def test_a_skip_between_two_arguments_that_are_one_tensor(self):
        """model(x, x): the skip starts at one argument and the branch at the other, and they are the same."""

        class Query(nn.Module):
            def __init__(self):
                super().__init__()
                self.f = nn.Linear(8, 8)

            def forward(self, query, memory):
                return query + self.f(memory)

        (skip,) = profiled(Query, (X, X)).skips
        assert (skip.kind, skip.lam) == ("identity", 1.0)
        assert profiled(Query, (X, X + 1)).skips == ()

    def test_a_skip_that_starts_at_a_view_of_the_input(self):
        """The input flattened, cast or expanded is one too: its λ is measured."""

        class FromView(nn.Module):
            def __init__(self):
                super().__init__()
                self.f = nn.Linear(8, 8)

            def forward(self, x):
                x = x.flatten(1) * 2
                return x + self.f(x)

        (skip,) = profiled(FromView, randn(4, 2, 4)).skips
        assert (skip.kind, skip.lam) == ("identity", 1.0)

    def test_a_skip_from_far_back(self):
        """x = a·x + b·x0 + F(x): each operand that is a skip has a row of its own, with its λ."""

        class FromStart(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem = nn.Linear(8, 8)
                self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
                self.a, self.b = nn.Parameter(torch.tensor([0.9, 0.8, 0.7])), nn.Parameter(torch.tensor([0.3, 0.2, 0.1]))

            def forward(self, x):
                x = x0 = self.stem(x)
                for i, layer in enumerate(self.layers):
                    x = self.a[i] * x + self.b[i] * x0 + torch.tanh(layer(x))
                return x

        report = profiled(FromStart, X)
        assert {skip.kind for skip in report.skips} == {"scaled"}
        assert sorted(skip.lam for skip in report.skips) == pytest.approx([0.1, 0.2, 0.3, 0.7, 0.8, 0.9], rel=1e-6)

    def test_a_u_net_that_adds(self):
        """A long skip around two inner ones: three identities, and the outer bypasses them all."""

        class Nested(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem, self.down, self.f, self.g, self.up = (nn.Linear(8, 8) for _ in range(5))

            def forward(self, x):
                x = self.stem(x)
                inner = self.down(x)
                inner = inner + torch.tanh(self.f(inner))
                inner = inner + torch.tanh(self.g(inner))
                return x + self.up(inner)

        report = profiled(Nested, X)
        assert [(skip.kind, skip.lam, skip.bypassed_layers) for skip in report.skips] == [("identity", 1.0, 1)] * 2 + [("identity", 1.0, 4)]


class Cells(nn.Module):
    """A recurrent cell unrolled over the tokens."""

    def __init__(self, cell):
        super().__init__()
        self.stem, self.cell, self.head = nn.Linear(8, 8), cell(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        first = state = self.stem(x[:, 0])
        both = isinstance(self.cell, nn.LSTMCell)
        state = (first, first) if both else first
        for token in x[:, 1:].unbind(1):
            state = self.cell(token, state)
        return self.head(state[0] if both else state)


class TestOtherKinds:
    """Gates, projections, pooling, norms, dropout, concatenations and cuts."""

    @pytest.mark.parametrize(
        "join",
        [
            lambda m, x: (t := torch.sigmoid(m.gate(x))) * m.branch(x) + (1 - t) * x,
            lambda m, x: (1 - torch.sigmoid(m.gate(x))) * x + m.branch(x),
            lambda m, x: torch.lerp(x, m.branch(x), torch.sigmoid(m.gate(x))),
        ],
        ids=["highway", "shortcut only", "lerp"],
    )
    def test_a_gate(self, join):
        """Gated: λ̂ is the mean of 1 − T along the carry, the gate frozen, between 0 and 1."""
        (skip,) = profiled(net(join, ("f", "gate")), X).skips
        assert skip.kind == "gated"
        assert 0.2 < skip.lam < 0.8
        assert skip.lam_full != skip.lam

    @pytest.mark.parametrize("cell", [nn.GRUCell, nn.LSTMCell])
    def test_an_unrolled_cell(self, cell):
        """One row for the loop, its calls merged, gated, with the trend of λ̂ per call."""
        report = profiled(lambda: Cells(cell), randn(3, 6, 8))
        (skip,) = (s for s in report.skips if s.kind == "gated")
        assert skip.calls == 5
        assert len(skip.trend) == 5
        assert min(skip.trend) <= skip.lam <= max(skip.trend)
        assert 0.2 < skip.lam < 0.8

    def test_a_loop_over_one_block(self):
        """A block applied four times: one identity row of four calls."""

        class Looped(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem, self.f = nn.Linear(8, 8), nn.Linear(8, 8)

            def forward(self, x):
                x = self.stem(x)
                for _ in range(4):
                    x = x + torch.tanh(self.f(x))
                return x

        (skip,) = profiled(Looped, X).skips
        assert (skip.calls, skip.lam, skip.trend) == (4, 1.0, (1.0,) * 4)

    def test_a_projection(self):
        """A 1×1 convolution beside two 3×3: λ̂ is defined and no scalar; strided, it is not defined."""
        for stride in (1, 2):
            report = profiled(lambda stride=stride: Images(nn.Conv2d(4, 4, 1, stride), stride), IMAGE)
            (skip,) = report.skips
            assert skip.kind == "projection"
            assert skip.gain > 0
            assert (skip.lam is None) is (stride == 2)
            assert skip.misfit is None or skip.misfit > 0.5

    @pytest.mark.parametrize("pool", [nn.AvgPool2d(2), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(4), nn.MaxPool2d(3, 2, 1)], ids=lambda pool: type(pool).__name__)
    def test_pooling(self, pool):
        """Pooled: γ is measured, and λ is undefined because the shapes differ."""
        (skip,) = profiled(lambda: Images(pool, 2), IMAGE).skips
        assert (skip.kind, skip.lam) == ("pooled", None)
        assert skip.gain > 0
        assert "shape" in skip.undefined["lam"]

    def test_pooling_before_a_projection(self):
        """ResNet-D: the convolution makes it a projection."""
        (skip,) = profiled(lambda: Images(nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(4, 4, 1)), 2), IMAGE).skips
        assert skip.kind == "projection"
        assert skip.path_ops == ("avg_pool2d", "convolution")

    def test_dropout(self):
        """Dropout 0.5 on the shortcut doubles what it keeps: γ near √2, and it is no scalar."""
        (skip,) = profiled(lambda: Images(nn.Dropout(0.5)), IMAGE).skips
        assert skip.kind == "dropout"
        assert skip.gain == pytest.approx(math.sqrt(2), abs=0.3)

    def test_stochastic_depth_on_the_branch(self):
        """A mask on the branch leaves the skip an identity."""

        class Dropped(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem, self.f = nn.Linear(8, 8), nn.Linear(8, 8)

            def forward(self, x):
                x = self.stem(x)
                return x + self.f(x) * torch.empty(len(x), 1).bernoulli_(0.5) / 0.5

        (skip,) = profiled(Dropped, X).skips
        assert (skip.kind, skip.lam) == ("identity", 1.0)

    def test_a_norm(self):
        """RepVGG: of the three branches only the batch norm is a skip; the convolutions weigh alike."""

        class RepVGG(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem = nn.Conv2d(4, 4, 1)
                self.dense, self.one, self.bn = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
                self.bn_dense, self.bn_one = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

            def forward(self, x):
                x = self.stem(x)
                return torch.relu(self.bn_dense(self.dense(x)) + self.bn_one(self.one(x)) + self.bn(x))

        (skip,) = profiled(RepVGG, IMAGE).skips
        assert skip.kind == "norm"
        assert skip.lam_low is None and "batch norm" in skip.undefined["lam_low"]

    def test_a_dense_net(self):
        """cat([x, F(x)]): form and kind are concat, γ is the share of the norm, λ is undefined."""

        class Dense(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem = nn.Conv2d(4, 4, 1)
                self.layers = nn.ModuleList(nn.Conv2d(4 * i, 4, 3, padding=1) for i in (1, 2, 3))

            def forward(self, x):
                x = self.stem(x)
                for layer in self.layers:
                    x = torch.cat([x, torch.relu(layer(x))], 1)
                return x

        report = profiled(Dense, IMAGE)
        assert [(skip.form, skip.kind, skip.lam) for skip in report.skips] == [("concat", "concat", None)] * 3
        assert all(0 < skip.gain <= 1 for skip in report.skips)

    def test_a_u_net(self):
        """cat([x, up(mid(down(x)))]) is a concat skip around three layers."""

        class UNet(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem, self.down, self.mid = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1)
                self.up, self.out = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 2, 1)

            def forward(self, x):
                x = torch.relu(self.stem(x))
                return self.out(torch.cat([x, self.up(torch.relu(self.mid(torch.relu(self.down(x)))))], 1))

        (skip,) = profiled(UNet, IMAGE).skips
        assert (skip.form, skip.kind, skip.bypassed_layers) == ("concat", "concat", 3)

    @pytest.mark.parametrize("how", ["detach", "no_grad", "data"])
    def test_a_cut(self, how):
        """A skip whose gradient is cut: λ = 0, and the location is the line that cuts it."""

        class Cut(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem, self.f = nn.Linear(8, 8), nn.Linear(8, 8)

            def forward(self, x):
                x = self.stem(x)
                if how == "detach":
                    skip = x.detach()  # cut by detach
                elif how == "data":
                    skip = x.data  # cut by data
                else:
                    with torch.no_grad():
                        skip = x * 1.0  # cut by no_grad
                return skip + torch.tanh(self.f(x))

        (skip,) = profiled(Cut, X).skips
        assert (skip.kind, skip.lam, skip.gain) == ("detached", 0.0, 0.0)
        assert skip.location.line in lines_of(inspect.getmodule(Cut), f"# cut by {how}")


class Images(nn.Module):
    """One convolutional unit with the given shortcut."""

    def __init__(self, shortcut, stride=1):
        super().__init__()
        self.stem, self.shortcut = nn.Conv2d(4, 4, 3, padding=1), shortcut
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 3, stride, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1))

    def forward(self, x):
        x = self.stem(x)
        return self.shortcut(x) + self.branch(x)


def rotate_half(x):
    left, right = x.chunk(2, -1)
    return torch.cat([-right, left], -1)


class Attention(nn.Module):
    """Single-head attention without a residual; `form` says what is peculiar about it."""

    def __init__(self, form):
        super().__init__()
        self.form = form
        self.stem, self.qkv, self.out = nn.Linear(8, 8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.bias = nn.Parameter(torch.zeros(5, 5)) if form == "learned bias" else None
        self.position = nn.Conv1d(8, 8, 3, padding=1, groups=8) if form == "convolutional position" else None
        self.register_buffer("angle", torch.linspace(0, 1, 5)[:, None] * torch.ones(8))

    def forward(self, x):
        q, k, v = self.qkv(self.stem(x)).chunk(3, -1)
        if self.form == "rotary":
            q, k = (t * self.angle.cos() + rotate_half(t) * self.angle.sin() for t in (q, k))
        scores = q @ k.transpose(-1, -2) / math.sqrt(8)
        if self.form == "learned bias":
            scores = scores + self.bias
        if self.form == "causal mask":
            scores = scores + torch.full((5, 5), -1e9).triu(1)
        if self.form == "mask of the data":
            scores = scores + (x.detach().sum(-1) > 9).to(x.dtype)[:, None] * -1e9
        mixed = scores.softmax(-1) @ v
        if self.form == "convolutional position":
            mixed = mixed + self.position(v.transpose(1, 2)).transpose(1, 2)
        return self.out(mixed)


class TestNoSkips:
    """Sums and products that are not skips."""

    @pytest.mark.parametrize("form", ["rotary", "learned bias", "causal mask", "mask of the data", "convolutional position"])
    def test_attention_with(self, form):
        """Rotary embeddings, biases and masks of the scores, and a convolutional position term beside the attention's output."""
        assert profiled(lambda: Attention(form), TOKENS).skips == ()

    @pytest.mark.parametrize(
        "activation",
        [
            lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
            lambda x: x * torch.sigmoid(1.702 * x),
            lambda x: x + torch.sin(x) ** 2,
            lambda x: functional.relu(x) - functional.relu(-x) * 0.1,
        ],
        ids=["GELU", "quick GELU", "snake", "leaky ReLU"],
    )
    def test_a_hand_written_activation(self, activation):
        """Both sides are without parameters."""

        class Hand(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

            def forward(self, x):
                return self.second(activation(self.first(x)))

        assert profiled(Hand, X).skips == ()

    def test_a_hand_written_layer_norm(self):
        """(x − mean)/√(var + ε)·g + b: the mean comes from x as well, without a parameter."""

        class Hand(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
                self.g, self.b = nn.Parameter(torch.ones(8)), nn.Parameter(torch.zeros(8))

            def forward(self, x):
                x = self.first(x)
                centred = x - x.mean(-1, keepdim=True)
                return self.second(centred / torch.sqrt(x.var(-1, keepdim=True) + 1e-5) * self.g + self.b)

        assert profiled(Hand, X).skips == ()

    def test_squeeze_and_excite(self):
        """A product of x with a gate computed from it, and no sum."""

        class Squeeze(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem, self.down, self.up = nn.Conv2d(4, 4, 3), nn.Linear(4, 2), nn.Linear(2, 4)

            def forward(self, x):
                x = self.stem(x)
                return x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3))))))[:, :, None, None]

        assert profiled(Squeeze, IMAGE).skips == ()

    @pytest.mark.parametrize("merge", [lambda a, b: a + b, lambda a, b: torch.cat([a, b], 1)], ids=["sum", "concatenation"])
    def test_equal_branches(self, merge):
        """Inception: both sides weigh alike."""

        class Inception(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem, self.a, self.b = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

            def forward(self, x):
                x = self.stem(x)
                return merge(torch.relu(self.a(x)), torch.relu(self.b(x)))

        assert profiled(Inception, IMAGE).skips == ()

    def test_a_feature_pyramid(self):
        """The lateral convolution and the upsampled coarse map: a merge."""

        class Pyramid(nn.Module):
            def __init__(self):
                super().__init__()
                self.fine, self.coarse = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 8, 3, 2, 1)
                self.lateral_fine, self.lateral_coarse = nn.Conv2d(4, 4, 1), nn.Conv2d(8, 4, 1)

            def forward(self, x):
                fine = torch.relu(self.fine(x))
                coarse = torch.relu(self.coarse(fine))
                return self.lateral_fine(fine) + functional.interpolate(self.lateral_coarse(coarse), scale_factor=2)

        assert profiled(Pyramid, IMAGE).skips == ()

    def test_a_position_added_to_the_tokens(self):
        """A table of parameters is not data."""

        class Positioned(nn.Module):
            def __init__(self):
                super().__init__()
                self.patch, self.position, self.head = nn.Linear(8, 8), nn.Parameter(torch.zeros(1, 5, 8)), nn.Linear(8, 8)

            def forward(self, x):
                return self.head(self.patch(x) + self.position)

        assert profiled(Positioned, TOKENS).skips == ()

    @pytest.mark.parametrize("offset", [0, 1])
    def test_positions_derived_from_the_ids(self, offset):
        """RoBERTa: token and position embedding come from the same ids, and neither goes around the other."""

        class Embedded(nn.Module):
            def __init__(self):
                super().__init__()
                self.token, self.position, self.kind = nn.Embedding(20, 8), nn.Embedding(20, 8), nn.Embedding(2, 8)
                self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 20)

            def forward(self, input_ids):
                mask = input_ids.ne(1).int()
                positions = torch.cumsum(mask, 1) * mask + offset
                return self.head(self.norm(self.token(input_ids) + self.kind(torch.zeros_like(input_ids)) + self.position(positions)))

        assert profiled(Embedded, {"input_ids": torch.arange(10).reshape(2, 5)}).skips == ()

    def test_two_towers(self):
        """Two inputs with an encoder each, summed: no common fork."""

        class Towers(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b, self.deep = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

            def forward(self, x, y):
                return self.a(x) + self.deep(torch.relu(self.b(y)))

        assert profiled(Towers, (X, X + 1)).skips == ()
