"""One skip and one fork: what is computed when a gradient passes a join, an edge and a fork. Tensors are held no longer than from the join to the fork."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx

from gradflow.gauges.channels import channel_dimension, channel_sums
from gradflow.gauges.probes import ProbeGauge, Probing
from gradflow.gauges.streams import StreamGauge
from gradflow.highway import Layout, Replay
from gradflow.operators import Role
from gradflow.reduce import inner, products
from gradflow.residual import SkipPath
from gradflow.residual.paths import NodeEdge
from gradflow.tape import Tape


class SkipGauge:
    """One skip: opened by g at its join, closed by t at its fork."""

    def __init__(self, tape: Tape, skip: SkipPath, samples: int, probing: Probing) -> None:
        self.skip = skip
        self._replay = Replay(tape, skip.stretch) if skip.path else None
        self.layout = Layout(tape, skip)
        self._full = Replay(tape, skip.full) if skip.full is not None else None
        join, fork = skip.join.meta["shape"], skip.fork.meta["shape"]
        if skip.join.meta.get("through_view") and math.prod(join) == math.prod(fork):
            join = fork  # the sum was written through a view that folds the batch
        self.samples = samples if samples > 1 and join[:1] == fork[:1] == (samples,) else 1
        self._plain = all(role is Role.LAYOUT for role in skip.roles)  # s will be g itself: one sum serves for both, and its last digits cancel
        self._sums: dict[str, Tensor] = {}
        self._reference: Tensor | None = None
        self._replayed: Tensor | None = None
        self.channels = channel_dimension(skip, self.samples)
        self.probe = ProbeGauge(self._replay, self.layout, self.samples, probing) if self._replay is not None and probing.probes else None
        self.streams = StreamGauge(tape, skip, probing) if skip.kind == "streams" else None
        self.on_open: Callable[[Tensor], None] | None = None
        self.on_close: Callable[[Tensor], None] | None = None
        self.highway: Tensor | None = None
        self.starts_highway = False

    def open(self, g: Tensor) -> None:
        """g: the whole gradient at the join, [shape of the join]."""
        self._sums["gg"] = inner(g, g, self.samples, exact=not self._plain)
        self._reference = self.layout.of(g)
        if self._reference is not None:
            self._sums["rr"] = self._sums["gg"] if self._reference is g else inner(self._reference, self._reference, self.samples)
        if self.skip.shared and self._replay is not None:
            self._replayed = self._replay.push(g)
        if self._full is not None and self._reference is not None:
            full = self._full.push(g)
            if full is not None:
                self._sums["full"] = inner(full, self._reference, self.samples)
        for watcher in (self.probe, self.streams):
            if watcher is not None:
                watcher.open(g)
        if self.on_open is not None:
            self.on_open(g)

    def close(self, t: Tensor, edges: dict[NodeEdge, Tensor], cotangent: Tensor | None) -> None:
        """t: the total gradient at the fork; edges: what each consumer sent to it; cotangent: what starts there, if it is an output as well.
        All [shape of the fork]."""
        if "gg" not in self._sums:
            return
        s = self._replayed if self.skip.shared else edges.get(self.skip.path[-1]) if self.skip.path else None
        f = _together([edges[e] for e in self.skip.branch_edges if e in edges])
        if self.highway is None and self.starts_highway:
            self.highway = s
        parts = [*edges.values(), *([] if cotangent is None else [cotangent])]
        self._multiply(s, f, t, parts)
        self._compare(s)
        if self.on_close is not None:
            self.on_close(t)
        self._reference = self._replayed = self.highway = None

    def _multiply(self, s: Tensor | None, f: Tensor | None, t: Tensor, parts: list[Tensor]) -> None:
        """The norms of s, f, t, h and the products that the report needs, and the ledger, in one pass over them."""
        h, zero = self.highway, torch.zeros(1, dtype=torch.float64, device=t.device)
        wanted = {"ss": (s, s), "ff": (f, f), "tt": (t, t), "sf": (s, f)}
        if h is not None:
            wanted["ht"] = (h, t)
        known: dict[str, Tensor] = {}
        if s is not None and self._reference is not None and _same(s, self._reference):
            known["ss"] = self._sums["rr"]  # one tensor, one sum: the gain of an identity is 1 to the last digit
        elif s is not None and self.samples > 1:
            known["ss"] = inner(s, s, self.samples)
        if h is not None:
            known["hh"] = inner(h, h, 1, exact=False)  # as ‖g‖ at the top: identities carry 1 to the last digit
        pairs = {name: (a, b) for name, (a, b) in wanted.items() if a is not None and b is not None and name not in known}
        found = products(list(pairs.values()), t, parts)
        self._sums |= dict.fromkeys(wanted, zero) | {"ss": zero.expand(self.samples)} | known | {name: found[i : i + 1] for i, name in enumerate(pairs)}
        self._sums["ledger"] = found[-1:]

    def _compare(self, s: Tensor | None) -> None:
        """⟨s,r⟩ and what λ̂r leaves of s."""
        r = self._reference
        if r is None:
            return
        rr = self._sums["rr"]
        if s is None:
            self._sums["sr"] = torch.zeros_like(rr)
        elif _same(s, r):
            self._sums["sr"] = rr
        else:
            self._sums["sr"] = inner(s, r, self.samples)
            lam = self._sums["sr"].sum() / rr.sum()
            wide = torch.promote_types(s.dtype, torch.float32)
            rest = s.to(wide) - (r * lam).to(wide)
            self._sums["rest"] = inner(rest, rest, 1)
        if s is not None and self.channels is not None:
            self._sums["channels"] = channel_sums(s, r, self.channels)

    def sums(self) -> dict[str, Tensor]:
        """Everything measured, by `SkipSums`' field names; empty when no gradient came, none left, or the path could not be replayed."""
        if "ss" not in self._sums or (self._replay is not None and self._replay.failure):
            return {}
        return self._sums | {name: t for watcher in (self.probe, self.streams) if watcher is not None for name, t in watcher.sums().items()}

    @property
    def failures(self) -> list[str]:
        """What could not be replayed."""
        return [replay.failure for replay in (self._replay, self._full) if replay is not None and replay.failure]


class ForkGauge:
    """One fork and all the skips that start at it: gathers what each consumer sends back, and closes the ledger when the total arrives."""

    def __init__(self, gauges: Sequence[SkipGauge], cotangent: Tensor | None) -> None:
        self._gauges = gauges
        self._edges: dict[NodeEdge, Tensor] = {}
        self._cotangent = cotangent

    def edge(self, consumer: fx.Node, position: int) -> Callable[[Tensor], None]:
        """A listener for one edge into the fork."""

        def arrive(grad: Tensor) -> None:
            self._edges[consumer, position] = grad

        return arrive

    def close(self, t: Tensor) -> None:
        for gauge in self._gauges:
            gauge.close(t, self._edges, self._cotangent)
        self._edges.clear()


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are one and the same memory."""
    if a is b or type(a) is not type(b) or type(a) is not Tensor or a.layout is not torch.strided:
        return a is b  # wrappers and sparse tensors do not tell where their numbers lie
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride() and a.dtype == b.dtype


def _together(grads: Sequence[Tensor]) -> Tensor | None:
    """Their sum, at float32 at least where there are several."""
    if len(grads) < 2:
        return grads[0] if grads else None
    result = grads[0].to(torch.promote_types(grads[0].dtype, torch.float32))
    for grad in grads[1:]:
        result = result + grad
    return result
