"""The baseline: findings that are known, so that only new or worse ones fail. Reads and writes files; touches no tensor and judges nothing anew.

A finding is known by its rule and its place. Its line, its message and its value may change. Where blocks came or went, the number of a block may move by as
many; where none did, a finding at another block is another finding.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gradflow import blocks, codec, errors
from gradflow.numbers import number
from gradflow.records import CHECKS_SCHEMA, GRAVITY, SCHEMA, Checks, Finding, Report, Severity, Silenced
from gradflow.rules import EVERY, RULES, Rule
from gradflow.stored import read_text, refused, schema_of

BASELINE_SCHEMA = "gradflow/baseline/v1"
_MANY = 3  # how many places a note names


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A known finding; `decades` beyond the limit, to two digits behind the point."""

    rule: str
    where: str
    severity: Severity
    decades: float


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of one target.

    Attributes:
        blocks: how many blocks each pattern of names had, which tells whether blocks came or went since; see `blocks.counts`.
        findings: sorted by rule and place.
    """

    blocks: Mapping[str, int]
    findings: Sequence[Entry]


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What is known of each target, by its name on the command line."""

    targets: Mapping[str, Known] = field(default_factory=dict)
    schema: str = BASELINE_SCHEMA

    def of(self, target: str) -> Known:
        """What is known of `target`; nothing where it is new. `./model.py` is `model.py`."""
        return {_plain(name): known for name, known in self.targets.items()}.get(_plain(target), Known(blocks={}, findings=()))

    def to_json(self) -> str:
        """As strict JSON, one line for each finding, so that a change reads well under version control."""
        targets = []
        for name, known in sorted(self.targets.items()):
            entries = ",\n".join(f"        {json.dumps(codec.to_plain(e), ensure_ascii=False)}" for e in known.findings)
            listed = f"[\n{entries}\n      ]" if known.findings else "[]"
            counted = json.dumps(dict(known.blocks), ensure_ascii=False)
            targets.append(f'    {json.dumps(name, ensure_ascii=False)}: {{\n      "blocks": {counted},\n      "findings": {listed}\n    }}')
        inner = "{\n" + ",\n".join(targets) + "\n  }" if targets else "{}"
        return f'{{\n  "schema": "{self.schema}",\n  "targets": {inner}\n}}\n'


def read_baseline(path: Path) -> Baseline:
    """A baseline from the file that `write_baseline` wrote, or from the JSON of a report or of a check.

    Raises:
        errors.RecordFileError: there is no such file, or it holds none of these.
    """
    text = read_text(path, remedy="Write it with gradflow check --update-baseline.")
    try:
        schema = schema_of(text)
        if schema == SCHEMA:
            report = Report.from_json(text)
            return Baseline(targets={report.target.spec: _known(report.findings, report)})
        if schema == CHECKS_SCHEMA:
            return baseline_of(Checks.from_json(text))
        return codec.loads(Baseline, text, BASELINE_SCHEMA)
    except (ValueError, RecursionError) as error:
        remedy = "Give a baseline, a report or the JSON of a check. gradflow check --update-baseline writes one where there is no such file."
        raise refused(path, text, error, remedy=remedy, wanted=("baseline", "report", "checks")) from error


def write_baseline(path: Path, checks: Checks, before: Baseline | None = None) -> None:
    """Write what `checks` found, the findings that an older baseline silenced among it, those that a comment silences not.

    Args:
        before: what it says of targets that were not profiled in this run is kept.

    Raises:
        errors.OutputFileError: the file cannot be written.
    """
    try:
        path.write_text(baseline_of(checks, before).to_json(), encoding="utf-8")
    except OSError as error:
        raise errors.OutputFileError(file=str(path), reason=errors.reason_of(error)) from error


def baseline_of(checks: Checks, before: Baseline | None = None) -> Baseline:
    """What `write_baseline` writes."""
    fresh = {o.target: _known((*o.findings, *(s.finding for s in o.silenced if s.by == "baseline")), o.report) for o in checks.outcomes if o.report is not None}
    profiled = {_plain(name) for name in fresh}
    old = {name: known for name, known in (before.targets if before else {}).items() if _plain(name) not in profiled}
    return Baseline(targets=old | fresh)


def apply_baseline(
    target: str, findings: Sequence[Finding], baseline: Baseline, report: Report | None = None
) -> tuple[tuple[Finding, ...], tuple[Silenced, ...]]:
    """The findings that are new or worse, and the others as silenced, each in the order given.

    A finding is worse with a higher severity, or further beyond the limit by more than its rule's tolerance.

    Args:
        target: as it is named in the run.
        report: where `findings` come from; without it the number of no block may have moved.
    """
    excused = {i for i, entry in _matches(findings, baseline.of(target), report) if not _outgrew(findings[i], entry)}
    kept = tuple(f for i, f in enumerate(findings) if i not in excused)
    return kept, tuple(Silenced(finding=f, by="baseline") for i, f in enumerate(findings) if i in excused)


