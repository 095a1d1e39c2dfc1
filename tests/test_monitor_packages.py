"""The monitor inside other packages: Lightning, transformers' Trainer, TensorBoard, Weights & Biases; each the real one where it is installed."""

import importlib
import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gradflow
from gradflow import errors
from gradflow.monitoring import TensorBoard, WandB
from gradflow.monitoring.writers import picture, scalars, spreads

MODULE_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
SCALARS = {
    "gradflow/severity", "gradflow/errors", "gradflow/warnings", "gradflow/silent_layers", "gradflow/log10_gain_least", "gradflow/log10_gain_most",
    "gradflow/lambda_least", "gradflow/lambda_most", "gradflow/log10_highway_gain_least", "gradflow/log10_highway_gain_most",
}  # fmt: skip


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, width))

    def forward(self, x):
        return x + self.branch(x)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), Block(8), Block(8), nn.BatchNorm1d(8), nn.Linear(8, 3))


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(16, 4, generator=generator), torch.randint(0, 3, (16,), generator=generator)


def observed(writer):
    """A short run of a small net, told to one writer."""
    model = net()
    with gradflow.Monitor(model, every=2, writers=[writer]) as monitor:
        for step in range(4):
            monitor.observe(*batch(step), nn.functional.cross_entropy)
    return monitor


def same(one, other):
    """Whether two state dicts are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def is_bare(model):
    return not any(getattr(module, kind) for module in model.modules() for kind in MODULE_HOOKS)


@pytest.fixture
def fitted(tmp_path):
    """fitted(callbacks) -> the module after 6 steps of Lightning's Trainer, with what it logged and whether it was without hooks after each."""
    pl = next((found for name in ("lightning.pytorch", "pytorch_lightning") if (found := importable(name))), None)
    if pl is None:
        pytest.skip("neither lightning nor pytorch-lightning is installed")

    class Module(pl.LightningModule):
        def __init__(self, manual):
            super().__init__()
            self.automatic_optimization = not manual
            self.net, self.criterion = net(), nn.CrossEntropyLoss()
            self.seen = []

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch):
            x, y = batch
            loss = self.criterion(self(x), y)
            self.log("loss", loss, on_step=True)
            return loss

        def on_train_batch_end(self, outputs, batch, batch_idx):
            self.seen.append((float(self.trainer.callback_metrics["loss"]), is_bare(self.net)))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    def fit(callbacks, manual=False, prepare=None):
        module = Module(manual)
        if prepare is not None:
            prepare(module)
        torch.manual_seed(1)
        rows = [torch.cat(parts) for parts in zip(*(batch(seed) for seed in range(6)), strict=True)]
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning's own advice
            trainer = pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=callbacks, default_root_dir=tmp_path, **quiet)
            trainer.fit(module, DataLoader(TensorDataset(*rows), batch_size=16, shuffle=True))
        return module

    return fit


def importable(name):
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def test_lightning_trains_as_without_the_callback(fitted):
    """Parameters, buffers, the optimiser's course and what was logged are bit for bit those of a plain fit; no hook stays."""
    from gradflow.monitoring.lightning import GradflowCallback

    callback = GradflowCallback(every=2, keep="all")
    plain, watched = fitted([]), fitted([callback])
    assert same(plain.state_dict(), watched.state_dict())
    assert plain.seen == watched.seen and all(bare for _, bare in watched.seen)
    assert "forward" not in vars(watched) and "log" not in vars(watched)
    history = callback.monitor.history
    assert [entry.step for entry in history.entries] == [0, 2, 4]
    assert [skip.kind for skip in history.skips] == ["identity", "identity"]


