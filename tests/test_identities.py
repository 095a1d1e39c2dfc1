"""What must hold between the measured numbers whatever the network: identities, invariances, and batches that add up."""

import math
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from properties.networks import Network, Plan, random_networks
from residual_nets import NETS, built, inner_product, subject
from torch import Tensor, nn

import gradflow
from gradflow import zoo
from gradflow.records import Highway, Layer, Report, Skip

DRAWN = settings(deadline=None, derandomize=True, database=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
EVERY = pytest.mark.parametrize("net", NETS)
TOLERANCE = 1e-10
_NO_RATIOS = ("fork_depth", "join_depth")  # places


def leaves(value: object, place: str = "") -> Iterator[tuple[str, object]]:
    """Every number, word and None in a record, with its place."""
    if is_dataclass(value):
        for field in fields(value):
            if field.name not in _NO_RATIOS:
                yield from leaves(getattr(value, field.name), f"{place}.{field.name}")
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from leaves(item, f"{place}[{i}]")
    elif isinstance(value, dict):
        yield place, sorted(value)
    else:
        yield place, value


def assert_alike(one: Report, other: Report, *, tolerance: float = TOLERANCE, scale: float = 1.0) -> None:
    """All skips and highways, every field of them, and the layers' gradients; `scale` is that of the other's loss.

    The misfit of streams is the root of a difference of sums: 1e-8 is rounding there. How many elements are exactly 0 can change with a scale that rounds.
    """
    assert [skip.id for skip in one.skips] == [skip.id for skip in other.skips]
    pairs: list[tuple[Skip | Highway, Skip | Highway]] = [*zip(one.skips, other.skips, strict=True), *zip(one.highways, other.highways, strict=True)]
    for ours, theirs in pairs:
        for (place, value), (_, found) in zip(leaves(ours), leaves(theirs), strict=True):
            if isinstance(value, float) and isinstance(found, float):
                rooted = "streams" in place and place.endswith("misfit")
                assert found == pytest.approx(value, rel=tolerance, abs=1e-7 if rooted else tolerance), (ours.name, place)
            elif place != ".bound_holds" or abs((ours.total_gain or 0) - (ours.gain or 0)) > tolerance:
                assert found == value, (ours.name, place)
    for a, b in zip(one.layers, other.layers, strict=True):
        _assert_layers_alike(a, b, tolerance, scale)


def _assert_layers_alike(a: Layer, b: Layer, tolerance: float, scale: float) -> None:
    assert (a.name, a.calls, a.nonfinite) == (b.name, b.calls, b.nonfinite)
    cancelled = a.name.endswith((".query", ".key"))  # the first token's, with the one weight that a causal mask leaves: to 0 or to 1e-17, as the CPU sums
    assert cancelled or math.frexp(scale)[0] != 0.5 or a.zero_fraction == (None if b.zero_fraction is None else pytest.approx(b.zero_fraction, abs=1e-15))
    assert b.gain == (None if a.gain is None else pytest.approx(a.gain, rel=tolerance))
    assert b.grad_norm == (None if a.grad_norm is None else pytest.approx(a.grad_norm * scale, rel=tolerance))


def assert_cosines(report: Report) -> None:
    """λ̂ = γ·cos(s, g) with cos² = 1 − misfit²."""
    for skip in report.skips:
        if skip.lam is not None and skip.misfit is not None and skip.gain is not None:
            cosine = math.sqrt(1 - skip.misfit**2)
            assert abs(skip.lam) == pytest.approx(skip.gain * cosine, rel=1e-9, abs=1e-8 * skip.gain), skip.id  # the root of a rounded 0 is 1e-8


@EVERY
def test_lambda_is_gain_times_cosine(net):
    """λ̂ = γ·cos(s, g) on every skip of the zoo."""
    assert_cosines(subject(net).report)


@DRAWN
@given(random_networks())
def test_lambda_is_gain_times_cosine_on_random_networks(plan: Plan) -> None:
    """λ̂ = γ·cos(s, g) for every kind of skip that a random network holds."""
    network = Network(plan)
    assert_cosines(gradflow.profile(network, network.inputs(), loss=_summed))


@DRAWN
@given(random_networks())
def test_cotangents_and_the_loss_gradient_on_random_networks(plan: Plan) -> None:
    """Where a skip is a number, random cotangents say what the loss gradient says, in all digits; where it is a vector they weigh its entries alike; and no
    path has a smaller Frobenius norm than its trace allows: (tr/d)² ≤ ‖J‖²/d for one cotangent as for many."""
    network = Network(plan)
    for skip in gradflow.profile(network, network.inputs(), loss=_summed, probes=2).skips:
        probe = skip.probe
        assert probe is not None and probe.frobenius is not None
        if probe.trace is None:
            continue
        assert probe.trace**2 <= probe.frobenius * (1 + 1e-12), skip.id
        if skip.kind in ("identity", "scaled") and skip.channels is None and skip.lam is not None:
            assert (probe.trace, probe.frobenius) == pytest.approx((skip.lam, skip.lam**2), rel=1e-12), skip.id
            assert probe.agrees is True
        if skip.channels is not None and skip.channels.count == len(skip.channels.worst):
            lams = [channel.lam for channel in skip.channels.worst]
            assert probe.trace == pytest.approx(sum(lams) / len(lams), rel=1e-10)
            assert probe.frobenius == pytest.approx(sum(lam**2 for lam in lams) / len(lams), rel=1e-10)


@EVERY
def test_law_of_cosines_at_forks_with_two_consumers(net):
    """Where nothing but skip and branch feeds the fork, ‖t‖² = ‖s‖² + ‖f‖² + 2‖s‖‖f‖cos, so that ‖t‖ lies between |‖s‖ − ‖f‖| and ‖s‖ + ‖f‖."""
    for skip in subject(net).report.skips:
        s, f, t, cosine = skip.gain, skip.branch_gain, skip.total_gain, skip.cos_skip_branch
        assert s is not None and f is not None and t is not None
        assert t**2 == pytest.approx(s**2 + f**2 + 2 * s * f * (cosine or 0.0), rel=1e-10, abs=1e-20)
        assert abs(s - f) * (1 - 1e-12) <= t <= (s + f) * (1 + 1e-12)
        assert skip.bound_holds is (t >= s * (1 - 1e-12))


@DRAWN
@given(random_networks(), st.floats(1e-6, 1e6))
def test_scale_of_the_loss(plan: Plan, scale: float) -> None:
    """No ratio knows the loss's scale: all skips, highways, segments and layers' gains are the same, and the norms are those times the scale."""
    network = Network(plan)
    one = gradflow.profile(network, network.inputs(), loss=_summed, probes=2)
    other = gradflow.profile(network, network.inputs(), loss=lambda output: scale * _summed(output), probes=2)
    assert_alike(one, other, tolerance=1e-8, scale=scale)


@pytest.mark.parametrize("scale", [1e-6, 2.0**-20, 1e6])
@EVERY
def test_scale_of_the_loss_on_the_zoo(net, scale):
    """The zoo's networks under a loss a million times smaller or larger have the same report."""
    one = subject(net)
    other = gradflow.profile(one.model, one.x, one.cotangent * scale, inner_product, seed=3)
    assert_alike(one.report, other, tolerance=1e-8, scale=scale)


class _Rotated(nn.Module):
    """Residual blocks y = S·x + W₂·tanh(W₁·x) and a head, in coordinates that an orthogonal matrix turns. S is a number, a gate or a matrix."""

    def __init__(self, rotation: Tensor, skip: str, blocks: int, seed: int) -> None:
        super().__init__()
        width, generator = len(rotation), torch.Generator().manual_seed(seed)

        def drawn(rows: int) -> Tensor:
            return torch.randn(rows, width, generator=generator, dtype=torch.float64) / math.sqrt(width)

        self.skip = skip
        self.into = nn.ParameterList(drawn(width) @ rotation.T for _ in range(blocks))
        self.out = nn.ParameterList(rotation @ drawn(width) for _ in range(blocks))
        self.matrix = nn.ParameterList(rotation @ drawn(width) @ rotation.T for _ in range(blocks))
        self.gate = nn.ParameterList(drawn(1) @ rotation.T for _ in range(blocks))
        self.head = nn.Parameter(drawn(3) @ rotation.T)

    def forward(self, x: Tensor) -> Tensor:
        for into, out, matrix, gate in zip(self.into, self.out, self.matrix, self.gate, strict=True):
            carried = {"identity": lambda x: x, "scaled": lambda x: 0.6 * x, "matrix": lambda x, m=matrix: nn.functional.linear(x, m)}
            s = x * torch.sigmoid(nn.functional.linear(x, gate)) if self.skip == "gated" else carried[self.skip](x)
            x = s + nn.functional.linear(torch.tanh(nn.functional.linear(x, into)), out)
        return nn.functional.linear(x, self.head)


@DRAWN
@given(st.sampled_from(["identity", "scaled", "gated", "matrix"]), st.integers(2, 6), st.integers(1, 4), st.integers(0, 10_000))
def test_rotation_of_forks_and_joins(skip: str, width: int, blocks: int, seed: int) -> None:
    """A network in rotated coordinates (one orthogonal matrix at every fork and join) has the same λ̂, gains, cosines, highway and intervals."""
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))
    x = torch.randn(5, width, generator=generator, dtype=torch.float64)
    plain, turned = (_Rotated(q, skip, blocks, seed) for q in (torch.eye(width, dtype=torch.float64), rotation))
    assert torch.allclose(turned(x @ rotation.T), plain(x), rtol=1e-9, atol=1e-9)
    one, other = (gradflow.profile(m, given, loss=_summed) for m, given in ((plain, x), (turned, x @ rotation.T)))
    assert len(one.skips) == blocks
    assert_alike(one, other, tolerance=1e-7)


