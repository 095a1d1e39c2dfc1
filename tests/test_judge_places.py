"""Where a gradient is lost: at the layer that was planted, at every layer a little, or on a highway; and the cause is told before what follows from it."""

import inspect
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gradflow
from gradflow import judge, zoo
from gradflow.judge import places
from gradflow.records import GRAVITY, Layer
from gradflow.rules import RULES, choose, worst_first

WIDTH = 24


def layer(name, gain, depth=0, **more):
    undefined = {"dead_units": "no units", "fluctuation": "one batch"}
    if gain is None:
        undefined |= dict.fromkeys(("grad_norm", "grad_rms", "gain"), "it was not reached")
    return Layer(
        name=name, type="Linear", calls=more.pop("calls", 1), depth=depth, location=None, output_shape=(4, 8), grad_norm=gain, grad_rms=gain, gain=gain,
        zero_fraction=0.0, nonfinite=0, fp16_underflow=0.0, dead_units=None, fluctuation=None, undefined=undefined, **more,
    )  # fmt: skip


def only(report, code):
    return [f for f in report.findings if f.rule == code]


class Chain(nn.Module):
    """Ten He-initialised ReLU layers, each called on the same line, and one of them on a line of its own with a weight `factor` times too large."""

    def __init__(self, factor, at=5, norm=False):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(10))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(10)) if norm else [torch.relu] * 10
        self.at = at
        with torch.no_grad():
            for one in self.layers:
                nn.init.kaiming_normal_(one.weight)
            self.layers[at].weight.mul_(factor)

    def forward(self, x):
        for i, (one, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            x = torch.relu(norm(self.planted(x) if i == self.at else one(x)))
        return x

    def planted(self, x):
        return self.layers[self.at](x)


def profiled(model, *shape):
    torch.manual_seed(0)
    return gradflow.profile(model, torch.randn(*shape, dtype=next(model.parameters()).dtype))


class TestOneLayer:
    @pytest.mark.parametrize("factor", [1e-6, 1e-5, 1e5, 1e7])
    @pytest.mark.parametrize("at", [2, 5, 8])
    def test_a_weight_that_is_too_small_or_too_large(self, factor, at):
        """The first finding names the planted weight at its line and its size against the others'; the layers tell the factor by which it changes the gradient,
        which is the planted one times √2."""
        torch.manual_seed(at)
        report = profiled(Chain(factor, at), 16, WIDTH)
        first, effect = report.findings[0], only(report, "GF101" if factor < 1 else "GF102")[0]
        assert (first.rule, first.where) == ("GF111", f"layers.{at}.weight")
        size = float(first.message.partition(" is ")[2].partition(" times")[0])
        assert size == pytest.approx(max(factor, 1 / factor), rel=0.15)
        assert f"at layers.{at} (Linear): " in effect.message and effect.caused_by == first.where
        assert first.fix.startswith(f"Give layers.{at}.weight the initialisation of its fan-in")
        assert first.location.line == effect.location.line == planted_line()
        told = float(effect.message.partition("(Linear): ")[2].partition(", and ")[2].partition(" is what")[0])
        assert told == pytest.approx(math.sqrt(2) * factor, rel=0.15)

    def test_every_layer_before_it_has_its_line(self):
        torch.manual_seed(1)
        found = only(profiled(Chain(1e-6, 5), 16, WIDTH), "GF101")
        assert len(found) == 5 and {f.location.line for f in found} == {planted_line()}
        assert len({f.fix for f in found}) == 1

    def test_a_norm_that_hides_a_weight_which_is_too_large(self):
        """The norm divides the gradient by what the weight multiplies it with: only its own layer starves. The weight is told first, and the layer names it."""
        torch.manual_seed(2)
        report = profiled(Chain(1e4, 4, norm=True), 16, WIDTH)
        first, second = report.findings[:2]
        assert (first.rule, first.where, second.rule, second.where) == ("GF111", "layers.4.weight", "GF101", "layers.4")
        assert second.caused_by == "layers.4.weight" and second.fix == first.fix
        assert "times larger than the median matrix" in first.message

    def test_a_transposed_convolution(self):
        """‖W‖/√outputs counts what it gives to and not what it takes in."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 4, 3, padding=1), nn.Conv2d(4, 4, 1))
        shown = next(one for one in profiled(model, 2, 3, 8, 8).layers if one.type == "ConvTranspose2d")
        parameter, factor = places.sized(shown)
        assert parameter.name == "1.weight" and factor == pytest.approx(float(model[1].weight.detach().norm()) / 2)

    def test_the_expected_factor_of_a_random_matrix(self):
        """‖Wᵀg‖/‖g‖ of a g that knows nothing of W is ‖W‖_F/√outputs in the mean."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(300, 200))
        parameter, factor = places.sized(profiled(model, 4, 300).layers[0])
        weight = model[0].weight.detach()
        measured = (torch.randn(400, 200) @ weight).pow(2).sum(1).mean().sqrt() / math.sqrt(200)
        assert parameter.name == "0.weight" and factor == pytest.approx(float(measured), rel=0.02)

    def test_something_that_is_no_weight(self):
        class Factor(Chain):
            def planted(self, x):
                return 1e-7 * super().planted(x)

        torch.manual_seed(0)
        first = profiled(Factor(1.0, 6), 16, WIDTH).findings[0]
        assert first.rule == "GF101" and first.fix.startswith("Look at what stands between layers.6 and layers.7")
        assert "vanishes between layers.6 (Linear) and layers.7 (Linear): " in first.message and "is what the size of" not in first.message


def planted_line():
    return inspect.getsourcelines(Chain.planted)[1] + 1


class Residual(nn.Module):
    """Eight blocks x + down(relu(up(x))); in block 4 one of the two matrices is `factor` times too large."""

    def __init__(self, factor, name="down", norm=False):
        super().__init__()
        self.ups, self.downs = (nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(8)) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) if norm else nn.Identity() for _ in range(8))
        with torch.no_grad():
            getattr(self, name + "s")[4].weight.mul_(factor)

    def forward(self, x):
        for up, down, norm in zip(self.ups, self.downs, self.norms, strict=True):
            x = x + norm(down(torch.relu(up(x))))
        return x


