"""Random residual networks from a drawn plan that knows which skips are planted.

A plan is a tree of frozen records that says nothing about torch; `Network` interprets it, and can be asked to run plainly, with the operands of every fork
split into clones (whose gradients are then s and f exactly), or with every additive branch cut. Data is [batch, tokens, width] throughout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from gradflow.records import Form, Kind

TOKENS = 2
ACTIVATIONS = ("relu", "gelu", "tanh", "silu")
FRESH = (
    "bare",
    "norm",
    "gelu",
    "silu",
    "linear",
)  # their outputs are not saved for backward: an in-place sum may write into them

Mode = Literal["plain", "split", "cut"]


@dataclass(frozen=True)
class Op:
    """One operator with one data operand: "linear", "bare" (a linear without bias), "norm", "side" (an input of its own is added), "table" or an activation."""

    name: str

    @property
    def weight(self) -> int:
        return int(self.name in ("linear", "bare"))


@dataclass(frozen=True)
class Towers:
    """Two equally heavy branches, added: not a skip."""

    depth: int
    activation: str

    @property
    def weight(self) -> int:
        return self.depth


@dataclass(frozen=True)
class Block:
    """y = S(x) + F(x), or a concatenation and a linear layer.

    `beside` is a second branch, added as well (parallel attention and MLP); `far` adds 0.5 times the network's first value.
    """

    skip: str
    branch: tuple[Element, ...]
    join: str
    beside: tuple[Element, ...] = ()
    far: bool = False

    @property
    def bypassed(self) -> int:
        return max(weight_of(self.branch), weight_of(self.beside), int(self.skip == "highway"))

    @property
    def weight(self) -> int:
        return max(self.bypassed, SKIP_WEIGHT.get(self.skip, 0)) + int(self.form == "concat")

    @property
    def form(self) -> Form:
        return "concat" if self.join == "concat" else "add"

    @property
    def kind(self) -> Kind:
        if self.form == "concat":
            return "concat"
        scaled = "scaled" if self.join in ("from branch", "alpha on skip") else "identity"
        return _KIND.get(self.skip, scaled)  # type: ignore[return-value]


Element = Op | Towers | Block

SKIPS = ("identity", "constant", "quotient", "vector", "projection", "bare projection", "highway", "tanh gate", "norm", "views", "permuted")
PLAIN_SKIPS = ("identity", "constant", "views")
CONCAT_SKIPS = ("identity", "constant", "vector", "norm", "views")
SKIP_WEIGHT = {"projection": 1, "bare projection": 1}
_KIND = {
    "constant": "scaled", "quotient": "scaled", "vector": "scaled", "projection": "projection", "bare projection": "projection", "highway": "gated",
    "tanh gate": "gated", "norm": "norm",
}  # fmt: skip
JOINS = ("skip + branch", "branch + skip", "skip - branch", "from branch", "in place", "alpha on branch", "alpha on skip", "concat")


def weight_of(elements: tuple[Element, ...]) -> int:
    """Weighted layers on the heaviest path."""
    return sum(e.weight for e in elements)


@dataclass(frozen=True)
class Plan:
    """A network: elements between a stem and a head, or from the input itself."""

    elements: tuple[Element, ...]
    width: int
    batch: int
    seed: int
    stem: bool

    @property
    def planted(self) -> dict[str, Planted]:
        """Every planted skip by its name: the path of its block."""
        return {p.name: p for p in _planted(self.elements, "", 0)}


@dataclass(frozen=True)
class Planted:
    name: str
    block: str
    kind: Kind
    form: Form
    bypassed: int


def _planted(elements: tuple[Element, ...], prefix: str, before: int) -> Iterator[Planted]:
    """`before`: weighted layers from the network's first value to this sequence."""
    for i, element in enumerate(elements):
        name = f"{prefix}{i}"
        if isinstance(element, Block):
            yield Planted(name, name, element.kind, element.form, element.bypassed)
            if element.far:
                yield Planted(f"{name}.far", name, "scaled", "add", before + element.weight)
            yield from _planted(element.branch, f"{name}.branch.", before)
            yield from _planted(element.beside, f"{name}.beside.", before)
        before += element.weight


# Strategies.


def _ops(*, inner: bool) -> st.SearchStrategy[Op]:
    names = ["linear", "bare", "norm", *ACTIVATIONS, *(["side", "table"] if inner else [])]
    return st.sampled_from(names).map(Op)