def _summed(output: Tensor) -> Tensor:
    """A loss that adds up over samples, with another slope everywhere."""
    return (output - 0.3).pow(2).sum() + output.sin().sum()


def _in_turn(parts: list[object]) -> Callable[[], object]:
    waiting = iter(parts)
    return lambda: next(waiting)


_UNCOUPLED = [name for name, (_, shape) in NETS.items() if len(shape) < 4 or name in ("preact without norm", "fixup")]
_SIZES = {"unequal": [3, 1, 4], "samples of their own": [1] * 8, "equal": [4, 4], "all but one": [7, 1]}


@pytest.mark.parametrize("sizes", _SIZES.values(), ids=_SIZES)
@pytest.mark.parametrize("net", _UNCOUPLED)
def test_batch_in_parts(net, sizes):
    """A batch is the same as its parts, profiled one after another: λ̂, gains, intervals, n_eff, trend, highway, segments and the layers' gradients."""
    make, (_, *rest) = NETS[net]
    model, x, cotangent = built(make, (sum(sizes), *rest))
    whole = gradflow.profile(model, x, cotangent, inner_product)
    parts = gradflow.profile(model, _in_turn(x.split(sizes)), _in_turn(cotangent.split(sizes)), inner_product, batches=len(sizes))
    assert parts.run.batches == len(sizes)
    assert parts.run.loss.value * len(sizes) == pytest.approx(whole.run.loss.value, rel=1e-9, abs=1e-9)
    assert_alike(whole, parts, tolerance=1e-9)


