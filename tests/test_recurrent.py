"""Recurrent networks: one row for each cell's carry, gated, whose λ is the mean forget gate; against torch.autograd.grad at every step."""

import time

import pytest
import torch
from torch import nn

import gradflow

INPUT, WIDTH = 3, 4


def randn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def profiled(build, *inputs):
    """The report of a freshly built model in float64, with a fixed linear loss."""
    torch.manual_seed(0)
    model = build().double()
    return model, gradflow.profile(model, tuple(x.double() if x.is_floating_point() else x for x in inputs), loss=linear)


def linear(output):
    return (output * randn(*output.shape, seed=2).to(output)).sum()


def rows(report):
    return [(s.name, s.kind, s.calls) for s in report.skips]


class Loop(nn.Module):
    """A cell over the time steps of [batch, time, feature], forwards or backwards; how its states begin is an option."""

    def __init__(self, cell, start="none", backwards=False):
        super().__init__()
        self.cell, self.start, self.backwards = cell, start, backwards
        self.head = nn.Linear(WIDTH, 2)
        if start == "learned":
            self.h, self.c = nn.Parameter(randn(1, WIDTH)), nn.Parameter(randn(1, WIDTH))

    def begin(self, x, given):
        pair = isinstance(self.cell, nn.LSTMCell)
        if self.start == "learned":
            states = (self.h.expand(len(x), -1), self.c.expand(len(x), -1))
        elif self.start == "given":
            states = given
        else:
            states = (x.new_zeros(len(x), WIDTH),) * 2
        return None if self.start == "none" else states if pair else states[0]

    def forward(self, x, *given):
        state, outputs = self.begin(x, given), []
        for t in reversed(range(x.shape[1])) if self.backwards else range(x.shape[1]):
            state = self.cell(x[:, t], state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return self.head(torch.stack(outputs[::-1] if self.backwards else outputs, 1))


class Both(nn.Module):
    """Two cells over time, one from each end, written by hand."""

    def __init__(self, cell=nn.LSTMCell):
        super().__init__()
        self.forwards, self.backwards = cell(INPUT, WIDTH), cell(INPUT, WIDTH)
        self.head = nn.Linear(2 * WIDTH, 2)

    def run(self, cell, steps):
        state, outputs = None, []
        for x in steps:
            state = cell(x, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return outputs

    def forward(self, x):
        steps = list(x.unbind(1))
        there, back = self.run(self.forwards, steps), self.run(self.backwards, steps[::-1])[::-1]
        return self.head(torch.cat([torch.stack(there, 1), torch.stack(back, 1)], -1))


def unrolled(cell, steps, state):
    """Carries, gates on them and outputs of a cell written out: c and f of an LSTM, h and z of a GRU."""
    carries, gates, outputs = [], [], []
    h, c = state
    for x in steps:
        a, b = x @ cell.weight_ih.t() + cell.bias_ih, h @ cell.weight_hh.t() + cell.bias_hh
        if isinstance(cell, nn.LSTMCell):
            i, f, g, o = (a + b).chunk(4, 1)
            gate, c = f.sigmoid(), f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        else:
            (r, z, n), (rh, zh, nh) = a.chunk(3, 1), b.chunk(3, 1)
            gate = (z + zh).sigmoid()
            h = c = (1 - gate) * (n + (r + rh).sigmoid() * nh).tanh() + gate * h
        carries.append(c)
        gates.append(gate)
        outputs.append(h)
    return carries, gates, outputs


def weighted(gates, gradients):
    """Σ⟨f⊙g,g⟩/Σ⟨g,g⟩ over all steps, and of each."""
    tops = [float((f.detach() * g * g).sum()) for f, g in zip(gates, gradients, strict=True)]
    bottoms = [float((g * g).sum()) for g in gradients]
    return sum(tops) / sum(bottoms), [t / b for t, b in zip(tops, bottoms, strict=True)]


def assert_carry(skip, gates, gradients):
    """The row says what autograd says."""
    lam, trend = weighted(gates, gradients)
    assert skip.lam == pytest.approx(lam, rel=1e-9)
    assert skip.trend == pytest.approx(trend, rel=1e-9)
    assert skip.ledger_error < 1e-9


def gradients_of(model, x, state):
    """Gates and ∂L/∂carry of each step of a Loop."""
    steps = list(x.double().unbind(1))
    carries, gates, outputs = unrolled(model.cell, steps, state)
    return gates, torch.autograd.grad(linear(model.head(torch.stack(outputs, 1))), carries)


class TestOneRow:
    """A loop over a cell is one row."""

    @pytest.mark.parametrize("start", ["none", "zeros"])
    @pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell])
    def test_from_a_state_of_nothing(self, cell, start):
        """The first step carries a constant and is no skip: one call fewer than steps."""
        x = randn(2, 7, INPUT)
        model, report = profiled(lambda: Loop(cell(INPUT, WIDTH), start), x)
        assert rows(report) == [("cell", "gated", 6)]
        gates, gradients = gradients_of(model, x, (torch.zeros(2, WIDTH).double(),) * 2)
        assert_carry(report.skips[0], gates[1:], gradients[1:])

    def test_from_a_learned_state(self):
        """A parameter is no data: its carry is no skip either."""
        x = randn(2, 7, INPUT)
        model, report = profiled(lambda: Loop(nn.LSTMCell(INPUT, WIDTH), "learned"), x)
        assert rows(report) == [("cell", "gated", 6)]
        gates, gradients = gradients_of(model, x, (model.h.expand(2, -1), model.c.expand(2, -1)))
        assert_carry(report.skips[0], gates[1:], gradients[1:])

    @pytest.mark.parametrize(("cell", "calls"), [(nn.LSTMCell, 6), (nn.GRUCell, 7)])
    def test_from_a_given_state(self, cell, calls):
        """A GRU's first step forks at the given h. An LSTM's does not: c₀ reaches c₁ along the carry alone, h₀ is another tensor."""
        x, h, c = randn(2, 7, INPUT), randn(2, WIDTH, seed=3), randn(2, WIDTH, seed=4)
        given = (x, h, c) if cell is nn.LSTMCell else (x, h)
        model, report = profiled(lambda: Loop(cell(INPUT, WIDTH), "given"), *given)
        assert rows(report) == [("cell", "gated", calls)]
        gates, gradients = gradients_of(model, x, (h.double(), c.double()))
        assert_carry(report.skips[0], gates[-calls:], gradients[-calls:])

    @pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell])
    def test_two_hundred_steps_from_both_ends(self, cell):
        """Two rows of 199 calls, in seconds."""
        x, began = randn(2, 200, INPUT), time.perf_counter()
        model, report = profiled(lambda: Both(cell), x)
        print(f"{cell.__name__}, 200 steps from both ends: {time.perf_counter() - began:.1f} s")
        assert time.perf_counter() - began < 20
        assert rows(report) == [("forwards", "gated", 199), ("backwards", "gated", 199)]
        steps, nothing = list(x.double().unbind(1)), (torch.zeros(2, WIDTH).double(),) * 2
        there, back = unrolled(model.forwards, steps, nothing), unrolled(model.backwards, steps[::-1], nothing)
        output = model.head(torch.cat([torch.stack(there[2], 1), torch.stack(back[2][::-1], 1)], -1))
        for skip, (carries, gates, _) in zip(report.skips, (there, back), strict=True):
            assert_carry(skip, gates[1:], torch.autograd.grad(linear(output), carries, retain_graph=True)[1:])

    def test_two_hundred_steps_of_a_gru_module(self):
        """nn.GRU on the CPU unrolls on the tape: one row, λ the mean update gate."""

        class Outputs(nn.GRU):
            def forward(self, x):
                return super().forward(x)[0]

        x = randn(2, 200, INPUT)
        model, report = profiled(lambda: Outputs(INPUT, WIDTH, batch_first=True), x)
        assert rows(report) == [("(Outputs)", "gated", 199)]
        assert report.opaque == ()
        cell = nn.GRUCell(INPUT, WIDTH).double()
        with torch.no_grad():
            for name, parameter in cell.named_parameters():
                parameter.copy_(getattr(model, f"{name}_l0"))
        carries, gates, outputs = unrolled(cell, list(x.double().unbind(1)), (torch.zeros(2, WIDTH).double(),) * 2)
        assert_carry(report.skips[0], gates[1:], torch.autograd.grad(linear(torch.stack(outputs, 1)), carries)[1:])

    @pytest.mark.parametrize("module", [nn.RNN, nn.RNNCell])
    def test_a_plain_recurrence(self, module):
        """tanh(Wx + Uh) has no carry: no row."""
        model = nn.RNN(INPUT, WIDTH, batch_first=True) if module is nn.RNN else Loop(nn.RNNCell(INPUT, WIDTH))
        torch.manual_seed(0)
        assert gradflow.profile(model, randn(2, 6, INPUT)).skips == ()

    def test_a_torchscript_cell(self):
        """Scripted: the same row."""
        torch.manual_seed(0)
        scripted = torch.jit.script(Scripted())
        report = gradflow.profile(scripted, randn(2, 6, INPUT))
        assert rows(report) == [("cell", "gated", 5)]


