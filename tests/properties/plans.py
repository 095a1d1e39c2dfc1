"""Plans of random residual networks, which know what skips they plant: trees of frozen records that say nothing about torch, and how they are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import strategies as st

from gradflow.records import Form, Kind

ACTIVATIONS = ("relu", "gelu", "tanh", "silu")
FRESH = (
    "bare",
    "norm",
    "gelu",
    "silu",
    "linear",
)  # their outputs are not saved for backward: an in-place sum may write into them


@dataclass(frozen=True)
class Op:
    """One operator with one data operand: "linear", "bare" (a linear without bias), "norm", "side" (an input of its own is added), "table" (a parameter is),
    "told" (a layer's word on a condition of the whole network is, to all tokens alike) or an activation."""

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
class Collected:
    """A layer and tanh, applied several times over; what each step made is gathered by "mean", "sum" (of a stack) or "cat" and a linear layer: not a skip."""

    steps: int
    how: str

    @property
    def weight(self) -> int:
        return self.steps + int(self.how == "cat")


@dataclass(frozen=True)
class Block:
    """y = S(x) + F(x), or a concatenation and a linear layer.

    The skip "split" passes half of the features on, and the branch sees the other half; "streams" copies x into two streams that a matrix mixes, of which the
    branch reads one by a vector; "interpolation" is x + z·(F(x) − x), and "lerp" the same in one operator.

    `beside` is a second branch, added as well (parallel attention and MLP); `far` adds 0.5 times the network's first value.
    """

    skip: str
    branch: tuple[Element, ...]
    join: str
    beside: tuple[Element, ...] = ()
    far: bool = False

    @property
    def bypassed(self) -> int:
        return max(weight_of(self.branch) + int(self.skip == "streams"), weight_of(self.beside), int(self.skip in GATED))

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


Element = Op | Towers | Collected | Block

GATED = ("highway", "interpolation", "lerp")
WHOLE = ("interpolation", "lerp", "streams")  # they say themselves how skip and branch are joined
SKIPS = ("identity", "constant", "quotient", "vector", "projection", "bare projection", "highway", "tanh gate", "norm", "views", "permuted")
PLAIN_SKIPS = ("identity", "constant", "views")
CONCAT_SKIPS = ("identity", "constant", "vector", "norm", "views")
SKIP_WEIGHT = {"projection": 1, "bare projection": 1, "streams": 1}
_KIND = {
    "constant": "scaled", "quotient": "scaled", "vector": "scaled", "projection": "projection", "bare projection": "projection", "highway": "gated",
    "tanh gate": "gated", "norm": "norm", "interpolation": "gated", "lerp": "gated", "streams": "streams",
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
    names = ["linear", "bare", "norm", *ACTIVATIONS, *(["side", "table", "told"] if inner else [])]
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


def _no_skip() -> st.SearchStrategy[Towers | Collected]:
    towers = st.builds(Towers, st.integers(0, 2), st.sampled_from(ACTIVATIONS))
    return towers | st.builds(Collected, st.integers(2, 4), st.sampled_from(["mean", "sum", "cat"]))


@st.composite
def _block(draw: st.DrawFn, nesting: int, far: bool) -> Block:
    join = draw(st.sampled_from(JOINS))
    branch: tuple[Element, ...]
    if draw(st.integers(0, 7)) == 0:
        skip, branch = draw(st.sampled_from(PLAIN_SKIPS)), (Op("norm"), *draw(st.sampled_from([(), (Op("tanh"),)])))  # no weighted layer, but a parameter
    else:
        special = draw(st.integers(0, 2)) == 0  # a third: they are few beside the spellings of the others
        skip = ("split" if special else draw(st.sampled_from(CONCAT_SKIPS))) if join == "concat" else draw(st.sampled_from(WHOLE if special else SKIPS))
        join = "skip + branch" if skip in WHOLE else join
        branch = draw(_chain(least=1 if skip == "streams" else SKIP_WEIGHT.get(skip, 0) + 1))
        if skip == "split":
            branch = tuple(op for op in branch if op.name not in ("side", "norm"))  # half as wide: a norm of two features is a sign
        elif nesting and draw(st.booleans()):
            inner = (draw(_no_skip() | _block(nesting - 1, far=False)), *draw(st.sampled_from([(), (Op("relu"),), (Op("norm"),)])))
            at = draw(st.integers(0, len(branch)))
            branch = (*branch[:at], *inner, *branch[at:])
    lone = join == "skip + branch" and skip not in (*SKIP_WEIGHT, "lerp") and weight_of(branch) > 0  # else the lighter of two branches would be a skip itself
    beside = draw(_chain(least=1)) if lone and draw(st.integers(0, 3)) == 0 else ()
    far = far and not beside and skip not in WHOLE and join in ("skip + branch", "branch + skip") and draw(st.booleans())
    return Block(skip=skip, branch=_mended(branch, last=FRESH if join == "in place" else None), join=join, beside=_mended(beside), far=far)


def _mended(elements: tuple[Element, ...], last: tuple[str, ...] | None = None) -> tuple[Element, ...]:
    """A sum straight into another is one join of many operands: keep an operator between them."""
    found: list[Element] = []
    for element in elements:
        if element in (Op("side"), Op("told")) and (not found or _ends_in_sum(found[-1])):
            found.append(Op("gelu"))
        found.append(element)
    if found and (_ends_in_sum(found[-1]) or (last is not None and not (isinstance(found[-1], Op) and found[-1].name in last))):
        found.append(Op("gelu"))
    return tuple(found)


def _ends_in_sum(element: Element) -> bool:
    if isinstance(element, Op):
        return element.name in ("side", "table", "told")
    return isinstance(element, Towers) or (element.how != "cat" if isinstance(element, Collected) else element.form == "add")


def _stands_on_a_stream(elements: list[Element]) -> bool:
    """Whether a sum before has a skip without weighted layers: else a value from the start is what a block has for a skip, and the near one is its branch's."""
    return any(isinstance(e, Block) and e.form == "add" and e.skip not in SKIP_WEIGHT for e in elements)


@st.composite
def random_networks(draw: st.DrawFn, max_blocks: int = 3) -> Plan:
    """Sequences of blocks, nested ones, parallel towers, loops whose outputs are collected, and trunk operators."""
    stem = draw(st.booleans())
    elements: list[Element] = []
    for _ in range(draw(st.integers(1, max_blocks))):
        if draw(st.integers(0, 4)) == 0:
            elements.append(draw(_no_skip()))
        trunk = draw(st.sampled_from([None, "linear", "norm", "relu"]))
        if trunk:
            elements.append(Op(trunk))
        elements.append(draw(_block(nesting=1, far=_stands_on_a_stream(elements) and weight_of(tuple(elements)) > 0)))
    trunk = draw(st.sampled_from([None, "relu", "norm"]))
    tail = (Op(trunk),) if trunk else ()
    return Plan((*elements, *tail), width=draw(st.sampled_from([4, 6])), batch=draw(st.integers(2, 3)), seed=draw(st.integers(0, 2**16)), stem=stem)
