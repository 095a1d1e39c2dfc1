"""Random residual networks: what was planted is found, and nothing else."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradflow.records import Skip

from .networks import Block, Collected, Element, Op, Plan, random_networks
from .oracles import Seen, see

_STRUCTURE = ("kind", "form", "bypassed_layers", "path_ops")
_NUMBERS = ("lam", "lam_full", "misfit", "gain", "branch_gain", "total_gain", "cos_skip_branch", "highway_gain", "highway_share", "n_eff")


def _facts(seen: Seen) -> dict[str, tuple[str, str, int]]:
    return {name: (row.kind, row.form, row.bypassed_layers) for name, row in seen.rows.items()}


def _planted(plan: Plan) -> dict[str, tuple[str, str, int]]:
    return {p.name: (p.kind, p.form, p.bypassed) for p in plan.planted.values()}


@settings(max_examples=120)
@given(random_networks())
def test_random_network(plan: Plan) -> None:
    """Every planted skip is found with its kind, form and number of bypassed layers, and no other is."""
    assert _facts(see(plan)) == _planted(plan)


@given(random_networks(), st.sampled_from(["forward_", "skip", "weird[red]&name", "0"]))
def test_modules_with_other_names(plan: Plan, name: str) -> None:
    """Renaming the modules changes no skip and no number, not even in the last bit."""
    one, other = see(plan), see(plan, name)
    assert one.rows.keys() == other.rows.keys()
    for key, row in one.rows.items():
        for field in (*_STRUCTURE, *_NUMBERS):
            assert getattr(row, field) == getattr(other.rows[key], field), (key, field)


@given(random_networks())
def test_branch_computed_before_skip(plan: Plan) -> None:
    """The order in which independent operands are computed changes no skip, and numbers by rounding only."""
    one, other = see(plan), see(plan, branch_first=True)
    assert _facts(one) == _facts(other)
    for key, row in one.rows.items():
        _close(row, other.rows[key])


def _close(a: Skip, b: Skip) -> None:
    for field in _NUMBERS:
        left, right = getattr(a, field), getattr(b, field)
        assert (left is None) == (right is None), field
        assert left is None or left == pytest.approx(right, rel=1e-9, abs=1e-11), field


_PAIRS = [(s, j) for s, j in itertools.product(("identity", "constant", "vector", "projection", "highway", "norm", "permuted"), ("skip + branch", "in place"))]


@pytest.mark.parametrize(("skip", "join"), _PAIRS)
@pytest.mark.parametrize("last", ["linear", "bare", "norm", "gelu"])
def test_last_operator_of_the_branch(skip: str, join: str, last: str) -> None:
    """Whatever the branch ends with, a sum into it closes the skip, in place or not."""
    plan = Plan((Block(skip, (Op("linear"), Op("tanh"), Op("linear"), Op(last)), join),), width=4, batch=2, seed=0, stem=True)
    assert _facts(see(plan)) == _planted(plan)


_BRANCH = (Op("linear"), Op("tanh"), Op("linear"), Op("gelu"))
_SPECIAL: dict[str, tuple[Element, ...]] = {
    "streams": (Block("streams", _BRANCH, "skip + branch"), Block("streams", _BRANCH, "skip + branch")),
    "streams inside a branch": (Block("identity", (Op("linear"), Block("streams", _BRANCH, "skip + branch")), "skip + branch"),),
    "streams around a block": (Block("streams", (Op("linear"), Block("identity", _BRANCH, "skip + branch"), Op("relu")), "skip + branch"),),
    "split": (Block("split", _BRANCH, "concat"), Op("relu"), Block("split", _BRANCH, "concat")),
    "split inside a branch": (Block("identity", (Op("norm"), Block("split", _BRANCH, "concat")), "branch + skip"),),
    "interpolation": (Block("interpolation", _BRANCH, "skip + branch"), Block("interpolation", _BRANCH, "skip + branch")),
    "interpolation and a second branch": (Block("interpolation", _BRANCH, "skip + branch", beside=(Op("linear"),)),),
    "lerp": (Block("lerp", _BRANCH, "skip + branch"), Op("norm"), Block("lerp", _BRANCH, "skip + branch")),
    "one condition for all blocks": tuple(Block("identity", (Op("linear"), Op("told"), Op("silu"), Op("linear")), "skip + branch") for _ in range(3)),
    "a condition beside a gate": (Block("highway", (Op("linear"), Op("told"), Op("tanh")), "skip + branch"),) * 2,
    "mean of a loop's states": (Collected(4, "mean"), Block("identity", (Op("norm"), Collected(3, "mean"), Op("gelu")), "skip + branch")),
    "sum of a loop's states": (Collected(2, "sum"), Block("identity", (Op("linear"), Collected(3, "sum"), Op("gelu")), "skip + branch")),
    "states of a loop side by side": (Collected(4, "cat"), Block("identity", (Op("norm"), Collected(2, "cat")), "skip + branch")),
    "many states of a loop side by side": (Collected(12, "cat"),),
    "two states of a loop over a permuted value": (Block("permuted", (Op("linear"),), "skip + branch"), Collected(2, "mean")),
    "highway from a difference": (Block("identity", (Op("norm"),), "skip - branch"), Block("highway", (Op("linear"),), "branch + skip")),
}


@pytest.mark.parametrize("stem", [True, False], ids=["behind a stem", "from the input"])
@pytest.mark.parametrize("elements", _SPECIAL.values(), ids=_SPECIAL)
def test_special_form(elements: tuple[Element, ...], stem: bool) -> None:
    """Streams, splits, interpolations, conditions told to all tokens, and loops whose states are collected: what is planted is found, in either order of the
    operands and under other names."""
    plan = Plan(elements, width=4, batch=2, seed=0, stem=stem)
    seen = see(plan)
    assert _facts(seen) == _planted(plan)
    assert _facts(see(plan, branch_first=True)) == _planted(plan)
    renamed = see(plan, "weird[red]&name")
    assert {name: [getattr(row, field) for field in _NUMBERS] for name, row in renamed.rows.items()} == {
        name: [getattr(row, field) for field in _NUMBERS] for name, row in seen.rows.items()
    }
