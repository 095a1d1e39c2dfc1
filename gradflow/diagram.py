"""The frozen records of a lifted graph: every operator, every edge, every skip from its fork to its join. Imports no torch.

Nothing here is measured: a diagram comes from one forward pass. A skip's `id` is that of `gradflow profile` for the same target, input and loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gradflow.codec import Document
from gradflow.records import Form, Input, Kind, Location, Opaque, Target

SCHEMA = "gradflow/graph/v1"

Op = Literal["placeholder", "get_attr", "call_function", "output"]


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node of the lifted torch.fx graph.

    Attributes:
        id: position in execution order.
        name: the node's name in the torch.fx graph; unique.
        op: torch.fx's opcode: an input, a parameter, an operator, or the roots of the backward pass.
        operator: "aten.add" for an ATen operator, a bare name for a tape node without one ("getitem" picks one of several outputs); "" for other nodes.
        role: what the operator does to a gradient that passes through it; null for other nodes.
        operands: for each argument the name of the node that it comes from, or a constant as Python writes it: a number, `tensor[8, 1]` for a tensor that is
            not on the tape, `alpha=0.5`, or `None` for what the tape does not hold.
        shape: of its first output.
        dtype: e.g. "float32"; null where it has none.
        module: path of the innermost module that was running, "" for the model itself; null outside the model (in the loss).
        call: which call of that module it was, 0 is the first.
        location: the user's line.
        parameter: name of the parameter that the node stands for, else null; "" for a leaf of the tape that is no parameter of the model.
        input: name of the model's input that the node stands for, else null.
        data: whether it depends on an input; else it is made of parameters and constants alone.
        weighted: whether it counts as a weighted layer.
        fork_of, join_of, on_path_of, branch_of: ids of the skips that start or end here, or whose path or branch passes here.
    """

    id: int
    name: str
    op: Op
    operator: str
    role: str | None
    operands: Sequence[str]
    shape: Sequence[int]
    dtype: str | None
    module: str | None
    call: int
    location: Location | None
    parameter: str | None
    input: str | None
    data: bool
    weighted: bool
    fork_of: Sequence[str] = ()
    join_of: Sequence[str] = ()
    on_path_of: Sequence[str] = ()
    branch_of: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Edge:
    """`consumer` takes the value of `source` as its operand number `argument`; both are names of nodes."""

    source: str
    consumer: str
    argument: int


@dataclass(frozen=True, kw_only=True)
class Skip:
    """One passage of a skip connection. A skip that is passed through several times (a loop) has one record per call, all with one `id`.

    Attributes:
        id: that of the report's skip.
        call: 0 for the first passage.
        name: module path in which the join happens.
        kind: by the most transforming operator on its path.
        form: how the join combines its operands.
        fork, join: names of nodes.
        path: edges from the fork to the join; none where the gradient is cut.
        path_ops: the operators on the path; empty for a bare identity.
        branch_edges: edges that leave the fork into the branch.
        branch: module path of the bypassed branch.
        bypassed_layers: weighted layers on the longest path through the branch.
        location: the user's line of the join; of the cut where the skip is detached.
    """

    id: str
    call: int
    name: str
    kind: Kind
    form: Form
    fork: str
    join: str
    path: Sequence[Edge]
    path_ops: Sequence[str]
    branch_edges: Sequence[Edge]
    branch: str
    bypassed_layers: int
    location: Location | None


@dataclass(frozen=True, kw_only=True)
class Highway:
    """Skips linked by the trunk between them.

    Attributes:
        skips: ids of its skips, nearest the input first.
        trunk_ops: operators that lie on the trunk between two joins, without repeats.
    """

    name: str
    skips: Sequence[str]
    trunk_ops: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Diagram(Document):
    """The graph of one forward pass, loss included, lifted from the autograd tape.

    Attributes:
        mode: the mode that the model ran in.
        loss: name of the loss whose tape this is.
        nodes: in execution order.
        edges: ordered by consumer, then by argument.
        opaque: what could not be seen; empty where everything was.
        notes: what was inferred, assumed or could not be seen.
    """

    gradflow_version: str
    target: Target
    mode: Literal["train", "eval"]
    inputs: Sequence[Input]
    loss: str
    nodes: Sequence[Node]
    edges: Sequence[Edge]
    skips: Sequence[Skip]
    highways: Sequence[Highway]
    opaque: Sequence[Opaque]
    notes: Sequence[str] = ()
    schema: str = SCHEMA
