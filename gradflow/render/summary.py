"""What a report says first: coverage, what stands out, what to do next. Facts from a Report in plain words, for every format alike."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from gradflow.blocks import called
from gradflow.numbers import UNDEFINED, count, decades, number, span
from gradflow.records import Finding, Highway, Layer, Opaque, Parameter, Report, Skip
from gradflow.render import folding
from gradflow.render.names import clean

_EVEN = 1e-6  # decades: a gain that is 1 but for rounding
MANY = 3  # how many names or reasons a sentence lists


def target(report: Report) -> list[str]:
    """What was profiled, as short facts: class, parameters, loss, mode, inputs, device."""
    target, run, environment = report.target, report.run, report.environment
    trained = "" if target.trainable_parameters == target.parameters else f" ({count(target.trainable_parameters)} trainable)"
    return [
        clean(target.model_class),
        *([clean(target.spec)] if target.spec != target.model_class else []),
        f"{count(target.parameters)} parameters{trained}",
        loss(report),
        f"{run.mode} mode",
        *inputs(report),
        *([f"{run.batches} batches"] if run.batches > 1 else []),
        f"{environment.device} {environment.dtype}" + (f" amp {environment.amp}" if environment.amp else ""),
        *([f"{environment.world_size} ranks"] if environment.world_size > 1 else []),
        f"seed {environment.seed}",
    ]


def loss(report: Report) -> str:
    """`loss mse = 1.2 (named)`; of a loss whose own name is loss, `loss = 1.2 (model file's `loss`)`."""
    named = report.run.loss
    value = "" if named.value is None else f" = {number(named.value)}"
    source = f" ({clean(named.source)})" if named.source else ""
    return ("loss" if named.name == "loss" else f"loss {clean(named.name)}") + value + source


def inputs(report: Report) -> list[str]:
    """The inputs as `x float32[8,3,32,32] (source)`, the first few of them."""
    shown = [f"{clean(i.name)} {i.dtype}[{','.join(map(str, i.shape))}]" + (f" ({clean(i.source)})" if i.source else "") for i in report.run.inputs[:MANY]]
    return shown + ([f"{len(report.run.inputs) - MANY} more inputs"] if len(report.run.inputs) > MANY else [])


def is_complete(report: Report) -> bool:
    """Whether every trainable parameter and every layer that has one was measured, and no part of the model is opaque."""
    trained = [layer for layer in report.layers if any(p.status != "frozen" for p in layer.parameters)]
    return not report.opaque and all(layer.grad_norm is not None for layer in trained) and all(p.status != "unreached" for p in _parameters(report))


def coverage(report: Report) -> str:
    """`84 of 84 layers measured; 159 of 161 parameters measured, 2 unreached: head.weight, head.bias (not used by the loss); 1 opaque: lstm (…)`."""
    layers, parameters = report.layers, _parameters(report)
    missed = [layer for layer in layers if layer.grad_norm is None]
    line = f"{len(layers) - len(missed)} of {len(layers)} layers measured"
    if missed:
        line += f", not {_named((m.name, m.undefined['grad_norm']) for m in missed)}"
    statuses = Counter(p.status for p in parameters)
    line += f"; {statuses['measured']} of {len(parameters)} parameters measured"
    if statuses["frozen"]:
        line += f", {statuses['frozen']} frozen"
    if statuses["unreached"]:
        line += f", {statuses['unreached']} unreached{_unreached(layers, missed)}"
    return f"{line}; {_opaque(report.opaque)}" if report.opaque else line


def _unreached(layers: Sequence[Layer], missed: Sequence[Layer]) -> str:
    """The parameters by name and reason; those of the layers that were not measured are not named again where they are all."""
    lost = [(p, layer) for layer in layers for p in layer.parameters if p.status == "unreached"]
    if all(layer in missed for _, layer in lost):
        return ", in these layers" if len(missed) > 1 else ", in this layer"
    return ": " + _named((p.name, p.undefined.get("grad_norm", "no gradient came")) for p, _ in lost)


def _opaque(parts: Sequence[Opaque]) -> str:
    """`2 opaque: encoder.lstm, decoder.lstm (mkldnn_rnn_layer): skips and layers inside are not seen; to see them, …`."""
    names: dict[str, list[str]] = {}
    for part in parts:
        names.setdefault(part.operator, []).append(part.name)
    shown = [f"{listed(folding.pattern(of))} ({clean(operator)})" for operator, of in list(names.items())[:MANY]]
    more = f"; and {len(names) - MANY} more operators" if len(names) > MANY else ""
    fixes = "; ".join(list(dict.fromkeys(clean(part.fix) for part in parts))[:MANY])
    return f"{len(parts)} opaque: {'; '.join(shown)}{more}: skips and layers inside are not seen; {fixes}"


def owners(report: Report) -> dict[str, Layer]:
    """The layer of each name that a finding may have: its own, and those of its parameters."""
    return {p.name: layer for layer in report.layers for p in layer.parameters} | {layer.name: layer for layer in report.layers}


def is_alarm(report: Report, thing: Layer | Skip | Highway) -> bool:
    """Whether an alarm is about it: only then is the worst of its kind to blame for anything."""
    where = {f.where for f in alarms(report)}
    if isinstance(thing, Layer):
        return not where.isdisjoint({thing.name, *(p.name for p in thing.parameters)})
    return thing.name in where or (isinstance(thing, Skip) and thing.id in where)


def extreme(gain: float | None, number_of: int) -> str:
    """` (of 28 the farthest from 1)`: why one of several is named; empty where all are 1."""
    return f" (of {number_of} the farthest from 1)" if number_of > 1 and _distance(gain) > _EVEN else ""


def worst_layer(report: Report) -> Layer | None:
    """The layer of the worst finding, else the one whose gain is farthest from 1."""
    owned = owners(report)
    found = next((owned[f.where] for f in alarms(report) if f.where in owned), None)
    return found or max((x for x in report.layers if x.gain), key=lambda x: _distance(x.gain), default=None)


def worst_skip(report: Report) -> Skip | None:
    """The skip of the worst finding, else the one whose gain is farthest from 1, else the one that its branch opposes most."""
    owners = {s.name: s for s in reversed(report.skips)} | {s.id: s for s in report.skips}
    found = next((owners[f.where] for f in alarms(report) if f.where in owners), None)
    return found or max(report.skips, key=lambda s: (round(_distance(s.gain), 6), -(s.cos_skip_branch or 0.0)), default=None)


def worst_highway(report: Report) -> Highway | None:
    """The highway of the worst finding, else the longest, which is the model's stream; of several the one whose gain is farthest from 1."""
    owners = {h.name: h for h in report.highways}
    found = next((owners[f.where] for f in alarms(report) if f.where in owners), None)
    return found or max(report.highways, key=lambda h: (len(h.skips), round(_distance(h.gain), 6)), default=None)


