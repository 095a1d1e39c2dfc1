"""What plain autograd says about a `Network`: the second opinion for everything that gradflow reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradflow.observe import Observation, Settings, observe
from gradflow.profiling import profile
from gradflow.records import Report, Skip
from gradflow.residual import SkipPath
from gradflow.subject import choose_loss, given_batch
from gradflow.tape import Value, value_of

from .networks import Network, Plan, Trace, loss


@dataclass(frozen=True)
class Seen:
    """One network through gradflow: its report, and its observation with the skips by planted name (or by fork and join where nothing was planted)."""

    network: Network
    report: Report
    observation: Observation
    paths: dict[str, SkipPath]
    rows: dict[str, Skip]


def see(plan: Plan, names: str = "", *, branch_first: bool = False) -> Seen:
    """Profile the plan's network, and tell which planted skip each found skip is."""
    network = Network(plan, names)
    network.trace.branch_first = branch_first
    inputs = network.inputs()
    report = profile(network, inputs, loss=loss)
    spy = _Spy(network)
    observation = observe(network, given_batch(inputs), choose_loss(loss=spy, targets=None, model=network, seed=0), Settings())
    named = {(spy.forks[name], spy.joins[name]): name for name in spy.joins}
    named |= {(spy.first, spy.joins[p.block]): name for name, p in plan.planted.items() if name.endswith(".far")}
    paths = {_name(s, observation, named): s for s in observation.skips}
    assert len(paths) == len(observation.skips), "two skips have one fork and one join"
    rows = {(s.fork, s.join): s for s in report.skips}
    assert len(rows) == len(report.skips)
    return Seen(network, report, observation, paths, {name: rows[p.fork.name, p.join.name] for name, p in paths.items()})


def _name(skip: SkipPath, observation: Observation, named: dict[tuple[Value | None, Value | None], str]) -> str:
    fork, join = observation.tape.values[skip.fork], observation.tape.values[skip.join]
    return named.get((fork, join), f"unplanted: {skip.kind} from {skip.fork.name} to {skip.join.name}")


def _sum_behind(y: Tensor) -> Value | None:
    """The tape's value of a sum; where it was written into a view, that of the memory behind the view."""
    value = value_of(y)
    behind = value[0].next_functions[0] if value is not None and value[0].next_functions else (None, 0)
    return behind if behind[0] is not None and behind[0].name().endswith("CopySlices") else value


class _Spy:
    """The loss, noting the tape's values behind the network's trace (gradflow puts the network's attributes back afterwards)."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def __call__(self, output: Tensor) -> Tensor:
        trace = self._network.trace
        self.first = value_of(trace.first)
        self.forks = {name: value_of(t) for name, t in trace.forks.items()}
        self.joins = {name: _sum_behind(t) for name, t in trace.joins.items()}
        return loss(output)


@dataclass(frozen=True)
class Gradients:
    """g, s, f, t of one skip, and the full Jacobian's s where a gate is differentiated as well."""

    g: Tensor
    s: Tensor
    f: Tensor
    t: Tensor
    full: Tensor


def run(network: Network, mode: str) -> tuple[Trace, Tensor]:
    """A plain forward with inputs that require a gradient, as gradflow runs it."""
    network.trace = Trace(mode=mode, branch_first=network.trace.branch_first)  # type: ignore[arg-type]
    value = loss(network(*(t.requires_grad_().clone() for t in network.inputs())))
    trace, network.trace = network.trace, Trace(branch_first=network.trace.branch_first)
    return trace, value


def gradients(network: Network) -> dict[str, Gradients]:
    """By autograd: t and g from the network as it is, s and f from the clones that each fork is split into."""
    names = [name for name in network.plan.planted if not name.endswith(".far")]
    whole, value = run(network, "plain")
    ends = torch.autograd.grad(value, [*(whole.joins[n] for n in names), *(whole.forks[n] for n in names)], retain_graph=True)
    split, value = run(network, "split")
    parts = torch.autograd.grad(value, [*(split.skips[n] for n in names), *(split.branches[n] for n in names)])
    found = {}
    for i, name in enumerate(names):
        g, t, s, f = ends[i], ends[i + len(names)], parts[i], parts[i + len(names)]
        found[name] = Gradients(g, s, f, t, s if network.plan.planted[name].form == "concat" else _full(network, whole, name, g))
    return found


def _full(network: Network, trace: Trace, name: str, g: Tensor) -> Tensor:
    """What the skip's operand alone sends back to the fork, its gate differentiated as well."""
    end, fork, share = trace.skip_ends[name], trace.forks[name], _share(network, name, g)
    return share if end is fork else torch.autograd.grad(end, fork, share, retain_graph=True)[0]


def _share(network: Network, name: str, g: Tensor) -> Tensor:
    """What the join sends to the skip's operand."""
    join = {e.name: e for e in _blocks(network)}[name].plan.join
    return {"from branch": -g, "alpha on skip": 0.5 * g}.get(join, g)


def _blocks(network: Network) -> list:
    return [m for m in network.modules() if type(m).__name__ == "_Block"]


def norm(*tensors: Tensor) -> float:
    return float(torch.cat([t.reshape(-1) for t in tensors]).norm())


def dot(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum())
