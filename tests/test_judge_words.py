"""What a finding says and in which order findings are told: the place where it is worst, where it begins, what to do with what the model has."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradflow
from gradflow import judge, zoo
from gradflow.judge.samples import judge_samples
from gradflow.records import GRAVITY, Finding, Layer, Parameter, SampleShare
from gradflow.rules import EVERY, RULES, severity, worst_first
from gradflow.rules.severity import counted


def finding(code, decades, grave="warning"):
    return Finding(rule=code, severity=grave, where="x", value=1.0, limit=1.0, decades=decades, message="", fix="", location=None)


def layer(name, gain, depth=0, calls=1, parameters=()):
    undefined = {"dead_units": "no units", "fluctuation": "one batch"}
    return Layer(
        name=name, type="Linear", calls=calls, depth=depth, location=None, output_shape=(4, 8), grad_norm=gain, grad_rms=gain, gain=gain, zero_fraction=0.0,
        nonfinite=0, fp16_underflow=0.0, dead_units=None, fluctuation=None, parameters=parameters, undefined=undefined,
    )  # fmt: skip


def only(report, code):
    return [f for f in report.findings if f.rule == code]


class TestOrder:
    def test_a_gate_and_the_highway_that_it_starves(self):
        """The highway is told first, however far λ lies beyond its limit and however little of it one call counts; errors come before both."""
        found = [finding("GF201", 2.6), finding("GF206", 0.15), finding("GF111", 5.0), finding("GF101", 3.0, "error"), finding("GF301", 0.2)]
        assert [f.rule for f in worst_first(found)] == ["GF101", "GF301", "GF206", "GF111", "GF201"]

    def test_the_first_finding_of_its_severity_counts_if_any_does(self):
        """Whatever the rules: the severity of the report is never that of a finding behind one that adds nothing."""
        found = [finding(code, decades, grave) for code in RULES for decades in (0.0, 0.3, 4.0) for grave in GRAVITY]
        order = worst_first(found)
        assert severity(order) == severity(found) == 4.0
        for one, two in pairwise(order):
            alike = one.severity == two.severity and "GF208" not in (one.rule, two.rule)
            assert GRAVITY[one.severity] >= GRAVITY[two.severity]
            assert not alike or (counted(one) > 0) >= (counted(two) > 0)


class Halving(nn.Module):
    """An LSTM's cell in a loop over [batch, steps, feature], whose gates are all 1/2: what it forgets at each step is half."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.LSTMCell(3, 4), nn.Linear(4, 2)
        for parameter in self.cell.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x):
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0])


class TestLoops:
    @pytest.mark.parametrize(("steps", "calls"), [(40, 24), (26, 24), (20, None)])
    def test_a_carry_that_forgets_half_at_each_call(self, steps, calls):
        """2⁻²⁴ is the first power of a half below 1e-7, in whatever length holds it; the gain is 2 to the minus the number of calls."""
        report = gradflow.profile(Halving().double(), torch.randn(4, steps, 3, dtype=torch.float64))
        first, (told,) = report.findings[0], only(report, "GF206")
        assert first is told and told.value == pytest.approx(0.5 ** (steps - 1), rel=1e-9)
        assert "The carry of cell alone brings " in told.message
        assert f" of the gradient back from the last call to the first of {steps - 1} (λ = 0.5 ×{steps - 1})" in told.message
        assert (f"after {calls} calls less than 1e-7 of it is left" if calls else "back") in told.message
        assert ("float32" in told.message) is (calls is not None)
        assert "Start the gate open" in told.fix

    def test_the_gate_of_one_call(self):
        """It is said of its calls, and not of the layers of one."""
        (told,) = only(gradflow.profile(Halving(), torch.randn(4, 12, 3)), "GF201")
        assert told.message == "The gated skip of cell attenuates the gradient: λ = 0.5, over its 11 calls."


class TestWorstLayer:
    def test_a_layer_within_that_is_larger_than_the_first(self):
        """It is told first, and from where on; the report's severity stays that of the first layer, from which no band is taken off."""
        gains = [1e8, 5e8, 2e8, 1e5, 30.0, 1.0]
        found = judge.judge([layer(str(i), gain, i) for i, gain in enumerate(gains)], (), ())
        assert found[0].where == "1" and [f.where for f in found] == ["1", "0", "2", "3"]
        assert re.match(r"1 \(Linear\) receives 5e\+?0?8 times the output's gradient norm: the gradient explodes", found[0].message)
        assert found[0].message.endswith("beyond its limit from 3 (Linear) back to here.")
        assert severity(found) == pytest.approx(math.log10(1e8 / 30))

    def test_one_layer_alone(self):
        """Where one layer alone is beyond the limit, nothing is said of where the run begins."""
        found = judge.judge([layer("a", 1e-6), layer("b", 1e-2, 1), layer("c", 1e-1, 2), layer("d", 1.0, 3)], (), ())
        assert len(found) == 1 and "beyond its limit from" not in found[0].message

    @pytest.mark.parametrize("seed", range(6))
    def test_a_severity_does_not_depend_on_who_is_told_first(self, seed):
        """Over noisy ramps it is what the rules give each layer alone: the first layer without its band, the others beyond their limits."""
        torch.manual_seed(seed)
        gains = [float(g) for g in (4.0 ** torch.arange(19.0, -1, -1)) * torch.randn(20).exp()]
        found = judge.judge([layer(str(i), gain, i) for i, gain in enumerate(gains)], (), ())
        rule = RULES["GF102"]
        beyond = [rule.decades(gain) for gain in gains[1:] if rule.severity(gain)]
        first = max(rule.decades(gains[0]), rule.noted(gains[0]))
        assert severity(found) == pytest.approx(max([first, *beyond]))
        assert found[0].where == str(max(range(20), key=gains.__getitem__))


