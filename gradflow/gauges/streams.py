"""The matrix that mixes parallel streams: sums over what arrives above the mixing product and what it sends below, in the product's own layout."""

from __future__ import annotations

from torch import Tensor

from gradflow.gauges.probes import Probing, generator_for, is_plain, rademacher
from gradflow.highway import Replay, Tap
from gradflow.operators import Role
from gradflow.reduce import wide
from gradflow.residual import SkipPath, Stretch
from gradflow.tape import Tape


class StreamGauge:
    """One skip that mixes streams once; its replay tells what passes the mixing product."""

    def __init__(self, tape: Tape, skip: SkipPath, probing: Probing) -> None:
        self._probing = probing
        self._replay = tapped(tape, skip, skip.stretch)
        self._sums: dict[str, Tensor] = {}

    def open(self, g: Tensor) -> None:
        """g: the gradient at the join."""
        if self._replay is None or not is_plain(g):
            return
        through = self._pass(g)
        if through is None:
            return
        self._sums = dict(zip(("streams_gram", "streams_cross", "streams_squares"), stream_sums(*through), strict=True))
        generator = generator_for(g, self._probing.seed)
        for _ in range(max(1, self._probing.probes)):  # one at least: it shows which rows of the product are streams and which are the branch's input
            probe = self._pass(rademacher(g, generator))
            if probe is not None:
                for name, t in zip(("gram", "cross", "squares"), stream_sums(*probe), strict=True):
                    known = self._sums.get(f"probed_{name}")
                    self._sums[f"probed_{name}"] = t if known is None else known + t

    def _pass(self, g: Tensor) -> tuple[Tensor, Tensor] | None:
        return None if self._replay is None or self._replay.push(g) is None else self.passed(self._replay)

    @staticmethod
    def passed(replay: Replay) -> tuple[Tensor, Tensor] | None:
        """What arrived at the mixing product in the last push, and what it sent on: [m, ·] and [n, ·]."""
        tap = replay.tap
        if tap is None or tap.arrived is None or tap.sent is None:
            return None
        dimension = -2 if tap.position == 1 else -1
        above, below = _by_stream(tap.arrived, dimension), _by_stream(tap.sent, dimension)
        tap.arrived = tap.sent = None
        return above, below

    def sums(self) -> dict[str, Tensor]:
        """`StreamSums`' fields, of the loss gradient and of the random cotangents."""
        return self._sums


def tapped(tape: Tape, skip: SkipPath, stretch: Stretch) -> Replay | None:
    """A replay of `stretch` that tells what passes the mixing product of `skip`; None where the streams are mixed more than once or not at all."""
    mixing = [edge for edge, role in zip(skip.path, skip.roles, strict=True) if role is Role.MIX]
    return Replay(tape, stretch, Tap(node=tape.operators[mixing[0][0]], position=mixing[0][1])) if len(mixing) == 1 else None


def stream_sums(above: Tensor, below: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Σ g gᵀ [m, m], Σ g sᵀ [m, n] and Σ‖s‖², in float64."""
    return above @ above.T, *crossed(above, below)


def crossed(above: Tensor, below: Tensor) -> tuple[Tensor, Tensor]:
    """Σ g sᵀ [m, n] and Σ‖s‖²."""
    return above @ below.T, (below * below).sum().reshape(1)


def _by_stream(grad: Tensor, dimension: int) -> Tensor:
    return wide(grad).movedim(dimension, 0).reshape(grad.shape[dimension], -1).contiguous()
