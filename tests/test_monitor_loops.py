"""`gradflow.Monitor` in loops and around models of other makes than a plain step: the training is bit for bit as without it, and what it sees is what the
model as it is written shows.
"""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

import gradflow


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.branch = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, width))

    def forward(self, x):
        return x + self.branch(x)


class Net(nn.Module):
    """Three blocks; `reentrant` says how they are checkpointed, if they are."""

    def __init__(self, reentrant=None):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.blocks, self.head = nn.Linear(4, 8), nn.ModuleList(Block(8) for _ in range(3)), nn.Linear(8, 3)
        self.reentrant = reentrant

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x) if self.reentrant is None else checkpoint(block, x, use_reentrant=self.reentrant)
        return self.head(x)


class Called(nn.Module):
    """Calls a net with parameters that were computed from its own."""

    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, x):
        return torch.func.functional_call(self.net, {name: 1.0 * p for name, p in self.net.named_parameters()}, (x,))


def wrapped():
    model = Net()
    for i, block in enumerate(model.blocks):
        model.blocks[i] = checkpoint_wrapper(block)
    return model


def compiled_in_place():
    model = Net()
    model.compile(backend="eager")
    return model


def loss(output, targets):
    return cross_entropy(output.float(), targets)


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(16, 4, generator=generator), torch.randint(0, 3, (16,), generator=generator)


def plain(model, watch, forward=None):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(4):
        x, y = batch(step)
        watch(x, y)
        optimizer.zero_grad()
        loss((forward or model)(x), y).backward()
        optimizer.step()


def autocast(model, watch):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain(model, watch)


def scaled(model, watch):
    """float16 under a loss scale; watched where gradients are still scaled."""
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.01), torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(4):
        x, y = batch(step)
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            value = loss(model(x), y)
        scaler.scale(value).backward()
        with torch.autocast("cpu", dtype=torch.float16):
            watch(x, y)
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == 1024.0


def with_a_closure(model, watch):
    """LBFGS calls the closure several times in a step; watched inside it."""
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=5)
    for step in range(2):
        x, y = batch(step)

        def closure(x=x, y=y):
            optimizer.zero_grad()
            value = loss(model(x), y)
            value.backward()
            watch(x, y)
            return value

        optimizer.step(closure)


def functional(model, watch):
    """The loop's own forward is a functional call."""
    plain(model, watch, lambda x: torch.func.functional_call(model, dict(model.named_parameters()), (x,)))


def course(build, loop, watch):
    """The parameters after the loop, and a random number that is drawn after it."""
    model = build()
    torch.manual_seed(5)
    loop(model, (lambda x, y: None) if watch is None else watch(model))
    return [*(p.detach().clone() for p in model.parameters()), torch.rand(())]


KINDS = {
    "data_parallel": lambda: nn.DataParallel(Net()), "compiled": lambda: torch.compile(Net(), backend="eager"), "compiled_in_place": compiled_in_place,
    "checkpointed": lambda: Net(reentrant=False), "checkpointed_reentrant": lambda: Net(reentrant=True), "checkpoint_wrapper": wrapped, "called": Called,
}  # fmt: skip
LOOPS = {"autocast": autocast, "scaled": scaled, "with_a_closure": with_a_closure, "functional": functional}


@pytest.mark.parametrize(("build", "loop"), [
    *(pytest.param(build, plain, id=name) for name, build in KINDS.items()), *(pytest.param(Net, loop, id=name) for name, loop in LOOPS.items()),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_a_loop_is_bit_for_bit_as_without(build, loop):
    """Parameters and random numbers are those of the loop alone; the first report is that of the plain model on that batch, under its own names."""
    monitors = []

    def watch(model):
        monitors.append(gradflow.Monitor(model, every=2, keep="all"))
        return lambda x, y: monitors[0].observe(x, y, loss)

    alone, watched = course(build, loop, None), course(build, loop, watch)
    assert all(torch.equal(a, b) for a, b in zip(alone, watched, strict=True))
    dtype = {autocast: torch.bfloat16, scaled: torch.float16}.get(loop)
    with nullcontext() if dtype is None else torch.autocast("cpu", dtype=dtype):
        expected = gradflow.profile(Net(), *batch(0), loss)
    report = monitors[0].reports[0]
    assert len(monitors[0].history.entries) >= 2 and report.opaque == () and report.verdict == expected.verdict
    assert [layer.name.removeprefix("net.") for layer in report.layers] == [layer.name for layer in expected.layers]
    assert [layer.gain for layer in report.layers] == pytest.approx([layer.gain for layer in expected.layers], rel=1e-5)
    assert [(skip.kind, skip.lam) for skip in report.skips] == [("identity", pytest.approx(1.0))] * 3
