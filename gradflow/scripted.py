"""TorchScript, operator by operator. Its C++ interpreter shows Python neither the calls of submodules nor where a gradient is cut; here each operator of a
module's graph is called from Python, in the same order with the same arguments, so that hooks and modes see what they see of a plain module.

A graph that holds anything outside the tables below is left to C++ whole (`opaque` says which and why): it is never run half.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from gradflow.places import innermost, standing_at

_WRITES_CONTAINER = re.compile(r"(\[\]|Dict\([^)]*\))\(\w+!\)")
_FORWARD = re.compile(r"forward(__\d+)?")  # with a number where calls with other types were compiled apart
_GENERIC = re.compile(r"[(, ](t|t1|t2|tVal|e)(\[|\(| )|\.\.\.")
_CONTROL = frozenset({"Constant", "GetAttr", "SetAttr", "CallMethod", "CallFunction", "If", "Loop", "RaiseException"})


def _set(container: Any, key: Any, value: Any) -> Any:
    container[key] = value
    return container


def _slots(values: Sequence[Any]) -> Any:
    return tuple(values)


_BUILT: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "prim::TupleConstruct": lambda *items: items,
        "prim::ListConstruct": lambda *items: list(items),
        "prim::DictConstruct": lambda *items: dict(zip(items[::2], items[1::2], strict=True)),
        "prim::TupleUnpack": _slots,
        "prim::ListUnpack": _slots,
        "prim::TupleIndex": lambda items, index: items[index],
        "prim::Uninitialized": lambda: None,
        "prim::unchecked_cast": lambda value: value,
        "prim::Enter": lambda manager: manager.__enter__(),
        "prim::Exit": lambda manager: manager.__exit__(None, None, None),
        "aten::warn": lambda message, level: warnings.warn(message, stacklevel=2),
        "aten::__is__": lambda one, other: one is other,
        "aten::__isnot__": lambda one, other: one is not other,
        "aten::append": lambda items, item: (items.append(item), items)[1],
        "aten::insert": lambda items, index, item: items.insert(index, item),
        "aten::extend": lambda items, more: items.extend(more),
        "aten::pop": lambda items, *key: items.pop(*key),
        "aten::_set_item": _set,
        "aten::__getitem__": lambda items, key: items[key],
        "aten::__contains__": lambda items, item: item in items,
        "aten::format": lambda text, *values: text.format(*values),
        "aten::get": lambda items, key, default=None: items.get(key, default),
        "aten::len": len,
        "aten::list": list,
        "aten::dict": dict,
        "aten::keys": list,
        "aten::values": lambda items: list(items.values()),
        "aten::items": lambda items: list(items.items()),
        "aten::add.t": lambda one, other: one + other,
        "aten::copy.t": list,
        "aten::slice.t": lambda items, start, end, step: items[slice(start, end, step)],
        "aten::mul.left_t": lambda items, times: items * times,
    }
)
"""Containers live in Python: through an operator of torch's, each would be copied on the way in, and what is written to the copy is lost."""


_SWITCHES: Mapping[str, Callable[[], Any]] = MappingProxyType({"no_grad": torch.no_grad, "enable_grad": torch.enable_grad})


class _InPython(partial[Any]):
    """A `forward` that stands in for TorchScript's."""


def run_in_python(modules: Sequence[nn.Module]) -> None:
    """Give each ScriptModule whose graph can be run here a Python `forward` of its own; whoever calls this takes it out of `__dict__` again."""
    for module in modules:
        if isinstance(module, torch.jit.ScriptModule) and not why_opaque(module):
            module.__dict__["forward"] = _InPython(_call, module, "forward")


def runs_in_cpp(module: nn.Module) -> bool:
    """Whether this is a ScriptModule that `run_in_python` left as it is."""
    return isinstance(module, torch.jit.ScriptModule) and not isinstance(module.__dict__.get("forward"), _InPython)


def opaque(model: nn.Module) -> dict[str, str]:
    """Name -> reason for every ScriptModule with parameters that only C++ can run, outermost first."""
    found = ((name, why_opaque(m)) for name, m in model.named_modules() if isinstance(m, torch.jit.ScriptModule) and any(True for _ in m.parameters()))
    return {name: reason for name, reason in found if reason}


