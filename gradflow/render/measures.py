"""What a report says in a line each: channels, random cotangents, mixing matrices, path spectra. Facts from a Report in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from gradflow.numbers import bars, number, percent, span
from gradflow.records import Channels, ForkSpectrum, Highway, Report, Skip, Streams
from gradflow.render import folding
from gradflow.render.names import clean
from gradflow.render.summary import MANY, listed, plural

_MOST_BARS = 40
_FAINT = 5e-4  # of the squared norms: a path length with less is not drawn


def skips(found: Sequence[Skip]) -> list[str]:
    """Notes below the table of skips."""
    return [*_channels(found), *_biased(found)]


def samples(report: Report) -> str:
    """`of the gradient that one of 8 samples carries: at most 17 % at the output (sample 1), 21 % at stem (sample 3)`; empty where none was told apart."""
    shares = [s for s in report.run.sample_shares if s.largest is not None]
    several = report.run.batches > 1
    told = [
        f"{percent([s.largest])} at {'the output' if s.where == 'output' else clean(s.where)} (sample {s.sample}{f' of batch {s.batch}' if several else ''})"
        for s in shares
    ]
    return f"of the gradient that one of {plural(max(s.samples for s in shares), 'sample')} carries: at most {', '.join(told)}" if shares else ""


def _channels(found: Sequence[Skip]) -> list[str]:
    """For the skips whose channels lie farthest apart: `blocks.[3-5]: λ per channel 0.1–1.2, median 0.5 of 64; farthest from 1: 3 (0.1), 17 (0.12)`."""
    names: dict[str, list[str]] = {}
    extent: dict[str, float] = {}
    for skip in found:
        if skip.channels is not None and skip.channels.minimum is not None:
            text = _of_channels(skip.channels)
            names.setdefault(text, []).append(skip.id)
            extent[text] = (skip.channels.maximum or 0.0) - skip.channels.minimum
    ordered = sorted(names, key=lambda text: -extent[text])
    lines = [f"{listed(folding.pattern(names[text]))}: {text}" for text in ordered[:MANY]]
    return lines + ([f"{len(ordered) - MANY} more kinds of skips are scaled by a vector: --json keeps them"] if len(ordered) > MANY else [])


def _of_channels(channels: Channels) -> str:
    worst = ", ".join(f"{c.index} ({number(c.lam, 3)})" for c in channels.worst[:MANY])
    silent = f" ({channels.silent} get no gradient)" if channels.silent else ""
    apart = f"; farthest from 1: {worst}" if channels.minimum != channels.maximum else ""
    return f"λ per channel {span([channels.minimum, channels.maximum], 3)}, median {number(channels.median, 3)} of {channels.count} channels{silent}{apart}"


def _biased(found: Sequence[Skip]) -> list[str]:
    """Where the loss gradient and random cotangents disagree about λ, or that they nowhere do."""
    biased = [(s, s.probe) for s in found if s.probe is not None and s.probe.agrees is False]
    if not biased:
        agreed, asked = (sum(1 for s in found if s.probe is not None and s.probe.agrees in kinds) for kinds in ((True,), (True, False, None)))
        return [f"random cotangents agree with λ on {agreed} of {plural(asked, 'skip')}"] if asked else []
    skip, probe = max(biased, key=lambda pair: abs((pair[0].lam or 0.0) - (pair[1].trace or 0.0)))
    names = listed(folding.pattern([s.id for s, _ in biased]))
    return [
        f"the loss gradient is a biased probe of {plural(len(biased), 'skip')} ({names}): "
        f"of {clean(skip.id)} it says λ = {number(skip.lam)}, random cotangents say {number(probe.trace)}"
    ]


def spectra(report: Report, width: int) -> list[str]:
    """For each highway whose spectrum was measured a line of bars at its first fork, from 0 branches up."""
    lines = []
    for highway in report.highways:
        first = highway.spectrum[0] if highway.spectrum else None
        if first is not None and first.norms and first.mean_length is not None:
            lines.append(_spectrum(highway, first, width))
        elif first is not None:
            reason = first.undefined.get("mean_length") or first.undefined["other_share"]
            lines.append(f"{clean(highway.name)}: its path spectrum is not defined: {clean(reason)}")
    return lines


def _spectrum(highway: Highway, first: ForkSpectrum, width: int) -> str:
    energies = [x * x for x in first.norms]
    whole = sum(energies)
    last = max(i for i, e in enumerate(energies) if e >= _FAINT * whole)
    shape = bars(energies[: last + 1], min(_MOST_BARS, max(10, width - 40)), 0.0)
    elsewhere = first.other_share or 0.0
    other = f", {number(100 * elsewhere, 2)} % came by other ways" if abs(elsewhere) >= _FAINT else ""
    middle = _range(energies)
    return (
        f"{clean(highway.name)}: the gradient at {clean(first.fork)} has passed {number(first.mean_length, 3)} of {len(highway.skips)} branches on average, "
        f"{middle[0]} to {middle[1]} in 90 % of it{other}; from 0 to {last}: {shape}"
    )


def _range(energies: Sequence[float]) -> tuple[int, int]:
    """The path lengths between which nine tenths of the squared norms lie."""
    whole, below = sum(energies), 0.0
    found: list[int] = []
    for length, energy in enumerate(energies):
        below += energy
        if below >= 0.05 * whole and not found:
            found.append(length)
        if below >= 0.95 * whole:
            return (found or [length])[0], length
    return (found or [0])[0], len(energies) - 1


def streams(report: Report) -> list[tuple[str, Streams]]:
    """The mixing of each skip, nearest the input first, then of each highway from its last join to its first fork."""
    of_skips = [(s.id, s.streams) for s in report.skips if s.streams is not None]
    return of_skips + [(f"{h.name}, composite", h.streams[0]) for h in report.highways if h.streams and len(h.skips) > 1]
