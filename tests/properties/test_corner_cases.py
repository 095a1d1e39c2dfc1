"""Small networks that random ones led to: each is a construction that people write, and that was once read wrongly."""

import pytest
import torch
from torch import Tensor, nn

from gradflow.profiling import profile
from gradflow.records import Skip

from .networks import Block, Element, Op, Plan, Towers
from .oracles import gradients, norm, run, see


def _rows(*elements: Element, stem: bool = True) -> dict[str, Skip]:
    """The skips found, after the claim that they are the planted ones."""
    plan = Plan(elements, width=4, batch=2, seed=0, stem=stem)
    seen = see(plan)
    found = {name: (row.kind, row.form, row.bypassed_layers) for name, row in seen.rows.items()}
    assert found == {p.name: (p.kind, p.form, p.bypassed) for p in plan.planted.values()}
    return seen.rows


_BRANCH = (Op("linear"), Op("tanh"), Op("linear"), Op("gelu"))


@pytest.mark.parametrize("skip", ["projection", "bare projection"])
def test_linear_shortcut(skip: str) -> None:
    """A linear layer on the skip path is a projection, with and without a bias (addmm on the tape, or mm)."""
    assert _rows(Block(skip, _BRANCH, "skip + branch"))["0"].path_ops


def test_in_place_sum_into_a_view() -> None:
    """`out += x`, where `out` is what nn.Linear returns for 3-d input, closes a skip like any sum: the tape has CopySlices there."""
    assert _rows(Block("identity", (Op("linear"), Op("tanh"), Op("linear")), "in place"))["0"].lam == pytest.approx(1, rel=1e-13)


class _WritesIntoALayersOutput(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.layer, self.head, self.how = nn.Linear(4, 4), nn.Linear(4, 4), how

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        if self.how == "sum":
            h += x
        elif self.how == "relu":
            h = torch.relu_(h)
        return self.head(h)


@pytest.mark.parametrize("how", ["nothing", "sum", "relu"])
@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 4)], ids=str)
def test_layer_whose_output_is_written_into(how: str, shape: tuple[int, ...]) -> None:
    """A layer is measured at what it returned, also where the next operator overwrites that (3-d: a view of what the tape then holds)."""
    model, x = _WritesIntoALayersOutput(how).double(), torch.randn(shape, dtype=torch.float64)
    rows = {layer.name: layer for layer in profile(model, x, loss=lambda out: out.pow(2).mean()).layers}
    assert rows["layer"].grad_norm is not None, rows["layer"].undefined
    h = model.layer(x)
    after = {"nothing": lambda: h, "sum": lambda: h + x, "relu": h.relu}[how]()
    (truth,) = torch.autograd.grad(model.head(after).pow(2).mean(), h)
    assert rows["layer"].grad_norm == pytest.approx(float(truth.norm()), rel=1e-12)


@pytest.mark.parametrize("first", [Op("relu"), Towers(0, "tanh")], ids=["relu", "sum of activations"])
def test_fork_before_the_first_parameter(first: Element) -> None:
    """A skip whose fork depends on the input alone, through an operator, is measured like one that starts at the input itself."""
    row = _rows(first, Block("identity", _BRANCH, "skip + branch"), stem=False)["1"]
    assert row.lam == pytest.approx(1, rel=1e-13) and row.total_gain is not None


@pytest.mark.parametrize("after", ["parameter", "constant", "target"])
def test_sum_of_one_tracked_operand_after_a_join(after: str) -> None:
    """`(x + F(x)) + table`, `+ 1e-6` or `- target` adds nothing that is data: the join before it is the only one."""
    model = _Residual(after)
    report = profile(model, torch.randn(2, 4), loss=lambda out: (out - torch.ones(4)).pow(2).mean() if after == "target" else out.pow(2).mean())
    assert [(s.kind, s.bypassed_layers) for s in report.skips] == [("identity", 1)]


class _Residual(nn.Module):
    def __init__(self, after: str) -> None:
        super().__init__()
        self.stem, self.branch, self.table, self.after = nn.Linear(4, 4), nn.Linear(4, 4), nn.Parameter(torch.ones(4)), after

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        self.last = x + self.branch(x)
        return self.last + self.table if self.after == "parameter" else self.last + 1e-6 if self.after == "constant" else self.last


def test_projection_beside_a_skip_from_far_back() -> None:
    """A join with a projection of the near value and a skip from far back has both: each operand that is a skip gets a row of its own."""
    rows = _rows(Block("identity", _BRANCH, "skip + branch"), Op("linear"), Block("bare projection", (*_BRANCH, Op("linear")), "skip + branch", far=True))
    assert rows["2.far"].lam == pytest.approx(0.5, rel=1e-13)


def test_sum_inside_a_concatenated_branch() -> None:
    """The highway through a concatenation takes its short path, and not the one by the sum inside its branch (a U-Net of residual blocks)."""
    inner = Block("identity", _BRANCH, "skip + branch")
    elements = (inner, Block("identity", (inner, Op("linear")), "concat"), inner)
    seen = see(Plan(elements, width=4, batch=2, seed=0, stem=True))
    top = gradients(seen.network)["2"].g
    cut, _ = run(seen.network, "cut")
    for name in ("2", "0"):
        (h,) = torch.autograd.grad(cut.joins["2"], cut.forks[name], top, retain_graph=True)
        assert seen.rows[name].highway_gain == pytest.approx(norm(h) / norm(top), rel=1e-12), name


def test_penalty_on_a_hidden_value() -> None:
    """A loss with a term from inside the network (activation regularisation, an auxiliary head) is a sum of scalars, not a skip to the loss."""
    model = _Residual("")
    report = profile(model, torch.randn(2, 4), loss=lambda out: out.sum(dim=1).pow(2).mean() + 0.1 * model.last.abs().mean())
    assert [s.kind for s in report.skips] == ["identity"]


def test_penalty_that_bypasses_weighted_layers() -> None:
    """The same, where the term leaves the network before its last weighted layer."""
    model = nn.Sequential(_Residual(""), nn.Tanh(), nn.Linear(4, 3))
    report = profile(model, torch.randn(2, 4), loss=lambda out: out.pow(2).mean() + 0.1 * model[0].last.pow(2).mean())
    assert [s.kind for s in report.skips] == ["identity"]
