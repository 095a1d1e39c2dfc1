"""A callback for Lightning: `Trainer(callbacks=[GradflowCallback(every=100)])`, of the package `lightning` or of `pytorch_lightning`.

What is profiled is the module's own `training_step` on the trainer's batch, before the trainer runs it. Its output, against which gains are measured, is what
the last module that it calls returns, a number (a loss) apart.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from torch.nn.modules import module as hooks

from gradflow import errors
from gradflow.monitoring.extras import imported
from gradflow.monitoring.monitor import Monitor, check_schedule
from gradflow.subject.outputs import differentiable_outputs

_NEEDED_FOR = "gradflow.monitoring.lightning"


def _callbacks() -> Any:
    """The module of callbacks, of the package that is in use, else of the one that is installed."""
    if sys.modules.get("pytorch_lightning") and "lightning.pytorch" not in sys.modules:
        return imported("pytorch_lightning.callbacks", package="pytorch_lightning", extra="lightning", needed_for=_NEEDED_FOR)
    try:
        return imported("lightning.pytorch.callbacks", package="lightning", extra="lightning", needed_for=_NEEDED_FOR)
    except errors.MissingExtra as missing:
        try:
            return imported("pytorch_lightning.callbacks", package="pytorch_lightning", extra="lightning", needed_for=_NEEDED_FOR)
        except errors.MissingExtra:
            raise missing from None


class GradflowCallback(_callbacks().Callback):  # type: ignore[misc]
    """Watches a Lightning run. Steps are the trainer's `global_step`; of accumulated batches the first is profiled.

    Every rank profiles its own batch, so that modules which speak to other ranks can; writers are used on the first rank alone.

    Args:
        options: as for `gradflow.Monitor`.

    Attributes:
        monitor: the `Monitor`, from the beginning of the fit on.

    Raises:
        errors.UsageError: at the beginning of the fit, where the module optimises by hand: its `training_step` would move the weights.
    """

    def __init__(self, **options: Any) -> None:
        check_schedule(**options)
        self.monitor: Monitor | None = None
        self._options = options

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Makes the monitor."""
        if not pl_module.automatic_optimization:
            expected = "a module with automatic optimisation; call gradflow.Monitor.observe in a training_step that optimises by hand"
            raise errors.UsageError(option="GradflowCallback", value=f"{type(pl_module).__name__} with automatic_optimization=False", expected=expected)
        writers = self._options.get("writers", ()) if trainer.is_global_zero else ()
        self.monitor = Monitor(pl_module, **{**self._options, "writers": writers})

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Profiles the batch on a step that is to be sampled."""
        step = int(trainer.global_step)
        if self.monitor is None or not self.monitor.samples(step):
            return
        with _as_training_step(pl_module), trainer.precision_plugin.forward_context():
            self.monitor.observe((batch, batch_idx), step=step)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Closes the writers."""
        if self.monitor is not None:
            self.monitor.close()


@contextmanager
def _as_training_step(module: Any) -> Iterator[None]:
    """Calling the module runs its `training_step`, which logs nothing. What it calls while it runs, its own `forward` too, is as ever."""
    forward: Callable[..., object] = module.forward
    running = False

    def run(*args: object, **kwargs: object) -> object:
        nonlocal running
        if running:
            return forward(*args, **kwargs)
        running = True
        try:
            with _returned(module) as values:
                return _outcome(module, args, values)
        finally:
            running = False

    with ExitStack() as stack:
        for name, stand_in in (("forward", run), ("log", _silent), ("log_dict", _silent)):
            if name in vars(module):
                stack.callback(vars(module).__setitem__, name, vars(module)[name])
            else:
                stack.callback(vars(module).pop, name, None)
            vars(module)[name] = stand_in
        yield


def _silent(*args: object, **kwargs: object) -> None:
    """In the place of a log: a profile is no step of the training."""


def _outcome(module: Any, args: tuple[object, ...], values: list[object]) -> dict[str, object]:
    takes = inspect.signature(module.training_step).parameters.values()
    several = len(takes) > 1 or any(parameter.kind is parameter.VAR_POSITIONAL for parameter in takes)
    result = module.training_step(*(args if several else args[:1]))  # the number of the batch may be left out
    return {"loss": result.get("loss") if isinstance(result, dict) else result, "output": values[-1] if values else None}


@contextmanager
def _returned(module: nn.Module) -> Iterator[list[object]]:
    """What the modules that the block calls return, inner calls left out; a lone number is no output but a loss."""
    depth = 0
    found: list[object] = []

    def enter(_: nn.Module, args: object) -> None:
        nonlocal depth
        depth += 1

    def leave(_: nn.Module, args: object, output: object) -> None:
        nonlocal depth
        depth -= 1
        if depth == 0 and any(tensor.numel() > 1 for _, tensor in differentiable_outputs(output)):
            found.append(output)

    with ExitStack() as stack:
        for handle in (hooks.register_module_forward_pre_hook(enter), hooks.register_module_forward_hook(leave)):
            stack.callback(handle.remove)
        yield found
