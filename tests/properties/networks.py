"""Random residual networks from a drawn plan that knows which skips are planted.

`Network` interprets a plan, and can be asked to run plainly, with the operands of every fork split into clones (whose gradients are then s and f exactly), or
with every additive branch cut. Data is [batch, tokens, width] throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from .plans import Block, Collected, Element, Op, Plan, Planted, Towers, random_networks

__all__ = ["Block", "Collected", "Element", "Network", "Op", "Plan", "Planted", "Towers", "Trace", "loss", "random_networks"]

TOKENS = 2
STREAMS = 2

Mode = Literal["plain", "split", "cut"]


@dataclass
class Trace:
    """Tensors of one forward, by the path of the block; `branch_first` is the order in which the operands of a fork are computed."""

    mode: Mode = "plain"
    branch_first: bool = False
    forks: dict[str, Tensor] = field(default_factory=dict)
    joins: dict[str, Tensor] = field(default_factory=dict)
    skips: dict[str, Tensor] = field(default_factory=dict)
    skip_ends: dict[str, Tensor] = field(default_factory=dict)
    branches: dict[str, Tensor] = field(default_factory=dict)
    sides: list[Tensor] = field(default_factory=list)
    condition: Tensor | None = None
    first: Tensor | None = None

    def fork(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the skip and the branch are computed from."""
        self.forks[name] = x
        skip, branch = (x.clone(), x.clone()) if self.mode == "split" else (x, x)
        self.skips[name], self.branches[name] = skip, branch
        return skip, branch

    def cut(self, x: Tensor) -> Tensor:
        return x.detach() if self.mode == "cut" else x


_FUNCTION = {"relu": torch.relu, "gelu": torch.nn.functional.gelu, "tanh": torch.tanh, "silu": torch.nn.functional.silu}


class _Apply(nn.Module):
    def __init__(self, op: Op, width: int, root: Network) -> None:
        super().__init__()
        self.op, self.root = op, (root,)
        if op.weight:
            self.layer = nn.Linear(width, width, bias=op.name == "linear")
        elif op.name == "norm":
            self.layer = nn.LayerNorm(width)
        elif op.name == "table":
            self.table = nn.Parameter(torch.randn(TOKENS, width))
        elif op.name == "told":
            self.word = nn.Linear(root.plan.width, width)
            root.conditioned = True
        elif op.name == "side":
            self.side, root.side_count = root.side_count, root.side_count + 1

    def forward(self, x: Tensor) -> Tensor:
        if self.op.name == "side":
            return x + self.root[0].trace.sides[self.side]
        if self.op.name == "table":
            return x + self.table
        if self.op.name == "told":
            return x + self.word(self.root[0].trace.condition)
        return self.layer(x) if self.op.weight or self.op.name == "norm" else _FUNCTION[self.op.name](x)


class _Towers(nn.Module):
    def __init__(self, plan: Towers, width: int, root: Network) -> None:
        super().__init__()
        self.plan, self.root = plan, (root,)
        self.left = nn.ModuleList(nn.Linear(width, width) for _ in range(plan.depth))
        self.right = nn.ModuleList(nn.Linear(width, width) for _ in range(plan.depth))

    def forward(self, x: Tensor) -> Tensor:
        order = (self.right, self.left) if self.root[0].trace.branch_first else (self.left, self.right)
        results = {id(tower): self._tower(tower, x) for tower in order}
        return results[id(self.left)] + results[id(self.right)]

    def _tower(self, tower: nn.ModuleList, x: Tensor) -> Tensor:
        x = _FUNCTION[self.plan.activation](x) if not len(tower) or tower is self.right else x
        for layer in tower:
            x = _FUNCTION[self.plan.activation](layer(x))
        return x


