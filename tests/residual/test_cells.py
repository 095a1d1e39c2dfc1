"""Recurrent cells as people write them: one gated row each, whose λ is the mean of the carry's factor weighted by g²."""

import pytest
import torch
from nets import Net, linear_loss, paths, profiled, randn, rows
from torch import nn

from gradflow.residual.flow import name_of

STEPS, WIDTH = 5, 4
X = randn(3, STEPS, 2)
GIVEN = randn(3, WIDTH, seed=5)


class Carry:
    """Notes what a run's steps were made of."""

    def __init__(self):
        self.factors, self.states = [], []

    def note(self, factor, state):
        self.factors.append(factor)
        self.states.append(state)
        return state


def gru(join, factor):
    """A GRU's step: gates from x and h, the candidate from x and r⊙h; `join(z, n, h)` mixes, `factor(z)` is what the carry is multiplied by."""

    def step(m, x, h, carry):
        r, z = torch.sigmoid(m.gates(torch.cat([x, h], 1))).chunk(2, 1)
        n = torch.tanh(m.candidate(torch.cat([x, r * h], 1)))
        return carry.note(factor(z), join(z, n, h))

    return step


def forward_of(step, start, noted):
    """Over the steps of [batch, steps, features], from a state of zeros, a given or a learned one; `noted` receives a Carry for each run."""

    def forward(m, x, given=None):
        carry = Carry()
        noted.append(carry)
        h = {"zeros": lambda: x.new_zeros(len(x), WIDTH), "given": lambda: given, "learned": lambda: m.first.expand(len(x), WIDTH)}[start]()
        for t in range(x.shape[1]):
            h = step(m, x[:, t], h, carry)
        return m.head(h)

    return forward


def layers(start):
    learned = {"first": nn.Parameter(torch.randn(1, WIDTH))} if start == "learned" else {}
    return {"gates": nn.Linear(2 + WIDTH, 2 * WIDTH), "candidate": nn.Linear(2 + WIDTH, WIDTH), "head": nn.Linear(WIDTH, 2), **learned}


def pooled(factors, gradients):
    """λ and misfit of s = c⊙g over the steps: Σ⟨c⊙g,g⟩/Σ⟨g,g⟩ and √(1 − cos²)."""
    c, g = (torch.cat([t.detach() for t in ts]) for ts in (factors, gradients))
    s = c * g
    lam = float((s * g).sum() / (g * g).sum())
    return lam, float((s - lam * g).norm() / s.norm())


def oracle(model, noted, inputs, calls):
    """λ and misfit of the last `calls` steps, by torch.autograd.grad at their states."""
    noted.clear()
    loss = linear_loss(model(*inputs))
    (carry,) = noted
    return pooled(carry.factors[-calls:], torch.autograd.grad(loss, carry.states[-calls:]))


SPELLINGS = {
    "z·n + (1 − z)·h": (lambda z, n, h: z * n + (1 - z) * h, lambda z: 1 - z),
    "n + z·(h − n)": (lambda z, n, h: n + z * (h - n), lambda z: z),
    "h + z·(n − h)": (lambda z, n, h: h + z * (n - h), lambda z: 1 - z),
    "lerp": (lambda z, n, h: torch.lerp(h, n, z), lambda z: 1 - z),
}
STARTS = {"zeros": STEPS - 1, "learned": STEPS - 1, "given": STEPS}


def carry_of(report):
    """The gated row, whatever else was found: that nothing else is has tests of its own."""
    (skip,) = (s for s in report.skips if s.kind == "gated" and s.calls > 1)
    return skip


def assert_carry(skip, expected):
    """λ and misfit are autograd's, and the ledger closes."""
    assert (skip.lam, skip.misfit) == tuple(pytest.approx(value, rel=1e-9) for value in expected)
    assert skip.ledger_error < 1e-9


def given_to(start):
    return (X, GIVEN) if start == "given" else (X,)


