"""Dead units, counted against autograd one by one; layers that nothing reaches, and what silences them; fluctuation between batches."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import gradflow
from gradflow.reduce import live


def by_name(report):
    return {layer.name: layer for layer in report.layers}


def shares(model, *batches):
    """The share of each weight's units (by its dimension) whose gradient is all 0 in every batch, by autograd."""
    dead = {}
    for x in batches:
        output = model(x)
        torch.manual_seed(0)
        grads = torch.autograd.grad(output.square().sum(), [p for n, p in model.named_parameters() if n.endswith("weight")])
        names = [n for n, _ in model.named_parameters() if n.endswith("weight")]
        for name, grad in zip(names, grads, strict=True):
            module = model.get_submodule(name.removesuffix(".weight"))
            dimension = 1 if isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d) else 0
            rows = [bool((unit == 0).all()) for unit in grad.unbind(dimension)]
            dead[name.removesuffix(".weight")] = [a and b for a, b in zip(dead.get(name.removesuffix(".weight"), rows), rows, strict=True)]
    return {name: sum(rows) / len(rows) for name, rows in dead.items()}


def killed(model, *names, share=0.4):
    with torch.no_grad():
        for name in names:
            bias = model.get_submodule(name).bias
            bias[: int(share * bias.numel())] = -1e3
    return model


def square(output):
    return output.square().sum()


def test_units_of_linear_layers():
    """Dead before a ReLU: the share that autograd gives, unit by unit, and 0 where all are awake."""
    torch.manual_seed(0)
    model = killed(nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 3)), "0", "2")
    x = torch.randn(16, 6)
    report, expected = by_name(gradflow.profile(model, x, loss=square)), shares(model, x)
    assert expected["0"] >= 0.4 and expected["2"] >= 0.4 and expected["4"] == 0
    assert {n: report[n].dead_units for n in expected} == pytest.approx(expected)


@pytest.mark.parametrize("channels_last", [False, True])
def test_channels_of_convolutions(channels_last):
    """Output channels, of grouped and of transposed convolutions as well, in either layout of memory."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=4), nn.ReLU(), nn.ConvTranspose2d(8, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 1)
    )  # fmt: skip
    killed(model, "0", "2", "4", share=0.5)
    x = torch.randn(4, 3, 12, 12)
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    report, expected = by_name(gradflow.profile(model, x, loss=square)), shares(model, x)
    assert min(expected[n] for n in ("0", "2", "4")) >= 0.5
    assert {n: report[n].dead_units for n in expected} == pytest.approx(expected)


def test_a_unit_that_one_batch_wakes():
    """It is not dead: a unit counts where no batch gives it a gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 30), nn.ReLU(), nn.Linear(30, 2))
    batches = [torch.randn(1, 4) for _ in range(3)]
    again = iter(batches)
    report = by_name(gradflow.profile(model, lambda: next(again), batches=3, loss=square))
    singly = [shares(model, x)["0"] for x in batches]
    assert report["0"].dead_units == pytest.approx(shares(model, *batches)["0"])
    assert report["0"].dead_units < min(singly)


