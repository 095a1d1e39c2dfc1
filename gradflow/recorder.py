"""What the tape forgets: which module call and which line of the user's source made each node, and where tensors left the tape.

All notes are keyed by autograd's own sequence counter, which every tape node answers for itself; no tensor is changed and nothing is kept alive but nodes.
"""

from __future__ import annotations

import sys
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, resolve_name

from gradflow.records import Location
from gradflow.scripted import runs_in_cpp
from gradflow.subject.structure import sizes, tensors

_sequence = torch.autograd._get_sequence_nr  # type: ignore[attr-defined]
_TORCH = str(Path(torch.__file__).parent) + "/"
_SELF = str(Path(__file__).parent) + "/"
_ZOO = _SELF + "zoo/"
_PLUMBING = (_TORCH, _SELF + "scripted.py", "<frozen", "<string>", "<eval_with_key>")
_WRITING_METHODS = frozenset(f"__i{op}__" for op in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")) | {
    "__setitem__",
    "numpy",
    "__array__",
    "__dlpack__",
}
_WRITING_WORDS = ("out", "inplace", "max_norm")
_CUTS = frozenset({"detach", "data"})
_DEPTH = 4  # untracked values remember this many sources and operators; more would only lengthen messages


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where an untracked tensor came from: the input `name`, or the tape's value `source`, passed through `ops` at `location`.

    `cut` says that a gradient would have flowed but for detach(), .data or no_grad(); else the operator itself has none (a comparison, an argmax).
    `at` is the sequence number that the next node was to get, noted in the forward of a custom autograd.Function alone.
    """

    name: str = ""
    cut: bool = False
    source: tuple[Any, int] | None = None
    location: Location | None = None
    ops: tuple[str, ...] = ()
    at: int = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One torch function call that put nodes on the tape; `frozen` names the parameters it took that are not on it."""

    name: str
    location: Location | None
    origins: tuple[Origin, ...]
    frozen: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleCall:
    """One call of a module: its outputs' values on the tape (none where no output is on it), the sequence number at which it ended, and whether it ran, off
    the tape, in the forward of a custom autograd.Function."""

    name: str
    index: int
    location: Location | None
    shape: tuple[int, ...]
    values: tuple[tuple[Any, int], ...]
    end: int
    inside: bool = False


