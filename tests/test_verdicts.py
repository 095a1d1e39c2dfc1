"""Verdicts on planted faults: the right rule, at the right place, with advice that fits."""

import pytest
import torch
from torch import nn

import gradflow
from gradflow import zoo


class Blocks(nn.Module):
    """`depth` pre-norm MLP blocks joined by `join(x, h, i)`."""

    def __init__(self, join, depth=16, width=16):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)) for _ in range(depth))
        self.join = join

    def forward(self, x):
        for i, (norm, layer) in enumerate(zip(self.norms, self.layers, strict=True)):
            x = self.join(x, layer(norm(x)), i)
        return x


def profile(join, depth=16):
    torch.manual_seed(0)
    return gradflow.profile(Blocks(join, depth).double(), torch.randn(4, 16, dtype=torch.float64))


def rules(report, severity):
    return {f.rule for f in report.findings if f.severity == severity}


def test_a_shortcut_added_twice():
    """`x + x + F(x)` passes the gradient on twice: the highway grows as 2^n, and the finding adds the two λ up."""
    report = profile(lambda x, h, i: x + (x + h))
    assert report.highways[0].gain == pytest.approx(2.0**16, rel=1e-12)
    assert report.highways[0].product_of_lambdas == pytest.approx(2.0**16, rel=1e-12)
    assert len(report.highways) == 1
    assert "GF207" in {f.rule for f in report.findings}
    assert {f.value for f in report.findings if f.rule == "GF202"} == {2.0}


@pytest.mark.parametrize("cut", [lambda x: x.detach(), lambda x: x.data], ids=["detach", "data"])
def test_a_detached_shortcut_is_the_first_finding(cut):
    """It is an error of its own at the line that cuts, whatever else is wrong."""
    report = profile(lambda x, h, i: (cut(x) if i == 5 else x) + h)
    assert report.verdict == "sick"
    assert report.findings[0].rule == "GF208"
    assert "test_verdicts.py" in report.findings[0].location.file


def test_a_detached_shortcut_ends_the_highway():
    """Beyond it the skips carry nothing, so two highways remain, and the branch's norm excuses no factor elsewhere."""
    report = profile(lambda x, h, i: (x.detach() if i == 8 else 0.9 * x if i == 3 else x) + h)
    assert sorted(len(h.skips) for h in report.highways) == [7, 8]
    assert [f.severity for f in report.findings if f.rule == "GF201"] == ["warning"]


def test_a_detached_concatenation():
    """A U-Net's severed skip is found in a concatenation as well."""

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.deep, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(16, 4)

        def forward(self, x):
            x = torch.relu(self.stem(x))
            return self.head(torch.cat([x.detach(), torch.relu(self.deep(x))], dim=1))

    report = gradflow.profile(UNet(), torch.randn(4, 8))
    assert rules(report, "error") == {"GF208"}


def test_a_factor_after_the_sum_is_blamed_on_the_trunk():
    """λ is 1 on every skip, so the advice is about what lies between the sums."""
    report = profile(lambda x, h, i: (x + h) / 2)
    finding = next(f for f in report.findings if f.rule == "GF206")
    assert "trunk" in finding.message and "div" in finding.fix and "λ = 1" not in finding.fix


def test_one_regressed_shortcut():
    """0.9·x in one block of sixteen is a warning at its line, and no error."""
    report = profile(lambda x, h, i: (0.9 * x if i == 7 else x) + h)
    assert report.verdict == "warnings"
    assert [(f.rule, f.value) for f in report.findings] == [("GF201", pytest.approx(0.9))]


def test_deepnorm_is_not_called_exploding():
    """α = 2.8 on every skip is made up for by the norm after it: a note, not a warning."""
    torch.manual_seed(0)
    report = gradflow.profile(zoo.deepnorm_transformer(32, 64), torch.randn(2, 16, 64))
    assert report.verdict == "healthy"
    assert report.highways[0].gain == pytest.approx(1, abs=0.1) and report.highways[0].product_of_lambdas > 1e14
    assert rules(report, "info") == {"GF202"}


@pytest.mark.parametrize("build", [zoo.rezero_net, zoo.fixup_net], ids=["ReZero", "Fixup"])
def test_branches_closed_at_initialisation(build):
    """Zero-initialised branches are explained and healthy."""
    torch.manual_seed(0)
    model = build()
    report = gradflow.profile(model, torch.randn(4, 3, 8, 8) if build is zoo.fixup_net else torch.randn(4, 64))
    assert report.verdict == "healthy"
    assert rules(report, "info") == {"GF105"}


def test_a_dead_relu_layer():
    """A gradient of exactly 0 that nothing closes is an error, not a note."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        model[2].bias.fill_(-100.0)
    report = gradflow.profile(model, torch.randn(4, 8))
    assert report.verdict == "sick"
    assert {"0", "1", "2"} <= {f.where for f in report.findings if f.rule == "GF101"}


@pytest.mark.parametrize(("gain", "rule"), [(0.1, "GF101"), (8.0, "GF102")])
def test_a_bad_initialisation_gain(gain, rule):
    """Both ways: errors on the layers nearest the input."""
    torch.manual_seed(0)
    model = zoo.mlp(20, 128)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(gain)
    report = gradflow.profile(model, torch.randn(8, 128))
    assert report.verdict == "sick" and rules(report, "error") == {rule}
    assert report.severity > 3


def test_an_lstm_cell_in_a_loop():
    """One row for the cell's carry with its calls merged and the forget gate as λ; no skip from the input of one step into another."""

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.LSTMCell(4, 6), nn.Linear(6, 2)

        def forward(self, steps):
            h = c = steps.new_zeros(steps.shape[1], 6)
            for x in steps:
                h, c = self.cell(x, (h, c))
            return self.head(h)

    torch.manual_seed(0)
    report = gradflow.profile(Loop(), torch.randn(20, 3, 4))
    assert [(s.kind, s.calls) for s in report.skips] == [("gated", 19)]
    assert 0.3 < report.skips[0].lam < 0.7 and len(report.skips[0].trend) == 19


@pytest.mark.parametrize("wrong", [nn.Linear, "model.py", lambda x: x], ids=["a class", "a path", "a function"])
def test_something_that_is_no_model(wrong):
    """The Python call says what it got."""
    with pytest.raises(gradflow.errors.NotAModel):
        gradflow.profile(wrong, torch.randn(2, 3))


def test_a_loss_class_instead_of_an_instance():
    """The error names the missing parentheses."""
    with pytest.raises(gradflow.errors.LossError, match="MSELoss\\(\\)"):
        gradflow.profile(nn.Linear(3, 3), torch.randn(2, 3), torch.randn(2, 3), nn.MSELoss)
