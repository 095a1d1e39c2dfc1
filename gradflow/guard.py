"""Profiling leaves no trace: everything that a forward, a loss or a backward could change is put back, also after an exception or Ctrl-C.

Each thing is put back by a step of its own, so that one that cannot be restored does not keep the others from it. Parameters are copied only when
something is about to write into one; a copy of all of them would double the memory of a large model.
"""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from gradflow import ranks
from gradflow.errors import FixedMode
from gradflow.scripted import opaque, run_in_python


class _HasModel(Protocol):
    @property
    def model(self) -> nn.Module: ...


_Subject = TypeVar("_Subject", bound=_HasModel)
_Result = TypeVar("_Result")
_More = ParamSpec("_More")


class ParameterKeeper:
    """The parameters' storages, and copies of those that are about to be written to."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._parameters = list(dict.fromkeys(p for m in modules for p in m.parameters()))
        self._data = [p.detach() for p in self._parameters]
        self._by_storage: dict[int, list[int]] = {}
        for i, data in enumerate(self._data):
            self._by_storage.setdefault(_storage(data), []).append(i)
        self._copies: dict[int, Tensor] = {}
        for parameter in self._parameters:
            if parameter._backward_hooks:  # a gradient hook may write the parameter while the backward pass runs, unseen by the recorder
                self.before_write(parameter)
        for parameter in (p for m in modules for script in _scripts(m) for p in script.parameters()):
            self.before_write(parameter)  # TorchScript writes unseen as well

    def before_write(self, tensor: Tensor) -> None:
        """Call with a tensor that may be about to change in place; views and detached aliases of a parameter count as it."""
        for i in self._by_storage.pop(_storage(tensor), ()):
            self._copies[i] = self._data[i].clone()

    def restore(self) -> None:
        """Put back each parameter's storage and, where it may have been written to, its content."""
        with torch.no_grad():
            for i, (parameter, data) in enumerate(zip(self._parameters, self._data, strict=True)):
                _put_back(parameter, data, self._copies.get(i))


class _Undo:
    """Steps that put back one thing each, the last first, whatever becomes of the others. An ExitStack's callbacks would take five times as long, and
    a model has thousands of containers."""

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def add(self, step: Callable[..., object], *args: Any) -> None:
        self._steps.append((step, args))

    def run(self) -> None:
        """The first step that fails is raised when all have been tried."""
        failures = []
        for step, args in reversed(self._steps):
            try:
                step(*args)
            except BaseException as error:  # Ctrl-C as well: the rest is put back first
                failures.append(error)
        if failures:
            raise failures[0]


@contextmanager
def undisturbed(*modules: nn.Module) -> Iterator[ParameterKeeper]:
    """Put back the modules' buffers, gradients, modes, attributes and hooks, all random states and torch's global flags when the block ends."""
    with ExitStack() as stack:
        stack.enter_context(_global_flags())
        keeper, undo = ParameterKeeper(modules), _Undo()
        stack.callback(undo.run)
        undo.add(keeper.restore)
        _keep_random_states(undo)
        for module in dict.fromkeys(m for root in modules for m in root.modules()):
            _keep_attributes(undo, module)
        _keep_scripts(undo, list(dict.fromkeys(script for root in modules for script in _scripts(root))))
        for buffer in dict.fromkeys(b for root in modules for b in root.buffers()):
            undo.add(_put_back, buffer, buffer.detach(), buffer.detach().clone())
            undo.add(_put_back_flag, buffer, buffer.requires_grad)
        for parameter in dict.fromkeys(p for root in modules for p in root.parameters()):
            undo.add(_put_back_flag, parameter, parameter.requires_grad)
            _set_gradient_aside(undo, parameter)
        yield keeper


_CHECKPOINT_GENERATORS = ("_checkpoint_without_reentrant_generator", "_checkpoint_without_reentrant_generator_impl")  # newer torch runs the second