def test_lightning_profiles_the_training_step(fitted):
    """The loss is that of training_step; gains are those of the net profiled by itself with that loss, its output having gain 1."""
    from gradflow.monitoring.lightning import GradflowCallback

    callback = GradflowCallback(every=100, keep="all")
    fitted([callback])
    report = callback.monitor.reports[0]
    torch.manual_seed(1)
    rows = [torch.cat(parts) for parts in zip(*(batch(seed) for seed in range(6)), strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        order = next(iter(DataLoader(TensorDataset(*rows), batch_size=16, shuffle=True)))
    expected = gradflow.profile(net(), order[0], order[1], nn.functional.cross_entropy)
    gains = {layer.name: layer.gain for layer in report.layers}
    assert report.run.loss.value == pytest.approx(expected.run.loss.value, rel=1e-6)
    for layer in expected.layers:
        assert gains[f"net.{layer.name}"] == pytest.approx(layer.gain, rel=1e-5), layer.name
    assert gains["net.4"] == pytest.approx(1.0)


def test_lightning_by_hand_is_refused(fitted):
    """A training_step that steps the optimiser itself cannot be run twice: the error says what to do instead."""
    from gradflow.monitoring.lightning import GradflowCallback

    with pytest.raises(errors.UsageError, match=r"gradflow.Monitor.observe"):
        fitted([GradflowCallback()], manual=True)


def test_lightning_by_hand_observes_itself(fitted):
    """What that error says to do: a `Monitor` in the training_step; parameters and what was logged are those of the plain fit."""

    def train(every):
        monitors = []

        def prepare(module):
            monitors.append(gradflow.Monitor(module.net, every=every))

            def step(batch, batch_idx):
                x, y = batch
                monitors[0].observe(x, y, module.criterion, step=batch_idx)
                loss = module.criterion(module(x), y)
                module.optimizers().zero_grad()
                module.manual_backward(loss)
                module.optimizers().step()
                module.log("loss", loss, on_step=True)

            module.training_step = step

        return fitted([], manual=True, prepare=prepare), monitors[0]

    (plain, _), (watched, monitor) = train(lambda step: False), train(2)
    assert same(plain.state_dict(), watched.state_dict()) and plain.seen == watched.seen
    assert [entry.step for entry in monitor.history.entries] == [0, 2, 4] and len(monitor.history.skips) == 2


def test_lightning_stops_where_it_turns_sick(fitted):
    """on_finding="raise" goes through the Trainer, and names the step."""
    from gradflow.monitoring.lightning import GradflowCallback

    callback = GradflowCallback(every=1, on_finding="raise", keep="last")
    with pytest.raises(errors.SickTraining, match="step 0: GF103") as stop:
        fitted([callback], prepare=lambda module: nn.init.constant_(module.net[0].bias, math.nan))
    assert stop.value.step == 0 and stop.value.report is callback.monitor.reports[0]


@pytest.fixture
def trained(tmp_path):
    """trained(callbacks) -> the model after 6 steps of transformers' Trainer."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    def train(callbacks, **options):
        config = transformers.GPT2Config(vocab_size=31, n_positions=8, n_embd=16, n_layer=2, n_head=2, use_cache=False)
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(config)
        ids = torch.randint(0, 31, (48, 8), generator=torch.Generator().manual_seed(3))
        rows = [{"input_ids": row, "labels": row} for row in ids]
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path), max_steps=6, per_device_train_batch_size=4, report_to=[], save_strategy="no", disable_tqdm=True, use_cpu=True,
            logging_strategy="no", **options,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # transformers' own advice
            transformers.Trainer(model=model, args=arguments, train_dataset=rows, callbacks=callbacks).train()
        return model

    return train


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_trainer_trains_as_without_the_callback(trained, accumulated):
    """Parameters are bit for bit those of a plain run, dropout and accumulated gradients included; no hook stays."""
    from gradflow.monitoring.trainer import GradflowCallback

    callback = GradflowCallback(every=2)
    plain, watched = (trained(callbacks, gradient_accumulation_steps=accumulated) for callbacks in ([], [callback]))
    assert same(plain.state_dict(), watched.state_dict())
    assert is_bare(watched)
    history = callback.monitor.history
    assert [entry.step for entry in history.entries] == [0, 2, 4]
    assert len(history.skips) == 4
    of_a_step = math.log(31) * 7 / 8  # the Trainer divides by all labels of a step, of which the first of a row is predicted by none
    assert history.entries[0].loss == pytest.approx(of_a_step / accumulated, rel=0.05)


@pytest.mark.parametrize("first", [True, False])
def test_the_trainer_writes_from_the_first_process_alone(first):
    """Every process profiles its own batch, and one of them tells the writers."""
    callback_module = pytest.importorskip("transformers.trainer_callback")
    from gradflow.monitoring.trainer import GradflowCallback

    told = []

    class Ears:
        def write(self, step, report):
            told.append(step)

        def close(self, history):
            told.append("end")

    callback, model = GradflowCallback(every=1, loss="probe", writers=[Ears()]), net()
    state = callback_module.TrainerState(is_world_process_zero=first)
    callback.on_train_begin(None, state, None, model=model)
    callback.on_step_begin(None, state, None, model=model)
    model(batch()[0])
    callback.on_pre_optimizer_step(None, state, None)
    callback.on_train_end(None, state, None)
    assert len(callback.monitor.history.entries) == 1
    assert told == ([0, "end"] if first else [])


class Board:
    """A SummaryWriter's methods that are used, with their signatures."""

    def __init__(self):
        self.scalars, self.histograms, self.images, self.flushed = [], [], [], 0

    def add_scalar(self, tag, scalar_value, global_step=None, walltime=None, new_style=False, double_precision=False):
        self.scalars.append((tag, scalar_value, global_step))

    def add_histogram(self, tag, values, global_step=None, bins="tensorflow", walltime=None, max_bins=None):
        self.histograms.append((tag, values, global_step))

    def add_image(self, tag, img_tensor, global_step=None, walltime=None, dataformats="CHW"):
        self.images.append((tag, img_tensor, global_step, dataformats))

    def flush(self):
        self.flushed += 1


def test_a_summary_writer_is_told():
    """Every scalar at every sampled step, the histograms, the heat map at the end; a writer that was given stays open."""
    board = Board()
    monitor = observed(TensorBoard(board))
    assert {tag for tag, _, step in board.scalars if step == 2} == SCALARS
    assert {step for *_, step in board.scalars} == {0, 2} == {step for *_, step in board.histograms}
    ((tag, image, step, form),) = board.images
    assert (tag, step, form) == ("gradflow/heat_map", 2, "HWC")
    assert image.dtype == np.uint8 and np.array_equal(image, picture(monitor.history))
    assert board.flushed == 1


def test_tensorboard_itself_reads_it(tmp_path):
    """What tensorboard reads back of a folder is what was written."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monitor = observed(TensorBoard(tmp_path))
        events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    tags = events.Tags()
    assert set(tags["scalars"]) == SCALARS and tags["images"] == ["gradflow/heat_map"] and len(tags["histograms"]) == 2
    assert [event.step for event in events.Scalars("gradflow/severity")] == [0, 2]
    lowest = [min(math.log10(gain) for gain in entry.gains) for entry in monitor.history.entries]
    assert [event.value for event in events.Scalars("gradflow/log10_gain_least")] == pytest.approx(lowest, rel=1e-5)


def test_wandb_itself_takes_it(tmp_path, monkeypatch):
    """An offline run keeps the last values against an axis of their own, the histograms, and the heat map as a file; the run stays open."""
    wandb = pytest.importorskip("wandb")
    if not hasattr(wandb, "init"):
        pytest.skip("wandb is a folder and no package")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    quiet = wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True, disable_git=True, save_code=False)
    with wandb.init(mode="offline", dir=tmp_path, project="gradflow", settings=quiet) as run:
        monitor = observed(WandB(run))
        summary, steps = dict(run.summary), run.step
        run.log({"the loop's own": 1})
    entry = monitor.history.entries[-1]
    values = {name: summary[name] for name in SCALARS}
    assert summary["gradflow/step"] == 2 and steps == 3  # two sampled steps and the heat map
    assert values["gradflow/severity"] == pytest.approx(entry.severity)
    assert values["gradflow/log10_gain_least"] == pytest.approx(min(math.log10(gain) for gain in entry.gains))
    for name, row in (("gradflow/log10_gain", entry.gains), ("gradflow/log10_update_ratio", entry.update_ratios)):
        assert summary[name]["_type"] == "histogram" and sum(summary[name]["values"]) == sum(value is not None for value in row)
    (image,) = tmp_path.rglob("heat_map_*.png")
    assert np.array_equal((255 * imread(image)[:, :, :3]).round().astype(np.uint8), picture(monitor.history))


@pytest.mark.parametrize(("package", "code"), [
    ("wandb", "from gradflow.monitoring import WandB; WandB(None)"),
    ("tensorboard", "from gradflow.monitoring import TensorBoard; TensorBoard('x')"),
    ("lightning", "import gradflow.monitoring.lightning"),
    ("transformers", "import gradflow.monitoring.trainer"),
])  # fmt: skip
def test_a_package_that_is_missing(package, code):
    """One error that names the package and the extra; the monitor itself needs none of them."""
    blocked = ("wandb", "tensorboard", "lightning", "pytorch_lightning", "transformers")
    program = (
        f"import sys\nfor name in {blocked}: sys.modules[name] = None\nimport gradflow, torch\nfrom gradflow import errors\n"
        f"gradflow.Monitor(torch.nn.Linear(2, 2))\ntry:\n    {code}\nexcept errors.MissingExtra as error:\n    print(error.fact, error.remedy)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert f"needs the package {package!r}, which is not installed." in done.stdout and "gradflow's extra [" in done.stdout


def test_what_is_not_defined_is_left_out():
    """A net without skips has no λ; a layer of gain 0 has no decades and is counted."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.init.constant_(model[0].bias, -100.0)
    report = gradflow.profile(model, *batch(), nn.functional.cross_entropy)
    values = scalars(report)
    assert not any("lambda" in name or "highway" in name for name in values)
    assert values["gradflow/silent_layers"] == sum(layer.gain == 0 for layer in report.layers) > 0
    assert len(spreads(report)["gradflow/log10_gain"]) == sum(layer.gain > 0 for layer in report.layers)
