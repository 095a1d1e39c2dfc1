"""The highway takes the residual stream where a branch ends in a skip of its own at the same sum: adapters, LoRA, and what must not be taken for one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nets import linear_loss, randn
from torch import Tensor, nn

import gradflow
from gradflow.records import Report

WIDTH = 6
X = randn(5, WIDTH)


def in_place(x, o, a):
    o = o.clone()
    o += a
    o += x
    return o


ORDERS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "x + (o + a)": lambda x, o, a: x + (o + a),
    "x + (a + o)": lambda x, o, a: x + (a + o),
    "(o + a) + x": lambda x, o, a: (o + a) + x,
    "(a + o) + x": lambda x, o, a: (a + o) + x,
    "x + o + a": lambda x, o, a: x + o + a,
    "x + a + o": lambda x, o, a: x + a + o,
    "o + x + a": lambda x, o, a: o + x + a,
    "a + x + o": lambda x, o, a: a + x + o,
    "sum": lambda x, o, a: sum([o, a, x]),
    "stack": lambda x, o, a: torch.stack([o, x, a]).sum(0),
    "in place": in_place,
}
WHOLE = {  # what is done to o + a before it is added
    "nothing": lambda block, f: f,
    "a factor": lambda block, f: 0.5 * f,
    "LayerScale": lambda block, f: block.scale * f,
    "ReZero": lambda block, f: block.alpha * f,
    "dropout": lambda block, f: nn.functional.dropout(f, 0.4),
    "view": lambda block, f: f.reshape(-1, 2, WIDTH // 2).flatten(1),
}
WEIGHED = ("adapter", "LoRA", "adapters", "LoRA in every layer", "two adapters at the end")
BRANCHES = (*WEIGHED, "pool and adapter")  # in the last, o is made of x without a layer
NORMS = ("pre", "post", "none")


@dataclass(frozen=True)
class Plan:
    """A block x + (o + a): how it is summed, what is done to o + a, what o and a are, where a norm stands, and how much of x is passed on."""

    order: str = "x + (o + a)"
    whole: str = "nothing"
    branch: str = "adapter"
    norm: str = "pre"
    skip: float = 1.0
    beside: bool = False


class Bottleneck(nn.Sequential):
    """Down, tanh, up: an adapter's own branch. LoRA's is without the tanh."""

    def __init__(self, inputs: int = WIDTH, *, bend: bool = True) -> None:
        super().__init__(nn.Linear(inputs, 2), nn.Tanh() if bend else nn.Identity(), nn.Linear(2, WIDTH))


class Block(nn.Module):
    """One residual block; `branch` gives o and a, `forward` sums."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.norm = nn.LayerNorm(WIDTH) if plan.norm != "none" else nn.Identity()
        self.first, self.last, self.beside = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.early, self.late = (Bottleneck(bend="LoRA" not in plan.branch) for _ in range(2))
        self.later = Bottleneck()
        self.scale, self.alpha = nn.Parameter(torch.rand(WIDTH)), nn.Parameter(torch.rand(1))

    def branch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """o and what is added to it."""
        if self.plan.branch == "pool and adapter":
            o = x.cumsum(0)
            return o, self.late(o)
        h = self.first(x)
        if self.plan.branch == "LoRA in every layer":
            h = h + self.early(x)
        h = torch.tanh(h)
        if self.plan.branch == "adapters":
            h = h + self.early(h)
        o = self.last(h)
        if self.plan.branch == "two adapters at the end":
            o = o + self.late(o)
            return o, self.later(o)
        return o, self.late(h if "LoRA" in self.plan.branch else o)

    def forward(self, x: Tensor, cut: Callable[[Tensor], Tensor] = lambda t: t) -> tuple[Tensor, Tensor]:
        """What goes on, and the sum itself, which a norm may follow."""
        plan, stream = self.plan, self.plan.skip * x if self.plan.skip != 1 else x
        inner = self.norm(x) if plan.norm == "pre" else x
        o, a = (cut(t) for t in self.branch(inner))
        whole = plan.whole
        y = ORDERS[plan.order](stream, o, a) if whole == "nothing" else stream + WHOLE[whole](self, o + a)
        if plan.beside:
            y = y + cut(self.beside(inner))
        return (self.norm(y) if plan.norm == "post" else y), y