class TestAdvice:
    def exploding(self, model, *shape):
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(12.0)
        return {f.fix for f in only(gradflow.profile(model, torch.randn(*shape)), "GF102")}

    def test_a_gradient_that_explodes(self):
        """Residual branches are named where there are some, the recurrent matrix where a layer is called again and again, and else the initialisation."""
        plain = self.exploding(zoo.mlp(12, 32), 8, 32)
        residual = self.exploding(zoo.residual_mlp(12, 32), 8, 32)
        looped = judge.judge([layer("cell", 1e9, calls=50), layer("head", 1.0, 1)], (), ())
        assert all("kaiming_normal_" in fix and "residual" not in fix for fix in plain) and plain
        assert all("residual branches" in fix for fix in residual) and residual
        assert "orthogonal_" in looped[0].fix

    @pytest.mark.parametrize(
        ("carry", "says", "fix"),
        [
            (torch.tanh, "passes through tanh and attenuates", "Take tanh off the skip"),
            (lambda x: 0.5 * torch.tanh(x), "passes through tanh and attenuates", "Take tanh off the skip"),
            (lambda x: x * torch.sigmoid(x), "The gated skip of", "Start the gate open"),
            (lambda x: 0.5 * x, "The scaled skip of", "Make the skip an identity"),
        ],
        ids=["tanh", "a factor and tanh", "a gate", "a factor"],
    )
    def test_what_stands_on_a_skip(self, carry: Callable[[torch.Tensor], torch.Tensor], says, fix):
        """A function on the path is named and to be taken off it, a gate to be opened, a factor to be dropped."""

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.branches = nn.ModuleList(nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16)) for _ in range(4))

            def forward(self, x):
                for branch in self.branches:
                    x = carry(x) + branch(x)
                return x

        torch.manual_seed(0)
        found = only(gradflow.profile(Net(), torch.randn(8, 16)), "GF201")
        assert found and all(says in f.message and f.fix.startswith(fix) for f in found)

    def test_a_factor_that_norms_make_up_for(self):
        """DeepNorm's mirror image: λ = 0.5 before a norm is a note that says why, with what the whole highway passes on, and that nothing is to be mended."""

        class Halves(nn.Module):
            def __init__(self):
                super().__init__()
                self.branches = nn.ModuleList(nn.Linear(16, 16, bias=False) for _ in range(8))
                self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(8))

            def forward(self, x):
                for norm, branch in zip(self.norms, self.branches, strict=True):
                    x = norm(0.5 * x + 0.05 * branch(x))
                return x

        torch.manual_seed(0)
        report = gradflow.profile(Halves(), torch.randn(8, 16))
        (highway,) = report.highways
        found = only(report, "GF201")
        assert len(found) == 8 and {f.severity for f in found} == {"info"}
        for f in found:
            told = re.search(r"no alarm: layer_norm on the trunk makes up for it, and all 8 skips of the highway together pass on ([\d.]+)\.$", f.message)
            assert told and float(told[1]) == pytest.approx(highway.gain, rel=5e-3)
            assert f.fix.startswith("Nothing")


