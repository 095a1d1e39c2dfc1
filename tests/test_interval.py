"""The interval over samples: what it covers, on a network whose population is known, and how it moves with its sums."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gradflow
from gradflow import zoo
from gradflow.accounts.interval import MOST_UNITS, gain_interval, interval

BATCHES = range(500)  # the seeds: all of them, from 0 on


def drawn(seed, samples, sigma=1.0):
    """Sums of `samples` samples: ratios about 0.5, lognormal weights."""
    numbers = np.random.default_rng(seed)
    bottom = np.exp(sigma * numbers.standard_normal(samples))
    return bottom * numbers.random(samples), bottom


sums = st.builds(drawn, st.integers(0, 2**32), st.integers(2, 80), st.sampled_from([0.0, 0.1, 1.0, 2.0]))


@pytest.mark.parametrize(("sigma", "correlation"), [(0.1, 0.0), (1.0, 0.0), (1.0, 0.5)], ids=["light", "heavy", "heavy-and-with-the-gate"])
def test_batches_of_32_from_a_known_population(sigma, correlation):
    """Over 500 batches the intervals of λ and of the gain hold the population's 93 to 97 times in 100, heavy-tailed weights included."""
    net = zoo.sampled_skip_net(sigma=sigma, correlation=correlation)
    lam, gain = net.population.lam(), net.population.gain()
    skips = [gradflow.profile(net, net.draw(32, seed), loss="probe", seed=seed).skips[0] for seed in BATCHES]
    assert {skip.kind for skip in skips} == {"gated"}
    assert 0.93 <= np.mean([skip.lam_low <= lam <= skip.lam_high for skip in skips]) <= 0.97
    assert 0.93 <= np.mean([skip.gain_low <= gain <= skip.gain_high for skip in skips]) <= 0.97


def test_few_samples():
    """From 4 normal samples of equal weight, where Student's t is exact, the interval of the mean covers 95 % of 2000."""
    numbers = np.random.default_rng(0)
    ends = np.array([interval(numbers.standard_normal(4), np.ones(4), 0) for _ in range(2000)])
    assert np.mean((ends[:, 0] <= 0) & (ends[:, 1] >= 0)) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(("samples", "quantile"), [(2, 12.7062), (3, 4.3027), (5, 2.7764), (7, 2.4469)])
def test_fewer_samples_than_are_resampled(samples, quantile):
    """Equal weights and fewer than 8 samples: the classical interval, mean ± t·s/√n, with the jackknife's n/(n − 1) in the residuals."""
    top = np.random.default_rng(samples).standard_normal(samples)
    reach = quantile * math.sqrt(np.sum((top - top.mean()) ** 2)) / (samples - 1)
    assert interval(top, np.ones(samples), 0) == pytest.approx((top.mean() - reach, top.mean() + reach), rel=1e-4)


@settings(deadline=None)
@given(sums, st.integers(0, 2**31))
def test_the_estimate_is_inside(pair, seed):
    """low ≤ Σtop/Σbottom ≤ high, both finite, and the same again; likewise the gain."""
    top, bottom = pair
    low, high = interval(top, bottom, seed)
    assert low <= top.sum() / bottom.sum() <= high
    assert math.isfinite(low) and math.isfinite(high)
    assert (low, high) == interval(top, bottom, seed)
    low, high = gain_interval(top, bottom, seed)
    assert 0 <= low <= math.sqrt(top.sum() / bottom.sum()) * (1 + 1e-15) <= high * (1 + 2e-15)


@settings(deadline=None)
@given(sums, st.integers(-300, 300), st.integers(-300, 300))
def test_other_units(pair, power_of_top, power_of_bottom):
    """Sums in other units by powers of two give the same interval in other units, to the last bit."""
    top, bottom = pair
    low, high = interval(top, bottom, 0)
    scaled = interval(np.ldexp(top, power_of_top), np.ldexp(bottom, power_of_bottom), 0)
    assert scaled == (math.ldexp(low, power_of_top - power_of_bottom), math.ldexp(high, power_of_top - power_of_bottom))


@settings(deadline=None)
@given(sums, st.floats(1e-6, 1e6))
def test_a_loss_scale(pair, scale):
    """Both sums times one number: the interval stays."""
    top, bottom = pair
    assert interval(top * scale, bottom * scale, 0) == pytest.approx(interval(top, bottom, 0), rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(sums, st.floats(-100, 100))
def test_a_constant_added_to_every_ratio(pair, constant):
    """The interval moves by it."""
    top, bottom = pair
    low, high = interval(top, bottom, 0)
    moved = interval(top + constant * bottom, bottom, 0)
    assert moved == pytest.approx((low + constant, high + constant), rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 80))
def test_the_other_sign(seed, samples):
    """−top: the interval is mirrored."""
    top, bottom = drawn(seed, samples)
    low, high = interval(top, bottom, 0)
    assert interval(-top, bottom, 0) == pytest.approx((-high, -low), rel=1e-9)


