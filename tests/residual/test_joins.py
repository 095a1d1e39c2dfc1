"""Skips that take a part: slices, splits, pooling over an axis, sums written into a part."""

import pytest
import torch
from nets import Net, kinds, profiled, randn
from torch import nn

IMAGE = randn(2, 8, 6, 6)
X = randn(6, 8)


def mlp():
    return nn.Sequential(nn.Tanh(), nn.Linear(8, 8))


def only(build, *inputs):
    """The one row that is found."""
    (skip,) = profiled(build, *inputs)[1].skips
    return skip


class TestSliceOfEverything:
    """`x[:n]` of n rows takes everything."""

    @pytest.mark.parametrize(
        ("take", "kind", "lam"), [(lambda x: x[:6], "identity", 1.0), (lambda x: 0.5 * x[:, :8], "scaled", 0.5), (lambda x: x[:4], "pooled", None)]
    )
    def test_slice(self, take, kind, lam):
        """It keeps its kind and λ; a slice of less is pooled, and has none."""

        def forward(m, x):
            x = m.stem(x)
            return take(x) + m.f(x)[: len(take(x))]

        skip = only(lambda: Net(forward, stem=nn.Linear(8, 8), f=mlp()), X)
        assert skip.kind == kind
        assert skip.lam == (None if lam is None else pytest.approx(lam, rel=1e-12))

    def test_highway_through_slices(self):
        """A causal crop of nothing (x[:, :T], as in cached attention) at every block: one highway of λ = 1."""

        def forward(m, x):
            for block in m.blocks:
                x = x[:, : x.shape[1]] + block(x)
            return x

        _, report = profiled(lambda: Net(forward, blocks=nn.ModuleList(mlp() for _ in range(4))), randn(2, 3, 8))
        (highway,) = report.highways
        assert (len(highway.skips), highway.product_of_lambdas, highway.gain) == (4, 1.0, pytest.approx(1, rel=1e-12))


class TestReducedAxis:
    """A shortcut that takes the largest or the mean over an axis that a view made."""

    @pytest.mark.parametrize("reduce", [lambda x: x.amax(1), lambda x: x.max(1).values, lambda x: x.mean(1)], ids=["amax", "max", "mean"])
    @pytest.mark.parametrize("projected", [False, True], ids=["plain", "projected"])
    def test_shortcut_of_a_pooling_attention(self, reduce, projected):
        """Hiera's: pooled, or a projection where a linear layer comes first."""

        def pool(x):
            return reduce(x.view(len(x), 2, -1, x.shape[-1]))

        def forward(m, x):
            x = m.norm(m.stem(x))
            return pool(m.proj(x) if projected else x) + m.branch(pool(m.first(x)))

        def build():
            layers = {"proj": nn.Linear(8, 8)} if projected else {}
            return Net(forward, stem=nn.Linear(4, 8), norm=nn.LayerNorm(8), first=nn.Linear(8, 8), branch=mlp(), **layers)

        skip = only(build, randn(2, 6, 4))
        assert (skip.kind, skip.bypassed_layers) == ("projection" if projected else "pooled", 2)
        assert skip.lam is None
        assert skip.gain > 0


class Res2Net(nn.Module):
    """The split of a Res2Net block: each part is added to the convolved part before it, the last one is passed on."""

    def __init__(self, parts=4, width=2):
        super().__init__()
        self.width, self.stem, self.head = width, nn.Conv2d(8, parts * width, 1), nn.Conv2d(parts * width, 2, 1)
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(parts - 1))

    def forward(self, x):
        parts = torch.relu(self.stem(x)).split(self.width, 1)
        outputs, y = [], None
        for part, convolution in zip(parts, self.convolutions, strict=False):
            y = torch.relu(convolution(part if y is None else y + part))
            outputs.append(y)
        return self.head(torch.cat([*outputs, parts[-1]], 1))


class Shuffle(nn.Module):
    """ShuffleNet v2's unit: half of the channels pass, the other half is convolved, and they are shuffled."""

    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 4, 1))

    def forward(self, x):
        a, b = x.chunk(2, 1)
        return torch.channel_shuffle(torch.cat([a, self.branch(b)], 1), 2)