class _Collected(nn.Module):
    def __init__(self, plan: Collected, width: int) -> None:
        super().__init__()
        self.plan, self.layer = plan, nn.Linear(width, width)
        self.merge = nn.Linear(plan.steps * width, width) if plan.how == "cat" else None

    def forward(self, x: Tensor) -> Tensor:
        states = []
        for _ in range(self.plan.steps):
            x = torch.tanh(self.layer(x))
            states.append(x)
        if self.merge is not None:
            return self.merge(torch.cat(states, -1))
        return torch.stack(states).mean(0) if self.plan.how == "mean" else torch.stack(states).sum(0)


class _Block(nn.Module):
    def __init__(self, plan: Block, name: str, width: int, root: Network) -> None:
        super().__init__()
        self.plan, self.name, self.root = plan, name, (root,)
        self.branch = _Sequence(plan.branch, f"{name}.branch.", width // 2 if plan.skip == "split" else width, root)
        self.beside = _Sequence(plan.beside, f"{name}.beside.", width, root) if plan.beside else None
        if plan.skip in ("projection", "bare projection"):
            self.shortcut: nn.Module = nn.Linear(width, width, bias=plan.skip == "projection")
        elif plan.skip == "norm":
            self.shortcut = nn.LayerNorm(width)
        elif plan.skip in ("highway", "tanh gate", "interpolation", "lerp"):
            self.gate = nn.Linear(width, width)
        elif plan.skip == "streams":
            self.mix, self.read = nn.Parameter(torch.eye(STREAMS) + 0.3 * torch.randn(STREAMS, STREAMS)), nn.Parameter(torch.rand(STREAMS))
            self.write = nn.Parameter(torch.rand(STREAMS, 1))
        elif plan.skip == "vector":
            self.scale = nn.Parameter(1 + 0.3 * torch.randn(width))
        self.merge = nn.Linear(width if plan.skip == "split" else 2 * width, width) if plan.form == "concat" else None

    def forward(self, x: Tensor) -> Tensor:
        trace = self.root[0].trace
        if self.plan.skip == "streams":
            x = x.unsqueeze(2).expand(-1, -1, STREAMS, -1)
        near, away = trace.fork(self.name, x)
        if self.plan.skip == "split":
            halves = near.chunk(2, -1)
            near, away = halves[0], halves[1] if near is away else away.chunk(2, -1)[1]
        gate = torch.tanh(self.gate(away)) if self.plan.skip == "tanh gate" else torch.sigmoid(self.gate(away)) if hasattr(self, "gate") else None
        if trace.branch_first:
            f = self._branch(away, gate)
            s = self._skip(near, gate)
        else:
            s = self._skip(near, gate)
            f = self._branch(away, gate)
        trace.skip_ends[self.name] = s
        cut = trace.cut
        y = self._join(s, cut(f), gate)
        if self.beside is not None:
            y = y + cut(self.beside(away))
        if self.plan.far and trace.first is not None:
            y = y + cut(0.5 * trace.first)
        trace.joins[self.name] = y
        if self.plan.skip == "streams":
            return y.sum(2)
        return y if self.merge is None else self.merge(y)

    def _branch(self, x: Tensor, gate: Tensor | None) -> Tensor:
        if self.plan.skip == "streams":
            return self.write * self.branch(self.read @ x).unsqueeze(2)
        f = self.branch(x)
        return f * gate if self.plan.skip == "highway" else f

    def _skip(self, x: Tensor, gate: Tensor | None) -> Tensor:
        written = _SKIPS.get(self.plan.skip)
        return x if written is None else written(self, x, None if gate is None else self.root[0].trace.cut(gate))

    def _join(self, s: Tensor, f: Tensor, gate: Tensor | None) -> Tensor:
        if self.plan.skip in ("interpolation", "lerp"):
            gate = self.root[0].trace.cut(gate)
            return torch.lerp(s, f, gate) if self.plan.skip == "lerp" else s + gate * (f - s)
        if self.plan.join == "in place":
            return f.clone().add_(s) if self.root[0].trace.mode == "cut" else f.add_(s)
        return _JOINS.get(self.plan.join, torch.add)(s, f)


_SKIPS: dict[str, Callable[[_Block, Tensor, Tensor | None], Tensor]] = {
    "highway": lambda block, x, gate: (1 - gate) * x,
    "tanh gate": lambda block, x, gate: x * gate,
    "streams": lambda block, x, gate: block.mix @ x,
    "constant": lambda block, x, gate: 0.7 * x,
    "quotient": lambda block, x, gate: x / 1.6,
    "vector": lambda block, x, gate: x * block.scale,
    **dict.fromkeys(["projection", "bare projection", "norm"], lambda block, x, gate: block.shortcut(x)),
    "views": lambda block, x, gate: x.reshape(-1, x.shape[-1]).view_as(x),
    "permuted": lambda block, x, gate: x.transpose(1, 2).contiguous().permute(0, 2, 1),
}
_JOINS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "branch + skip": lambda s, f: f + s,
    "skip - branch": lambda s, f: s - f,
    "from branch": lambda s, f: f - s,
    "alpha on branch": lambda s, f: torch.add(s, f, alpha=0.5),
    "alpha on skip": lambda s, f: torch.add(f, s, alpha=0.5),
    "concat": lambda s, f: torch.cat([s, f], dim=-1),
}


