"""One highway: the gradient of the same network with its branches cut, pushed from fork to fork as the backward pass comes by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from gradflow.gauges.probes import Probing
from gradflow.gauges.skip import SkipGauge
from gradflow.gauges.spectrum import SpectrumGauge
from gradflow.gauges.streams import StreamGauge, crossed, tapped
from gradflow.highway import Replay
from gradflow.reduce import inner
from gradflow.residual import HighwayPath
from gradflow.residual.segments import opens_behind_transition
from gradflow.tape import Tape


class HighwayGauge:
    """Opened by each stage's join and closed by its fork, the last join first; what it pushes waits at most from one of them to the next."""

    def __init__(self, tape: Tape, path: HighwayPath, gauges: Sequence[SkipGauge], probing: Probing) -> None:
        self._top: Tensor | None = None
        self._gauges = gauges
        mixing = [tapped(tape, skip, stage) if skip.kind == "streams" else None for skip, stage in zip(path.skips, path.stages, strict=True)]
        self._mixes = all(replay is not None for replay in mixing)
        self._stages = [replay or Replay(tape, stage) for replay, stage in zip(mixing, path.stages, strict=True)]
        self._trunks = [Replay(tape, trunk) for trunk in path.trunks]
        self._measured = opens_behind_transition(path)
        self._arrived: dict[int, Tensor] = {}
        self._counterfactual = _Counterfactual(path, gauges, self._stages, self._trunks)
        self._composite = _Composite() if self._mixes else None
        self._spectrum = SpectrumGauge(tape, path) if probing.spectrum else None
        self._arriving: Tensor | None = None
        for k, gauge in enumerate(gauges):
            gauge.on_open = self._opener(k)
            gauge.on_close = self._closer(k)
            gauge.starts_highway = k == 0 and path.stages[0].edges == gauge.skip.path and not self._mixes

    @property
    def failures(self) -> list[str]:
        """What could not be replayed."""
        own = [replay.failure for replay in (*self._stages, *self._trunks) if replay.failure]
        return own + (self._spectrum.failures if self._spectrum is not None else [])

    def sums(self) -> dict[str, Tensor]:
        """`HighwaySums`' fields, arrays numbered by stage; empty where no gradient reached the last join."""
        if self._top is None:
            return {}
        found = {"top": self._top} | {f"arriving.{k}": t for k, t in self._arrived.items()}
        identity = self._counterfactual.reached
        found |= {} if identity is None else {"identity": identity}
        for part in (self._composite, self._spectrum):
            found |= {} if part is None else part.sums()
        return found

    def _opener(self, k: int) -> Callable[[Tensor], None]:
        def opened(g: Tensor) -> None:
            if k == 0:
                self._top = inner(g, g, 1, exact=False)
            if self._spectrum is not None:
                self._spectrum.open(k, g)
            h, self._arriving = (g if k == 0 else self._arriving), None
            if h is None:
                return
            if k in self._measured:
                self._arrived[k] = inner(h, h, 1, exact=False)
            self._counterfactual.open(k, h)
            if not self._gauges[k].starts_highway:  # else h is g here, and s is read at the fork
                self._gauges[k].highway = self._stages[k].push(h)
                if self._composite is not None:
                    self._composite.open(k, self._stages[k])

        return opened

    def _closer(self, k: int) -> Callable[[Tensor], None]:
        def closed(t: Tensor) -> None:
            if self._spectrum is not None:
                self._spectrum.close(k, t)
            self._counterfactual.close(k)
            h = self._gauges[k].highway
            if h is not None and k < len(self._trunks):
                self._arriving = self._trunks[k].push(h)

        return closed


class _Counterfactual:
    """The highway as it would be if each skip were the identity: g is handed on at every skip whose fork and join have one shape, and goes down the trunk as
    it is. It parts from the highway at the first skip that is not an identity and is not pushed before."""

    def __init__(self, path: HighwayPath, gauges: Sequence[SkipGauge], stages: Sequence[Replay], trunks: Sequence[Replay]) -> None:
        self._layouts = [gauge.layout for gauge in gauges]
        plain = [skip.kind == "identity" and len(stage.edges) == len(skip.path) for skip, stage in zip(path.skips, path.stages, strict=True)]
        self._plain, self._stages, self._trunks = plain, stages, trunks
        self._apart: Tensor | None = None
        self.reached: Tensor | None = None

    def open(self, k: int, h: Tensor) -> None:
        """h: what arrives at the join of stage k down the highway itself."""
        arriving = h if self._apart is None else self._apart
        passed = None if self._plain[k] else self._layouts[k].of(arriving)
        if passed is not None:
            self._apart = passed
        elif self._apart is not None:
            self._apart = self._stages[k].push(self._apart)

    def close(self, k: int) -> None:
        """Down the trunk; or the end."""
        if self._apart is None:
            return
        if k < len(self._trunks):
            self._apart = self._trunks[k].push(self._apart)
        else:
            self.reached, self._apart = inner(self._apart, self._apart, 1, exact=False), None


class _Composite:
    """Parallel streams: what the mixing products make together of the streams at the last join, in the layout of the products."""

    def __init__(self) -> None:
        self._top: Tensor | None = None
        self._sums: dict[str, Tensor] = {}

    def open(self, k: int, stage: Replay) -> None:
        """After `stage` was replayed."""
        through = StreamGauge.passed(stage)
        if through is None:
            return
        above, below = through
        self._top = above if k == 0 else self._top
        if self._top is None or self._top.shape[1] != below.shape[1]:
            return
        cross, squares = crossed(self._top, below)
        self._sums |= {f"cross.{k}": cross, f"squares.{k}": squares}

    def sums(self) -> dict[str, Tensor]:
        """The Gram matrix at the top, and for each stage the cross sums with what has come through."""
        return {} if self._top is None or not self._sums else {"gram": self._top @ self._top.T, **self._sums}