class TestInABranch:
    @pytest.mark.parametrize("name", ["up", "down"])
    def test_a_weight_that_makes_its_branch_dominate(self, name):
        """The skip and the layers before the block say what they suffer, and the weight is named first."""
        torch.manual_seed(3)
        report = profiled(Residual(1e4, name), 16, WIDTH)
        first = report.findings[0]
        assert (first.rule, first.where) == ("GF111", f"{name}s.4.weight")
        (skip,) = only(report, "GF212")
        assert skip.caused_by == first.where and skip.fix == first.fix
        assert all(f.caused_by == first.where for f in only(report, "GF102") if f.severity != "info")

    def test_a_weight_that_a_norm_hides(self):
        """In a branch, too, where small updates are usual: what is too large is no design."""
        torch.manual_seed(3)
        report = profiled(Residual(1e4, "down", norm=True), 16, WIDTH)
        assert [f.where for f in only(report, "GF111")] == ["downs.4.weight"]
        assert not only(profiled(Residual(1.0, "down", norm=True), 16, WIDTH), "GF111")

    def test_a_weight_that_has_no_finding_of_its_own(self):
        """A model of one block has too few matrices for GF111; the weight is named all the same."""
        torch.manual_seed(0)

        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.up, self.down, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
                nn.init.normal_(self.down.weight, std=2e4)

            def forward(self, x):
                return self.head(x + self.down(torch.relu(self.up(x))))

        report = profiled(nn.Sequential(nn.Identity(), Block()), 8, 8)
        (found,) = only(report, "GF212") or [None]
        assert not only(report, "GF111") and found.caused_by is None
        assert "1.down.weight is " in found.message and found.fix.startswith("Give 1.down.weight")

    def test_a_large_weight_elsewhere(self):
        """In another block it explains nothing."""
        torch.manual_seed(3)
        model = Residual(1e4, "down", norm=True)
        with torch.no_grad():
            model.norms[1].weight.mul_(1e4)
        (found,) = only(profiled(model, 16, WIDTH), "GF212")
        assert found.caused_by is None and "downs.4" not in found.message
        assert "downs.4" in only(profiled(Residual(1e4, "down"), 16, WIDTH), "GF212")[0].message

    def test_two_maps_that_are_added_inside_a_branch(self):
        """w(h) + u(d(h)) in x + …: an identity in its place would be no branch; without the skip around it is one that transforms."""

        class Low(nn.Module):
            def __init__(self, around):
                super().__init__()
                self.ws, self.ds, self.us = (nn.ModuleList(nn.Linear(a, b) for _ in range(4)) for a, b in ((8, 8), (8, 4), (4, 8)))
                self.around = around

            def forward(self, x):
                for w, d, u in zip(self.ws, self.ds, self.us, strict=True):
                    h = torch.tanh(x)
                    x = x + torch.tanh(w(h) + u(d(h))) if self.around else torch.tanh(w(h) + u(d(h)))
                return x

        torch.manual_seed(0)
        assert not only(profiled(Low(True), 8, 8), "GF203")
        assert only(profiled(Low(False), 8, 8), "GF203")


