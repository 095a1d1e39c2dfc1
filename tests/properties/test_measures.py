"""Random residual networks: what gradflow reads is what autograd says."""

import json
import math

import pytest
import torch
from hypothesis import given

from gradflow.profiling import profile
from gradflow.records import Report, Skip
from gradflow.tape import value_of

from .networks import Network, Plan, loss, random_networks
from .oracles import Gradients, dot, gradients, norm, run, see


@given(random_networks())
def test_ledger(plan: Plan) -> None:
    """The total gradient at a fork is the skip's, the branch's and the other consumers' together, on every skip."""
    for skip in see(plan).report.skips:
        assert skip.ledger_error is not None and skip.ledger_error < 1e-12, skip.id


@given(random_networks())
def test_forks_split_into_clones(plan: Plan) -> None:
    """s, f, g and t are the gradients that autograd computes at clones of the fork."""
    seen = see(plan)
    blocks = {m.name: m.plan for m in seen.network.modules() if type(m).__name__ == "_Block"}
    for name, truth in gradients(seen.network).items():
        _agree(seen.rows[name], truth, blocks[name].skip)


def _agree(row: Skip, truth: Gradients, planned: str) -> None:
    g, s, f, t = norm(truth.g), norm(truth.s), norm(truth.f), norm(truth.t)
    if g == 0:  # every later ReLU is closed
        assert row.gain is None and "exactly 0" in row.undefined["gain"]
        return
    assert row.gain == pytest.approx(s / g, rel=1e-10)
    assert row.total_gain == pytest.approx(t / g, rel=1e-10)
    if planned == "split":  # one edge leaves the fork for both
        assert row.branch_gain is None and row.cos_skip_branch is None and "split" in row.undefined["branch_gain"]
    else:
        assert row.branch_gain == pytest.approx(f / g, rel=1e-10)
        assert row.cos_skip_branch == (pytest.approx(dot(truth.s, truth.f) / (s * f), abs=1e-10) if s * f > 0 else None)
    if row.form == "concat":
        assert row.lam is None and row.misfit is None and row.lam_full is None
        return
    lam = dot(truth.s, truth.g) / g**2
    assert row.lam == pytest.approx(lam, rel=1e-10, abs=1e-12)
    if row.lam_full is None:
        assert planned in ("interpolation", "lerp") and "interpolation" in row.undefined["lam_full"]
    else:
        assert row.lam_full == pytest.approx(dot(truth.full, truth.g) / g**2, rel=1e-10, abs=1e-12)
    assert row.misfit == pytest.approx(norm(truth.s - lam * truth.g) / s, abs=1e-10)
    weights = truth.g.flatten(1).pow(2).sum(1)
    assert row.n_eff == pytest.approx(float(weights.sum() ** 2 / (weights**2).sum()), rel=1e-10)


@given(random_networks())
def test_bounds(plan: Plan) -> None:
    """‖t‖ lies within the triangle that s, f and the other consumers span, and `bound_holds` says whether ‖t‖ ≥ ‖s‖."""
    seen = see(plan)
    for name, truth in gradients(seen.network).items():
        row = seen.rows[name]
        if norm(truth.g) == 0:
            continue
        s, t, others = row.gain, row.total_gain, norm(truth.t - truth.s - truth.f) / norm(truth.g)
        f = norm(truth.f) / norm(truth.g) if row.branch_gain is None else row.branch_gain
        assert s is not None and t is not None
        assert abs(s - f) - others - 1e-12 <= t <= s + f + others + 1e-12
        if abs(t - s) > 1e-9:
            assert row.bound_holds is (t > s)


