"""What the picture of a history says in words: whether and when the run turned sick, where, and what to do."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from gradflow.numbers import count, number
from gradflow.records import Entry, History, Turn
from gradflow.render import summary
from gradflow.render.check.words import title as rule
from gradflow.render.names import clean, place


def title(history: History) -> str:
    """How the run went: `sick from step 300 on`, `sick from step 500 on, first at 300`, `sick at 3 of 21 steps, first at 300`, `healthy throughout`."""
    entries = list(history.entries)
    for verdict, said in (("sick", "sick"), ("warnings", "warnings")):
        at = [i for i, entry in enumerate(entries) if entry.verdict == verdict]
        if at and len(at) == len(entries) - at[0]:
            return f"{said} from step {entries[at[0]].step:,} on"
        well = max((i for i, entry in enumerate(entries) if entry.verdict != verdict), default=-1)
        if at and at[0] < well < len(entries) - 2:
            return f"{said} from step {entries[well + 1].step:,} on, first at {entries[at[0]].step:,}"
        if at:
            return f"{said} at {len(at):,} of {summary.plural(len(entries), 'step')}, first at {entries[at[0]].step:,}"
    return "healthy throughout"


def turn(history: History) -> Turn | None:
    """Where the run first turned sick; where it never did, first to warnings."""
    turns = history.turns
    return next((t for t in turns if t.verdict == "sick"), None) or next((t for t in turns if t.verdict == "warnings"), None)


def sentence(history: History) -> str:
    """What was wrong first, and where."""
    turned = turn(history)
    if turned is None or turned.finding is None:
        return "No alarm at any of these steps: the gradient reaches every layer that was measured."
    return f"Step {turned.step:,}: {summary.told(turned.finding)}"


def next_step(history: History) -> str:
    """What is to be done about it, and at which line; empty where nothing is wrong."""
    turned = turn(history)
    if turned is None or turned.finding is None:
        return ""
    line = place(turned.finding.location)
    return f"{clean(turned.finding.fix)}{f' ({line})' if line else ''}"


def facts(history: History) -> str:
    """What was watched, where, and what a profile took."""
    target, environment = history.target, history.environment
    missed = [f"{summary.plural(len(history.missed), 'step')} could not be profiled"] if history.missed else []
    amp = f" amp {environment.amp}" if environment.amp else ""
    entries = history.entries
    seconds = statistics.median(entry.seconds for entry in entries)
    said = [
        f"{summary.plural(len(entries), 'step')} profiled, {entries[0].step:,} to {entries[-1].step:,}",
        f"{count(target.parameters)} parameters",
        f"{history.mode} mode",
        f"{environment.device} {environment.dtype}{amp}",
        f"{number(seconds, 2)} s a profile (median)",
    ]
    return " · ".join([*said, *missed])


def often(history: History) -> str:
    """The rules that were found at most steps, for the rest of the run that the sentence does not tell; empty where there was no alarm."""
    steps = Counter(code for entry in history.entries for code in {n.rule for n in entry.findings if n.severity != "info"})
    told = ", ".join(f"{rule(code)} at {times}" for code, times in steps.most_common(4))
    return f"{told} of {summary.plural(len(history.entries), 'step')}" if steps else ""


def silent(history: History, first: int, last: int) -> str:
    """Why no skip or highway has a value in the columns `first` to `last`: `no gradient from step 50 on`."""
    entries = history.entries
    between = entries[first : last + 1]
    what = "no gradient" if all(any(gain == 0 for gain in entry.gains) for entry in between) else "not defined"
    return f"{what} {stretch(entries, first, last)}"


def stretch(entries: Sequence[Entry], first: int, last: int) -> str:
    """`at step 50`, `from step 50 to 70`, `from step 50 on`."""
    if last == len(entries) - 1 and first < last:
        return f"from step {entries[first].step:,} on"
    return f"from step {entries[first].step:,} to {entries[last].step:,}" if first < last else f"at step {entries[first].step:,}"
