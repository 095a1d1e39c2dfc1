"""Profiling leaves no trace: everything that a forward, a loss or a backward could change is put back, also after an exception or Ctrl-C.

Parameters are copied only when the forward is about to write into one; a copy of all of them would double the memory of a large model.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class ParameterKeeper:
    """Copies of the parameters that are about to be written to."""

    def __init__(self, model: nn.Module) -> None:
        self._by_storage: dict[int, list[Tensor]] = {}
        for parameter in model.parameters():
            self._by_storage.setdefault(_storage(parameter), []).append(parameter)
        self._copies: list[tuple[Tensor, Tensor]] = []

    def before_write(self, tensor: Tensor) -> None:
        """Call with a tensor that an in-place operation is about to change; views and detached aliases of a parameter count as it."""
        for parameter in self._by_storage.pop(_storage(tensor), ()):
            self._copies.append((parameter, parameter.detach().clone(memory_format=torch.preserve_format)))

    def restore(self) -> None:
        with torch.no_grad():
            for parameter, copy in self._copies:
                parameter.data.copy_(copy)  # through .data, so that the version counter does not move
        self._copies.clear()


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[ParameterKeeper]:
    """Put back the model's buffers, gradients, modes, attributes and hooks, all random states and torch's global flags when the block ends."""
    with ExitStack() as stack:
        keeper = ParameterKeeper(model)
        stack.callback(keeper.restore)
        stack.enter_context(_random_states())
        stack.enter_context(_global_flags())
        stack.enter_context(_modules(model))
        stack.enter_context(_gradients(model))
        yield keeper


@contextmanager
def _random_states() -> Iterator[None]:
    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        torch.random.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def _global_flags() -> Iterator[None]:
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    deterministic, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    anomaly, check = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
    cudnn = (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.enabled)
    precision = torch.get_float32_matmul_precision()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn)
        torch.autograd.set_detect_anomaly(anomaly, check)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.enabled = cudnn
        if torch.get_float32_matmul_precision() != precision:
            torch.set_float32_matmul_precision(precision)


@contextmanager
def _modules(model: nn.Module) -> Iterator[None]:
    """Attributes are put back by reference, containers that modules write to (buffers, hooks, submodules) and buffers' contents by copy."""
    kept = [(m, dict(m.__dict__), {k: v.copy() for k, v in m.__dict__.items() if isinstance(v, dict)}) for m in model.modules()]
    buffers = [(b, b.detach().clone(memory_format=torch.preserve_format), b.requires_grad) for b in model.buffers()]
    trainable = [(p, p.requires_grad) for p in model.parameters()]
    try:
        yield
    finally:
        for module, attributes, containers in kept:
            for name in [n for n in module.__dict__ if n not in attributes]:
                del module.__dict__[name]
            for name, container in containers.items():
                attributes[name].clear()
                attributes[name].update(container)
            module.__dict__.update(attributes)
        with torch.no_grad():
            for buffer, copy, requires_grad in buffers:
                buffer.data.copy_(copy)
                if buffer.requires_grad != requires_grad:
                    buffer.requires_grad_(requires_grad)
        for parameter, requires_grad in trainable:
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad_(requires_grad)


@contextmanager
def _gradients(model: nn.Module) -> Iterator[None]:
    """`.grad` is set aside, and hooks that would act on accumulated gradients (an optimizer stepping in backward) are muted."""
    grads = [(p, p.grad) for p in model.parameters()]
    muted = [(p, p._post_accumulate_grad_hooks) for p in model.parameters() if p._post_accumulate_grad_hooks]
    for parameter, _ in grads:
        parameter.grad = None
    for parameter, _ in muted:
        parameter._post_accumulate_grad_hooks = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for parameter, grad in grads:
            parameter.grad = grad
        for parameter, hooks in muted:
            parameter._post_accumulate_grad_hooks = hooks


def _storage(tensor: Any) -> int:
    try:
        return int(tensor.untyped_storage().data_ptr())
    except (RuntimeError, NotImplementedError):  # sparse and other tensors without storage
        return id(tensor)
