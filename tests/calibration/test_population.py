"""The severity ranks networks that were trained, and what it is compared with is computed right."""

import math

import pytest
import torch
from torch import nn

import gradflow
from gradflow.judge import judge
from gradflow.rules import RULES, choose, severity
from tests.calibration.cache import outcomes
from tests.calibration.elsewhere import TOOLS, observe
from tests.calibration.networks import SHORTCUTS, build, draw
from tests.calibration.population import SIZE, half_of, judged, score
from tests.calibration.scoring import auc, confusion
from tests.calibration.training import digits, first_batch, train


def test_networks_that_were_held_out():
    """The severity at initialisation says which of them do not train with an AUC of 0.95, better than each of the other tools' thresholds."""
    specs = [draw(seed) for seed in range(SIZE) if half_of(seed) == "held out"]
    trained = outcomes(specs)
    found = judged([{**score(spec), "trains": trained[spec.seed].trains} for spec in specs])
    assert found["networks"] == SIZE // 2 >= 100
    assert found["auc"] >= 0.95
    assert all(found["auc"] > tool["score"] for tool in found["elsewhere"].values())


def test_a_population_of_every_kind():
    """At least 200 networks, 2 to 60 layers deep, with every shortcut, every norm and λ from 0.1 to 2 among them."""
    specs = [draw(seed) for seed in range(SIZE)]
    assert SIZE >= 200
    assert {spec.shortcut for spec in specs} == set(SHORTCUTS)
    assert {(spec.form, spec.norm) for spec in specs} == {(form, norm) for form in ("mlp", "cnn") for norm in ("none", "batch", "layer")}
    assert all(2 <= spec.depth <= 60 and 0.1 <= spec.lam <= 2 and 0.5 <= spec.gain <= 2 for spec in specs)
    assert (min(spec.depth for spec in specs), max(spec.depth for spec in specs)) == (2, 60)


def test_one_network_trained_again():
    """What the cache holds is what training gives, but for a few of 500 test digits: training carries a CPU's rounding far."""
    spec = draw(8)
    assert train(spec).best == pytest.approx(outcomes([spec])[8].best, abs=0.04)


def test_digits_that_are_kept_for_the_test():
    """No image is in both sets, and the batch that is profiled is of the training set."""
    data = digits()
    rows = {tuple(image.flatten().tolist()) for image in data.images}
    assert len(data.images) + len(data.test_images) == 1797
    assert not any(tuple(image.flatten().tolist()) in rows for image in data.test_images)
    assert torch.equal(first_batch()[0], data.images[:64])


def test_scores_ranked():
    """AUC by enumeration of pairs: all right 1, all wrong 0, all equal ½, one pair of four wrong ¾; and what needs both kinds says so."""
    assert auc([2, 3, 0, 1], [True, True, False, False]) == 1
    assert auc([0, 1, 2, 3], [True, True, False, False]) == 0
    assert auc([1, 1, 1], [True, False, False]) == 0.5
    assert auc([1, 3, 0, 2], [True, True, False, False]) == 0.75
    with pytest.raises(ValueError, match="ill ones and well ones"):
        auc([1.0], [True])
    assert confusion(["sick", "healthy", "sick"], [True, False, False]) == {"trains": {"healthy": 1, "sick": 1}, "ill": {"sick": 1}}


def test_thresholds_of_other_tools():
    """A stack whose gradient vanishes as 1e-6 a layer breaks those on vanishing, a stack that is NaN every one, and a healthy layer none of them."""

    class Scaled(nn.Linear):
        def forward(self, x):
            return super().forward(x) * 1e-6

    torch.manual_seed(0)
    vanishing = nn.Sequential(nn.Flatten(), Scaled(64, 64), Scaled(64, 64), nn.Linear(64, 10))
    healthy = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
    broken = build(draw(8))
    with torch.no_grad():
        next(broken.parameters()).fill_(math.nan)
    assert all(tool(observe(vanishing)) > 0 for tool in TOOLS.values())
    assert all(tool(observe(broken)) == 30 for tool in TOOLS.values())
    assert all(tool(observe(healthy)) <= 0 for tool in TOOLS.values())


class Thinned(nn.Module):
    """`depth` blocks dropout(x) + F(x), on [batch, 64]."""

    def __init__(self, depth, rate):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(depth))
        self.dropout = nn.Dropout(rate)

    def forward(self, x):
        for layer in self.layers:
            x = self.dropout(x) + 0.01 * layer(x)
        return x


def test_dropout_on_eight_skips():
    """A coordinate is kept in all of them with probability 2^-8: the severity is 8·log10 2 less the one decade that is nothing, but for the masks drawn."""
    torch.manual_seed(0)
    report = gradflow.profile(Thinned(8, 0.5), torch.randn(1024, 64))
    assert [f.decades > 0 for f in report.findings if f.rule == "GF204"] == [True, *[False] * 7]
    assert report.severity == pytest.approx(8 * math.log10(2) - 1, abs=0.1)


@pytest.mark.parametrize("factor", [1e-2, 1e2], ids=["lost", "gained"])
def test_a_gradient_that_is_scaled_on_its_way(factor):
    """Two decades either way are within the limits and a note at the first layer that counts what lies beyond 0.03 or 30; without the rule nothing does."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(8, 8)
            self.second = nn.Linear(8, 8, bias=False)
            nn.init.eye_(self.second.weight)

        def forward(self, x):
            return factor * self.second(self.first(x))

    report = gradflow.profile(Net().double(), torch.randn(4, 8, dtype=torch.float64))
    assert [(f.rule, f.severity, f.where) for f in report.findings] == [("GF101" if factor < 1 else "GF102", "info", "first")]
    assert report.severity == pytest.approx(math.log10(3) if factor < 1 else 2 - math.log10(30), abs=1e-6)
    assert report.severity == severity(report.findings) > 0
    rules = choose(RULES, ignore=["GF101", "GF102"])
    assert judge(report.layers, report.skips, report.highways, rules) == ()
