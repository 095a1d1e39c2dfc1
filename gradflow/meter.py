"""Hooks on the tape's own nodes, as a context manager around one backward pass; they only read.

A pre-hook of a node sees the gradient of its outputs, a post-hook what it sends along each edge, so that each consumer's share of a fork is read and never
guessed. Sums stay on the device as tensors and cross to the host once, in `Meter.read`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from gradflow.gauges import ForkGauge, HighwayGauge, Probing, SampleGauge, SkipGauge
from gradflow.reduce import census, live, squares
from gradflow.residual import HighwayPath, SkipPath
from gradflow.sums import ChannelSums, Floats, GradientSums, HighwaySums, ProbeSums, SampleSums, SkipSums, SpectrumSums, StreamSums
from gradflow.tape import Tape, Value, consumers

Listener = Callable[[Tensor], None]


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What one backward pass showed.

    Attributes:
        values: sums over the gradient of each watched value of the tape; a value that no gradient reached is missing.
        parameters: sums over each parameter's gradient (without zeros and underflow), by name; likewise.
        live: for each weight whose units are counted 1 for each unit whose gradient is not all 0, else 0; [units].
        samples: what each sample carries at the model's output and at the first weighted layer.
        skips: sums of each skip, None where no gradient reached its join.
        highways: sums of each highway, None where no gradient reached its last join.
        failures: operators that could not be replayed, and why.
    """

    values: Mapping[Value, GradientSums]
    parameters: Mapping[str, GradientSums]
    live: Mapping[str, Floats]
    samples: Sequence[SampleSums]
    skips: Sequence[SkipSums | None]
    highways: Sequence[HighwaySums | None]
    failures: Sequence[str]


@dataclass(kw_only=True)
class _Station:
    """What is to be done when a gradient arrives at one node: reads first, then forks close, then joins open."""

    reads: dict[int, list[Listener]] = field(default_factory=dict)
    closes: dict[int, list[Listener]] = field(default_factory=dict)
    opens: dict[int, list[Listener]] = field(default_factory=dict)

    def arrive(self, grads: tuple[Tensor | None, ...]) -> None:
        for listeners in (self.reads, self.closes, self.opens):
            for nr, actions in listeners.items():
                grad = grads[nr]
                if grad is not None:
                    for action in actions:
                        action(grad)