class TestOneSkipOfMany:
    @pytest.mark.parametrize("at", [0, 4, 7])
    def test_a_gate_that_is_closed(self, at):
        """Of eight λ one is 1e-9: the highway names it, at its line."""

        class Blocks(nn.Module):
            def __init__(self):
                super().__init__()
                self.branches = nn.ModuleList(nn.Linear(8, 8) for _ in range(8))

            def forward(self, x):
                for i, branch in enumerate(self.branches):
                    x = (1e-9 if i == at else 0.99) * x + 1e-3 * branch(x)
                return x

        torch.manual_seed(0)
        report = profiled(Blocks().double(), 8, 8)
        (found,) = only(report, "GF206")
        (worst,) = [s for s in report.skips if s.lam is not None and s.lam < 1e-3]
        assert f"(most of it at {worst.id}, λ = 1e-9)" in found.message

    def test_all_alike(self):
        torch.manual_seed(0)
        (found,) = only(profiled(zoo.residual_mlp(40, 16, scale=0.5, branch_scale=0.1), 8, 16), "GF206")
        assert "(λ = 0.5 ×40)" in found.message


class TestWhatIsNotFinite:
    @pytest.mark.parametrize(("name", "says"), [("weight", "Initialise it anew"), ("running_mean", "Look at what fills it")])
    def test_what_the_model_was_given(self, name, says):
        """No operation made it: the remedy is about the weight or the buffer."""
        model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
        with torch.no_grad():
            (model[0].weight if name == "weight" else model[1].running_mean).view(-1)[0] = float("nan")
        first = profiled(model.eval(), 8, 8).findings[0]
        assert first.rule == "GF103" and first.fix.startswith(says)


class TestSilence:
    @pytest.mark.parametrize(
        ("passes_none", "says"),
        [
            (lambda h: torch.relu(h - 100), "Every input of this ReLU"),
            (nn.ReLU(), "Every input of this ReLU"),
            (torch.round, "A step has no gradient"),
            (lambda h: torch.sigmoid(h + 500), "It is saturated"),
            (lambda h: (h + 9).clamp(0, 1), "Every value lies beyond"),
            (lambda h: h * 0, "Look at"),
        ],
    )
    def test_the_remedy_fits_what_passes_none_on(self, passes_none, says):
        class Between(nn.Module):
            def __init__(self):
                super().__init__()
                self.body, self.act, self.head = nn.Linear(8, 8), passes_none, nn.Linear(8, 2)
                with torch.no_grad():
                    self.body.bias.fill_(-20.0 if isinstance(passes_none, nn.ReLU) else 0.0)

            def forward(self, x):
                return self.head(self.act(self.body(x)))

        (found,) = only(profiled(Between(), 4, 8), "GF108")
        assert found.fix.startswith(says)


