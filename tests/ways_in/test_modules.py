"""Modules that are unlike others: parametrised, pruned, hooked, uncopyable, scripted, wrapped in parallel."""

import io
import multiprocessing
import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from ways_oracle import D, Half, Net, check, linear, rows

HALF = [("scaled", 0.5)]


class Symmetric(nn.Module):
    def forward(self, weight):
        return weight.triu() + weight.triu(1).transpose(-1, -2)


def symmetric(layer):
    parametrize.register_parametrization(layer, "weight", Symmetric())
    return layer


def twice(layer):
    return symmetric(parametrizations.weight_norm(layer))


PARAMETRIZED = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "cayley": lambda layer: parametrizations.orthogonal(layer, orthogonal_map="cayley"),
    "householder": lambda layer: parametrizations.orthogonal(layer, orthogonal_map="householder"),
    "symmetric": symmetric,
    "two at once": twice,
    "the old weight_norm": nn.utils.weight_norm,
    "the old spectral_norm": nn.utils.spectral_norm,
    "pruned": lambda layer: prune.random_unstructured(layer, "weight", 0.5),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("change", PARAMETRIZED.values(), ids=PARAMETRIZED)
def test_weights_that_are_computed(change):
    """The original parameters are measured, and computing a weight is not part of the data's path."""
    check(lambda: Net(f=lambda: change(linear())), rows(), skips=HALF)


def test_a_parametrisation_under_cached():
    """parametrize.cached keeps the weight for the whole forward."""

    class Cached(Net):
        def forward(self, x):
            with parametrize.cached():
                return super().forward(super().forward(x))

    check(lambda: Cached(f=lambda: symmetric(linear())), rows(), skips=HALF)


class Delegating(nn.Module):
    """Looks unknown attributes up in the module inside."""

    def __init__(self):
        super().__init__()
        self.inner = Net()

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, x):
        return self.head(self.inner.f(self.stem(x)))


class Uncopyable(nn.Module):
    """Locks, a generator of random numbers, a Python generator and a file: nothing of it can be copied."""

    def __init__(self):
        super().__init__()
        self.net, self.lock, self.shared = Net(), threading.Lock(), multiprocessing.Lock()
        self.random, self.steps, self.log = torch.Generator().manual_seed(0), (i for i in range(10)), io.StringIO()

    def forward(self, x):
        with self.lock, self.shared:
            self.log.write("called")
            return self.net(x + torch.rand(8, generator=self.random, dtype=D))


class Slots(Net):
    __slots__ = ("calls",)

    def forward(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(x)


class Frugal(Net):
    """Keeps activations where it likes."""

    def forward(self, x):
        x = self.stem(x)
        x.retain_grad() if x.requires_grad else None
        self.kept = x
        with torch.autograd.graph.save_on_cpu():
            return self.head(0.5 * x + torch.tanh(self.f(x)))


class Copying(Net):
    """Copies one of its own modules in the forward, as a teacher without gradients."""

    def forward(self, x):
        import copy

        teacher = copy.deepcopy(self.f).requires_grad_(False)
        x = self.stem(x)
        return self.head(0.5 * x + torch.tanh(self.f(x)) + teacher(x.detach()))


class Scripted(Net):
    def __init__(self):
        super().__init__(f=lambda: torch.jit.script(linear()))


class Buffered(Net):
    """A buffer of a subclass's type."""

    class Kind(torch.Tensor):
        pass

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(8, dtype=D).as_subclass(self.Kind))

    def forward(self, x):
        return super().forward(x * self.scale)


ODD = {kind.__name__: kind for kind in (Uncopyable, Slots, Frugal, Copying, Buffered)}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")
@pytest.mark.parametrize("build", [*ODD.values(), Scripted], ids=[*ODD, "Scripted"])
def test_a_module_of_an_odd_make(build):
    """Nothing of a module is assumed that nn.Module does not promise."""
    check(build, rows(), skips=HALF)


def test_a_module_that_delegates_its_attributes():
    """`__getattr__` of its own is left alone."""
    check(Delegating, rows(), skips=[])


def test_a_part_under_no_grad():
    """What runs under no_grad is named as such; behind it there is no gradient and so no skip."""

    class Features(Net):
        def forward(self, x):
            with torch.no_grad():
                x = self.stem(x)
            return self.head(torch.tanh(self.f(x)))

    report = check(Features, rows(), skips=[], unmeasured={"stem"})
    assert "no_grad" in report.layers[0].undefined["grad_norm"]


def test_parts_that_are_not_called_or_lead_nowhere():
    """Each gap has its reason."""

    class Idle(Net):
        def __init__(self):
            super().__init__()
            self.never, self.nowhere = linear(), linear()

        def forward(self, x):
            self.nowhere(x)
            return super().forward(x)

    report = check(Idle, rows(), skips=HALF, unmeasured={"never", "nowhere"})
    reasons = {x.name: x.undefined["grad_norm"] for x in report.layers if x.grad_norm is None}
    assert reasons == {"never": "it was not called in the forward pass", "nowhere": "its output does not lead to the loss"}


HOOKS = {
    "a forward hook that changes the output": lambda m: m.register_forward_hook(lambda m, a, out: out * 2),
    "a forward pre-hook that changes the input": lambda m: m.register_forward_pre_hook(lambda m, a: (a[0] * 2,)),
    "a backward hook that changes the gradient": lambda m: m.register_full_backward_hook(lambda m, i, o: (i[0] * 0.1,)),
    "a backward pre-hook that changes the gradient": lambda m: m.register_full_backward_pre_hook(lambda m, o: (o[0] * 0.1,)),
}


@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
def test_hooks_of_the_user(hook):
    """They run as in a plain run, and what they change is seen."""

    def build():
        model = nn.Sequential(linear(), Half(), linear())
        hook(model[1])
        return model

    check(build, rows(), skips=HALF)


def test_a_hook_that_clips_a_gradient_at_a_fork():
    """What arrives at the fork is no longer the sum of its parts: the ledger shows it, and a note says why."""

    class Clipped(Net):
        def forward(self, x):
            x = self.stem(x)
            x.register_hook(lambda grad: grad.clamp(-0.01, 0.01))
            return self.head(0.5 * x + torch.tanh(self.f(x)))

    report = check(Clipped, rows(), skips=HALF, ledger=10)
    assert report.skips[0].ledger_error > 0.1
    assert any("gradient hook" in note for note in report.run.notes)


@pytest.mark.filterwarnings("ignore:Please use quant_min")
def test_fake_quantisation():
    """Quantisation-aware training: the fake quantiser's observer has no gradient and is named; the skip around it is seen."""
    from torch.ao.quantization import default_fake_quant

    class Quantised(Net):
        def __init__(self):
            super().__init__()
            self.quantise = default_fake_quant()
            self.float()

        def forward(self, x):
            x = self.stem(x)
            return self.head(0.5 * x + self.quantise(torch.tanh(self.f(x))))

    check(Quantised, rows().float(), skips=HALF, unmeasured={"quantise.activation_post_process"}, ledger=1e-5)


def test_packed_sequences():
    """Sequences of different lengths, packed by torch: data, offsets and all."""

    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.cells, self.head = nn.GRU(8, 8, batch_first=True, dtype=D), linear()

        def forward(self, packed):
            return self.head(self.cells(packed)[1][-1])

    packed = nn.utils.rnn.pack_padded_sequence(rows(0, 4, 5, 8), torch.tensor([5, 3, 2, 4]), batch_first=True, enforce_sorted=False)
    check(Packed, (packed,))
