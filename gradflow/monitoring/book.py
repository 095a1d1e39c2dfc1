"""Reports reduced to the entries of a history, as they come. Touches no tensor."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from gradflow.records import Entry, History, Layer, LayerTrack, Missed, Noted, Report, SkipTrack, Turn

Row = Sequence[float | None]


class Book:
    """The entries of a run. A layer, skip or highway has the place in a row that it got when it was first seen; `history` puts them in order of depth."""

    def __init__(self) -> None:
        self._first: Report | None = None
        self._layers: dict[str, LayerTrack] = {}
        self._called: set[str] = set()
        self._skips: dict[str, SkipTrack] = {}
        self._highways: dict[str, None] = {}
        self._entries: list[Entry] = []
        self._turns: list[Turn] = []
        self._missed: list[Missed] = []

    def add(self, step: int, report: Report, seconds: float) -> None:
        """Reduce a report and write it down."""
        self._first = self._first or replace(report, layers=(), skips=(), highways=(), findings=(), opaque=())
        self._place(report)
        self._highways |= {highway.name: None for highway in report.highways}
        loss = report.run.loss
        entry = Entry(
            step=step,
            loss=loss.value,
            verdict=report.verdict,
            severity=report.severity,
            gains=_row(self._layers, {layer.name: layer.gain for layer in report.layers}),
            update_ratios=_row(self._layers, {layer.name: update_ratio(layer) for layer in report.layers}),
            lams=_row(self._skips, {skip.id: skip.lam for skip in report.skips}),
            skip_gains=_row(self._skips, {skip.id: skip.gain for skip in report.skips}),
            highway_gains=_row(self._highways, {highway.name: highway.gain for highway in report.highways}),
            findings=tuple(Noted(rule=f.rule, severity=f.severity, where=f.where) for f in report.findings),
            seconds=seconds,
            undefined={} if loss.value is not None else {"loss": loss.undefined["value"]},
        )
        if report.verdict != (self._entries[-1].verdict if self._entries else "healthy"):
            worst = None if report.verdict == "healthy" else report.findings[0]
            self._turns.append(Turn(step=step, verdict=report.verdict, finding=worst))
        self._entries.append(entry)

    def _place(self, report: Report) -> None:
        """A layer that is not called at every step stands where it stood deepest among those that are: so it lies between its neighbours."""
        for layer in report.layers:
            known, called = self._layers.get(layer.name), layer.calls > 0
            if known is None or (called, layer.depth) > (layer.name in self._called, known.depth):
                self._layers[layer.name] = LayerTrack(name=layer.name, type=layer.type, depth=layer.depth, location=layer.location)
            if called:
                self._called.add(layer.name)
        for skip in report.skips:
            if skip.id not in self._skips or skip.join_depth > self._skips[skip.id].join_depth:
                track = SkipTrack(id=skip.id, kind=skip.kind, fork_depth=skip.fork_depth, join_depth=skip.join_depth, location=skip.location)
                self._skips[skip.id] = track

    def miss(self, step: int, reason: str) -> None:
        """Note a step whose profile failed."""
        self._missed.append(Missed(step=step, reason=reason))

    @property
    def is_empty(self) -> bool:
        """Whether no report was added yet."""
        return self._first is None

    def history(self) -> History:
        """All of it, aligned. There must be a report."""
        first = self._first
        assert first is not None
        layers, skips = list(self._layers.values()), list(self._skips.values())
        by_depth = sorted(range(len(layers)), key=lambda i: layers[i].depth)
        by_join = sorted(range(len(skips)), key=lambda i: (skips[i].join_depth, skips[i].fork_depth))
        highways = range(len(self._highways))
        return History(
            gradflow_version=first.gradflow_version,
            environment=first.environment,
            target=first.target,
            mode=first.run.mode,
            layers=tuple(layers[i] for i in by_depth),
            skips=tuple(skips[i] for i in by_join),
            highways=tuple(self._highways),
            entries=tuple(
                replace(
                    entry,
                    gains=_aligned(entry.gains, by_depth),
                    update_ratios=_aligned(entry.update_ratios, by_depth),
                    lams=_aligned(entry.lams, by_join),
                    skip_gains=_aligned(entry.skip_gains, by_join),
                    highway_gains=_aligned(entry.highway_gains, highways),
                )
                for entry in self._entries
            ),
            turns=tuple(self._turns),
            missed=tuple(self._missed),
        )


def update_ratio(layer: Layer) -> float | None:
    """‖∇W‖/‖W‖ over all measured parameters of a layer together; None where there is none, or all are zero."""
    measured = [(p.grad_norm, p.weight_norm) for p in layer.parameters if p.grad_norm is not None and p.weight_norm is not None]
    weight = math.hypot(*(w for _, w in measured))
    ratio = math.hypot(*(g for g, _ in measured)) / weight if weight else math.inf
    return ratio if math.isfinite(ratio) else None


def _row(places: Iterable[str], values: Mapping[str, float | None]) -> Row:
    return tuple(values.get(name) for name in places)


def _aligned(row: Row, order: Sequence[int]) -> Row:
    """`row` in that order; a place that came later has None."""
    return tuple(row[i] if i < len(row) else None for i in order)