class TestALittleAtEach:
    def test_a_deep_sigmoid_net(self):
        """The factor is the depth's root of the gain, and lies below σ' ≤ 1/4 times the weights' own."""
        torch.manual_seed(0)
        model = zoo.mlp(12, 64, activation="sigmoid", init="xavier")
        report = profiled(model, 8, 64)
        first = report.findings[0]
        told = float(first.message.partition("by a factor of ")[2].partition(" at each of the ")[0])
        count = int(first.message.partition(" at each of the ")[2].partition(" weighted")[0])
        shown = {one.name: one for one in report.layers}[first.where]
        assert count == shown.layers_after == 12
        assert told == pytest.approx(shown.gain ** (1 / count), rel=1e-2) and 0.15 < told < 0.25
        assert "non-saturating" in first.fix

    def test_relu_layers_whose_initialisation_is_too_small(self):
        torch.manual_seed(0)
        model = nn.Sequential(*itertools.chain.from_iterable((nn.Linear(64, 64), nn.ReLU()) for _ in range(12)))
        first = profiled(model, 8, 64).findings[0]
        assert first.rule == "GF101" and first.fix.startswith("Use an initialisation of gain 1")

    def test_layers_with_norms_that_explode(self):
        """No initialisation helps where norms follow the layers: 60 layers with batch norm make the gradient grow whatever their weights."""
        torch.manual_seed(0)
        first = profiled(zoo.mlp(60, 64, norm="batch", init="he"), 64, 64).findings[0]
        assert first.rule == "GF102" and first.fix.startswith("Lead a skip connection around")

    @pytest.mark.parametrize(
        ("gains", "found"), [((1e-8, 1e-6, 1e-4, 1e-2, 1.0), None), ((1e-7, 2e-7, 0.5, 1.0), ("2", "1")), ((1e7, 1.0, 2.0, 1.0), ("1", "0"))]
    )
    def test_steps(self, gains, found):
        layers = [layer(str(i), gain, i) for i, gain in enumerate(gains)]
        step = places.step(layers, [True] * len(layers), 0, below=gains[0] < 1)
        assert (step and (step.at.name, step.before.name)) == found

    def test_layers_beside_each_other_are_no_step(self):
        """Of two parallel branches one has a small gradient: what lies behind it in the order of calls is not to blame."""
        layers = [layer("stem", 1e-4), layer("small", 1e-4, 1), layer("large", 1e-2, 2), layer("small.2", 1e-3, 3), layer("head", 1.0, 4)]
        step = places.step(layers, [True] * 5, 0, below=True)
        assert step is None or step.at.name == "head"

    def test_a_branch_between(self):
        """What a skip leads around counts for nothing, and where it lies on the step there is more than one layer to blame."""
        layers = [layer("stem", 1e-6), layer("branch", 1e-3, 1), layer("head", 1.0, 2)]
        assert places.step(layers, [True, False, True], 0, below=True) is None
        assert places.step([layers[0], layer("idle", None, 1), layers[2]], [True, False, True], 0, below=True).at.name == "head"

    @settings(deadline=None)
    @given(st.lists(st.floats(-12, 12), min_size=2, max_size=12), st.booleans(), st.integers(-5, 5))
    def test_whatever_the_gains(self, decades, below, shift):
        """A step divides the layers into two: each before it lies beyond each after it; and the loss's scale does not matter to where it is looked for."""
        gains = [10.0**d for d in decades]
        layers = [layer(str(i), gain, i) for i, gain in enumerate(gains)]
        found = places.step(layers, [True] * len(layers), 0, below=below)
        if found is None:
            return
        at = layers.index(found.at)
        before, after = gains[:at], gains[at:]
        assert (max(before) < min(after)) if below else (min(before) > max(after))
        assert found.factor == pytest.approx(gains[at - 1] / gains[at])


class Recurrent(nn.Module):
    def __init__(self, scale, steps=30):
        super().__init__()
        self.embed, self.cell, self.head, self.steps = nn.Linear(8, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 2), steps
        with torch.no_grad():
            self.cell.weight.copy_(scale * torch.eye(8))

    def forward(self, x):
        x = self.embed(x)
        for _ in range(self.steps):
            x = self.cell(x)
        return self.head(x)


class TestLoops:
    @pytest.mark.parametrize(("scale", "rule", "word"), [(0.5, "GF101", "vanishes"), (2.0, "GF102", "explodes")])
    def test_what_is_called_again_and_again(self, scale, rule, word):
        first = profiled(Recurrent(scale), 4, 8).findings[0]
        assert first.rule == rule and f"{word} in the 30 calls of cell (Linear)" in first.message
        assert "orthogonal_" in first.fix


