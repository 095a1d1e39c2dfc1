"""A diagram as FX code: one assignment per node, a comment at every fork and join. Valid Python, for reading and not for running.

Written from the records and not by torch.fx, whose text breaks where a module's name holds a quote. Of an operator's constants only those stand there that
the tape keeps.
"""

from __future__ import annotations

from collections.abc import Mapping

from gradflow.diagram import Diagram, Node, Skip
from gradflow.render.names import clean, place

_SHORT = {"float": "f", "bfloat": "bf", "int": "i", "uint": "u", "complex": "c", "bool": "b"}
_INDENT = "    "


def render(diagram: Diagram) -> str:
    """The diagram as the text of one function `forward`, one line per node, in execution order."""
    names = {node.name for node in diagram.nodes}
    model = next(name for name in ("self", "model", "model_itself", "_") if name not in names)
    inputs = [node.name for node in diagram.nodes if node.op == "placeholder"]
    skips = {skip.id: skip for skip in reversed(diagram.skips)}
    lines = [f"# {clean(fact)}" for fact in _header(diagram)]
    lines += ["import torch", "", "", f"def forward({', '.join([model, *inputs])}):"]
    module: tuple[str | None, int] = ("", 0)
    waiting: list[str] = []
    for node in diagram.nodes:
        marks = _marks(node, skips)
        if node.op == "placeholder":
            lines += [f"{_INDENT}# {node.name}: {marks}"] if marks else []
            continue
        if node.op == "call_function" and (node.module, node.call) != module:
            module = (node.module, node.call)
            lines.append(f"{_INDENT}# {_heading(node, diagram)}")
        waiting.append(f"{_INDENT}{_statement(node, model)}" + (f"  # {marks}" if marks else ""))
        if node.op != "get_attr":  # parameters stand under the heading of the operator that takes them
            lines += waiting
            waiting = []
    return "\n".join(lines) + "\n"


def _header(diagram: Diagram) -> list[str]:
    inputs = ", ".join(f"{i.name} {i.dtype}[{','.join(map(str, i.shape))}]" for i in diagram.inputs)
    return [
        f"{diagram.target.model_class}, the tape of one forward pass in {diagram.mode} mode with {inputs or 'no tensors'}, loss {diagram.loss}.",
        "For reading, not for running: of an operator's constants only those stand here that the tape keeps, and tensor[8, 1] is a tensor off the tape.",
    ]


def _heading(node: Node, diagram: Diagram) -> str:
    if node.module is None:
        return "the loss"
    name = clean(node.module or f"({diagram.target.model_class})") + (f", call {node.call}" if node.call else "")
    return name + (f"  {place(node.location)}" if node.location else "")


def _statement(node: Node, model: str) -> str:
    """`add_1: "f32[8, 64]" = torch.ops.aten.add(relu, add)`."""
    if node.op == "output":
        return f"return {node.operands[0]}" if len(node.operands) == 1 else f"return ({', '.join(node.operands)})"
    if node.op == "get_attr":
        value = f"{model}.get_parameter({node.parameter!r})" if node.parameter else "...  # a leaf that is no parameter of the model"
    elif node.operator == "getitem":
        value = f"{node.operands[0]}[{', '.join(node.operands[1:])}]"
    else:
        value = f"{'torch.ops.' if node.operator.startswith('aten.') else ''}{node.operator}({', '.join(node.operands)})"
    return f'{node.name}: "{_annotation(node)}" = {value}'


def _annotation(node: Node) -> str:
    """`f32[8, 64]`, as torch.fx writes it."""
    dtype = node.dtype or ""
    kind = dtype.rstrip("0123456789")
    return f"{_SHORT.get(kind, kind)}{dtype[len(kind) :]}[{', '.join(map(str, node.shape))}]"


def _marks(node: Node, skips: Mapping[str, Skip]) -> str:
    """`join of layer1.0 (identity) resnet.py:102; fork of layer1.1 (identity)`."""
    said = [_mark("join", skips[i]) for i in node.join_of] + [_mark("fork", skips[i]) for i in node.fork_of]
    said += [f"on the path of {clean(i)} ({skips[i].kind})" for i in node.on_path_of]
    return "; ".join(said)


def _mark(end: str, skip: Skip) -> str:
    where = f" {place(skip.location)}" if skip.location else ""
    return f"{end} of {clean(skip.id)} ({skip.kind}){where}"