@st.composite
def _chain(draw: st.DrawFn, least: int) -> tuple[Op, ...]:
    """1 to 4 weighted layers with activations, norms and side inputs around them."""
    layers = draw(st.integers(least, max(least, 4) if least > 1 else 3))
    chain: list[Op] = []
    for _ in range(layers):
        chain.append(Op(draw(st.sampled_from(["linear", "bare"]))))
        chain.extend(draw(st.lists(_ops(inner=True).filter(lambda op: not op.weight), max_size=2)))
    if draw(st.booleans()):
        chain.insert(0, Op(draw(st.sampled_from(["norm", *ACTIVATIONS]))))
    return tuple(chain)


def _towers() -> st.SearchStrategy[Towers]:
    return st.builds(Towers, st.integers(0, 2), st.sampled_from(ACTIVATIONS))


@st.composite
def _block(draw: st.DrawFn, nesting: int, far: bool) -> Block:
    join = draw(st.sampled_from(JOINS))
    branch: tuple[Element, ...]
    if draw(st.integers(0, 7)) == 0:
        skip, branch = draw(st.sampled_from(PLAIN_SKIPS)), (Op("norm"), *draw(st.sampled_from([(), (Op("tanh"),)])))  # no weighted layer, but a parameter
    else:
        skip = draw(st.sampled_from(CONCAT_SKIPS if join == "concat" else SKIPS))
        branch = draw(_chain(least=SKIP_WEIGHT.get(skip, 0) + 1))
        if nesting and draw(st.booleans()):
            inner = (draw(_towers() | _block(nesting - 1, far=False)), *draw(st.sampled_from([(), (Op("relu"),), (Op("norm"),)])))
            at = draw(st.integers(0, len(branch)))
            branch = (*branch[:at], *inner, *branch[at:])
    lone = join == "skip + branch" and skip not in SKIP_WEIGHT and weight_of(branch) > 0  # else the lighter of two branches would be a skip itself
    beside = draw(_chain(least=1)) if lone and draw(st.integers(0, 3)) == 0 else ()
    far = far and not beside and join in ("skip + branch", "branch + skip") and draw(st.booleans())
    return Block(skip=skip, branch=_mended(branch, last=FRESH if join == "in place" else None), join=join, beside=_mended(beside), far=far)


def _mended(elements: tuple[Element, ...], last: tuple[str, ...] | None = None) -> tuple[Element, ...]:
    """A sum straight into another is one join of many operands: keep an operator between them."""
    found: list[Element] = []
    for element in elements:
        if element == Op("side") and (not found or _ends_in_sum(found[-1])):
            found.append(Op("gelu"))
        found.append(element)
    if found and (_ends_in_sum(found[-1]) or (last is not None and not (isinstance(found[-1], Op) and found[-1].name in last))):
        found.append(Op("gelu"))
    return tuple(found)


def _ends_in_sum(element: Element) -> bool:
    return element in (Op("side"), Op("table")) or isinstance(element, Towers) or (isinstance(element, Block) and element.form == "add")


@st.composite
def random_networks(draw: st.DrawFn, max_blocks: int = 3) -> Plan:
    """Sequences of blocks, nested ones, parallel towers and trunk operators."""
    stem = draw(st.booleans())
    elements: list[Element] = []
    for i in range(draw(st.integers(1, max_blocks))):
        if draw(st.integers(0, 4)) == 0:
            elements.append(draw(_towers()))
        trunk = draw(st.sampled_from([None, "linear", "norm", "relu"]))
        if trunk:
            elements.append(Op(trunk))
        elements.append(draw(_block(nesting=1, far=i > 0 and weight_of(tuple(elements)) > 0)))
    trunk = draw(st.sampled_from([None, "relu", "norm"]))
    tail = (Op(trunk),) if trunk else ()
    return Plan((*elements, *tail), width=draw(st.sampled_from([4, 6])), batch=draw(st.integers(2, 3)), seed=draw(st.integers(0, 2**16)), stem=stem)


# The interpreter.


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
        elif op.name == "side":
            self.side, root.side_count = root.side_count, root.side_count + 1

    def forward(self, x: Tensor) -> Tensor:
        if self.op.name == "side":
            return x + self.root[0].trace.sides[self.side]
        if self.op.name == "table":
            return x + self.table
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


