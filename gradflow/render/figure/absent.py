"""What stands in place of a panel that would have nothing in it: one sentence with the reason. Each is empty where there is something to draw."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from gradflow.numbers import decades
from gradflow.records import Report
from gradflow.render.figure import loops
from gradflow.render.figure.text import glyphs
from gradflow.render.figure.updates import matrices
from gradflow.render.summary import alarms, plural

_LENGTH = 90  # letters of a reason
_NO_SKIP = "No skip connection was found: the gradient has no way around any layer."


def of_calls(report: Report) -> str:
    """No highway of a loop."""
    return "" if loops.highways(report) else "No loop was found whose highway could be followed from call to call."


def of_trend(report: Report) -> str:
    """No λ of several calls."""
    return "" if loops.skips(report) else "No skip has a λ of several calls."


def of_layers(report: Report) -> str:
    """No layer, or none that has a gain; those of an alarm are shown where they are all the same."""
    if not report.layers:
        return "No layer was found."
    names = {name for layer in report.layers for name in (layer.name, *(p.name for p in layer.parameters))}
    if any(layer.gain is not None for layer in report.layers) or any(f.where in names for f in alarms(report)):
        return ""
    return f"No gain is defined on any of the {plural(len(report.layers), 'layer')}: {_because([x.undefined.get('gain', '') for x in report.layers])}."


def of_skips(report: Report) -> str:
    """No skip."""
    return "" if report.skips else _NO_SKIP


def of_lambdas(report: Report) -> str:
    """No skip, or none that has a λ or a gain."""
    if not report.skips or any(s.lam is not None or s.gain is not None for s in report.skips):
        return of_skips(report)
    return f"Neither λ nor gain is defined on any of the {plural(len(report.skips), 'skip')}: {_because([s.undefined.get('gain', '') for s in report.skips])}."


def of_shares(report: Report) -> str:
    """No skip, or none whose branch can be held against it."""
    if not report.skips or any(s.gain is not None and s.branch_gain is not None and (s.gain or s.branch_gain) for s in report.skips):
        return of_skips(report)
    why = [s.undefined.get("gain") or s.undefined.get("branch_gain") or "skip and branch carry 0" for s in report.skips]
    return f"Branch against skip is defined on none of the {plural(len(report.skips), 'skip')}: {_because(why)}."


def of_updates(report: Report) -> str:
    """No matrix, or none that moves."""
    owned = matrices(report)
    if not owned:
        return "No layer has a matrix whose updates could be compared."
    ratios = [p.update_ratio for _, p in owned]
    if any(decades(ratio) is not None for ratio in ratios):
        return ""
    unknown = [p.undefined.get("update_ratio", "") for _, p in owned if p.update_ratio is None]
    still = [f"it is exactly 0 on {len(owned) - len(unknown)} of {len(owned)}"] if len(unknown) < len(owned) else []
    nothing = [f"undefined on {len(unknown)} of {len(owned)} ({_because(unknown)})"] if unknown else []
    return f"No matrix has an update ‖∇W‖ ÷ ‖W‖ above 0: {'; '.join([*still, *nothing])}."


def _because(reasons: Sequence[str]) -> str:
    """The reason that most have, without what is each one's own number."""
    counts = Counter(re.sub(r"^\d+ ", "", reason) or "the report does not say why" for reason in reasons)
    first = glyphs(counts.most_common(1)[0][0])
    told = first if len(first) <= _LENGTH else f"{first[: _LENGTH - 1].rpartition(' ')[0]} …"
    return told if len(counts) == 1 else f"mostly, {told}"
