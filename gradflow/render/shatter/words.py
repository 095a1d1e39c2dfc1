"""What a ShatterReport says in a few plain words, for every format alike."""

from __future__ import annotations

from collections.abc import Sequence

from gradflow.numbers import count, number, percent
from gradflow.render.names import clean
from gradflow.render.summary import listed
from gradflow.shatter_records import BROKEN, Curve, Likeness, Process, Reference, ShatterReport

LIKE: dict[Likeness, str] = {
    "white noise": "like white noise",
    "between": "between white noise and Brownian motion",
    "Brownian motion": "as smooth as Brownian motion",
    "constant": "constant along the line",
    "undefined": "not measured",
}


def nearest(report: ShatterReport) -> Curve | None:
    """The curve nearest the input that a gradient reaches, be it finite or not: it has passed every layer."""
    return next((c for c in report.curves if c.like != "undefined" or _is_broken(c)), None)


def _is_broken(curve: Curve) -> bool:
    return curve.undefined.get("acf", "") in BROKEN


def headline(report: ShatterReport) -> str:
    """`the gradient at the input x is like white noise`, without a full stop."""
    found = nearest(report)
    if found is None:
        return "no gradient was measured"
    state = clean(found.undefined["acf"]).removeprefix("its gradient is ") if _is_broken(found) else LIKE[found.like]
    return f"the gradient at {_place(found)} is {state}"


def evidence(report: ShatterReport) -> str:
    """The numbers behind the headline."""
    found = nearest(report)
    if found is None:
        reasons = dict.fromkeys(clean(c.undefined["acf"]) for c in report.curves if "acf" in c.undefined)
        return f"No curve: {listed(list(reasons))}."
    if found.acf is None or found.correlation_length is None:
        return f"The ACF is not defined: {clean(found.undefined['acf'])}."
    white, brownian = (_band(named(report, name)) for name in ("white noise", "Brownian motion"))
    length = f"it falls below 1/e after {number(found.correlation_length, 3)} points, {percent([found.correlation_share])} of the line"
    return f"ACF {number(found.acf[1], 3)} at lag 1 (white noise {white}, Brownian motion {brownian}); {length}."


def whitened(report: ShatterReport) -> str:
    """How far from the input the gradient is white, where it is white at the input and not everywhere; else nothing."""
    defined = [c for c in report.curves if c.acf is not None]
    white = next((i for i, c in enumerate(defined) if c.like != "white noise"), len(defined))
    if not 1 < white < len(defined):
        return ""
    return f"It is white from {_place(defined[white - 1])} back to the input: {white} of {len(defined)} curves."


def line(report: ShatterReport) -> str:
    """`256 points from sample 0 to sample 1 of images, 0.0999 apart`."""
    it = report.line
    ends = f"from sample {it.ends[0]:g} to sample {it.ends[1]:g} of" if it.kind == "between" else f"from {it.ends[0]:g} to {it.ends[1]:g}, a grid of"
    held = f"; {listed(it.held)} held" if it.held else ""
    return f"{it.points} points {ends} {listed(it.inputs)}, {number(it.step, 3)} apart{held}"


def target(report: ShatterReport) -> list[str]:
    """What was run, as short facts."""
    it, environment = report.target, report.environment
    return [
        *([clean(it.spec)] if it.spec != it.model_class else []),
        f"{count(it.parameters)} parameters",
        f"{report.mode} mode",
        *(f"{clean(i.name)} {i.dtype}[{','.join(map(str, i.shape))}]" for i in report.inputs[:3]),
        f"{environment.device} {environment.dtype}" + (f" amp {environment.amp}" if environment.amp else ""),
        f"seed {environment.seed}",
    ]


def named(report: ShatterReport, name: Process) -> Reference:
    """The reference of this name."""
    return next(r for r in report.references if r.name == name)


def reasons(curves: Sequence[Curve]) -> dict[str, list[str]]:
    """Each reason of an undefined value with the curves that it holds for."""
    found: dict[str, dict[str, None]] = {}
    for curve in curves:
        for reason in curve.undefined.values():
            found.setdefault(clean(reason), {})[curve.name] = None
    return {reason: list(names) for reason, names in found.items()}


def _band(reference: Reference) -> str:
    return f"{number(reference.acf[1], 2)} ± {number(reference.deviation[1], 2)}"


def _place(curve: Curve) -> str:
    name = clean(curve.name)
    return f"the input {name}" if curve.type == "input" and not name.startswith("input") else name