class _Block(nn.Module):
    def __init__(self, plan: Block, name: str, width: int, root: Network) -> None:
        super().__init__()
        self.plan, self.name, self.root = plan, name, (root,)
        self.branch = _Sequence(plan.branch, f"{name}.branch.", width, root)
        self.beside = _Sequence(plan.beside, f"{name}.beside.", width, root) if plan.beside else None
        if plan.skip in ("projection", "bare projection"):
            self.shortcut: nn.Module = nn.Linear(width, width, bias=plan.skip == "projection")
        elif plan.skip == "norm":
            self.shortcut = nn.LayerNorm(width)
        elif plan.skip in ("highway", "tanh gate"):
            self.gate = nn.Linear(width, width)
        elif plan.skip == "vector":
            self.scale = nn.Parameter(1 + 0.3 * torch.randn(width))
        self.merge = nn.Linear(2 * width, width) if plan.form == "concat" else None

    def forward(self, x: Tensor) -> Tensor:
        trace = self.root[0].trace
        near, away = trace.fork(self.name, x)
        gate = torch.sigmoid(self.gate(away)) if self.plan.skip == "highway" else torch.tanh(self.gate(away)) if self.plan.skip == "tanh gate" else None
        if trace.branch_first:
            f = self._branch(away, gate)
            s = self._skip(near, gate)
        else:
            s = self._skip(near, gate)
            f = self._branch(away, gate)
        trace.skip_ends[self.name] = s
        cut = trace.cut
        y = self._join(s, cut(f))
        if self.beside is not None:
            y = y + cut(self.beside(away))
        if self.plan.far and trace.first is not None:
            y = y + cut(0.5 * trace.first)
        trace.joins[self.name] = y
        return y if self.merge is None else self.merge(y)

    def _branch(self, x: Tensor, gate: Tensor | None) -> Tensor:
        f = self.branch(x)
        return f * gate if self.plan.skip == "highway" else f

    def _skip(self, x: Tensor, gate: Tensor | None) -> Tensor:
        if gate is not None:
            gate = self.root[0].trace.cut(gate)
            return (1 - gate) * x if self.plan.skip == "highway" else x * gate
        match self.plan.skip:
            case "constant":
                return 0.7 * x
            case "quotient":
                return x / 1.6
            case "vector":
                return x * self.scale
            case "projection" | "bare projection" | "norm":
                return self.shortcut(x)
            case "views":
                return x.reshape(-1, x.shape[-1]).view_as(x)
            case "permuted":
                return x.transpose(1, 2).contiguous().permute(0, 2, 1)
        return x

    def _join(self, s: Tensor, f: Tensor) -> Tensor:
        match self.plan.join:
            case "branch + skip":
                return f + s
            case "skip - branch":
                return s - f
            case "from branch":
                return f - s
            case "in place":
                return f.clone().add_(s) if self.root[0].trace.mode == "cut" else f.add_(s)
            case "alpha on branch":
                return torch.add(s, f, alpha=0.5)
            case "alpha on skip":
                return torch.add(f, s, alpha=0.5)
            case "concat":
                return torch.cat([s, f], dim=-1)
        return s + f


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
    return _Towers(element, width, root) if isinstance(element, Towers) else _Apply(element, width, root)


class Network(nn.Module):
    """A plan, built with its own seed; `names` renames its modules without changing a number."""

    def __init__(self, plan: Plan, names: str = "") -> None:
        super().__init__()
        self.plan, self.names, self.side_count, self.trace = plan, names, 0, Trace()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            self.stem = nn.Linear(plan.width, plan.width) if plan.stem else None
            self.body = _Sequence(plan.elements, "", plan.width, self)
            self.head = nn.Linear(plan.width, plan.width)
        self.double()

    def module_name(self, path: str) -> str:
        return f"{self.names}{path.rpartition('.')[2]}" if self.names else f"at{path.rpartition('.')[2]}"

    def forward(self, x: Tensor, *sides: Tensor) -> Tensor:
        self.trace = Trace(mode=self.trace.mode, branch_first=self.trace.branch_first, sides=list(sides))
        x = x if self.stem is None else self.stem(x)
        self.trace.first = x
        return self.head(self.body(x))

    def inputs(self) -> tuple[Tensor, ...]:
        """The batch, and one side input for each operator that takes one: the same for the same plan."""
        generator = torch.Generator().manual_seed(self.plan.seed + 1)
        shape = (self.plan.batch, TOKENS, self.plan.width)
        return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(1 + self.side_count))


def loss(output: Tensor) -> Tensor:
    """Any smooth scalar will do; this one has a different slope everywhere."""
    return (output - 0.3).pow(2).mean() + output.sin().mean()