class Carried(nn.Module):
    """A state from a context, carried through `steps` calls of k·h + (1 − k)·tanh(W[x, h]); a part of the model before the loop and one beside it."""

    def __init__(self, keep, steps=40):
        super().__init__()
        self.context, self.cand, self.head, self.keep, self.steps = nn.Linear(8, 8), nn.Linear(16, 8), nn.Linear(8, 2), keep, steps

    def forward(self, x):
        h = torch.tanh(self.context(x.mean(1)))
        for step in range(self.steps):
            h = self.keep * h + (1 - self.keep) * torch.tanh(self.cand(torch.cat([x[:, step], h], -1))) * 0.1
        return self.head(h)


class TestCauses:
    def test_a_layer_before_a_loop_that_forgets(self):
        """The highway is the cause: it is told first, and as grave as the layer that gets nothing because of it."""
        torch.manual_seed(0)
        report = profiled(Carried(0.05).double(), 4, 40, 8)
        first, second = report.findings[:2]
        assert (first.rule, second.rule, second.where) == ("GF206", "GF101", "context")
        assert first.severity == second.severity and second.caused_by == first.where
        assert second.message.endswith(f"; {first.where} is to blame (GF206).")
        assert second.fix == first.fix and second.location == first.location
        assert report.findings[0].decades < report.severity  # what counts is still the layer's loss

    def test_a_loop_that_remembers(self):
        torch.manual_seed(0)
        report = profiled(Carried(0.999).double(), 4, 40, 8)
        assert not any(f.caused_by for f in report.findings)

    @pytest.mark.parametrize(("lam", "rules"), [(0.3, ("GF206", "GF101")), (2.0, ("GF207", "GF102"))])
    def test_the_stem_of_a_residual_net(self, lam, rules):
        """The skips' λ starve or flood what lies before them; with λ = 1 neither happens."""
        torch.manual_seed(0)
        sick, healthy = (profiled(zoo.residual_mlp(40, 16, scale=one, branch_scale=0.1), 8, 16) for one in (lam, 1.0))
        first = sick.findings[0]
        assert first.rule == rules[0]
        effects = [f for f in only(sick, rules[1]) if f.caused_by]
        assert effects and {f.caused_by for f in effects} == {first.where}
        assert not any(f.caused_by for f in healthy.findings)

    def test_a_fault_before_a_highway_that_is_not_to_blame(self):
        """A vanishing stack in front of a highway that carries its share: nothing links the two."""
        torch.manual_seed(0)
        body = zoo.residual_mlp(12, 16, scale=0.9)
        stack = zoo.mlp(24, 16, activation="sigmoid", outputs=16)
        report = profiled(nn.Sequential(stack, body), 8, 16)
        assert only(report, "GF101") and not any(f.caused_by for f in report.findings)

    def test_a_cause_that_was_not_looked_for(self):
        """Without the highways' rules the layers stand for themselves, as they would otherwise."""
        torch.manual_seed(0)
        report = profiled(zoo.residual_mlp(40, 16, scale=0.3, branch_scale=0.1), 8, 16)
        found = judge.judge(report.layers, report.skips, report.highways, choose(RULES, ["GF101"]))
        assert found and not any(f.caused_by for f in found)

    @pytest.mark.parametrize("seed", range(4))
    def test_the_order(self, seed):
        """Severities never rise along the list, and every cause stands before what follows from it."""
        torch.manual_seed(seed)
        for model, shape in ((Carried(0.1), (4, 40, 8)), (Chain(1e4, 4, norm=True), (8, WIDTH)), (zoo.residual_mlp(30, 16, scale=0.4), (8, 16))):
            found = profiled(model, *shape).findings
            gravity = [GRAVITY[f.severity] for f in found]
            assert gravity == sorted(gravity, reverse=True)
            for i, one in enumerate(found):
                assert one.caused_by is None or one.caused_by in {f.where for f in found[:i]}
            assert worst_first(found) == found
