"""A callback for transformers' `Trainer`: `Trainer(..., callbacks=[GradflowCallback(every=100)])`.

The Trainer shows its callbacks no batch. On a step that is to be sampled a hook keeps what the model is called with first, and is gone after that call; the
batch is profiled before the optimiser moves the weights that it met.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from gradflow.monitoring.extras import imported
from gradflow.monitoring.monitor import Monitor, check_schedule
from gradflow.subject.signature import forward_of

_transformers = imported("transformers.trainer_callback", package="transformers", extra="trainer", needed_for="gradflow.monitoring.trainer")


class GradflowCallback(_transformers.TrainerCallback):  # type: ignore[misc, name-defined]
    """Watches a `Trainer`'s run. Steps are its `global_step`, from 0; of accumulated micro-batches the first is profiled.

    Every process profiles its own batch; writers are used on the first alone.

    Args:
        loss: a name or a callable of (output) as for `gradflow.profile`; by default the model's own `.loss`, which the Trainer differentiates too unless it was
            given another.
        options: as for `gradflow.Monitor`.

    Attributes:
        monitor: the `Monitor`, from the beginning of the training on.
    """

    def __init__(self, *, loss: str | Callable[..., object] | None = None, **options: Any) -> None:
        check_schedule(**options)
        self.monitor: Monitor | None = None
        self._loss, self._options = loss, options
        self._called: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._hook: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **kwargs: Any) -> None:
        """Makes the monitor."""
        assert model is not None  # the Trainer passes it to every callback
        writers = self._options.get("writers", ()) if state.is_world_process_zero else ()
        self.monitor = Monitor(model, **{**self._options, "writers": writers})

    def on_step_begin(self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **kwargs: Any) -> None:
        """On a step that is to be sampled, hooks the model for one call."""
        if self.monitor is not None and model is not None and self.monitor.samples(state.global_step):
            self._hook = model.register_forward_pre_hook(self._keep, with_kwargs=True)

    def _keep(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._called = args, kwargs
        self._hook.remove()
        self._hook = None

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Profiles the batch that was kept."""
        called, self._called = self._called, None
        if called is not None and self.monitor is not None:
            positional, named = called
            self.monitor.observe(_inputs(self.monitor.model, positional, named), loss=self._loss, step=state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Closes the writers."""
        if self._hook is not None:
            self._hook.remove()
        if self.monitor is not None:
            self.monitor.close()


def _inputs(model: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> object:
    """A call's arguments as a batch is given: by position, or by name as soon as one has a name."""
    return {**dict(zip(forward_of(model).positional, positional, strict=False)), **named} if named else positional