class TestOneSample:
    def rows(self, gradient=2.0, weights=5.0):
        weight = Parameter(
            name="0.weight", shape=(4, 4), status="measured", weight_norm=weights, grad_norm=gradient, update_ratio=gradient / weights, undefined={}
        )
        return [layer("0", 1.0, parameters=(weight,))]

    def shares(self, output, first, of=(3, 3)):
        return [
            SampleShare(where=where, samples=32, largest=share, sample=i, batch=0) for where, share, i in zip(("output", "0"), (output, first), of, strict=True)
        ]

    @pytest.mark.parametrize(
        ("output", "first", "of", "loss", "grave", "says"),
        [
            (0.9999, 0.9999, (3, 3), 0.3, "info", "weights that move by 0.03 of their size would fit it"),
            (0.9999, 0.9999, (3, 3), 30.0, "warning", "move by 3 times their own size"),
            (0.9999, 0.9999, (3, 3), None, "warning", "the loss pulls at it alone"),
            (0.2, 0.9999, (3, 3), 0.3, "warning", "it is its input that is large"),
            (0.95, 0.999999, (3, 3), 0.3, "warning", "it is its input that is large"),
            (0.9999, 0.9999, (3, 4), 0.3, "warning", "it is its input that is large"),
            (0.95, 0.995, (3, 3), 0.3, "info", "late in a training"),
        ],
        ids=["fitted", "out of reach", "unknown", "input alone", "input under a squared loss", "two samples", "nearly fitted"],
    )
    def test_why_it_dominates(self, output, first, of, loss, grave, says):
        """An input that is large and a target out of reach are warnings; one that a small step would fit is a note and counts nothing."""
        (found,) = judge_samples(self.rows(), self.shares(output, first, of), loss, EVERY)
        assert (found.severity, severity([found])) == (grave, 1.0 if grave == "warning" else 0.0)
        assert says in found.message

    @pytest.mark.parametrize("scale", [1e-6, 1e6])
    def test_the_scale_of_the_loss(self, scale):
        """It changes neither the severity nor a word."""
        one, two = (judge_samples(self.rows(2.0 * s), self.shares(0.9999, 0.9999), 0.3 * s, EVERY) for s in (1.0, scale))
        assert one == two

    @pytest.mark.parametrize("depth", [1, 2, 4])
    def test_what_cross_entropy_gets_wrong_is_in_reach(self, depth):
        """In a bias-free ReLU network of k layers ‖∇W‖‖W‖ ≥ ⟨∇W,W⟩ = k·⟨∂L/∂y,y⟩ ≥ k(L − log C): with C classes a sample that is wrong is in reach."""
        torch.manual_seed(depth)
        widths = [(16, 16)] * (depth - 1) + [(16, 4)]
        model = nn.Sequential(*(m for i, o in widths for m in (nn.Linear(i, o, bias=False), nn.ReLU())))[:-1].double()
        with torch.no_grad():
            model[-1].weight.mul_(200)
        x = torch.randn(1, 16, dtype=torch.float64)
        wrong = model(x).argmin(1)
        loss = F.cross_entropy(model(x), wrong)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        size, weights = (math.sqrt(sum(float(t.detach().square().sum()) for t in group)) for group in (gradients, model.parameters()))
        assert loss.item() > 2 * math.log(4) and (loss.item() - math.log(4)) / size / weights <= 1 / depth

    def test_the_last_sample_that_is_not_fitted(self):
        """A training that fits all but a mislabelled one: the warning of a poisoned input becomes a note, and the verdict stays healthy."""
        torch.manual_seed(0)
        model, x = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3)), torch.randn(16, 10)
        target = x[:, :3].argmax(1)
        kept = torch.arange(16) != 5
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(300):
            optimizer.zero_grad()
            F.cross_entropy(model(x[kept]), target[kept]).backward()
            optimizer.step()
        wrong = target.clone()
        wrong[5] = model(x)[5].argmin()
        (late,) = only(gradflow.profile(model, x, loss=lambda out: F.cross_entropy(out, wrong)), "GF112")
        assert (late.severity, late.value > 0.99) == ("info", True) and "Sample 5" in late.message
        poisoned = x.clone()
        poisoned[5] *= 1e4
        (found,) = only(gradflow.profile(model, poisoned, loss=lambda out: F.cross_entropy(out, wrong)), "GF112")
        assert found.severity == "warning"


@pytest.mark.parametrize("learned", [True, False])
def test_a_branch_that_its_layer_scale_keeps_small(learned):
    """A parameter that starts at 1e-6 by design is no mute branch; the same number written into the code is one."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.branches = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 16)) for _ in range(3))
            self.scales = nn.ParameterList(torch.full((16,), 1e-6) for _ in range(3)) if learned else [1e-6] * 3

        def forward(self, x):
            for branch, scale in zip(self.branches, self.scales, strict=True):
                x = x + scale * branch(x)
            return x

    torch.manual_seed(0)
    assert len(only(gradflow.profile(Net(), torch.randn(8, 16)), "GF211")) == (0 if learned else 3)


def test_a_note_of_the_first_layer():
    """It says why it is no alarm and why it counts."""
    (note,) = judge.judge([layer("a", 0.01), replace(layer("b", 1.0), depth=1)], (), ())
    assert note.severity == "info" and "No alarm" in note.message and "counts in the severity" in note.message
    assert note.fix.startswith("Nothing, where training starts well; else: use")


class LateToken(nn.Module):
    """A class token joins the others after two residual blocks, takes their mean in a third and is all that is read."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.token = nn.Parameter(torch.randn(1, 1, 8))

    def forward(self, x):
        x = x + self.blocks[0](x)
        x = x + self.blocks[1](x)
        x = torch.cat([self.token.expand(len(x), 1, 8), x], dim=1)
        x = x + self.blocks[2](x).mean(1, keepdim=True)
        return x[:, 0]


def test_a_highway_that_is_routed_past():
    """What the architecture routes past a highway is a note, and there is nothing to do."""
    torch.manual_seed(0)
    (note,) = [f for f in gradflow.profile(LateToken(), torch.randn(4, 5, 8)).findings if f.rule == "GF206"]
    assert (note.severity, note.value) == ("info", 0) and "routes the gradient past it" in note.message
    assert note.fix.startswith("Nothing") and "off the trunk" not in note.fix
