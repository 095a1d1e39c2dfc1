"""`gradflow.Monitor`: the training is bit for bit as without it, each sampled step is the report of its batch, and its findings are told at their step."""

import json
import math
import random
import warnings
from collections import OrderedDict
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import gradflow
from gradflow import History, errors
from gradflow.monitoring import SickTrainingWarning, save
from gradflow.monitoring.book import Book, update_ratio
from gradflow.render.json_schema import schema, text

ROOT = Path(__file__).resolve().parents[1]
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_forward_hooks_with_kwargs", "_state_dict_hooks")


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.branch = nn.Sequential(nn.BatchNorm1d(width), nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, width))

    def forward(self, x):
        return x + self.branch(x)


def residual():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), Block(8), Block(8), nn.LayerNorm(8), nn.Linear(8, 3))


def mlp(depth=6, width=16):
    torch.manual_seed(0)
    layers = [part for i in range(depth) for part in (nn.Linear(4 if i == 0 else width, width), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(width, 3))


def batch(step=0):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(16, 4, generator=generator), torch.randint(0, 3, (16,), generator=generator)


def run(model, steps=9, watch=None, where="before", optimizer=torch.optim.Adam, seed=7):
    """A training loop that draws from every generator; returns all that it computed. `watch(x, y)` is called at `where` in each step."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    stepper = optimizer(model.parameters(), lr=0.01)
    course = []
    for step in range(steps):
        x, y = batch(step)
        x = x + 0.1 * torch.randn_like(x) * random.random() * np.random.rand()
        for place in ("before", "between", "after"):
            if place == where and watch is not None:
                watch(x, y)
            if place == "before":
                stepper.zero_grad()
                loss = functional.cross_entropy(model(x), y)
            elif place == "between":
                loss.backward()
                course += [loss.detach(), *(p.grad.clone() for p in model.parameters())]
                stepper.step()
    state = [value for entry in stepper.state.values() for value in entry.values() if isinstance(value, torch.Tensor)]
    drawn = torch.tensor([random.random(), np.random.rand(), float(torch.rand(()))], dtype=torch.float64)
    return [*course, *model.state_dict().values(), *state, drawn]


def equal(one, other):
    return len(one) == len(other) and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("where", ["before", "between", "after"])
@pytest.mark.parametrize("every", [1, 4])
def test_training_is_bit_for_bit_as_without(every, where):
    """Losses, gradients, parameters, running statistics, the optimiser's state and the random numbers drawn afterwards: equal, wherever `observe` stands."""
    plain, model = run(residual()), residual()
    monitor = gradflow.Monitor(model, every=every)
    watched = run(model, watch=lambda x, y: monitor.observe(x, y, functional.cross_entropy), where=where)
    assert len(monitor.history.entries) == len(range(0, 9, every))
    assert equal(plain, watched)


def test_accumulated_gradients_stay():
    """A profile in the middle of an accumulation leaves what is accumulated, the tensors themselves included."""
    model = residual()
    functional.cross_entropy(model(batch()[0]), batch()[1]).backward()
    before = [(p.grad, p.grad.clone()) for p in model.parameters()]
    gradflow.Monitor(model, every=1).observe(*batch(1), functional.cross_entropy)
    assert all(p.grad is kept and torch.equal(p.grad, copy) for p, (kept, copy) in zip(model.parameters(), before, strict=True))


def test_a_step_that_is_not_sampled_touches_nothing():
    """No hook hangs on the model between steps, and neither inputs nor targets are asked for."""
    model = residual()
    monitor = gradflow.Monitor(model, every=3)

    def never():
        raise AssertionError("asked for on a step that is not sampled")

    assert monitor.observe(*batch(), functional.cross_entropy) is not None
    for _ in range(2):
        assert monitor.observe(never, never, functional.cross_entropy) is None
        assert not any(getattr(module, kind) for module in model.modules() for kind in HOOKS)
    assert monitor.observe(lambda: batch()[0], lambda: batch()[1], functional.cross_entropy) is not None


def test_a_compiled_model_is_not_compiled_again():
    """torch.compile's graph serves all steps; the profile runs the model as written, and its names are those."""
    graphs = []

    def backend(graph, examples):
        graphs.append(graph)
        return graph.forward

    model = mlp(2)
    compiled = torch.compile(model, backend=backend)
    monitor = gradflow.Monitor(compiled, every=2)
    counts = []
    for step in range(6):
        x, y = batch(step)
        monitor.observe(x, y, functional.cross_entropy)
        functional.cross_entropy(compiled(x), y).backward()
        counts.append(len(graphs))
    assert counts[0] == counts[-1]
    assert [layer.name for layer in monitor.history.layers] == ["0", "1", "2", "3", "4"]


def test_an_entry_is_the_report_of_its_batch():
    """What a sampled step keeps is what gradflow.profile says of that batch and those weights."""
    model = residual()
    monitor = gradflow.Monitor(model, every=2)
    reports = {}

    def watch(x, y):
        step = len(reports)
        reports[step] = gradflow.profile(model, x, y, functional.cross_entropy)
        monitor.observe(x, y, functional.cross_entropy)

    run(model, steps=5, watch=watch)
    history = monitor.history
    assert [entry.step for entry in history.entries] == [0, 2, 4]
    for entry in history.entries:
        report = reports[entry.step]
        assert (entry.loss, entry.verdict, entry.severity) == (report.run.loss.value, report.verdict, report.severity)
        assert dict(zip([t.name for t in history.layers], entry.gains, strict=True)) == {layer.name: layer.gain for layer in report.layers}
        assert dict(zip([t.id for t in history.skips], entry.lams, strict=True)) == {skip.id: skip.lam for skip in report.skips}
        assert list(entry.highway_gains) == [highway.gain for highway in report.highways]
        assert [(n.rule, n.where) for n in entry.findings] == [(f.rule, f.where) for f in report.findings]
        assert history.layers[0].name == "0" and entry.update_ratios[0] == update_ratio(report.layers[0])


def test_the_update_ratio_is_that_of_all_parameters_together():
    """√Σ‖∇W‖² / √Σ‖W‖² over a layer's parameters, against autograd."""
    model = nn.Sequential(nn.Linear(4, 3))
    x, y = batch()
    monitor = gradflow.Monitor(model, every=1)
    monitor.observe(x, y, functional.cross_entropy)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(functional.cross_entropy(model(x), y), parameters)
    expected = math.hypot(*(float(g.double().norm()) for g in gradients)) / math.hypot(*(float(p.detach().double().norm()) for p in parameters))
    assert monitor.history.entries[0].update_ratios[0] == pytest.approx(expected, rel=1e-5)


class Growing(nn.Module):
    """Uses another layer from the second call on, which lies before the last one."""

    def __init__(self):
        super().__init__()
        self.first, self.late, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.opened = False

    def forward(self, x):
        x = self.first(x)
        return self.last(self.late(x) + x if self.opened else x)


def test_a_layer_that_comes_later_stands_in_its_depth():
    """Rows stay aligned: where a layer was not there yet its value is null."""
    model = Growing()
    monitor = gradflow.Monitor(model, every=1)
    for opened in (False, True, False):
        model.opened = opened
        monitor.observe(*batch(), functional.cross_entropy)
    history = monitor.history
    assert [layer.name for layer in history.layers] == ["first", "late", "last"]
    assert [[gain is not None for gain in entry.gains] for entry in history.entries] == [[True, False, True], [True, True, True], [True, False, True]]
    assert [entry.lams for entry in history.entries] == [(None,), (pytest.approx(1.0),), (None,)]
    assert all(len(row) == 3 for entry in history.entries for row in (entry.gains, entry.update_ratios))


@pytest.mark.parametrize(("every", "sampled"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (7, [0]), (lambda step: step in (1, 3), [1, 3])])
def test_which_steps_are_sampled(every, sampled):
    """The multiples of a number, or what a callable says."""
    monitor = gradflow.Monitor(mlp(1), every=every)
    found = [step for step in range(5) if monitor.observe(*batch(step), functional.cross_entropy) is not None]
    assert found == sampled == [entry.step for entry in monitor.history.entries]


def test_steps_by_the_callers_number():
    """`step=` counts for the loop; micro-batches of one step are sampled once, and the count goes on from there."""
    monitor = gradflow.Monitor(mlp(1), every=10)
    for step in (20, 20, 21, 30, 30):
        monitor.observe(*batch(), functional.cross_entropy, step=step)
    for _ in range(10):
        monitor.observe(*batch(), functional.cross_entropy)
    assert [entry.step for entry in monitor.history.entries] == [20, 30, 40]


def kill(model):
    nn.init.constant_(model[6].bias, -1e3)


def test_turning_sick_warns_once():
    """At the step where the verdict turns, with the finding, its place in the net and the fix; and again only after it was well."""
    model = mlp()
    monitor = gradflow.Monitor(model, every=1, on_finding="warn")
    good = model[6].bias.detach().clone()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(8):
            if step in (2, 6):
                kill(model)
            if step == 4:
                model[6].bias.data.copy_(good)
            monitor.observe(*batch(step), functional.cross_entropy)
    told = [str(w.message) for w in caught if w.category is SickTrainingWarning]
    assert len(told) == 2 and all(w.filename == __file__ for w in caught if w.category is SickTrainingWarning)
    assert (
        told[0].startswith("The gradient flow turned sick at step 2: GF108") and "6 (Linear)" in told[0] and "Every input of this ReLU is negative" in told[0]
    )
    assert "step 6" in told[1]
    turns = [(turn.step, turn.verdict, turn.finding.rule if turn.finding else None) for turn in monitor.history.turns]
    assert [(s, v) for s, v, _ in turns if v == "sick"] == [(2, "sick"), (6, "sick")] and turns[0][2] == "GF108"


def test_turning_sick_raises():
    """The error carries step and report, and the entry is in the history; nothing is raised where findings are to be ignored."""
    model = mlp()
    kill(model)
    monitor = gradflow.Monitor(model, every=1, on_finding="raise")
    with pytest.raises(errors.SickTraining, match="step 0: GF108") as stop, monitor:
        monitor.observe(*batch(), functional.cross_entropy)
    assert stop.value.exit_code == 1 and stop.value.report.verdict == "sick"
    assert monitor.history.first_sick.step == 0 == monitor.history.worst.step
    assert gradflow.Monitor(model, every=1).observe(*batch(), functional.cross_entropy).verdict == "sick"


@pytest.mark.parametrize(("keep", "kept"), [("none", []), ("all", [0, 1, 2, 3]), ("last", [3]), ("worst", [1])])
def test_which_reports_are_kept(keep, kept):
    """The worst is the first of the gravest."""
    model = mlp()
    monitor = gradflow.Monitor(model, every=1, keep=keep)
    good = model[6].bias.detach().clone()
    for step in range(4):
        if step in (1, 2):
            kill(model)
        else:
            model[6].bias.data.copy_(good)
        monitor.observe(*batch(), functional.cross_entropy)
    assert list(monitor.reports) == kept


def test_a_step_that_cannot_be_profiled_later_is_no_end():
    """The first failure is an error, since the call is wrong; one after a success is a warning and stands in the history."""
    monitor = gradflow.Monitor(mlp(1), every=1)
    with pytest.raises(errors.ModelFailed):
        monitor.observe(torch.randn(2, 5), batch()[1], functional.cross_entropy)
    monitor.observe(*batch(), functional.cross_entropy)
    with pytest.warns(SickTrainingWarning, match=r"step 2 was not profiled, the training goes on: The model failed"):
        assert monitor.observe(torch.randn(2, 5), batch()[1], functional.cross_entropy) is None
    monitor.observe(*batch(), functional.cross_entropy)
    assert [missed.step for missed in monitor.history.missed] == [2] and [entry.step for entry in monitor.history.entries] == [1, 3]


class Ears:
    def __init__(self):
        self.heard, self.closed = [], []

    def write(self, step, report):
        self.heard.append((step, report.verdict))

    def close(self, history):
        self.closed.append(history)


def test_writers_hear_of_each_step_and_of_the_end():
    """Also where the loop ends with an error; closing twice closes once."""
    ears = Ears()
    with pytest.raises(KeyboardInterrupt), gradflow.Monitor(mlp(1), every=2, writers=[ears]) as monitor:
        for step in range(4):
            monitor.observe(*batch(step), functional.cross_entropy)
        raise KeyboardInterrupt
    monitor.close()
    assert [step for step, _ in ears.heard] == [0, 2]
    assert ears.closed == [monitor.history]


@pytest.mark.parametrize(("options", "named"), [
    ({"every": 0}, "every: 0"), ({"every": 2.5}, "every: 2.5"), ({"every": True}, "every: True"), ({"on_finding": "shout"}, "on_finding: shout"),
    ({"keep": "some"}, "keep: some"), ({"amp": "int8"}, "amp: int8"),
])  # fmt: skip
def test_arguments_that_cannot_be(options, named):
    """Refused when the monitor is made, with the option, its value and what it may be."""
    with pytest.raises(errors.UsageError, match=named):
        gradflow.Monitor(mlp(1), **options)


def test_a_model_that_cannot_be():
    """Refused when the monitor is made, before hours of training."""
    with pytest.raises(errors.NotAModel):
        gradflow.Monitor("resnet50")
    with pytest.raises(errors.NoParameters):
        gradflow.Monitor(nn.ReLU())


def test_a_history_of_nothing():
    """An error that says how to get one."""
    monitor = gradflow.Monitor(mlp(1), every=lambda step: False)
    monitor.observe(*batch(), functional.cross_entropy)
    with pytest.raises(errors.NothingObserved, match="of 1 observed steps none was sampled"):
        _ = monitor.history


def test_distributed_data_parallel(tmp_path):
    """Of a wrapped model the module in it is profiled, under its own names, and the wrapper's training is as without."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        plain = run(nn.parallel.DistributedDataParallel(residual()))
        model = nn.parallel.DistributedDataParallel(residual())
        monitor = gradflow.Monitor(model, every=2)
        watched = run(model, watch=lambda x, y: monitor.observe(x, y, functional.cross_entropy))
    finally:
        torch.distributed.destroy_process_group()
    assert equal(plain, watched)
    assert monitor.history.layers[0].name == "0"


@pytest.fixture(scope="module")
def dying():
    """The history of a net that dies at its fifth profile."""
    model = mlp()
    monitor = gradflow.Monitor(model, every=1)
    for step in range(8):
        if step == 5:
            kill(model)
        monitor.observe(*batch(step), functional.cross_entropy, step=100 * step)
    return monitor.history


def test_json_there_and_back(dying, tmp_path):
    """Read back it is equal, through a file and its schema; another schema is refused."""
    save(dying, tmp_path / "history.json")
    written = (tmp_path / "history.json").read_text()
    assert History.from_json(written) == dying
    jsonschema.validate(json.loads(written), schema(History))
    with pytest.raises(ValueError, match="gradflow/report/v1"):
        gradflow.Report.from_json(written)


def test_the_published_schema_is_derived():
    """It is what the records say now; else: python -m gradflow.render.json_schema history > docs/history-v1.schema.json."""
    assert (ROOT / "docs" / "history-v1.schema.json").read_text() == text(History)


@pytest.mark.parametrize("name", ["history.txt", "history", "no/such/folder/history.png"])
def test_where_a_history_cannot_go(dying, tmp_path, name):
    """One error that names the file."""
    with pytest.raises(errors.GradflowError, match="history"):
        save(dying, tmp_path / name)


def test_the_history_is_small():
    """An entry costs numbers and not tensors: no tensor of the model lives in the book, and 1,000 entries of 6 layers stay below a megabyte."""
    report = gradflow.profile(mlp(), *batch(), functional.cross_entropy)
    book = Book()
    for step in range(1000):
        book.add(step, report, 0.01)
    assert len(json.dumps(json.loads(book.history().to_json()))) < 1_000_000


def test_modes_and_order_are_kept():
    """A model in eval mode is profiled so; OrderedDict inputs go by name."""

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x, scale):
            return self.linear(x) * scale

    monitor = gradflow.Monitor(Named().eval(), every=1)
    monitor.observe(OrderedDict(x=batch()[0], scale=torch.tensor(2.0)), batch()[1], functional.cross_entropy)
    assert monitor.history.mode == "eval"