@given(random_networks())
def test_scalar_skips(plan: Plan) -> None:
    """A skip that multiplies by one number has that number as λ, no misfit, and an interval of no width."""
    seen = see(plan)
    factors = {"identity": 1.0, "views": 1.0, "permuted": 1.0, "constant": 0.7, "quotient": 1 / 1.6}
    signs = {"from branch": -1.0, "alpha on skip": 0.5}
    blocks = {m.name: m.plan for m in seen.network.modules() if type(m).__name__ == "_Block"}
    for name, planted in plan.planted.items():
        block, row = blocks[planted.block], seen.rows[name]
        if name.endswith(".far"):
            expected = 0.5
        elif block.form == "concat" or block.skip not in factors:
            continue
        else:
            expected = factors[block.skip] * signs.get(block.join, 1.0)
        if row.total_gain is None:
            assert "exactly 0" in row.undefined["lam"]
            continue
        assert row.lam == pytest.approx(expected, rel=1e-13)
        assert row.misfit == pytest.approx(0, abs=1e-13)
        assert row.lam_low == pytest.approx(expected, rel=1e-13) and row.lam_high == pytest.approx(expected, rel=1e-13)


@given(random_networks())
def test_branches_detached(plan: Plan) -> None:
    """The highway's gradient at each fork is that of the same network with its branches detached and its gates frozen."""
    seen = see(plan)
    names = {id(path): name for name, path in seen.paths.items()}
    whole = gradients(seen.network)
    cut, _ = run(seen.network, "cut")
    ids = {row.id: name for name, row in seen.rows.items()}
    highways = {tuple(ids[i] for i in h.skips): h for h in seen.report.highways}
    near = sorted(name for name, p in plan.planted.items() if p.form == "add" and not name.endswith(".far"))
    assert sorted(name for chain in highways for name in chain) == near, "each additive skip lies on one highway, but for second operands"
    for path in seen.observation.highways:
        chain = [names[id(s)] for s in path.skips]
        top, highway = whole[chain[0]].g, highways[tuple(reversed(chain))]
        if norm(top) == 0:
            assert highway.gain is None and "exactly 0" in highway.undefined["gain"]
            continue
        arriving = torch.autograd.grad(cut.joins[chain[0]], [cut.forks[n] for n in chain], top, retain_graph=True)
        gains = [norm(h) / norm(top) for h in arriving]
        assert highway.fork_gains == pytest.approx(gains[::-1], rel=1e-12)
        assert highway.gain == pytest.approx(gains[-1], rel=1e-12)
        assert highway.total_gain == pytest.approx(norm(whole[chain[-1]].t) / norm(top), rel=1e-12)
        for name, gain, h in zip(chain, gains, arriving, strict=True):
            assert seen.rows[name].highway_gain == pytest.approx(gain, rel=1e-12)
            t = whole[name].t
            assert seen.rows[name].highway_share == (pytest.approx(dot(h, t) / norm(t) ** 2, rel=1e-10, abs=1e-12) if norm(t) > 0 else None)
        lams = [seen.rows[name].lam for name in chain]
        product = None if None in lams else pytest.approx(math.prod(x for x in lams if x is not None), rel=1e-12)
        assert highway.product_of_lambdas == product


def _reject(constant: str) -> None:
    raise ValueError(constant)


@given(random_networks())
def test_report_as_json(plan: Plan) -> None:
    """A report is strict JSON and reads back as itself."""
    network = Network(plan)
    report = profile(network, network.inputs(), loss=loss)
    text = report.to_json()
    json.loads(text, parse_constant=_reject)
    again = Report.from_json(text)
    assert again == report
    assert again.to_json() == text


def _hooked_gradients(network: Network) -> dict[str, list[torch.Tensor]]:
    seen: dict[str, list[torch.Tensor]] = {name: [] for name, _ in network.named_parameters()}
    for name, parameter in network.named_parameters():
        parameter.register_hook(lambda grad, name=name: seen[name].append(grad.clone()))
    return seen


@given(random_networks())
def test_gradients_with_gradflow_attached(plan: Plan) -> None:
    """Loss and gradients are bit for bit those of a plain run, and the model is left as it was."""
    plain, watched = Network(plan), Network(plan)
    expected, found = _hooked_gradients(plain), _hooked_gradients(watched)
    value = loss(plain(*plain.inputs()))
    value.backward()
    report = profile(watched, watched.inputs(), loss=loss)
    assert report.run.loss.value == value.item()
    for name, parameter in watched.named_parameters():
        assert len(found[name]) == len(expected[name]) == 1
        assert torch.equal(found[name][0], expected[name][0]), name
        assert parameter.grad is None and value_of(parameter) is not None
    for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(one, other)
