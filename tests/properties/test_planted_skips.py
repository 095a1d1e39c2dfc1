"""Random residual networks: what was planted is found, and nothing else."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradflow.records import Skip

from .networks import Block, Op, Plan, random_networks
from .oracles import Seen, see

_STRUCTURE = ("kind", "form", "bypassed_layers", "path_ops")
_NUMBERS = ("lam", "lam_full", "misfit", "gain", "branch_gain", "total_gain", "cos_skip_branch", "highway_gain", "highway_share", "n_eff")


def _facts(seen: Seen) -> dict[str, tuple[str, str, int]]:
    return {name: (row.kind, row.form, row.bypassed_layers) for name, row in seen.rows.items()}


def _planted(plan: Plan) -> dict[str, tuple[str, str, int]]:
    return {p.name: (p.kind, p.form, p.bypassed) for p in plan.planted.values()}


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