def baseline_notes(
    target: str, findings: Sequence[Finding], baseline: Baseline, report: Report | None = None, rules: Container[str] = EVERY
) -> tuple[str, ...]:
    """Sentences on what got worse since the baseline, and one on the entries that are gone.

    Args:
        findings: all of them, also those that a comment silences.
        rules: those that were looked for; an entry of another is not gone.
    """
    known = baseline.of(target)
    matches = _matches(findings, known, report)
    worse = [(findings[i], entry) for i, entry in matches if _outgrew(findings[i], entry)]
    found = {id(entry) for _, entry in matches}
    gone = [e for e in known.findings if id(e) not in found and e.rule in rules]
    told = [
        f"{target}: {f.rule} at {f.where} got worse since the baseline: {_extent(e.severity, e.decades)}, now {_extent(f.severity, f.decades)}"
        for f, e in worse[:_MANY]
    ]
    more = [f"{target}: {len(worse) - _MANY} more findings got worse since the baseline"] if len(worse) > _MANY else []
    return (*told, *more, *([_gone(target, gone)] if gone else []))


def _gone(target: str, entries: Sequence[Entry]) -> str:
    """`4 findings of the baseline are gone from model.py: GF101 ×3 at a, b, c; GF201. Update it with --update-baseline`: every rule, a few places."""
    times, left = Counter(entry.rule for entry in entries), _MANY
    rules = []
    for rule, count in times.items():
        shown = [blocks.called(entry.where) for entry in entries if entry.rule == rule][:left]
        left -= len(shown)
        at = f" at {', '.join([*shown, *(['…'] if len(shown) < count else [])])}" if shown else ""
        rules.append(f"{rule} ×{count}{at}" if count > 1 else f"{rule}{at}")
    counted = "1 finding of the baseline is" if len(entries) == 1 else f"{len(entries)} findings of the baseline are"
    return f"{counted} gone from {target}: {'; '.join(rules)}. Update it with --update-baseline"


def is_worse(rule: str, severity: Severity, decades: float, than: tuple[Severity, float]) -> bool:
    """Whether a finding of this rule, severity and extent is worse than another: more severe, or further beyond the limit by more than `Rule.tolerance`."""
    tolerance = RULES[rule].tolerance if rule in RULES else Rule.tolerance
    return GRAVITY[severity] > GRAVITY[than[0]] or (GRAVITY[severity] == GRAVITY[than[0]] and decades > than[1] + tolerance)


def _outgrew(finding: Finding, entry: Entry) -> bool:
    return is_worse(finding.rule, finding.severity, round(finding.decades, 2), (entry.severity, entry.decades + 1e-9))


def _matches(findings: Sequence[Finding], known: Known, report: Report | None) -> list[tuple[int, Entry]]:
    """(position of a finding, its entry): those with one name first, worst with worst, then those whose block has another number by now."""
    growth = blocks.grown(known.blocks, _counts(report)) if report is not None else {}
    waiting = sorted(range(len(findings)), key=lambda i: (-GRAVITY[findings[i].severity], -findings[i].decades))
    entries = sorted(known.findings, key=lambda e: (-GRAVITY[e.severity], -e.decades))
    matches: list[tuple[int, Entry]] = []
    for moved in (False, True) if growth else (False,):
        for i in list(waiting):
            entry = next((e for e in entries if _fits(findings[i], e, growth if moved else None)), None)
            if entry is not None:
                matches.append((i, entry))
                waiting.remove(i)
                entries.remove(entry)
    return matches


def _fits(finding: Finding, entry: Entry, growth: Mapping[str, int] | None) -> bool:
    if finding.rule != entry.rule:
        return False
    if growth is None:
        return finding.where == entry.where
    return blocks.renumbered(entry.where, finding.where, growth) and not _outgrew(finding, entry)


def _known(findings: Iterable[Finding], report: Report) -> Known:
    entries = [Entry(rule=f.rule, where=f.where, severity=f.severity, decades=round(f.decades, 2)) for f in findings]
    return Known(blocks=_counts(report), findings=tuple(sorted(entries, key=lambda e: (e.rule, blocks.tokens(e.where), e.severity, e.decades))))


def _counts(report: Report) -> dict[str, int]:
    return blocks.counts([*(layer.name for layer in report.layers), *(skip.id for skip in report.skips)])


def _plain(target: str) -> str:
    return target.removeprefix("./")


def _extent(severity: str, decades: float) -> str:
    return f"{severity}, {number(decades, 3)} decades beyond the limit" if decades else severity