class _Sequence(nn.Module):
    def __init__(self, elements: tuple[Element, ...], prefix: str, width: int, root: Network) -> None:
        super().__init__()
        self.steps: list[str] = []
        for i, element in enumerate(elements):
            name = root.module_name(f"{prefix}{i}")
            self.steps.append(name)
            self.add_module(name, _module(element, f"{prefix}{i}", width, root))

    def forward(self, x: Tensor) -> Tensor:
        for name in self.steps:
            x = getattr(self, name)(x)
        return x


def _module(element: Element, name: str, width: int, root: Network) -> nn.Module:
    if isinstance(element, Block):
        return _Block(element, name, width, root)
    if isinstance(element, Collected):
        return _Collected(element, width)
    return _Towers(element, width, root) if isinstance(element, Towers) else _Apply(element, width, root)


class Network(nn.Module):
    """A plan, built with its own seed; `names` renames its modules without changing a number."""

    def __init__(self, plan: Plan, names: str = "") -> None:
        super().__init__()
        self.plan, self.names, self.side_count, self.conditioned, self.trace = plan, names, 0, False, Trace()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            self.stem = nn.Linear(plan.width, plan.width) if plan.stem else None
            self.body = _Sequence(plan.elements, "", plan.width, self)
            self.head = nn.Linear(plan.width, plan.width)
            self.embed = nn.Linear(plan.width, plan.width) if self.conditioned else None
        self.double()

    def module_name(self, path: str) -> str:
        return f"{self.names}{path.rpartition('.')[2]}" if self.names else f"at{path.rpartition('.')[2]}"

    def forward(self, x: Tensor, *sides: Tensor) -> Tensor:
        self.trace = Trace(mode=self.trace.mode, branch_first=self.trace.branch_first, sides=list(sides))
        if self.embed is not None:
            self.trace.condition = torch.tanh(self.embed(sides[-1]))
        x = x if self.stem is None else self.stem(x)
        self.trace.first = x
        return self.head(self.body(x))

    def inputs(self) -> tuple[Tensor, ...]:
        """The batch, one side input for each operator that takes one, and the condition: the same for the same plan."""
        generator = torch.Generator().manual_seed(self.plan.seed + 1)
        shape = (self.plan.batch, TOKENS, self.plan.width)
        shapes = [shape] * (1 + self.side_count) + [(self.plan.batch, 1, self.plan.width)] * self.conditioned
        return tuple(torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)


def loss(output: Tensor) -> Tensor:
    """Any smooth scalar will do; this one has a different slope everywhere."""
    return (output - 0.3).pow(2).mean() + output.sin().mean()
