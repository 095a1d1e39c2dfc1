"""The model files of docs/examples: what their docstrings promise, by plain autograd."""

import runpy
from pathlib import Path

import pytest
import torch

EXAMPLES = sorted((Path(__file__).parents[2] / "docs" / "examples").glob("*.py"))
OURS = {"residual_cnn", "half_skip_cnn", "small_gpt", "sigmoid_mlp"}


@pytest.fixture
def load():
    torch.set_default_dtype(torch.float32)

    def run(name):
        return runpy.run_path(str(next(path for path in EXAMPLES if path.stem == name)))

    return run


@pytest.mark.parametrize("name", sorted(OURS))
def test_an_example_trains_a_step(load, name):
    """`model`, `inputs`, `targets` and `loss` fit together, and every parameter gets a finite gradient tensor."""
    file = load(name)
    model = file["model"]()
    value = file["loss"](model(file["inputs"]), file["targets"])
    value.backward()
    assert value.ndim == 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", sorted(OURS))
def test_an_example_is_the_same_each_time(load, name):
    """Inputs and targets come from a generator of the file's own: the global one is neither read nor moved."""
    state = torch.random.get_rng_state()
    first = load(name)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(first["inputs"], load(name)["inputs"])


@pytest.mark.parametrize("name", sorted(OURS))
def test_an_example_is_short(name):
    """At most 80 lines, opened by a docstring."""
    text = next(path for path in EXAMPLES if path.stem == name).read_text()
    assert text.startswith('"""')
    assert text.count("\n") <= 80


def test_the_two_cnns_differ_in_one_line_of_code(load):
    """half_skip_cnn is residual_cnn with a halved shortcut, but for its docstring and its class's name."""
    healthy, sick = (
        next(path for path in EXAMPLES if path.stem == stem).read_text().split('"""', 2)[2].replace("HalfSkipCNN", "ResidualCNN").splitlines()
        for stem in ("residual_cnn", "half_skip_cnn")
    )
    assert [pair for pair in zip(healthy, sick, strict=True) if pair[0] != pair[1]] == [("        return x + out", "        return 0.5 * x + out")]
    assert 0.25e6 < sum(p.numel() for p in load("residual_cnn")["model"]().parameters()) < 0.35e6


def test_halved_shortcuts_leave_every_weight_a_gradient(load):
    """The disease that no per-layer norm betrays: with λ = 0.5 the first block's weight gradient is not small, but larger than the last one's."""
    file = load("half_skip_cnn")
    model = file["model"]()
    file["loss"](model(file["inputs"]), file["targets"]).backward()
    first, last = model.blocks[0].conv1.weight.grad.norm(), model.blocks[-1].conv1.weight.grad.norm()
    assert first > last


def test_thirty_sigmoids_starve_the_first_layer(load):
    """In float64 the first layer's gradient is there, and less than 1e-20 of the last layer's."""
    file = load("sigmoid_mlp")
    model = file["model"]().double()
    file["loss"](model(file["inputs"].double()), file["targets"]).backward()
    assert 0 < model[0].weight.grad.norm() / model[-1].weight.grad.norm() < 1e-20