class Scripted(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(INPUT, WIDTH)

    def forward(self, x):
        h, c = torch.zeros(x.size(0), self.cell.hidden_size), torch.zeros(x.size(0), self.cell.hidden_size)
        outputs = []
        for t in range(x.size(1)):
            h, c = self.cell(x[:, t], (h, c))
            outputs.append(h)
        return torch.stack(outputs, 1)


class TestTrend:
    """λ of each call."""

    @pytest.mark.parametrize("backwards", [False, True])
    def test_its_order(self, backwards):
        """First call first: a loop that runs backwards begins with the last time step."""

        def build():
            cell = nn.LSTMCell(INPUT, WIDTH)
            with torch.no_grad():
                for parameter in (cell.weight_hh, cell.bias_ih, cell.bias_hh):
                    parameter.zero_()
                cell.weight_ih[WIDTH : 2 * WIDTH] = 1.0  # the forget gate reads the input, and the input grows
            return Loop(cell, backwards=backwards)

        x = torch.linspace(-1, 1, 6)[None, :, None].expand(2, 6, INPUT)
        _, report = profiled(build, x)
        expected = torch.sigmoid(INPUT * x[0, :, 0].double()).tolist()
        calls = expected[-2::-1] if backwards else expected[1:]
        assert report.skips[0].trend == pytest.approx(calls, rel=1e-6)

    def test_a_step_without_a_gradient(self):
        """Its entry is null, and the others stay in their places."""

        class Early(Loop):
            def forward(self, x):
                return super().forward(x) * (torch.arange(x.shape[1]) < 3)[:, None]

        _, report = profiled(lambda: Early(nn.LSTMCell(INPUT, WIDTH)), randn(2, 6, INPUT))
        (skip,) = report.skips
        assert skip.calls == len(skip.trend) == 5
        assert [lam is None for lam in skip.trend] == [False, False, True, True, True]
        assert gradflow.Report.from_json(report.to_json()) == report


class Recurrence(nn.Module):
    """A hand-written cell over time; `step(x, states) -> states`, the first of which is the output."""

    def __init__(self, states, **layers):
        super().__init__()
        self.states = states
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        states = tuple(x.new_zeros(len(x), WIDTH) for _ in range(self.states))
        outputs = []
        for t in range(x.shape[1]):
            states = self.step(x[:, t], *states)
            outputs.append(states[0])
        return torch.stack(outputs, 1)


class Lstm(Recurrence):
    def __init__(self):
        super().__init__(2, x=nn.Linear(INPUT, 4 * WIDTH), h=nn.Linear(WIDTH, 4 * WIDTH))

    def step(self, x, h, c):
        i, f, g, o = (self.x(x) + self.h(h)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class Gru(Recurrence):
    """r, z and n in one product; `join` mixes n and h by z."""

    def __init__(self, join):
        super().__init__(1, x=nn.Linear(INPUT, 3 * WIDTH), h=nn.Linear(WIDTH, 3 * WIDTH))
        self.join = join

    def step(self, x, h):
        (r, z, n), (rh, zh, nh) = self.x(x).chunk(3, 1), self.h(h).chunk(3, 1)
        return (self.join((z + zh).sigmoid(), (n + (r + rh).sigmoid() * nh).tanh(), h),)


class HighwayRecurrence(Recurrence):
    """Two highway layers to each time step (Zilly et al. 2017)."""

    def __init__(self):
        super().__init__(1, x=nn.Linear(INPUT, 2 * WIDTH), deep=nn.ModuleList(nn.Linear(WIDTH, 2 * WIDTH) for _ in range(2)))

    def step(self, x, h):
        for k, layer in enumerate(self.deep):
            n, t = (layer(h) + (self.x(x) if k == 0 else 0)).chunk(2, 1)
            h = n.tanh() * t.sigmoid() + h * (1 - t.sigmoid())
        return (h,)


class Independent(Recurrence):
    """IndRNN: relu(Wx + u⊙h)."""

    def __init__(self):
        super().__init__(1, x=nn.Linear(INPUT, WIDTH))
        self.u = nn.Parameter(torch.rand(WIDTH))

    def step(self, x, h):
        return (torch.relu(self.x(x) + self.u * h),)


class Added(Recurrence):
    """`join` adds what a step makes to what it keeps."""

    def __init__(self, join):
        super().__init__(1, x=nn.Linear(INPUT, WIDTH), h=nn.Linear(WIDTH, WIDTH))
        self.join = join

    def step(self, x, h):
        return (self.join(h, torch.tanh(self.x(x) + self.h(h))),)


class ConvolutionalLstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.x, self.h = nn.Conv2d(2, 4 * WIDTH, 3, padding=1), nn.Conv2d(WIDTH, 4 * WIDTH, 3, padding=1)

    def forward(self, x):
        h = c = x.new_zeros(len(x), WIDTH, *x.shape[-2:])
        for frame in x.unbind(1):
            i, f, g, o = (self.x(frame) + self.h(h)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return h


WRITTEN = {
    "lstm": (Lstm, [("gated", 5)]),
    "gru (1-z)n + zh": (lambda: Gru(lambda z, n, h: (1 - z) * n + z * h), [("gated", 5)]),
    "gru zn + (1-z)h": (lambda: Gru(lambda z, n, h: z * n + (1 - z) * h), [("gated", 5)]),
    "gru lerp": (lambda: Gru(lambda z, n, h: torch.lerp(n, h, z)), [("gated", 5)]),
    "highway": (HighwayRecurrence, [("gated", 6), ("gated", 5)]),
    "independent": (Independent, []),
    "residual": (lambda: Added(lambda h, n: h + n), [("identity", 5)]),
    "leaky": (lambda: Added(lambda h, n: 0.9 * h + 0.1 * n), [("scaled", 5)]),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_cell_written_by_hand(name):
    """As many rows as it has carries, of their kinds."""
    build, expected = WRITTEN[name]
    _, report = profiled(build, randn(2, 6, INPUT))
    assert [(s.kind, s.calls) for s in report.skips] == expected
    assert all(0.1 < s.lam < 0.9 for s in report.skips if s.kind == "gated")
    assert all(s.lam == pytest.approx(0.9, rel=1e-9) for s in report.skips if s.kind == "scaled")


def test_a_convolutional_lstm():
    """One row."""
    _, report = profiled(ConvolutionalLstm, randn(2, 5, 2, 4, 4))
    assert [(s.kind, s.calls) for s in report.skips] == [("gated", 4)]


class Stacked(nn.Module):
    """Recurrent layers with a residual connection around each, over time first or over layers first."""

    def __init__(self, module, time_first=False):
        super().__init__()
        options = {} if module is nn.LSTMCell else {"batch_first": True}
        self.stem = nn.Linear(INPUT, WIDTH)
        self.layers = nn.ModuleList(module(WIDTH, WIDTH, **options) for _ in range(2))
        self.time_first = time_first

    def forward(self, x):
        return self.over_time(self.stem(x)) if self.time_first else self.over_layers(self.stem(x))

    def over_layers(self, y):
        for layer in self.layers:
            y = y + layer(y)[0]
        return y

    def over_time(self, y):
        states, outputs = [None] * len(self.layers), []
        for v in y.unbind(1):
            for k, layer in enumerate(self.layers):
                states[k] = layer(v, states[k])
                v = v + states[k][0]  # noqa: PLW2901
            outputs.append(v)
        return torch.stack(outputs, 1)


class TestLayersOfThem:
    """Stacks of recurrent layers."""

    def test_residual_connections_around_fused_layers(self):
        """The connections are seen, and each layer is counted as opaque."""
        torch.manual_seed(0)
        report = gradflow.profile(Stacked(nn.LSTM), randn(2, 6, INPUT))
        assert [(s.kind, s.lam) for s in report.skips] == [("identity", 1.0)] * 2
        assert [(part.name, part.operator) for part in report.opaque] == [("layers.0", "mkldnn_rnn_layer"), ("layers.1", "mkldnn_rnn_layer")]

    def test_residual_connections_around_layers_that_unroll(self):
        """Each connection and each carry has a row."""
        _, report = profiled(lambda: Stacked(nn.GRU), randn(2, 6, INPUT))
        assert sorted((s.kind, s.calls) for s in report.skips) == [("gated", 5)] * 2 + [("identity", 1)] * 2

    def test_residual_connections_inside_the_loop(self):
        """A connection is one row of as many calls as there are steps, though the first step has no state."""
        _, report = profiled(lambda: Stacked(nn.LSTMCell, time_first=True), randn(2, 6, INPUT))
        assert sorted((s.kind, s.calls) for s in report.skips) == [("gated", 5)] * 2 + [("identity", 6)] * 2

    def test_directions_and_layers_of_one_module(self):
        """nn.GRU of two layers from both ends with dropout: four rows, and forgetting over many steps is not an error."""
        torch.manual_seed(0)
        report = gradflow.profile(nn.GRU(INPUT, WIDTH, 2, batch_first=True, bidirectional=True, dropout=0.1), randn(2, 24, INPUT))
        assert [(s.kind, s.calls) for s in report.skips] == [("gated", 23)] * 4
        assert report.verdict == "warnings"

    @pytest.mark.parametrize("options", [{"num_layers": 2, "bidirectional": True}, {"proj_size": 2}], ids=["two layers", "projected"])
    def test_an_lstm_in_double_precision(self, options):
        """No kernel is fused for it, and nn.LSTM unrolls on the tape: a row for each carry, and nothing is opaque."""
        torch.manual_seed(0)
        report = gradflow.profile(nn.LSTM(INPUT, WIDTH, batch_first=True, **options).double(), randn(2, 6, INPUT).double())
        assert [(s.kind, s.calls) for s in report.skips] == [("gated", 5)] * (4 if "num_layers" in options else 1)
        assert report.opaque == ()


class TestAroundTheLoop:
    """What is done with a loop's states."""

    def test_attention_over_its_outputs(self):
        """No row of its own."""

        class Attended(Loop):
            def __init__(self):
                super().__init__(nn.LSTMCell(INPUT, WIDTH))
                self.query = nn.Linear(2, 1)

            def forward(self, x):
                outputs = super().forward(x)
                return (self.query(outputs).softmax(1) * outputs).sum(1)

        _, report = profiled(Attended, randn(2, 6, INPUT))
        assert rows(report) == [("cell", "gated", 5)]

    @pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell])
    def test_truncated_backpropagation(self, cell):
        """States detached every third step: those steps' carries are no skips, and no gradient is said to be missing."""

        class Truncated(Loop):
            def forward(self, x):
                state, outputs = None, []
                for t in range(x.shape[1]):
                    if t and t % 3 == 0:
                        state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
                    state = self.cell(x[:, t], state)
                    outputs.append(state[0] if isinstance(state, tuple) else state)
                return self.head(torch.stack(outputs, 1))

        _, report = profiled(lambda: Truncated(cell(INPUT, WIDTH)), randn(2, 9, INPUT))
        assert rows(report) == [("cell", "gated", 6)]
        assert all(p.status == "measured" for layer in report.layers for p in layer.parameters)

    def test_a_packed_sequence(self):
        """Where the batch narrows, λ of that step is not defined; the others' are pooled."""

        class Packed(nn.Module):
            def __init__(self):
                super().__init__()
                self.rnn = nn.LSTM(INPUT, WIDTH, batch_first=True)

            def forward(self, x):
                packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([6, 4]), batch_first=True)
                return nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0]

        _, report = profiled(Packed, randn(2, 6, INPUT))
        (carry,) = (s for s in report.skips if s.form == "add")
        assert [lam is None for lam in carry.trend] == [False, False, False, True, False]
        assert min(lam for lam in carry.trend if lam) < carry.lam < max(lam for lam in carry.trend if lam)