def test_layers_without_units():
    """An embedding, a norm, an activation, a grouped transposed convolution and a silent layer have none, and say why."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.norm, self.relu = nn.Embedding(50, 8), nn.LayerNorm(8), nn.ReLU()
            self.up = nn.ConvTranspose1d(8, 8, 3, groups=2)
            self.deaf, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, ids):
            h = self.norm(self.table(ids))
            h = h + F.relu(self.deaf(h) - 1e4)
            return self.head(self.relu(self.up(h.mT).mean(2)))

    layers = by_name(gradflow.profile(Net(), torch.randint(0, 50, (4, 6)), loss=square))
    assert "tokens" in layers["table"].undefined["dead_units"]
    assert "neither" in layers["norm"].undefined["dead_units"]
    assert "no weight" in layers["relu"].undefined["dead_units"]
    assert "grouped transposed" in layers["up"].undefined["dead_units"]
    assert "0 throughout" in layers["deaf"].undefined["dead_units"]
    assert layers["head"].dead_units == 0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_gradient(data):
    """`live` says what a look at each row says, wherever the only number of a row that is not 0 stands, nan and subnormals included."""
    shape = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
    dtype = data.draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64]))
    grad = torch.zeros(shape, dtype=dtype)
    smallest = torch.finfo(dtype).smallest_normal
    for _ in range(data.draw(st.integers(0, 4))):
        grad.view(-1)[data.draw(st.integers(0, grad.numel() - 1))] = data.draw(st.sampled_from([1.0, -smallest, math.nan, math.inf]))
    dimension = data.draw(st.integers(0, len(shape) - 1))
    expected = [float(any(v != 0 for v in row.flatten().tolist())) for row in grad.unbind(dimension)]
    assert live(grad, dimension).tolist() == expected


def test_the_finding_on_dead_units():
    """More than nine in ten are a warning at the layer; one in two is none."""
    torch.manual_seed(0)
    reports = [gradflow.profile(killed(nn.Sequential(nn.Linear(6, 100), nn.ReLU(), nn.Linear(100, 3)), "0", share=s), torch.randn(64, 6)) for s in (0.95, 0.5)]
    assert [[(f.rule, f.severity, f.where) for f in r.findings] for r in reports] == [[("GF109", "warning", "0")], []]


class Functional(nn.Module):
    """A chain in which one operator, given as a function, passes nothing on."""

    def __init__(self, deaf):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.deaf = deaf

    def forward(self, x):
        return self.c(self.deaf(self.b(self.a(x))))


DEAF = {"relu": lambda h: F.relu(h - 1e4), "clamp": lambda h: h.clamp(1e4, 2e4), "softmax": lambda h: torch.softmax(h.unsqueeze(-1), -1).squeeze(-1)}


@pytest.mark.parametrize("name", DEAF)
def test_an_operator_that_silences(name):
    """Both layers before it name it, with its line; the layer after it nothing."""
    layers = by_name(gradflow.profile(Functional(DEAF[name]), torch.randn(4, 4)))
    assert layers["a"].silenced_by == layers["b"].silenced_by and layers["c"].silenced_by == ""
    operator, _, place = layers["a"].silenced_by.partition(" at ")
    file, _, line = place.rpartition(":")
    assert (operator, Path(file).resolve(), int(line)) == (name, Path(__file__), DEAF[name].__code__.co_firstlineno)


def test_gradients_that_cancel():
    """x − x: 0 arrives although nothing is silent, and nothing is blamed."""
    layers = by_name(gradflow.profile(Functional(lambda h: h - 1.0 * h), torch.randn(4, 4)))
    assert layers["b"].gain == 0 and layers["b"].silenced_by == ""


def test_a_healthy_net_is_run_once():
    """Causes are looked for where there is something to explain."""
    runs = []
    report = gradflow.profile(Functional(lambda h: runs.append(1) or torch.relu(h)), torch.randn(4, 4))
    assert len(runs) == 1 and not any(layer.silenced_by for layer in report.layers)


def test_a_zero_initialised_branch():
    """It is closed and not silenced: no error."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.branch, self.scale = nn.Linear(4, 4), nn.Linear(4, 4), nn.Parameter(torch.zeros(1))

        def forward(self, x):
            x = self.stem(x)
            return x + self.scale * self.branch(x)

    report = gradflow.profile(Net(), torch.randn(4, 4))
    assert by_name(report)["branch"].silenced_by == "" and by_name(report)["branch"].closed_by == "scale"
    assert not [f for f in report.findings if f.rule == "GF108"]


class Gated(nn.Module):
    """A batch of mean m is multiplied by exp(m) after the first layer."""

    def __init__(self, power):
        super().__init__()
        self.a, self.b, self.power = nn.Linear(8, 64), nn.Linear(64, 4), power

    def forward(self, x):
        return self.b(self.a(x) * torch.exp(self.power * x.detach().mean()))


@pytest.mark.parametrize(("power", "found"), [(0.0, []), (3.0, ["GF302"])])
def test_fluctuation_between_batches(power, found):
    """The standard deviation of log10 of the gain over the batches, as the separate runs have it; with a gate over the batch it is a finding."""
    torch.manual_seed(0)
    model = Gated(power)
    batches = [torch.randn(4, 8) + mean for mean in (-1.0, -0.4, 0.0, 0.5, 1.0)]
    again = iter(batches)
    report = gradflow.profile(model, lambda: next(again), batches=5, loss=square)
    gains = [by_name(gradflow.profile(model, x, loss=square))["a"].gain for x in batches]
    logs = torch.tensor(gains, dtype=torch.float64).log10()
    assert by_name(report)["a"].fluctuation == pytest.approx(float(logs.std()), rel=1e-4, abs=1e-9)
    assert by_name(report)["b"].fluctuation == pytest.approx(0, abs=1e-9)
    assert [f.rule for f in report.findings if f.rule == "GF302"] == found
    if found:
        assert float(logs.std()) == pytest.approx(power * torch.tensor([float(x.mean()) for x in batches]).std().item() / math.log(10), rel=0.05)


def test_three_batches():
    """They are too few for a fluctuation, and the layer says so."""
    layers = by_name(gradflow.profile(Gated(1.0), lambda: torch.randn(4, 8), batches=3, loss=square))
    assert layers["a"].fluctuation is None and "4 batches" in layers["a"].undefined["fluctuation"]