class Tower(nn.Module):
    """A stem, blocks, a head."""

    def __init__(self, plans: tuple[Plan, ...]) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2)
        self.blocks = nn.ModuleList(map(Block, plans))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x, _ = block(x)
        return self.head(x)

    def stream(self, x: Tensor) -> float:
        """By plain autograd: what of the gradient at the last sum arrives at the first block when every branch is detached."""
        first = x = self.stem(x)
        for block in self.blocks:
            x, y = block(x, torch.detach)
        g, h = torch.autograd.grad(linear_loss(self.head(x)), [y, first])
        return float(h.norm() / g.norm())


def measured(*plans: Plan) -> tuple[Tower, Report]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Tower(plans).double()
        return model, gradflow.profile(model, X, loss=linear_loss)


def check(*plans: Plan) -> Report:
    """The longest highway has one skip of each block, an identity's or its factor's, and the gradient of the network with its branches detached."""
    model, report = measured(*plans)
    highway = report.highways[0]
    lams = [skip.lam for i in highway.skips for skip in report.skips if skip.id == i]
    assert lams == pytest.approx([plan.skip for plan in plans], rel=1e-12)
    assert highway.gain == pytest.approx(model.stream(X), rel=1e-12)
    assert highway.trunk_ops == (("layer_norm",) if "post" in [plan.norm for plan in plans[:-1]] else ())
    assert not [f for f in report.findings if f.rule in ("GF201", "GF202", "GF206")]
    return report


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("order", ORDERS)
def test_order_of_the_operands(order, branch, norm):
    """However the three are added, the stream is x."""
    check(*[Plan(order=order, branch=branch, norm=norm)] * 3)


@pytest.mark.parametrize("norm", ["pre", "none"])
@pytest.mark.parametrize("branch", WEIGHED)
@pytest.mark.parametrize("whole", WHOLE)
def test_what_is_done_to_the_branch(whole, branch, norm):
    """A factor, a mask or a view between the inner sum and the outer one changes nothing: the inner skip is no part of the stream's highway."""
    assert check(*[Plan(whole=whole, branch=branch, norm=norm)] * 3).highways[0].gain == 1


@pytest.mark.parametrize("branch", ["adapter", "LoRA", "LoRA in every layer", "pool and adapter"])
@pytest.mark.parametrize("norm", NORMS)
def test_scaled_stream(branch, norm):
    """DeepNorm: the stream comes with a factor of its own, and the branch has one skip without layers at most."""
    model, report = measured(*[Plan(branch=branch, norm=norm, skip=1.5)] * 3)
    assert len(report.highways[0].skips) == 3
    assert report.highways[0].gain == pytest.approx(model.stream(X), rel=1e-12)


@pytest.mark.parametrize("branch", BRANCHES)
def test_parallel_branches(branch):
    """GPT-J and PaLM: x + a(h) + m(h), one of them with an adapter."""
    assert check(*[Plan(branch=branch, beside=True)] * 3).highways[0].gain == 1