@pytest.mark.parametrize(("start", "calls"), STARTS.items(), ids=STARTS)
class TestGru:
    """One row of the calls whose carry comes from data: a first state of zeros or parameters is none."""

    @pytest.mark.parametrize("spelling", SPELLINGS)
    def test_one_row(self, spelling, start, calls):
        """The carry, and nothing beside it: neither in the gates nor at `cat([x, r⊙h])`."""
        step = gru(*SPELLINGS[spelling])
        assert rows(lambda: Net(forward_of(step, start, []), **layers(start)), *given_to(start)) == [("gated", calls)]

    @pytest.mark.parametrize("spelling", SPELLINGS)
    def test_its_numbers(self, spelling, start, calls):
        """λ and misfit are those of the factor that the spelling multiplies h by."""
        noted = []
        model, report = profiled(lambda: Net(forward_of(gru(*SPELLINGS[spelling]), start, noted), **layers(start)), *given_to(start))
        assert_carry(carry_of(report), oracle(model, noted, given_to(start), calls))

    def test_cell_of_torch(self, start, calls):
        """nn.GRUCell: the factor is its z, worked out from its weights."""
        noted = []

        def step(m, x, h, carry):
            a, b = x @ m.cell.weight_ih.t() + m.cell.bias_ih, h @ m.cell.weight_hh.t() + m.cell.bias_hh
            with torch.no_grad():
                z = torch.sigmoid(a.chunk(3, 1)[1] + b.chunk(3, 1)[1])
            return carry.note(z, m.cell(x, h))

        def bare(m, x, h, carry):
            return m.cell(x, h)

        inputs = given_to(start)
        learned = {"first": nn.Parameter(torch.ones(1, WIDTH))} if start == "learned" else {}
        model, report = profiled(lambda: Net(forward_of(bare, start, []), cell=nn.GRUCell(2, WIDTH), head=nn.Linear(WIDTH, 2), **learned), *inputs)
        assert [(skip.kind, skip.calls) for skip in report.skips] == [("gated", calls)]
        model.function = (forward_of(step, start, noted),)
        assert_carry(report.skips[0], oracle(model, noted, inputs, calls))


@pytest.mark.parametrize(("spelling", "ends"), [("n + z·(h − n)", [("sub", 0)]), ("h + z·(n − h)", [("add", 0), ("sub", 1)])])
def test_path_of_an_interpolation(spelling, ends):
    """In `h + z·(n − h)` h passes by the sum and by the difference: both edges are the path, which carries (1 − z)·h and no more than that."""
    found = paths(lambda: Net(forward_of(gru(*SPELLINGS[spelling]), "given", []), **layers("given")), X, GIVEN)
    carries = [skip for skip in found if skip.kind == "gated"]
    assert len(carries) == STEPS
    for skip in carries:
        leaving = [(name_of(node), position) for node, position in skip.path if node.args[position] is skip.fork]
        assert leaving == ends
        assert not {(node, position) for node, position in skip.path} & set(skip.branch_edges)


@pytest.mark.parametrize("spelling", [name for name in SPELLINGS if not name.startswith("z")])
def test_full_derivative_of_an_interpolation(spelling):
    """The gate weighs the candidate in one product with the carry: `lam_full` is undefined and says why, however it is written."""
    skip = carry_of(profiled(lambda: Net(forward_of(gru(*SPELLINGS[spelling]), "given", []), **layers("given")), X, GIVEN)[1])
    assert skip.lam_full is None
    assert "interpolation" in skip.undefined["lam_full"]


