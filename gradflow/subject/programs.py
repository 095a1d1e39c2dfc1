"""torch.export programs (`.pt2` files): read without unpickling anything but tensors, and rebuilt as modules that train.

A program is written out as the modules that it was exported from, so that layers and skips have their names; where its metadata do not say how, it stays
one flat module.
"""

from __future__ import annotations

import ast
import inspect
import json
import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from gradflow.errors import SavedFileError, UntrustedCode, WrongInputs
from gradflow.places import innermost, standing_at
from gradflow.subject.saved import Opened

_FREE_TEXT = frozenset({"metadata", "in_spec", "out_spec", "as_string", "as_strings", "expr_str", "guards_code", "range_constraints"})
_CODE = re.compile(r"""["'\\\n\r();]""")
_EXPRESSION = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.Call,
    ast.keyword,
    ast.Name,
    ast.Constant,
    ast.operator,
    ast.unaryop,
    ast.cmpop,
    ast.Load,
)
_BATCH, _LENGTH = 4, 16


def open_program(path: Path, *, target: str, trust: bool) -> Opened:
    """The program as a module, and its own example inputs, or inputs drawn from its specs.

    Raises:
        UntrustedCode: it holds more than tensors and a graph, and `trust` is off.
        SavedFileError: it is damaged, or of a version that this torch does not read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        program = _load(path, target, trust)
        try:
            return _opened(program)
        except Exception as error:  # what it holds does not fit together
            reason = f"it cannot be made a module ({type(error).__name__}: {_first_line(error)})"
            raise SavedFileError(
                target=target, reason=reason, remedy="Export it again; it may have been changed, or be of another version of torch."
            ) from error


def _opened(program: Any) -> Opened:
    if hasattr(program, "_guards_code"):
        program._guards_code = []  # Python that the file brings along; the inputs are checked against the graph's own metadata
    named = _Arguments(program)
    module = _modules(program, named)
    _drop_buffer_copies(module)
    _name_types(module, program)
    _place_calls(module)
    mode = _set_mode(module, program)
    notes = (f"the program was exported in {mode} mode, which cannot be changed: shapes and branches are those of the export",)
    saved = program.example_inputs
    if saved is not None:
        return Opened(model=module, notes=notes, inputs=named.given(*saved), source="the program's example inputs")
    return Opened(model=module, notes=notes, inputs=partial(_drawn, program, named), source="the program's input specs, drawn at random")


def _load(path: Path, target: str, trust: bool) -> Any:
    try:
        if not trust:
            _check_text(path, target)
        with _quiet():
            if trust:
                return torch.export.load(str(path))
            with _nothing_but_tensors():
                return torch.export.load(str(path))
    except pickle.UnpicklingError as error:
        raise UntrustedCode(target=target, what="code: it holds pickled objects that are not tensors") from error
    except (SavedFileError, UntrustedCode):
        raise
    except Exception as error:  # readers of several layers, without a common class
        reason = f"torch {torch.__version__} does not read it ({type(error).__name__}: {_first_line(error)})"
        remedy = "It may be damaged, of another version of torch, or need a library's operators: export it again, or load it in a model file."
        raise SavedFileError(target=target, reason=reason, remedy=remedy) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


@contextmanager
def _quiet() -> Iterator[None]:
    """torch.export logs the tracebacks of what it tries first."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)


@contextmanager
def _nothing_but_tensors() -> Iterator[None]:
    """torch.export.load unpickles weights, constants and example inputs, and evaluates sizes as Python. Here tensors and arithmetic pass, nothing else."""
    sympy = import_module("sympy")

    load, sympify = torch.load, sympy.sympify

    def tensors_alone(*args: Any, **kwargs: Any) -> Any:
        return load(*args, **{**kwargs, "weights_only": True})

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise pickle.UnpicklingError("an object that is not a tensor")

    def arithmetic(text: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(text, str) and not _is_arithmetic(text):
            raise pickle.UnpicklingError(f"a size that is code: {text[:80]}")
        return sympify(text, *args, **kwargs)

    with ExitStack() as stack:
        for owner, name, stand_in in ((torch, "load", tensors_alone), (pickle, "loads", refuse), (sympy, "sympify", arithmetic)):
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, stand_in)
        yield


def _is_arithmetic(text: str) -> bool:
    """Whether a size is made of numbers, symbols, operators and calls of sympy's classes, such as "Max(1, s0 + 2)"."""
    try:
        nodes = list(ast.walk(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError):
        return False
    plain = all(isinstance(node, _EXPRESSION) for node in nodes)
    calls = all(isinstance(n.func, ast.Name) and n.func.id[:1].isupper() for n in nodes if isinstance(n, ast.Call))
    names = all("__" not in n.id for n in nodes if isinstance(n, ast.Name))
    words = all(n.value.isidentifier() for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str))
    return plain and calls and names and words


