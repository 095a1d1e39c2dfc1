"""What the search finds: skips and the highways that they form. Frozen records over fx nodes; touches no tensor."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from gradflow.operators import Role
from gradflow.records import Form, Kind, Location

NodeEdge = tuple[fx.Node, int]  # (consumer, argument number)


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A part of the graph that a gradient is pushed down: from `top` (a join or a fork) back to `bottom`.

    Attributes:
        edges: (consumer, argument number) of every edge that is open, in the order in which a backward pass meets their consumers.
    """

    top: fx.Node
    bottom: fx.Node
    edges: tuple[NodeEdge, ...]


@dataclass(frozen=True, kw_only=True)
class SkipPath:
    """One skip: `join` = S(`fork`) + F(`fork`).

    Attributes:
        path: the open edges of the skip path, join first; empty for a detached skip.
        roles: for each edge of the path what its consumer does to the gradient.
        full: the skip's operand with its gates differentiated as well; None where nothing gates.
        branch_edges: the fork's edges into the branch (the gates included).
        shared: whether a value on the path has other consumers, so that s cannot be read at the fork's edge.
        operand: which operand of the join the skip is.
        bypassed_layers: weighted layers on the longest path through the branch.
        branch_nodes: nodes on the branch.
        parameters: names of the parameters that the branch uses.
        cut: for a detached skip, the line that cuts it.
    """

    join: fx.Node
    fork: fx.Node
    form: Form
    kind: Kind
    path: tuple[NodeEdge, ...]
    roles: tuple[Role, ...]
    path_ops: tuple[str, ...]
    full: Stretch | None
    branch_edges: tuple[NodeEdge, ...]
    shared: bool
    operand: int
    bypassed_layers: int
    branch_nodes: tuple[fx.Node, ...]
    parameters: frozenset[str]
    cut: Location | None = None

    @property
    def stretch(self) -> Stretch:
        """The skip path as something to push a gradient down."""
        return Stretch(top=self.join, bottom=self.fork, edges=self.path)


@dataclass(frozen=True, kw_only=True)
class HighwayPath:
    """Skips linked by the trunk, the last (nearest the loss) first.

    Attributes:
        stages: for each skip what is open between its join and its fork: its path, and those of other skips between the same two.
        trunks: trunks[i] leads from skips[i]'s fork back to skips[i + 1]'s join; one fewer than skips.
    """

    skips: tuple[SkipPath, ...]
    stages: tuple[Stretch, ...]
    trunks: tuple[Stretch, ...]
    trunk_ops: tuple[str, ...]