class Meter:
    """Reads one backward pass over `tape`; whatever it hooks it also unhooks.

    Args:
        watched: values whose gradients are counted (the layers' outputs and the model's).
        parameters: name of each trainable parameter on the tape or inside a custom function.
        kept: names of those whose gradient may be accumulated more than once, so that it cannot be freed when it is first read.
        samples: the batch size, for sums per sample; 1 where it is not known.
        units: name of each parameter whose units are counted, and the dimension that counts them.
        spread: gauges of what each sample carries.
        probing: what is measured beyond the loss gradient.
    """

    def __init__(
        self,
        tape: Tape,
        *,
        skips: Sequence[SkipPath],
        highways: Sequence[HighwayPath],
        watched: Iterable[Value],
        parameters: Mapping[Tensor, str],
        kept: frozenset[str] = frozenset(),
        cotangents: Mapping[Value, Tensor],
        samples: int,
        probing: Probing,
        units: Mapping[str, int],
        spread: Sequence[SampleGauge],
    ) -> None:
        self._tape = tape
        self._parameters = parameters
        self._kept = kept
        self._units = units
        self._spread = spread
        self._stations: dict[Any, _Station] = {}
        self._posts: dict[Any, list[tuple[int, Listener]]] = {}
        self._handles: list[Any] = []
        self._counted: dict[Value, Tensor] = {}
        self._weights: dict[str, Tensor] = {}
        self._live: dict[str, Tensor] = {}
        self._memo: dict[int, tuple[weakref.ref[Tensor], int, Tensor]] = {}
        for value in watched:
            self._station(value).reads.setdefault(value[1], []).append(lambda grad, value=value: self._count(value, grad))  # type: ignore[misc]
        for sharing in spread:
            for place in sharing.places:
                self._station(place.value).reads.setdefault(place.value[1], []).append(partial(sharing.read, place))
        self._gauges = [SkipGauge(tape, skip, samples, probing) for skip in skips]
        gauge_of = {id(gauge.skip): gauge for gauge in self._gauges}
        self._highway_paths = highways
        self._highways = [HighwayGauge(tape, h, [gauge_of[id(s)] for s in h.skips], probing) for h in highways]
        self._place_joins()
        self._place_forks(cotangents)

    def _station(self, value: Value) -> _Station:
        return self._stations.setdefault(value[0], _Station())

    def _place_joins(self) -> None:
        for gauge in self._gauges:
            value = self._tape.values[gauge.skip.join]
            self._station(value).opens.setdefault(value[1], []).append(gauge.open)

    def _place_forks(self, cotangents: Mapping[Value, Tensor]) -> None:
        into = consumers(self._tape)
        at: dict[fx.Node, list[SkipGauge]] = {}
        for gauge in self._gauges:
            at.setdefault(gauge.skip.fork, []).append(gauge)
        for fork, gauges in at.items():
            value = self._tape.values[fork]
            fork_gauge = ForkGauge(gauges, cotangents.get(value))
            for consumer, position in into[fork]:
                if consumer in self._tape.operators:
                    listener = fork_gauge.edge(consumer, position)
                    self._posts.setdefault(self._tape.operators[consumer], []).append((position, listener))
            self._station(value).closes.setdefault(value[1], []).append(fork_gauge.close)

    def __enter__(self) -> Meter:
        for node, station in self._stations.items():
            self._handles.append(node.register_prehook(station.arrive))
        for node, listeners in self._posts.items():
            self._handles.append(node.register_hook(_post_hook(listeners)))
        for parameter, name in self._parameters.items():
            self._handles.append(parameter.register_post_accumulate_grad_hook(self._weigh(name)))  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exc_info: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._stations.clear()
        self._posts.clear()
        for gauge in self._gauges:
            gauge.on_open = gauge.on_close = None  # the highway that listens holds the gauge: a tie that only a collection would undo

    def _count(self, value: Value, grad: Tensor) -> None:
        known = self._memo.get(id(grad))
        if known is not None and known[0]() is grad and known[1] == grad._version:
            self._counted[value] = known[2]
            return
        self._counted[value] = census(grad)
        self._memo[id(grad)] = (weakref.ref(grad), grad._version, self._counted[value])  # a sum hands the same tensor to several nodes

    def _weigh(self, name: str) -> Callable[[Tensor], None]:
        def weigh(parameter: Tensor) -> None:
            if parameter.grad is not None:
                self._weights[name] = squares(parameter.grad)
                if name in self._units and parameter.grad.layout is torch.strided:
                    self._live[name] = live(parameter.grad, self._units[name])
                if name not in self._kept:
                    parameter.grad = None  # read, and freed at once

        return weigh

    def read(self) -> Readings:
        """Everything, brought to the host in one transfer."""
        host = _Host()
        values = {value: host.add(t) for value, t in self._counted.items()}
        weights = {name: host.add(t) for name, t in self._weights.items()}
        alive = {name: host.add(t) for name, t in self._live.items()}
        spread = [None if gauge.weights is None else host.add(gauge.weights) for gauge in self._spread]
        skips = [{k: host.add(t) for k, t in gauge.sums().items()} for gauge in self._gauges]
        highways = [{k: host.add(t) for k, t in h.sums().items()} for h in self._highways]
        host.fetch()
        return Readings(
            values={value: _gradient_sums(host.get(i)) for value, i in values.items()},
            parameters={name: _parameter_sums(host.get(i)) for name, i in weights.items()},
            live={name: host.get(i) for name, i in alive.items()},
            samples=[gauge.sums(None if i is None else host.get(i)) for gauge, i in zip(self._spread, spread, strict=True)],
            skips=[_skip_sums(host.all(sums), g) if sums else None for sums, g in zip(skips, self._gauges, strict=True)],
            highways=[_highway_sums(host.all(sums), len(h.skips)) if sums else None for sums, h in zip(highways, self._highway_paths, strict=True)],
            failures=tuple(dict.fromkeys(f for failures in [g.failures for g in self._gauges] + [h.failures for h in self._highways] for f in failures)),
        )


def weigh(parameters: Mapping[str, Tensor]) -> dict[str, GradientSums]:
    """Sums over the parameters themselves, by name; one transfer to the host."""
    host = _Host()
    with torch.no_grad():
        places = {name: host.add(squares(p)) for name, p in parameters.items()}
    host.fetch()
    return {name: _parameter_sums(host.get(i)) for name, i in places.items()}


