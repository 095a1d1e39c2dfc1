"""Where a run's curves go besides the history: TensorBoard and Weights & Biases. Each package is imported when its writer is made.

Both get the same values under the same names (docs/monitor.md lists them), and the heat map at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gradflow.monitoring.book import update_ratio
from gradflow.monitoring.extras import imported
from gradflow.records import History, Report

_HEAT = "gradflow/heat_map"


class Writer(Protocol):
    """What a `Monitor` tells of its run."""

    def write(self, step: int, report: Report) -> None:
        """One sampled step."""

    def close(self, history: History | None) -> None:
        """The end of the run; None where no step was sampled."""


class TensorBoard:
    """Scalars, histograms and the heat map in TensorBoard.

    Args:
        log: a folder, or a `SummaryWriter`, which stays open at the end.

    Raises:
        MissingExtra: tensorboard is not installed.
    """

    def __init__(self, log: str | Path | Any) -> None:
        self._own = isinstance(log, (str, Path))
        self._writer: Any = _summary_writer(str(log)) if self._own else log

    def write(self, step: int, report: Report) -> None:
        """Add the step's values."""
        for name, value in scalars(report).items():
            self._writer.add_scalar(name, value, step)
        for name, values in spreads(report).items():
            self._writer.add_histogram(name, np.asarray(values), step)

    def close(self, history: History | None) -> None:
        """Add the heat map; close a writer that was opened here."""
        if history is not None:
            self._writer.add_image(_HEAT, picture(history), history.entries[-1].step, dataformats="HWC")
        self._writer.flush()
        if self._own:
            self._writer.close()


class WandB:
    """Values, histograms and the heat map in a run of Weights & Biases, against an axis of their own, `gradflow/step`.

    Args:
        run: what `wandb.init` returned; it is not finished at the end.

    Raises:
        MissingExtra: wandb is not installed.
    """

    def __init__(self, run: Any) -> None:
        self._wandb = imported("wandb", package="wandb", extra="wandb", needed_for="gradflow.monitoring.WandB")
        self._run = run
        run.define_metric("gradflow/step", hidden=True)
        run.define_metric("gradflow/*", step_metric="gradflow/step")

    def write(self, step: int, report: Report) -> None:
        """Log the step's values."""
        drawn = {name: self._wandb.Histogram(np.asarray(values)) for name, values in spreads(report).items()}
        self._run.log({"gradflow/step": step, **scalars(report), **drawn})

    def close(self, history: History | None) -> None:
        """Log the heat map."""
        if history is not None:
            self._run.log({"gradflow/step": history.entries[-1].step, _HEAT: self._wandb.Image(picture(history))})


def scalars(report: Report) -> dict[str, float]:
    """A report in a handful of numbers; those that are not defined are left out."""
    gains = [layer.gain for layer in report.layers]
    measured: Mapping[str, Sequence[float]] = {
        "gradflow/log10_gain": _decades(gains),
        "gradflow/lambda": [skip.lam for skip in report.skips if skip.lam is not None],
        "gradflow/log10_highway_gain": _decades(highway.gain for highway in report.highways),
    }
    found = {
        "gradflow/severity": report.severity,
        "gradflow/errors": float(sum(f.severity == "error" for f in report.findings)),
        "gradflow/warnings": float(sum(f.severity == "warning" for f in report.findings)),
        "gradflow/silent_layers": float(sum(gain == 0 for gain in gains)),
    }
    for name, values in measured.items():
        if values:
            found |= {f"{name}_least": min(values), f"{name}_most": max(values)}
    return found


def spreads(report: Report) -> dict[str, list[float]]:
    """The values over the layers, as decades; a layer whose value is 0 or not defined has none."""
    found = {
        "gradflow/log10_gain": _decades(layer.gain for layer in report.layers),
        "gradflow/log10_update_ratio": _decades(update_ratio(layer) for layer in report.layers),
    }
    return {name: values for name, values in found.items() if values}


def picture(history: History) -> npt.NDArray[np.uint8]:
    """The heat map: [height, width, 3], from 0 to 255."""
    from matplotlib.image import imread

    from gradflow.render.history import page

    pixels = np.asarray(imread(BytesIO(page.render(history))))
    return (255 * pixels[:, :, :3]).round().astype(np.uint8)


def _decades(values: Iterable[float | None]) -> list[float]:
    return [math.log10(value) for value in values if value]


def _summary_writer(folder: str) -> Any:
    module = imported("torch.utils.tensorboard", package="tensorboard", extra="tensorboard", needed_for="gradflow.monitoring.TensorBoard")
    return module.SummaryWriter(folder)