def why_opaque(module: Any) -> str:
    """The first thing in the module's graphs that cannot be run here; empty where there is none, or where it has no forward."""
    seen: set[tuple[int, str]] = set()
    return next((reason for name in module._c._method_names() if _FORWARD.fullmatch(name) and (reason := _refused_method(module, name, seen))), "")


def _refused_method(module: Any, method: str, seen: set[tuple[int, str]]) -> str:
    if (id(module), method) in seen:
        return ""
    seen.add((id(module), method))
    for node in _nodes(module._c._get_method(method).graph):
        reason = _refused(node)
        if not reason and node.kind() == "prim::CallMethod" and not _FORWARD.fullmatch(node.s("name")) and not _manager(node.inputsAt(0).node()):
            owner = _owner(module, node.inputsAt(0).node())
            reason = _refused_method(owner, node.s("name"), seen) if owner is not None else f"it calls {node.s('name')}() of a value"
        if reason:
            return reason
    return ""


def _owner(module: Any, node: Any) -> Any:
    """The module that a value is, following attributes from `module`; None for a value that is computed."""
    if node.kind() == "prim::Param":
        return module
    parent = _owner(module, node.inputsAt(0).node()) if node.kind() == "prim::GetAttr" else None
    owner = getattr(parent, node.s("name"), None) if parent is not None else None
    return owner if isinstance(owner, torch.jit.ScriptModule) else None


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _refused(node: Any) -> str:
    kind = node.kind()
    if kind == "prim::CallFunction":
        return next((reason for inner in _nodes(_alone(node)) if (reason := _refused(inner))), "")
    if kind.removeprefix("prim::") in _CONTROL:
        return ""
    if _is_alone(node) or _manager(node) is not None:
        return ""
    schema = node.schema()
    if _built(kind, schema) is not None:
        return ""
    if schema.startswith("(") or _WRITES_CONTAINER.search(schema) or _GENERIC.search(schema):
        return f"it uses {kind}"
    try:
        _operator(schema)
    except RuntimeError:
        return f"it uses {kind}"
    return ""


def _built(kind: str, schema: str) -> Callable[..., Any] | None:
    return _BUILT.get(kind) or _BUILT.get(schema.partition("(")[0])


_operators: dict[str, Callable[..., Any]] = {}


def _operator(schema: str) -> Callable[..., Any]:
    """The very overload that the schema names: chosen again from Python values, a product of two ints might become one of tensors."""
    if schema not in _operators:
        name, _, overload = schema.partition("(")[0].partition(".")
        operator = torch._C._get_operation_overload(name, overload)[0]
        words = [a.name for a in torch._C.parse_schema(schema).arguments if a.kwarg_only]
        _operators[schema] = partial(_with_words, operator, words) if words else operator
    return _operators[schema]


def _with_words(operator: Callable[..., Any], words: Sequence[str], *args: Any) -> Any:
    """Keyword-only arguments are a graph's last inputs."""
    first = len(args) - len(words)
    return operator(*args[:first], **dict(zip(words, args[first:], strict=True)))


def _manager(node: Any) -> Callable[[], Any] | None:
    """What a CreateObject node makes, where that is one of torch's switches of the gradient."""
    kind = node.output().type().annotation_str.rpartition(".")[2] if node.kind() == "prim::CreateObject" else ""
    return _SWITCHES.get(kind)


def _is_alone(node: Any) -> bool:
    """Whether the node is run by C++ as a function of its own: it needs a type that Python does not have."""
    kind = node.kind()
    return kind == "prim::isinstance" or (kind == "prim::TupleConstruct" and not node.output().type().annotation_str.startswith("Tuple["))


def _alone(node: Any) -> Any:
    """A graph that holds this node and nothing else; functions that it calls are written out."""
    graph = torch._C.Graph()
    inside: dict[str, Any] = {}
    for value in node.inputs():
        is_function = value.type().kind() == "FunctionType"
        inside[value.debugName()] = _clone(graph, value.node(), {}).output() if is_function else graph.addInput().setType(value.type())
    for output in _clone(graph, node, inside).outputs():
        graph.registerOutput(output)
    torch._C._jit_pass_inline(graph)
    return graph