def _post_hook(listeners: list[tuple[int, Listener]]) -> Callable[[tuple[Tensor | None, ...], object], None]:
    def read_edges(grad_inputs: tuple[Tensor | None, ...], grad_outputs: object) -> None:
        for position, listener in listeners:
            grad = grad_inputs[position]
            if grad is not None:
                listener(grad)

    return read_edges


class _Host:
    """Device tensors on their way to the host in one piece."""

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []
        self._shapes: list[tuple[int, ...]] = []
        self._arrays: list[Floats] = []

    def add(self, tensor: Tensor) -> int:
        self._tensors.append(tensor.reshape(-1))
        self._shapes.append(tuple(tensor.shape))
        return len(self._tensors) - 1

    def fetch(self) -> None:
        if not self._tensors:
            return
        device = next((t.device for t in self._tensors if t.device.type != "cpu"), torch.device("cpu"))
        together = torch.cat([t.to(device) for t in self._tensors]).cpu().numpy().astype(np.float64)
        self._arrays = np.split(together, np.cumsum([t.numel() for t in self._tensors])[:-1])

    def get(self, i: int) -> Floats:
        return self._arrays[i].reshape(self._shapes[i])

    def all(self, places: Mapping[str, int]) -> dict[str, Floats]:
        return {name: self.get(i) for name, i in places.items()}


def _gradient_sums(five: Floats) -> GradientSums:
    count, squares, zeros, nonfinite, underflow = five
    return GradientSums(count=int(count), squares=float(squares), zeros=int(zeros), nonfinite=int(nonfinite), underflow=int(underflow))


def _parameter_sums(three: Floats) -> GradientSums:
    count, total, nonfinite = three
    return GradientSums(count=int(count), squares=float(total), nonfinite=int(nonfinite))


def _skip_sums(sums: dict[str, Floats], gauge: SkipGauge) -> SkipSums:
    channels, dimension = sums.get("channels"), gauge.channels
    return SkipSums(
        **{name: sums[name] for name in ("gg", "ss", "ff", "tt", "sf", "ledger")},
        rr=sums.get("rr"),
        sr=sums.get("sr"),
        full=sums.get("full"),
        hh=sums.get("hh"),
        ht=sums.get("ht"),
        rest=float(sums["rest"].sum()) if "rest" in sums else 0.0,
        channels=None if channels is None or dimension is None else ChannelSums(dimension=dimension, sr=channels[0], rr=channels[1]),
        probe=_probe_sums(sums),
        streams=_stream_sums(sums, "streams"),
        probed_streams=_stream_sums(sums, "probed"),
    )


def _probe_sums(sums: dict[str, Floats]) -> ProbeSums | None:
    if "probe_squares" not in sums:
        return None
    return ProbeSums(elements=sums["probe_elements"], along=sums.get("probe_along"), squares=sums["probe_squares"])


def _stream_sums(sums: dict[str, Floats], prefix: str) -> StreamSums | None:
    if f"{prefix}_gram" not in sums:
        return None
    return StreamSums(gram=sums[f"{prefix}_gram"], cross=sums[f"{prefix}_cross"], squares=float(sums[f"{prefix}_squares"].sum()))


def _highway_sums(sums: dict[str, Floats], stages: int) -> HighwaySums:
    def numbered(name: str) -> list[Floats]:
        return [sums[key] for k in range(stages) if (key := f"{name}.{k}") in sums]

    crossed = list(zip(numbered("cross"), numbered("squares"), strict=True))
    spectra = list(zip(numbered("pp"), numbered("pt"), numbered("rest"), strict=True))
    return HighwaySums(
        top=float(sums["top"].sum()),
        arriving=np.array([float(sums[f"arriving.{k}"].sum()) if f"arriving.{k}" in sums else 0.0 for k in range(stages)]),
        identity=float(sums["identity"].sum()) if "identity" in sums else None,
        streams=tuple(StreamSums(gram=sums["gram"], cross=c, squares=float(q.sum())) for c, q in crossed) if len(crossed) == stages else (),
        spectrum=tuple(SpectrumSums(pp=pp, pt=pt, ot=float(rest[0]), tt=float(rest[1])) for pp, pt, rest in spectra) if len(spectra) == stages else (),
    )