def test_full_derivative_of_a_carry():
    """Where the carry is an operand of its own, `lam_full` differentiates its gate as well."""
    spelling = SPELLINGS["z·n + (1 − z)·h"]
    model, report = profiled(lambda: Net(forward_of(gru(*spelling), "given", []), **layers("given")), X, GIVEN)
    numerator = denominator = 0.0
    h = GIVEN
    for t in range(STEPS):
        h = h.detach().requires_grad_()
        z = torch.sigmoid(model.gates(torch.cat([X[:, t], h], 1))).chunk(2, 1)[1]
        after = gru(*spelling)(model, X[:, t], h, Carry())
        g = _gradient_at(model, after, t + 1)
        (full,) = torch.autograd.grad((1 - z) * h, h, g)
        numerator, denominator, h = numerator + float((full * g).sum()), denominator + float((g * g).sum()), after
    assert carry_of(report).lam_full == pytest.approx(numerator / denominator, rel=1e-9)


def _gradient_at(model, state, t):
    """∂L/∂state where `state` is that before step t."""
    first = h = state.detach().requires_grad_()
    step = gru(*SPELLINGS["z·n + (1 − z)·h"])
    for k in range(t, STEPS):
        h = step(model, X[:, k], h, Carry())
    return torch.autograd.grad(linear_loss(model.head(h)), first)[0]


def mgu(m, x, h, carry):
    """Minimal gated unit (Zhou et al. 2016): one gate forgets and resets."""
    f = torch.sigmoid(m.forget(torch.cat([x, h], 1)))
    n = torch.tanh(m.candidate(torch.cat([x, f * h], 1)))
    return carry.note(1 - f, (1 - f) * h + f * n)


@pytest.mark.parametrize(("start", "calls"), STARTS.items(), ids=STARTS)
class TestMinimalGatedUnit:
    """Its gate multiplies h twice; the carry is the row."""

    def test_one_row(self, start, calls):
        """The carry, and nothing beside it."""
        assert rows(lambda: Net(forward_of(mgu, start, []), forget=nn.Linear(2 + WIDTH, WIDTH), **layers(start)), *given_to(start)) == [("gated", calls)]

    def test_its_numbers(self, start, calls):
        """λ is the mean of 1 − f, weighted."""
        noted = []
        model, report = profiled(lambda: Net(forward_of(mgu, start, noted), forget=nn.Linear(2 + WIDTH, WIDTH), **layers(start)), *given_to(start))
        assert_carry(carry_of(report), oracle(model, noted, given_to(start), calls))


class PeepholeLstm(nn.Module):
    """Its gates look at the cell (Gers & Schmidhuber 2000): i and f at the old one, o at the new one."""

    def __init__(self):
        super().__init__()
        self.x, self.h = nn.Linear(2, 4 * WIDTH), nn.Linear(WIDTH, 4 * WIDTH)
        self.peep = nn.ParameterList(torch.randn(WIDTH) for _ in range(3))
        self.carries = Carry()

    def forward(self, x):
        self.carries = Carry()
        h = c = x.new_zeros(len(x), WIDTH)
        for step in x.unbind(1):
            i, f, g, o = (self.x(step) + self.h(h)).chunk(4, 1)
            i, f = torch.sigmoid(i + self.peep[0] * c), torch.sigmoid(f + self.peep[1] * c)
            c = self.carries.note(f, f * c + i * torch.tanh(g))
            h = torch.sigmoid(o + self.peep[2] * c) * torch.tanh(c)
        return h


def test_peephole_lstm():
    """What a gate sees of the cell is no second carry: one row, λ the mean forget gate."""
    model, report = profiled(PeepholeLstm, X)
    assert [(skip.kind, skip.calls) for skip in report.skips] == [("gated", STEPS - 1)]
    loss = linear_loss(model(X))
    assert_carry(report.skips[0], pooled(model.carries.factors[1:], torch.autograd.grad(loss, model.carries.states[1:])))


def test_state_beside_the_reset_state():
    """`cat([h, r⊙h])`, read by one layer: without parameters between them neither goes around the other."""

    def forward(m, x):
        h = torch.tanh(m.stem(x))
        return m.head(torch.cat([h, torch.sigmoid(h) * h], 1))

    assert rows(lambda: Net(forward, stem=nn.Linear(8, 4), head=nn.Linear(8, 2)), randn(3, 8)) == []
