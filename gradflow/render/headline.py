"""What a report opens with, as facts for every format: what was profiled, what is measured, what stands out, where, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gradflow.blocks import called
from gradflow.numbers import UNDEFINED, number, percent
from gradflow.records import Location, Report
from gradflow.render import summary
from gradflow.render.names import clean


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the opening.

    Attributes:
        label: what it tells.
        name: of what stands out, to be set apart; empty where the line is of the whole model.
        text: the facts.
        location: the user's line.
        tone: "incomplete" where something was not seen, "step" for what to do.
    """

    label: str
    name: str = ""
    text: str
    location: Location | None = None
    tone: Literal["", "incomplete", "step"] = ""


def entries(report: Report, *, options: bool = False) -> list[Entry]:
    """The opening of `report`, in reading order; what it has not is left out. `options`: whether the reader sits at the command line."""
    found = [
        Entry(label="severity", text=summary.counted_note(report)),
        Entry(label="target", text=" · ".join(summary.target(report))),
        Entry(label="coverage", text=summary.coverage(report), tone="" if summary.is_complete(report) else "incomplete"),
        _first_nonfinite(report),
        _worst_layer(report),
        _worst_skip(report),
        _worst_highway(report),
        Entry(label="next step", text=summary.next_step(report, options=options), tone="step"),
    ]
    return [entry for entry in found if entry is not None and entry.text]


def _first_nonfinite(report: Report) -> Entry | None:
    made = report.nonfinite
    if made is None:
        return None
    where = f" in {clean(made.module)}" if made.module else ""
    batch = f" of batch {made.batch}" if report.run.batches > 1 else ""
    return Entry(
        label="non-finite", name=f"{clean(made.operator)}{where}", text=f"first, in the {made.phase} pass{batch}: {clean(made.what)}", location=made.location
    )


def _worst_layer(report: Report) -> Entry | None:
    layer = summary.worst_layer(report)
    if layer is None:
        return None
    alarm = summary.is_alarm(report, layer)
    why = "" if alarm else summary.extreme(layer.gain, len(report.layers))
    facts = [f"gradient gain {number(layer.gain)}{why}"] if layer.gain is not None else [f"not measured: {clean(layer.undefined['gain'])}"]
    facts += [f"{percent([layer.zero_fraction])} zeros"] if layer.zero_fraction else []
    facts += [f"{percent([layer.dead_units])} dead units"] if layer.dead_units else []
    facts += [f"{layer.nonfinite} non-finite"] if layer.nonfinite else []
    name = f"{called(clean(layer.name))} ({clean(layer.type)})"
    return Entry(label="worst layer" if alarm else "layer", name=name, text=", ".join(facts), location=layer.location)


def _worst_skip(report: Report) -> Entry:
    skip = summary.worst_skip(report)
    if skip is None:
        return Entry(label="skips", text=f"none: no skip connection was found{', and opaque parts may hold some' if report.opaque else ''}")
    lam = f"λ {number(skip.lam)}" if skip.lam is not None else f"λ undefined ({clean(skip.undefined['lam'])})"
    alarm = summary.is_alarm(report, skip)
    why = "" if alarm else summary.extreme(skip.gain, len(report.skips))
    facts = [lam, f"gain {number(skip.gain)}{why}", f"branch {number(skip.branch_gain)}", f"cos {number(skip.cos_skip_branch)}"]
    return Entry(label="worst skip" if alarm else "skip", name=f"{clean(skip.id)} ({skip.kind})", text=_known(facts), location=skip.location)


def _worst_highway(report: Report) -> Entry | None:
    highway = summary.worst_highway(report)
    if highway is None:
        return None
    alarm = summary.is_alarm(report, highway)
    of = len(report.highways)
    why = f" (the longest of {of})" if of > 1 and not alarm else ""
    gain = f"gain {number(highway.gain)}" if highway.gain is not None else f"gain undefined ({clean(highway.undefined['gain'])})"
    facts = [summary.plural(len(highway.skips), "skip") + why, gain, f"∏λ {number(highway.product_of_lambdas)}", f"total gain {number(highway.total_gain)}"]
    return Entry(label="worst highway" if alarm else "highway", name=clean(highway.name), text=_known(facts))


def _known(facts: Sequence[str]) -> str:
    return ", ".join(fact for fact in facts if not fact.endswith(UNDEFINED))