def _clone(graph: Any, node: Any, inside: Mapping[str, Any]) -> Any:
    return graph.insertNode(graph.createClone(node, lambda v: inside[v.debugName()]))


def _call(module: Any, method: str, *args: Any, **kwargs: Any) -> Any:
    script = module._c._get_method(method)
    given = _bound(script.schema.arguments[1:], args, kwargs)
    return _run(script.graph, [module, *given])


def _bound(arguments: Sequence[Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Arguments in the schema's order, its defaults included; a wrong call raises the TypeError that a Python function would."""
    names = [a.name for a in arguments]
    if len(args) > len(names) or (unknown := [k for k in kwargs if k not in names[len(args) :]]):
        raise TypeError(f"forward() takes {', '.join(names) or 'nothing'}; got {len(args)} positional arguments and {', '.join(kwargs) or 'none'} by name")
    del unknown
    given = list(args)
    for argument in arguments[len(args) :]:
        if argument.name not in kwargs and not argument.has_default_value():
            raise TypeError(f"forward() is missing the argument {argument.name!r}")
        given.append(kwargs.get(argument.name, argument.default_value))
    return given


def _run(graph: Any, args: Sequence[Any]) -> Any:
    values: dict[str, Any] = {}
    for value, given in zip(graph.inputs(), args, strict=True):
        values[value.debugName()] = given
    results = _block(graph, values)
    return results[0] if len(results) == 1 else tuple(results)


def _block(block: Any, values: dict[str, Any]) -> list[Any]:
    for node in block.nodes():
        results = _step(node, values)
        for output, result in zip(node.outputs(), results, strict=True):
            values[output.debugName()] = result
    ends = block.outputs() if isinstance(block, torch._C.Graph) else list(block.returnNode().inputs())
    return [values[v.debugName()] for v in ends]


def _step(node: Any, values: dict[str, Any]) -> Sequence[Any]:
    kind = node.kind()
    if kind == "prim::Constant":
        return [node.output().toIValue()]
    inputs = [values[v.debugName()] for v in node.inputs()]
    if kind == "prim::If":
        branch, other = node.blocks()
        return _block(branch if inputs[0] else other, values)
    if kind == "prim::Loop":
        return _loop(node, inputs, values)
    if kind == "prim::RaiseException":
        raise torch.jit.Error(inputs[0])
    result = _at(node, _action(node), inputs)
    many = kind in ("prim::TupleUnpack", "prim::ListUnpack") or node.outputsSize() > 1
    return list(result) if many else [result] * node.outputsSize()


def _loop(node: Any, inputs: list[Any], values: dict[str, Any]) -> list[Any]:
    count, go_on, *carried = inputs
    (body,) = node.blocks()
    names = [v.debugName() for v in body.inputs()]
    for turn, _ in enumerate(repeat(None, count)):
        if not go_on:
            break
        values.update(zip(names, [turn, *carried], strict=True))
        go_on, *carried = _block(body, values)
    return carried


def _action(node: Any) -> Callable[..., Any]:
    kind = node.kind()
    if kind == "prim::GetAttr":
        return lambda owner: getattr(owner, node.s("name"))
    if kind == "prim::SetAttr":
        return lambda owner, value: setattr(owner, node.s("name"), value)
    if kind == "prim::CallMethod":
        return partial(_method, node.s("name"))
    if kind == "prim::CallFunction":
        graph = _alone(node)
        return lambda function, *args: _run(graph, args)
    if _is_alone(node):
        return torch._C._create_function_from_graph("alone", _alone(node))
    return _manager(node) or _built(kind, node.schema()) or _operator(node.schema())


def _method(name: str, owner: Any, *args: Any) -> Any:
    if _FORWARD.fullmatch(name) and isinstance(owner, nn.Module):
        if not runs_in_cpp(owner):
            owner.__dict__["forward"] = _InPython(_call, owner, name)
        return owner(*args)
    if isinstance(owner, torch.jit.ScriptModule):
        return _call(owner, name, *args)
    return getattr(owner, name)(*args)


def _at(node: Any, action: Callable[..., Any], inputs: Sequence[Any]) -> Any:
    """Call from a frame that stands at the node's place in the user's source, for whoever looks up the stack."""
    place = innermost(node.sourceRange(), last=False)
    return standing_at(*place)(action, inputs) if place else action(*inputs)