@settings(deadline=None)
@given(sums, st.randoms(use_true_random=False))
def test_another_order_of_samples(pair, random):
    """The order of the samples does not matter."""
    top, bottom = pair
    order = list(range(top.size))
    random.shuffle(order)
    assert interval(top[order], bottom[order], 0) == pytest.approx(interval(top, bottom, 0), rel=1e-9)


@settings(deadline=None)
@given(
    st.integers(0, 2**32), st.integers(1, 600), st.floats(-1e3, 1e3).filter(lambda ratio: ratio == 0 or abs(ratio) > 1e-280)
)  # below, a product has lost its digits
def test_one_ratio_in_all_samples(seed, samples, ratio):
    """A constant λ has an interval of no width, at the estimate."""
    _, bottom = drawn(seed, samples)
    value = float((ratio * bottom).sum() / bottom.sum())
    assert interval(ratio * bottom, bottom, 0) == (value, value)


def test_an_identity():
    """Top and bottom are one: exactly 1, of the gain as well."""
    _, bottom = drawn(0, 50)
    assert interval(bottom, bottom, 0) == gain_interval(bottom, bottom, 0) == (1.0, 1.0)


@pytest.mark.parametrize("tiny", [1e-20, 1e-200, 5e-324])
@pytest.mark.parametrize("samples", [2, 3, 16])
def test_one_sample_that_carries_all(samples, tiny):
    """n_eff is 1: the interval is finite and reaches the ratio of the samples that have next to no weight, which is 2 and not 1."""
    bottom = np.full(samples, tiny)
    bottom[-1] = 1.0
    top = 2 * bottom
    top[-1] = 1.0
    low, high = interval(top, bottom, 0)
    assert math.isfinite(low) and low <= 1 and 2 <= high < 100


def test_samples_without_a_gradient():
    """A sample of weight 0 counts as drawn: without it the interval is another, and each holds the estimate, which is the same."""
    top, bottom = drawn(1, 20)
    padded = interval(np.append(top, np.zeros(20)), np.append(bottom, np.zeros(20)), 0)
    alone = interval(top, bottom, 0)
    assert padded != alone
    assert max(padded[0], alone[0]) <= top.sum() / bottom.sum() <= min(padded[1], alone[1])


def test_a_skip_that_some_samples_pass_and_others_do_not():
    """Ratios of 0 and 1, of which many a resample holds one alone: no end is farther than Student's 12.7 standard errors."""
    top = np.zeros(10)
    top[0] = 1.0
    error = math.sqrt(np.sum((top - 0.1) ** 2)) / 9
    low, high = interval(top, np.ones(10), 0)
    assert 0.1 - 12.71 * error <= low <= 0.1
    assert high == pytest.approx(0.1 + 12.7062 * error, rel=1e-5)


def test_a_skip_of_many_samples():
    """More samples than are resampled one by one: as wide as the normal interval, and within a tenth of it at each end."""
    top, bottom = drawn(3, 5 * MOST_UNITS + 1, sigma=0.5)
    value = top.sum() / bottom.sum()
    error = math.sqrt(np.sum((top - value * bottom) ** 2)) / bottom.sum()
    low, high = interval(top, bottom, 0)
    assert (value - low) / error == pytest.approx(1.96, rel=0.1)
    assert (high - value) / error == pytest.approx(1.96, rel=0.1)


def test_skewed_ratios():
    """Where the long tail of the samples lies to the right, so does the long end of the interval."""
    ratios = np.exp(np.random.default_rng(0).standard_normal(30))
    low, high = interval(ratios, np.ones(30), 0)
    assert high - ratios.mean() > 1.2 * (ratios.mean() - low)


def test_a_gain():
    """The interval of √(Σss/Σgg) is the root of the ratio's, from 0 where the ratio's begins below."""
    ss, gg = drawn(5, 40)
    low, high = interval(ss, gg, 0)
    assert gain_interval(ss, gg, 0) == pytest.approx((math.sqrt(low), math.sqrt(high)), rel=1e-15)
    ss, gg = np.array([0.0, 1.0]), np.ones(2)
    assert interval(ss, gg, 0)[0] < 0 == gain_interval(ss, gg, 0)[0]


def test_the_report():
    """A profile's intervals are those of its sums by samples, which plain autograd gives; the seed is the run's."""
    net = zoo.sampled_skip_net().double()
    batch = net.draw(24, 0).double().requires_grad_()
    cotangent = torch.randn(24, net.width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    g = cotangent * torch.exp(batch[:, :1] / 2)
    gate = torch.sigmoid(batch[:, 1:2])
    gg, sg, ss = (x.sum(1).detach().numpy() for x in (g * g, gate * g * g, (gate * g) ** 2))
    skip = gradflow.profile(net, batch.detach(), loss=lambda output: (output * cotangent).sum(), seed=7).skips[0]
    assert (skip.lam_low, skip.lam_high) == pytest.approx(interval(sg, gg, 7), rel=1e-9)
    assert (skip.gain_low, skip.gain_high) == pytest.approx(gain_interval(ss, gg, 7), rel=1e-9)