def cross_stage(m, x):
    """CSPNet: half of a stage's channels go around its blocks."""
    a, b = m.stem(x).chunk(2, 1)
    for block in m.blocks:
        b = b + block(b)
    return m.head(torch.cat([a, b], 1))


def cross_stage_of_all(m, x):
    """YOLO's C2f: the halves and what each block makes of the last are all kept."""
    kept = list(m.stem(x).chunk(2, 1))
    for block in m.blocks:
        kept.append(block(kept[-1]))
    return m.head(torch.cat(kept, 1))


def convolutions(count):
    return nn.ModuleList(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()) for _ in range(count))


class TestSplitChannels:
    """Networks that send channels different ways."""

    def test_res2net(self):
        """Two parts are added to what the part before became (pooled: a part of the fork); of the four that are concatenated two feed the next, and one was
        never touched."""
        assert kinds(Res2Net, IMAGE) == ["concat"] * 3 + ["pooled"] * 2

    def test_shuffle_units(self):
        """One concatenation a unit."""
        assert kinds(lambda: nn.Sequential(nn.Conv2d(8, 8, 1), Shuffle(), Shuffle()), IMAGE) == ["concat"] * 2

    def test_cross_stage(self):
        """One concatenation around the stage, and its blocks' own skips."""
        build = lambda: Net(cross_stage, stem=nn.Conv2d(8, 8, 1), blocks=convolutions(2), head=nn.Conv2d(8, 2, 1))  # noqa: E731
        assert kinds(build, IMAGE) == ["concat", "identity", "identity"]

    def test_cross_stage_that_keeps_all(self):
        """Of four operands the last bypasses nothing."""
        build = lambda: Net(cross_stage_of_all, stem=nn.Conv2d(8, 8, 1), blocks=convolutions(2), head=nn.Conv2d(16, 2, 1))  # noqa: E731
        assert kinds(build, IMAGE) == ["concat"] * 3


class TestSumWrittenIntoAPart:
    """`y[:, 4:] += …`."""

    def test_branch_into_a_part_of_the_skip(self):
        """Everything passes, and to a part of it something is added: an identity of the whole."""

        def forward(m, x):
            x = m.stem(x)
            y = x.clone()
            y[:, 4:] += m.f(x)
            return m.head(y)

        skip = only(lambda: Net(forward, stem=nn.Linear(8, 8), f=nn.Sequential(nn.Tanh(), nn.Linear(8, 4)), head=nn.Linear(8, 2)), X)
        assert (skip.kind, skip.form) == ("identity", "add")
        assert (skip.lam, skip.gain) == (pytest.approx(1, rel=1e-12), pytest.approx(1, rel=1e-12))
        assert skip.ledger_error < 1e-9

    def test_coupling(self):
        """NICE: one half is shifted by what the other half says."""

        def forward(m, x):
            y = m.stem(x)
            y[:, 4:] += m.f(y[:, :4].clone())
            return m.head(y)

        skip = only(lambda: Net(forward, stem=nn.Linear(8, 8, bias=False), f=nn.Sequential(nn.Tanh(), nn.Linear(4, 4)), head=nn.Linear(8, 2)), X)
        assert (skip.kind, skip.lam) == ("identity", pytest.approx(1, rel=1e-12))

    def test_skip_into_a_part_of_the_branch(self):
        """`f(x)[:, 4:] += x`: a part of the join's gradient arrives, so λ is undefined and γ is that part's share."""

        def forward(m, x):
            x = torch.tanh(m.stem(x))
            y = m.f(x)
            y[:, 4:] += x
            return m.head(y)

        build = lambda: Net(forward, stem=nn.Linear(8, 4), f=nn.Linear(4, 8), head=nn.Linear(8, 2))  # noqa: E731
        model, report = profiled(build, X)
        (skip,) = report.skips
        assert (skip.kind, skip.lam) == ("pooled", None)
        g = randn(6, 2, seed=2) @ model.head.weight.detach()
        assert skip.gain == pytest.approx(float(g[:, 4:].norm() / g.norm()), rel=1e-9)
        assert skip.ledger_error < 1e-9