def next_step(report: Report, *, options: bool = True) -> str:
    """The fix of the worst alarm; for a healthy report that there is nothing to mend and, with `options`, which of the command's would show more."""
    fixes = [f.fix for f in alarms(report) if f.fix]
    if fixes:
        return clean(fixes[0])
    if not is_complete(report):
        return "Nothing that was measured is wrong, but not everything was measured: see coverage." + (" --json F keeps the numbers." if options else "")
    return "Nothing to mend." + (" --png F draws the gradient over depth, --json F keeps the numbers." if options else "")


def alarms(report: Report) -> list[Finding]:
    """The findings that ask for something to be done: errors and warnings, worst first."""
    return [f for f in report.findings if f.severity != "info"]


def told(finding: Finding) -> str:
    """The message of a finding, with its place in front where the message does not name it."""
    message, where = clean(finding.message), clean(finding.where)
    return message if not where or named(where, message) else f"{where}: {message}"


def named(where: str, message: str) -> bool:
    """Whether the message has the name as a word of its own: `0` is not named by `λ = 0.5`, nor `layer1` by `layer1.conv`."""
    return bool(where) and re.search(rf"(?<![\w.]){re.escape(where)}(?![\w.]*\w)", message) is not None


def limits(group: Sequence[Finding]) -> str:
    """` [0.5–0.7, limit 0.9]`: the values of findings of one rule and the limits that they broke; empty where none has a value."""
    if all(f.value is None for f in group):
        return ""
    broken = span([f.limit for f in group])
    return f" [{span([f.value for f in group])}" + (f", limit {broken}]" if broken != UNDEFINED else "]")


def closed(report: Report) -> str:
    """A sentence on the layers whose branch is closed at the start: by a parameter of 0, by small scales, by stochastic depth; empty where there is none."""
    groups: dict[str, list[str]] = {}
    for layer in report.layers:
        if layer.closed_by == "stochastic depth":
            groups.setdefault("with a gradient of 0: dropped by stochastic depth", []).append("")
        elif layer.closed_by:
            by = "with a small gradient: closed by a small scale" if layer.gain else "with a gradient of 0: closed by a zero-initialised parameter"
            groups.setdefault(by, []).append(layer.closed_by)
    return "; ".join(
        f"{plural(len(names), 'layer')} {what}" + (f" ({listed(folding.pattern(dict.fromkeys(names)), 2)})" if names[0] else "")
        for what, names in groups.items()
    )


def verdict(report: Report) -> str:
    """`severity 13.3 decades`, and how many parts it does not speak for."""
    size = number(report.severity, 3)
    unseen = f", {plural(len(report.opaque), 'part')} not seen" if report.opaque else ""
    return (f"severity {size} decade{'' if size == '1' else 's'}" if report.severity else "severity 0") + unseen


def counted_note(report: Report) -> str:
    """Whose the severity is where it is above 0 and nothing alarms: a note that counts; empty elsewhere."""
    if alarms(report) or not report.severity:
        return ""
    note = max(report.findings, key=lambda f: f.decades)
    return f"of a note, which is no alarm: {note.rule} at {called(clean(note.where))}{limits([note])}"


def plural(number_of: int, noun: str) -> str:
    """`1 skip`, `54 skips`."""
    return f"{number_of} {noun}" + ("" if number_of == 1 else "s")


def _distance(gain: float | None) -> float:
    """How far a gain is from 1, in decades; -1 where it is not defined, so that anything defined stands out more."""
    if gain == 0:
        return 400.0
    log = decades(gain)
    return -1.0 if log is None else abs(log)


def _parameters(report: Report) -> list[Parameter]:
    return list({p.name: p for layer in report.layers for p in layer.parameters}.values())


def _named(pairs: Iterable[tuple[str, str]]) -> str:
    """`a, b (reason); c (other reason)`: names folded, reasons counted once, the first few of each."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in pairs:
        by_reason.setdefault(clean(reason), []).append(name)
    parts = [f"{listed(folding.pattern(names))} ({reason})" for reason, names in list(by_reason.items())[:MANY]]
    return "; ".join(parts) + (f"; and {len(by_reason) - MANY} more reasons" if len(by_reason) > MANY else "")


def listed(names: Sequence[str], most: int = MANY) -> str:
    """The first few of `names`, and how many more there are."""
    return ", ".join(called(clean(n)) for n in names[:most]) + more(len(names) - most)


def more(left: int, noun: str = "") -> str:
    """` and 3 more places`, or ` and 3 more` without a noun: what a list leaves out; empty where it leaves out nothing."""
    return f" and {plural(left, f'more {noun}') if noun else f'{left} more'}" if left > 0 else ""