@pytest.mark.parametrize("frozen", ["the adapters", "all but the adapters"])
@pytest.mark.parametrize("branch", ["adapter", "LoRA"])
def test_frozen_parts(branch, frozen):
    """What trains is of no account."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Tower((Plan(branch=branch),) * 3).double()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(("late" in name) == (frozen == "all but the adapters"))
    highway = gradflow.profile(model, X, loss=linear_loss).highways[0]
    assert (len(highway.skips), highway.gain) == (3, 1)


def test_inner_skips():
    """They keep their rows, and lie on no highway."""
    report = check(*[Plan()] * 3)
    inner = [skip for skip in report.skips if skip.id not in report.highways[0].skips]
    assert [(skip.kind, skip.lam, skip.bypassed_layers, skip.highway_gain) for skip in inner] == [("identity", 1.0, 2, None)] * 3
    assert len(report.highways) == 1


plans = st.builds(
    Plan, order=st.sampled_from(list(ORDERS)), whole=st.sampled_from([w for w in WHOLE if w != "dropout"]), branch=st.sampled_from(WEIGHED),
    norm=st.sampled_from(NORMS), beside=st.booleans(),
)  # fmt: skip


@settings(deadline=None, derandomize=True, database=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(plans, min_size=3, max_size=4))
def test_blocks_of_all_kinds(drawn):
    """Any blocks after each other."""
    check(*drawn)


# What is no branch: the near value is the stream.


class Stream(nn.Module):
    """A forward of its own over four linear layers; `cut` detaches what is no stream."""

    def __init__(self, forward: Callable[..., tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.function = (forward,)
        self.stem, self.head, self.norm = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2), nn.LayerNorm(WIDTH)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(4))

    def forward(self, x: Tensor, cut: Callable[[Tensor], Tensor] = lambda t: t) -> Tensor:
        self.first = self.stem(x)
        self.last, out = self.function[0](self, self.first, cut)
        return self.head(out)


def first_value_added(m, x0, cut):
    x = x0
    for k, layer in enumerate(m.layers):
        x = x + cut(x0) + cut(layer(x)) if k else x + cut(layer(x))
    return x, x


def first_value_added_after_norms(m, x0, cut):
    x = x0
    for k, layer in enumerate(m.layers):
        y = x + cut(x0) + cut(layer(x)) if k else x + cut(layer(x))
        x = m.norm(y)
    return y, x


def first_value_scaled_across_a_layer(m, x0, cut):
    x = m.layers[1](x0 + cut(m.layers[0](x0)))
    y = 0.3 * cut(x0) + x + cut(m.layers[2](x))
    return y, y


def input_injected(m, x0, cut):
    x, injected = x0, m.layers[3](x0)
    for layer in m.layers[:3]:
        x = x + cut(layer(x + injected))
    return x, x


def adapter_beside_the_first_value(m, x0, cut):
    x = x0 + cut(m.layers[0](x0))
    o = m.layers[1](x)
    y = x + cut(o + m.layers[2](o)) + cut(0.3 * x0)
    return y, y


def dense_sums(m, x0, cut):
    values = [x0]
    for layer in m.layers:
        values.append(sum(values[:-1], values[-1]) + layer(values[-1]) if cut is not torch.detach else values[-1] + cut(sum(values[:-1]) + layer(values[-1])))
    return values[-1], values[-1]


def added_u_net(m, x0, cut):
    inner = torch.tanh(m.layers[0](x0))
    inner = inner + m.layers[1](inner)
    y = x0 + cut(m.layers[2](inner))
    return y, y


STREAMS = {
    first_value_added: [4],
    first_value_added_after_norms: [4],
    first_value_scaled_across_a_layer: [2],
    input_injected: [3, 1],  # in the first block x0 + W·x0 is a skip of its own
    adapter_beside_the_first_value: [2],
    dense_sums: [4],
    added_u_net: [1, 1],
}


@pytest.mark.parametrize("forward", STREAMS, ids=lambda f: f.__name__)
def test_streams_beside_second_operands(forward):
    """x0 added in every block, sums of all values so far, a U-Net that adds: the highway is that of the network with all but the stream detached."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Stream(forward).double()
    report = gradflow.profile(model, X, loss=linear_loss)
    loss = linear_loss(model(X, torch.detach))
    g, h = torch.autograd.grad(loss, [model.last, model.first])
    assert [len(highway.skips) for highway in report.highways] == STREAMS[forward]
    assert report.highways[0].gain == pytest.approx(float(h.norm() / g.norm()), rel=1e-12)


def test_the_plans_differ():
    """A guard of the tests above: a block of each kind computes something else."""
    outputs = [measured(replace(Plan(), branch=branch))[0](X) for branch in BRANCHES]
    assert all(not torch.allclose(a, b) for k, a in enumerate(outputs) for b in outputs[:k])