def _check_text(path: Path, target: str) -> None:
    """Names in the graph end up in Python that torch.fx writes and runs: none may be more than a name."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(names) != len(set(names)):
            raise SavedFileError(target=target, reason="it holds two entries of one name", remedy="Export the program again.")
        for name in names:
            if not name.endswith(".json"):
                continue
            found = next((text for text in _texts(json.loads(archive.read(name)), "") if _CODE.search(text)), None)
            if found is not None:
                raise UntrustedCode(target=target, what=f"code: a name in its graph is {found[:60]!r}")


def _texts(value: object, key: str) -> Iterator[str]:
    if key == "nn_module_stack" and isinstance(value, str):
        yield re.sub(r"\[?'\w*'\]?|\bgetattr\(|\)|;", "", value)  # L['self'].layers, getattr(L['self'].layers, '0')
    elif key == "metadata" and isinstance(value, Mapping):
        yield from _texts(value.get("nn_module_stack"), "nn_module_stack")
    elif key in _FREE_TEXT:
        return
    elif isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner, child in value.items():
            yield from (str(inner),)
            yield from _texts(child, str(inner))
    elif isinstance(value, list):
        for child in value:
            yield from _texts(child, key)


class _Arguments:
    """The program's arguments: how they nest, and their names. (Positional ones can be given by name as well.)"""

    def __init__(self, program: Any) -> None:
        self.spec = program.call_spec.in_spec
        count = self.spec.num_leaves
        self.leaves = [n for n in program.graph.nodes if n.op == "placeholder"][-count:] if count else []
        args, kwargs = pytree.tree_unflatten(range(count), self.spec)
        kinds = inspect.Parameter
        told = getattr(program.module_call_graph[0].signature, "forward_arg_names", None) or ()
        names = [
            told[i] if i < len(told) and told[i] not in kwargs else self.leaves[a].name if isinstance(a, int) else f"input_{i}" for i, a in enumerate(args)
        ]
        self.positional = tuple(names)
        self.keywords = tuple(kwargs)
        parameters = [kinds(name, kinds.POSITIONAL_OR_KEYWORD) for name in names] + [kinds(name, kinds.KEYWORD_ONLY) for name in kwargs]
        self.signature = inspect.Signature(parameters)

    def given(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
        """As a model file's `inputs`: a tuple, or a dict where something goes by name."""
        return {**dict(zip(self.positional, args, strict=True)), **kwargs} if kwargs else tuple(args)


def _modules(program: Any, named: _Arguments) -> nn.Module:
    try:
        module: nn.Module = torch.export.unflatten(program)
        if any("[" in name for name, _ in module.named_modules()):
            raise ValueError("names that are expressions")
    except Exception:  # metadata that do not nest: strict exports of modules in containers, programs that a pass rewrote
        options = {"check_guards": False} if "check_guards" in inspect.signature(program.module).parameters else {}
        flat: nn.Module = program.module(**options)
        return flat
    run = type(module).forward
    check: Callable[..., Any] = type(module).process_forward_inputs  # type: ignore[attr-defined]

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        bound = named.signature.bind(*args, **kwargs)
        kind, accepted = type(self).__name__, [*named.positional, *named.keywords]
        if pytree.tree_structure((bound.args, bound.kwargs)) != named.spec:
            raise WrongInputs(model_class=kind, reason="they nest otherwise than those that the program was exported with", accepted=accepted)
        try:
            check(self, *bound.args, **bound.kwargs)
        except RuntimeError as error:
            raise WrongInputs(model_class=kind, reason=_first_line(error).rstrip("."), accepted=accepted) from error
        return run(self, *bound.args, **bound.kwargs)

    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    forward.__signature__ = named.signature.replace(parameters=[own, *named.signature.parameters.values()])  # type: ignore[attr-defined]
    module.__class__ = type(type(module).__name__, (type(module),), {"forward": forward, "train": _fixed, "eval": _fixed})
    return module


def _fixed(self: nn.Module, mode: bool = True) -> nn.Module:
    raise NotImplementedError("an exported program has one mode")


def _graphs(module: nn.Module) -> Iterator[tuple[nn.Module, torch.fx.Graph]]:
    for inner in module.modules():
        for part in (inner, *getattr(inner, "_call_modules", ())):
            if isinstance(getattr(part, "graph", None), torch.fx.Graph):
                yield part, part.graph


def _drop_buffer_copies(module: nn.Module) -> None:
    """A functional program ends by copying new buffers over the old ones, which the backward pass still needs. Nothing in it reads them afterwards."""
    for owner, graph in _graphs(module):
        for node in reversed(graph.nodes):
            if _bare(node.target) == "copy_" and not node.users and getattr(node.args[0], "op", "") == "get_attr":
                graph.erase_node(node)
        _recompile(owner)


def _place_calls(module: nn.Module) -> None:
    """Each operator is called from the line of the user's source that it came from."""
    for owner, graph in _graphs(module):
        for node in graph.nodes:
            place = innermost(node.meta.get("stack_trace") or "", last=True)
            if place and node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
                node.target = _from(place, node.target)
        _recompile(owner)


def _from(place: tuple[str, int], operator: Callable[..., Any]) -> Callable[..., Any]:
    call = standing_at(*place)

    def placed(*args: Any, **kwargs: Any) -> Any:
        return call(partial(operator, **kwargs), args)

    return placed


def _recompile(owner: nn.Module) -> None:
    if isinstance(owner, torch.fx.GraphModule):
        owner.recompile()


def _name_types(module: nn.Module, program: Any) -> None:
    """Modules bear the names of the classes that they were exported from."""
    stacks = (n.meta.get("nn_module_stack") or {} for n in program.graph.nodes)
    kinds = {path: kind for stack in stacks for path, kind in stack.values()}
    for name, inner in module.named_modules():
        kind = str(kinds.get(name, "")).rpartition(".")[2]
        if kind.isidentifier() and isinstance(inner, torch.fx.GraphModule):
            type(inner).__name__ = kind  # each has a class of its own, which cannot be derived from
        elif kind.isidentifier():
            inner.__class__ = type(kind, (type(inner),), {})


_MODES = {"dropout": 2, "native_dropout": 2, "batch_norm": 5, "native_batch_norm": 5, "_native_batch_norm_legit": 5, "_native_batch_norm_legit_functional": 5}
"""Operators that know whether they train -> the argument that says so."""


def _set_mode(module: nn.Module, program: Any) -> str:
    """Set `training` to what the program's own operators say; without such an operator both modes are the same, and it stays."""
    calls = [(_bare(n.target), n.args) for g in (program.graph,) for n in g.nodes if n.op == "call_function"]
    told = [args[_MODES[name]] for name, args in calls if name in _MODES and len(args) > _MODES[name]]
    training = any(told) or not (told or any("no_training" in name for name, _ in calls))
    for inner in module.modules():
        inner.training = training
    return "train" if training else "eval"


def _bare(target: object) -> str:
    packet = target.overloadpacket if isinstance(target, torch._ops.OpOverload) else target
    return packet.__name__ if isinstance(packet, torch._ops.OpOverloadPacket) else ""


def _drawn(program: Any, named: _Arguments) -> object:
    """Inputs of the shapes and dtypes in the program's placeholders; a dynamic size is the usual one, or the nearest that its range allows."""
    sizes: dict[Any, int] = {}
    leaves = [_leaf(node, program.range_constraints, sizes) for node in named.leaves]
    args, kwargs = pytree.tree_unflatten(leaves, named.spec)
    return named.given(args, kwargs)


def _leaf(node: torch.fx.Node, ranges: Mapping[Any, Any], sizes: dict[Any, int]) -> object:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return value
    shape = [_size(size, i, ranges, sizes) for i, size in enumerate(value.shape)]
    if value.is_floating_point() or value.is_complex():
        return torch.randn(shape, dtype=value.dtype)
    tables = [user.args[0].meta["val"].shape[0] for user in node.users if _bare(user.target) == "embedding"]  # type: ignore[union-attr]
    return torch.randint(0, min([int(t) for t in tables], default=2), shape, dtype=torch.uint8 if value.dtype is torch.bool else value.dtype).to(value.dtype)


def _size(size: Any, dimension: int, ranges: Mapping[Any, Any], sizes: dict[Any, int]) -> int:
    if isinstance(size, int):
        return size
    for symbol in size.node.expr.free_symbols:
        if symbol not in sizes:
            bounds, usual = ranges.get(symbol), _LENGTH if dimension else _BATCH
            low, high = (max(int(bounds.lower), 1), bounds.upper) if bounds is not None else (1, usual)
            sizes[symbol] = int(max(low, usual if usual < high else int(high)))
    return int(size.node.expr.subs(sizes))