@contextmanager
def plain_checkpoints() -> Iterator[None]:
    """Activation checkpoints keep their activations: recomputed ones cannot be replayed, and re-entrant ones hide their block in one node."""
    checkpoint: Any = sys.modules.get("torch.utils.checkpoint")
    if checkpoint is None:
        yield
        return

    def keep(*args: object, **kwargs: object) -> Iterator[None]:
        yield

    generators = {name: getattr(checkpoint, name) for name in _CHECKPOINT_GENERATORS if hasattr(checkpoint, name)}
    vars(checkpoint).update(dict.fromkeys(generators, keep))
    checkpoint.CheckpointFunction.apply = staticmethod(lambda run, preserve, *args: run(*args))
    try:
        yield
    finally:
        vars(checkpoint).update(generators)
        del checkpoint.CheckpointFunction.apply


def written(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """The module behind torch's wrappers, and notes that say what was compiled or distributed, and what of TorchScript cannot be run in Python."""
    parts = ", ".join(dict.fromkeys(name for module, m in model.named_modules() for name in _compiled(module, m)))
    compiled = (f"compiled by torch.compile and run eagerly here: {parts}",) if parts else ()
    unseen = (
        f"{name or 'the model'} runs as TorchScript ({reason}): calls of modules, source lines and cut gradients inside it are not seen"
        for name, reason in opaque(model).items()
    )
    return ranks.behind(model), (*compiled, *ranks.notes(model), *unseen)


@contextmanager
def as_written(model: nn.Module) -> Iterator[None]:
    """Submodules that are compiled, distributed or checkpointed stand under their own names: wrappers are taken out, and put back when the block ends."""
    with ExitStack() as stack:
        for module in list(model.modules()):
            for name, child in list(module._modules.items()):
                if child is not None and ranks.behind(child) is not child and ranks.behind(module) is module:
                    module._modules[name] = ranks.behind(child)
                    stack.callback(module._modules.__setitem__, name, child)
        yield


def names_as_written(run: Callable[Concatenate[_Subject, _More], _Result]) -> Callable[Concatenate[_Subject, _More], _Result]:
    """`run`, with its subject's model under the names of `as_written` and with all of its parameters."""

    @wraps(run)
    def renamed(subject: _Subject, /, *args: _More.args, **kwargs: _More.kwargs) -> _Result:
        with as_written(subject.model), ranks.gathered(subject.model):
            return run(subject, *args, **kwargs)

    return renamed


def evaluate(model: nn.Module) -> None:
    """Put the model in eval mode.

    Raises:
        FixedMode: it is an exported program, which has one mode.
    """
    try:
        model.eval()
    except NotImplementedError as error:  # torch's own
        raise FixedMode(model_class=type(model).__name__) from error


_unoptimized: Callable[[bool], AbstractContextManager[None]] = torch.jit.optimized_execution  # type: ignore[attr-defined]


def _compiled(name: str, module: nn.Module) -> Iterator[str]:
    """What torch.compile made of a module: the module itself, and functions among its attributes."""
    own = ".".join(part for part in name.split(".") if part and part != "_orig_mod")
    if "_orig_mod" in module._modules or module._compiled_call_impl is not None:
        yield own or "the model"
        return
    for attribute, value in vars(module).items():
        if hasattr(value, "_torchdynamo_orig_callable") and not getattr(value, "_torchdynamo_disable", False):
            yield f"{own}.{attribute}".removeprefix(".")


@contextmanager
def eager() -> Iterator[None]:
    """Compiled modules and TorchScript run operator by operator: compiled or fused, each is one opaque node. Costs nothing where nothing was compiled."""
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    with stance, _unoptimized(False):
        yield


@contextmanager
def without_collections() -> Iterator[None]:
    """Lifting makes many small objects and no garbage; a collection in the middle would walk the whole process."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _keep_random_states(undo: _Undo) -> None:
    undo.add(random.setstate, random.getstate())
    undo.add(np.random.set_state, np.random.get_state())
    undo.add(torch.random.set_rng_state, torch.random.get_rng_state())
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        undo.add(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())


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


_NOTHING: dict[Any, Any] = {}  # most of a module's containers are hooks that nobody has set


def _keep_attributes(undo: _Undo, module: nn.Module) -> None:
    """Attributes come back by reference, plain containers (buffers, hooks, submodules, lists) and tensors also by content."""
    kept = dict(module.__dict__)

    def put_back() -> None:
        for name in [n for n in module.__dict__ if n not in kept]:
            del module.__dict__[name]
        module.__dict__.update(kept)

    undo.add(put_back)
    for value in kept.values():
        if isinstance(value, dict):
            undo.add(_refill_mapping, value, value.copy() if value else _NOTHING)
        elif isinstance(value, list):
            undo.add(value.__setitem__, slice(None), value.copy())
        elif isinstance(value, set):
            undo.add(_refill_set, value, value.copy())
        elif isinstance(value, Tensor):
            undo.add(_put_back, value, value.detach(), value.detach().clone())
        elif isinstance(value, torch.Generator):
            undo.add(value.set_state, value.get_state())


def _scripts(module: nn.Module) -> list[torch.jit.ScriptModule]:
    return [m for m in module.modules() if isinstance(m, torch.jit.ScriptModule)]


def _keep_scripts(undo: _Undo, scripts: Sequence[Any]) -> None:
    """A ScriptModule keeps its attributes in C++, and there is no list of them: those that its code assigns come back, and the mode.

    What TorchScript has optimised is forgotten before the run, because a plan that it has made is used whatever the flags say, and after it, so that
    the next run of the user's is optimised again.
    """
    if not scripts:
        return
    methods = [script._c._get_method(name) for script in scripts for name in script._c._method_names()]
    graphs = [method.graph for method in methods]
    python: Any = torch.jit._state._python_cu
    functions = python.get_functions()
    compiled = [*methods, *functions]
    assigned = {"training"} | {n.s("name") for g in graphs for n in g.findAllNodes("prim::SetAttr")}
    for script in scripts:
        for name in assigned:
            if script._c.hasattr(name):
                undo.add(script._c.setattr, name, script._c.getattr(name))
    _forget_plans(compiled)
    undo.add(_forget_plans, compiled)
    run_in_python(scripts)


def _forget_plans(compiled: Sequence[Any]) -> None:
    for function in compiled:
        with suppress(RuntimeError):  # the legacy executor keeps none
            function._debug_flush_compilation_cache()


def _refill_mapping(mapping: dict[Any, Any], content: dict[Any, Any]) -> None:
    """A mapping that is as it was is left alone: some refuse to be changed (diffusers' FrozenDict)."""
    if len(mapping) == len(content) and all(k is n and mapping[k] is content[n] for k, n in zip(mapping, content, strict=True)):
        return
    mapping.clear()
    mapping.update(content)


def _refill_set(members: set[Any], content: set[Any]) -> None:
    members.clear()
    members.update(content)


def _put_back(tensor: Tensor, data: Tensor, content: Tensor | None) -> None:
    """`data` aliases what the tensor was, and `content` copies it. Writing through .data leaves the version counter alone."""
    with torch.no_grad():
        if _storage(tensor) != _storage(data) or _geometry(tensor) != _geometry(data):
            tensor.data = data
        if content is not None:
            tensor.data.copy_(content)


def _put_back_flag(tensor: Tensor, requires_grad: bool) -> None:
    if tensor.requires_grad != requires_grad:
        tensor.requires_grad_(requires_grad)


def _set_gradient_aside(undo: _Undo, parameter: nn.Parameter) -> None:
    """`.grad` is set aside, and hooks that would act on an accumulated gradient (an optimizer stepping in backward) are muted."""
    hooks = parameter._post_accumulate_grad_hooks
    if hooks:
        undo.add(setattr, parameter, "_post_accumulate_grad_hooks", hooks)
        parameter._post_accumulate_grad_hooks = None  # type: ignore[assignment]
    undo.add(setattr, parameter, "grad", parameter.grad)
    parameter.grad = None


def _geometry(tensor: Tensor) -> tuple[object, ...]:
    """What `.data` can change and the storage does not tell; compressed sparse tensors have no strides."""
    return tuple(tensor.shape), tensor.layout, tensor.stride() if tensor.layout is torch.strided else None


def _storage(tensor: Tensor) -> int:
    """The address of the numbers themselves, which views and detached aliases share; a sparse or nested tensor's are its values."""
    try:
        if tensor.layout is not torch.strided:
            tensor = tensor._values() if tensor.layout is torch.sparse_coo else tensor.values()
        return int(tensor.untyped_storage().data_ptr())
    except (RuntimeError, NotImplementedError):  # a tensor type that hides its storage
        return id(tensor)