class Recorder(TorchFunctionMode):
    """Records one forward pass of `model`; use as a context manager around it.

    A tensor's own nodes are found later by their sequence numbers, so that in-place operations and views cost nothing here.

    Args:
        before_write: called with each tensor that an in-place operation is about to change.
    """

    def __init__(self, model: torch.nn.Module, before_write: Callable[[torch.Tensor], None] | None = None) -> None:
        super().__init__()
        self._before_write = before_write
        self._frozen = {id(p): name for name, p in model.named_parameters() if not p.requires_grad}
        self._names = {module: name for name, module in model.named_modules()}
        self._classes = {name: type(module) for module, name in self._names.items()}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._counts: dict[str, int] = {}
        self._stack: tuple[tuple[str, int], ...] = ()
        self._span_starts: list[int] = [-1]
        self._spans: list[tuple[tuple[str, int], ...]] = [()]
        self._call_starts: list[int] = []
        self._calls: list[tuple[int, Call]] = []
        self._origins: dict[int, tuple[weakref.ref[torch.Tensor], tuple[Origin, ...]]] = {}
        self._entered: list[Location | None] = []
        self._in_cpp: tuple[str, int, tuple[Origin, ...]] | None = None
        self.module_calls: list[ModuleCall] = []
        self.cuts: list[Origin] = []
        self.cut_leaves: list[tuple[torch.Tensor, Origin]] = []

    def watch_inputs(self, named: Iterator[tuple[str, torch.Tensor]]) -> None:
        """Inputs that are not on the tape: what is computed from them alone is data all the same."""
        for name, tensor in named:
            if not tensor.requires_grad:
                self._origins[id(tensor)] = (weakref.ref(tensor), (Origin(name=name),))

    def __enter__(self) -> Recorder:
        for module in self._names:  # through nn.Module: a ScriptModule refuses hooks by name, and runs them where Python calls it
            self._handles.append(torch.nn.Module.register_forward_pre_hook(module, self._enter_module))
            self._handles.append(torch.nn.Module.register_forward_hook(module, self._leave_module))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Recorder:
        """A model may copy its own modules in the forward, hooks and all; what the copies do belongs to whoever called them."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._origins.clear()

    def stack_at(self, sequence: int) -> dict[str, tuple[str, type]]:
        """FX's `nn_module_stack` of the node with this sequence number."""
        return {name: (name, self._classes[name]) for name, _ in self.calls_at(sequence)}

    def calls_at(self, sequence: int) -> tuple[tuple[str, int], ...]:
        """(module name, call index) from the outermost module to the innermost."""
        return self._spans[bisect_right(self._span_starts, sequence) - 1]

    def call_at(self, sequence: int) -> Call | None:
        """The torch function call that made the node with this sequence number."""
        i = bisect_right(self._call_starts, sequence) - 1
        if i < 0:
            return None
        end, call = self._calls[i]
        return call if sequence < end else None

    def _mark(self) -> None:
        now = _sequence()
        if self._span_starts[-1] == now:
            self._spans[-1] = self._stack
        else:
            self._span_starts.append(now)
            self._spans.append(self._stack)

    def _enter_module(self, module: torch.nn.Module, args: object) -> None:
        name = self._names.get(module)
        if name is None:
            return
        index = self._counts.get(name, 0)
        self._counts[name] = index + 1
        self._stack = (*self._stack, (name, index))
        self._entered.append(user_location())
        self._mark()
        if self._in_cpp is None and runs_in_cpp(module):
            given = self._origins_of(args if isinstance(args, tuple) else (), None)
            anything = (o for _, origins in self._origins.values() for o in origins if o.name)  # hooks do not see what is given by keyword
            self._in_cpp = (name, _sequence(), given or tuple(anything))

    def _note_script(self, name: str) -> None:
        """A ScriptModule that only C++ can run is one call: everything in it may have been computed from its untracked inputs."""
        if self._in_cpp is None or self._in_cpp[0] != name:
            return
        _, start, origins = self._in_cpp
        self._in_cpp = None
        if _sequence() > start:
            frozen = tuple(n for n in self._frozen.values() if n.startswith(f"{name}." if name else ""))
            self._call_starts.append(start)
            self._calls.append((_sequence(), Call(name="TorchScript", location=self._entered[-1], origins=origins, frozen=frozen)))

    def _leave_module(self, module: torch.nn.Module, args: object, output: object) -> None:
        name = self._names.get(module)
        if name is None:
            return
        with torch._C.DisableTorchFunction():
            index = self._unwind(name)
            self._note_script(name)
            found = [_outside(t) for _, t in tensors(output, "output") if _differentiable(t)]
            tracked = [t for t in found if t.grad_fn is not None]
            self.module_calls.append(
                ModuleCall(
                    name=name,
                    index=index,
                    location=self._entered[-1],
                    shape=sizes(found[0]) if found else (),
                    values=tuple((t.grad_fn, t.output_nr) for t in tracked),
                    end=_sequence(),
                    inside=not tracked and _in_function(),
                )
            )
        self._entered.pop()
        self._stack = self._stack[:-1]
        self._mark()

    def _unwind(self, name: str) -> int:
        """The open call of this module; calls inside it that raised, and that the model survived, are closed."""
        while self._stack[-1][0] != name:
            self._stack = self._stack[:-1]
            self._entered.pop()
        return self._stack[-1][1]

    def __torch_function__(self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if self._before_write is not None and _writes(func, kwargs):
            for written in _arguments(args, kwargs):
                self._before_write(written)
        before = _sequence()
        out = func(*args, **kwargs) if kwargs else func(*args)
        after = _sequence()
        if after != before:
            origins = self._origins_of(args, kwargs) if self._origins else ()
            self._call_starts.append(before)
            frozen = tuple(self._frozen[id(a)] for a in _arguments(args, kwargs) if id(a) in self._frozen) if self._frozen else ()
            self._calls.append((after, Call(name=_name(func), location=user_location(), origins=origins, frozen=frozen)))
        else:
            for tensor in (out,) if isinstance(out, torch.Tensor) else out if isinstance(out, (tuple, list)) else ():
                if isinstance(tensor, torch.Tensor) and not tensor.requires_grad:
                    self._note_untracked(func, args, kwargs, tensor)
        return out

    def _note_untracked(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None, out: torch.Tensor) -> None:
        if _name(func).startswith("new_") or _name(func).endswith("_like"):
            return  # only the shape is carried over
        found: list[Origin] = []
        for tensor in _arguments(args, kwargs):
            if tensor.grad_fn is not None:
                cut = _differentiable(out) and (_name(func) in _CUTS or not torch.is_grad_enabled())
                found.append(Origin(source=(tensor.grad_fn, tensor.output_nr), cut=cut, location=user_location(), ops=(_name(func),)))
                self.cuts.extend(found[-1:] if cut else ())
            elif tensor.requires_grad:
                self.cut_leaves.append((tensor, Origin(cut=True, location=user_location(), ops=(_name(func),), at=_sequence() if _in_function() else -1)))
            else:
                cut = _differentiable(out)
                found.extend(replace(o, cut=o.cut and cut, ops=(*o.ops, _name(func))[-_DEPTH:]) for o in self._lookup(tensor))
        if found:
            self._origins[id(out)] = (weakref.ref(out), tuple(found[:_DEPTH]))

    def _lookup(self, tensor: torch.Tensor) -> tuple[Origin, ...]:
        entry = self._origins.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else ()

    def _origins_of(self, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> tuple[Origin, ...]:
        return tuple(o for t in _arguments(args, kwargs) for o in self._lookup(t))


def _outside(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor on the tape behind those that torch.func's transforms (vmap, grad, jvp) hand to the functions inside them."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor


def _differentiable(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _arguments(args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Iterator[torch.Tensor]:
    for arg in (*args, *(kwargs or {}).values()):
        if isinstance(arg, torch.Tensor):
            yield arg
        elif isinstance(arg, (list, tuple)):
            yield from (a for a in arg if isinstance(a, torch.Tensor))


def _operator(func: object) -> str:
    """The bare name of an operator that is called as exported programs and TorchScript call it (`aten.add_.Tensor` is add_); else empty."""
    packet = func.overloadpacket if isinstance(func, torch._ops.OpOverload) else func
    return packet.__name__ if isinstance(packet, torch._ops.OpOverloadPacket) else ""


_names: dict[object, str] = {}


def _name(func: Callable[..., Any]) -> str:
    name = _names.get(func)
    if name is None:
        full = _operator(func) or resolve_name(func) or getattr(func, "__name__", "function")
        name = _names[func] = full.removesuffix(".__get__").rsplit(".", 1)[-1]
    return name


_in_place: dict[object, bool] = {}


def _writes(func: Callable[..., Any], kwargs: dict[str, Any] | None) -> bool:
    known = _in_place.get(func)
    if known is None:
        name = _operator(func) or getattr(func, "__name__", "")
        known = _in_place[func] = (name.endswith("_") and not name.endswith("__")) or name in _WRITING_METHODS
    return known or (kwargs is not None and any(kwargs.get(word) is not None and kwargs[word] is not False for word in _WRITING_WORDS))


_SKIP, _STOP, _USER = range(3)
_frame_kinds: dict[CodeType, int] = {}


def _frame_kind(code: CodeType) -> int:
    file = code.co_filename
    if file == __file__ or file.startswith(_PLUMBING):
        return _SKIP
    return _STOP if file.startswith(_SELF) and not file.startswith(_ZOO) else _USER


def _in_function() -> bool:
    """Whether the forward of a custom autograd.Function is running: for it torch switches forward-mode differentiation off, which no_grad() leaves on, and
    inference_mode() alone switches off besides."""
    return not torch._C._is_fwd_grad_enabled() and not torch.is_inference_mode_enabled()


@cache
def _place(file: str, line: int) -> Location:
    """One record for each line, however often it runs."""
    return Location(file=file, line=line)


def user_location(frame: FrameType | None = None) -> Location | None:
    """The innermost frame from `frame` on (the caller's by default) that is the user's or the model's; None where torch's own code is called by the profiler
    itself (a bare nn.Sequential)."""
    frame = frame or sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        kind = _frame_kinds.get(code)
        if kind is None:
            kind = _frame_kinds[code] = _frame_kind(code)
        if kind != _SKIP:
            return _place(code.co_filename, frame.f_lineno) if kind == _USER else None
        frame = frame.f_back
    return None