class _Looped(nn.Module):
    """An LSTM cell's carry, a skip that is scaled by a vector, and streams that a matrix mixes."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.mlp, self.scale = nn.LSTMCell(4, 6), nn.Linear(6, 6), nn.Parameter(torch.rand(6) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        h, c = torch.tanh(x[:, 0, :1]) * x.new_ones(6), torch.sin(x[:, 0, :1]) * x.new_ones(6)
        for step in range(x.shape[1]):
            h, c = self.cell(x[:, step], (h, c))
        return h * self.scale + torch.relu(self.mlp(h))


def test_loop_and_channels_in_parts():
    """The trend of a loop and the λ̂ of each channel add up over batches as well."""
    model, x, cotangent = built(_Looped, (6, 5, 4))
    whole = gradflow.profile(model, x, cotangent, inner_product)
    parts = gradflow.profile(model, _in_turn(x.split([1, 3, 2])), _in_turn(cotangent.split([1, 3, 2])), inner_product, batches=3)
    loop, scaled = whole.skips
    assert len(loop.trend) == loop.calls > 1 and scaled.channels is not None and scaled.channels.count == 6
    assert_alike(whole, parts, tolerance=1e-9)


def test_streams_in_parts():
    """The mixing matrices, of each unit and of the whole highway, add up over batches."""
    model, x, cotangent = built(lambda: zoo.hyper_connection_net(3, 8, mixing="random"), (5, 8))
    whole = gradflow.profile(model, x, cotangent, inner_product)
    parts = gradflow.profile(model, _in_turn(x.split([2, 3])), _in_turn(cotangent.split([2, 3])), inner_product, batches=2)
    assert whole.skips[0].streams is not None and whole.highways[0].streams
    assert_alike(whole, parts, tolerance=1e-9)


@DRAWN
@given(random_networks().filter(lambda plan: plan.batch > 2), st.data())  # two batches of one sample each have no samples to tell apart
def test_random_networks_in_parts(plan: Plan, data: st.DataObject) -> None:
    """Any network without coupling between samples: a batch split anywhere is the batch."""
    network = Network(plan)
    inputs, at = network.inputs(), data.draw(st.integers(1, plan.batch - 1), label="split at")
    sizes = [at, plan.batch - at]
    whole = gradflow.profile(network, inputs, loss=_summed)
    split = list(zip(*(t.split(sizes) for t in inputs), strict=True))
    parts = gradflow.profile(network, _in_turn(split), loss=_summed, batches=2)
    assert_alike(whole, parts, tolerance=1e-8)
