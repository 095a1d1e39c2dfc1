"""SARIF 2.1.0 (OASIS), for code scanning: the rules from the table, a result per finding, suppressions for those silenced.

Code scanning refuses a whole file for one result without a file in the repository. So each result has one: its own line, else the target's
model file, else its line in the configuration, else the target's name as a path; a line outside the repository is then a related location.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from urllib.parse import quote

from gradflow.blocks import called
from gradflow.records import Checks, Finding, Outcome, Severity, Silenced
from gradflow.render.check import places, words
from gradflow.rules import EVERY, Rule, Rules
from gradflow.rules.pages import entry

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
FINGERPRINT = "gradflow/v1"
_LEVELS: Mapping[Severity, str] = {"error": "error", "warning": "warning", "info": "note"}
_SUPPRESSIONS = {"baseline": ("external", "It is in the baseline."), "ignored": ("inSource", "A comment on the line ignores the rule.")}
_LINK = re.compile(r"\](?=\()")
Node = dict[str, object]


def render(checks: Checks, *, rules: Rules = EVERY, root: Path | None = None, help_uri: str | None = None) -> str:
    """One run with all results, those silenced included.

    Args:
        checks: what to show.
        rules: whose metadata is given, findings or not; a rule that has findings is given in any event.
        root: of the repository, %SRCROOT%; by default it is looked for from the current directory upward.
        help_uri: absolute address at which docs/rules.md is published; without it no rule has a helpUri.
    """
    base = root or places.root()
    found = {f.rule for o in checks.outcomes for f in _all(o)}
    codes = sorted({code for code in rules.table if code in rules} | found)
    driver: Node = {"name": "gradflow", "version": checks.gradflow_version, "rules": [_descriptor(rules.table.get(c), c, help_uri) for c in codes]}
    run: Node = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [_invocation(checks, base)],
        "results": [result for o in checks.outcomes for result in _results(o, codes, base)],
    }
    return json.dumps(_sound({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def message(text: str) -> Node:
    """A plain-text message by sections 3.11.5 and 3.11.6: braces doubled, and no brackets that read as a link."""
    return {"text": _LINK.sub(r"\\]", text.replace("{", "{{").replace("}", "}}"))}


def _all(outcome: Outcome) -> list[Finding]:
    return [*outcome.findings, *(s.finding for s in outcome.silenced)]


def _descriptor(rule: Rule | None, code: str, help_uri: str | None) -> Node:
    if rule is None:
        return {"id": code}
    known: Node = {
        "id": rule.code,
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": {"text": f"{rule.name}: {rule.what}"},
        "fullDescription": {"text": rule.why},
        "help": {"text": f"{rule.why}\n\nFix: {rule.fix}", "markdown": entry(rule)},
        "defaultConfiguration": {"level": _LEVELS[rule.severities[0]]},
    }
    return known if help_uri is None else known | {"helpUri": f"{help_uri}#{rule.code.lower()}-{rule.name}"}


def _results(outcome: Outcome, codes: Sequence[str], base: Path) -> list[Node]:
    """The outcome's results; equal fingerprints are told apart by their number, in the order found."""
    seen: Counter[tuple[str, str]] = Counter()
    results = []
    entries: list[tuple[Finding, Silenced | None]] = [*((f, None) for f in outcome.findings), *((s.finding, s) for s in outcome.silenced)]
    for finding, silenced in entries:
        seen[finding.rule, finding.where] += 1
        result = _result(finding, outcome, base)
        result["ruleIndex"] = codes.index(finding.rule)
        result["partialFingerprints"] = {FINGERPRINT: _fingerprint(finding, outcome, seen[finding.rule, finding.where])}
        result["suppressions"] = [] if silenced is None else [_suppression(silenced)]
        results.append(result)
    return results


def _result(finding: Finding, outcome: Outcome, base: Path) -> Node:
    told = words.told([finding])
    if finding.fix:
        told += f"\nFix: {finding.fix}"
    outside = finding.location is not None and places.relative(finding.location.file, base) is None
    if outside:
        told += f"\nAt: {finding.location}"
    told += f"\nTarget: {outcome.target}"
    properties = {
        "target": outcome.target, "where": finding.where, "value": finding.value, "limit": finding.limit, "decades": finding.decades, "fix": finding.fix,
    }  # fmt: skip
    result: Node = {
        "ruleId": finding.rule,
        "level": _LEVELS[finding.severity],
        "message": message(told),
        "locations": [_location(finding, outcome, base)],
        "properties": properties,
    }
    related = _outside(finding) if outside else None
    return result if related is None else result | {"relatedLocations": [related]}


def _location(finding: Finding, outcome: Outcome, base: Path) -> Node:
    file, line = places.anchor(finding.location, outcome, base) or (outcome.target.lstrip("./") or "target", 1)
    return {"physicalLocation": _physical(file, line), "logicalLocations": [{"fullyQualifiedName": called(finding.where)}]}


def _physical(file: str, line: int) -> Node:
    return {"artifactLocation": {"uri": quote(words.visible(file)), "uriBaseId": "%SRCROOT%"}, "region": {"startLine": line}}


def _outside(finding: Finding) -> Node | None:
    """The line of a finding that lies in no file of the repository; None where it has no absolute path (`<string>`)."""
    assert finding.location is not None
    path = PurePath(words.visible(finding.location.file))
    if not path.is_absolute():
        return None
    return {"id": 1, "physicalLocation": {"artifactLocation": {"uri": path.as_uri()}, "region": {"startLine": max(finding.location.line, 1)}}}


def _fingerprint(finding: Finding, outcome: Outcome, occurrence: int) -> str:
    """Of rule, target and name: neither the line nor the measured value moves it."""
    key = json.dumps([finding.rule, outcome.target, finding.where, occurrence])
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _suppression(silenced: Silenced) -> Node:
    kind, why = _SUPPRESSIONS[silenced.by]
    return {"kind": kind, "status": "accepted", "justification": why}


def _invocation(checks: Checks, base: Path) -> Node:
    broken = [_notification(outcome, base) for outcome in checks.outcomes if outcome.trouble]
    notes = [{"level": "note", "message": message(note)} for note in checks.notes]
    return {
        "executionSuccessful": not broken,
        "exitCode": checks.exit_code,
        "exitCodeDescription": words.tally(checks),
        "toolExecutionNotifications": broken,
        "toolConfigurationNotifications": notes,
    }


def _notification(outcome: Outcome, base: Path) -> Node:
    assert outcome.trouble is not None
    told: Node = {"level": "error", "message": message(f"{outcome.target}: {words.broken(outcome.trouble)}")}
    told["exception"] = {"kind": outcome.trouble.kind, "message": outcome.trouble.fact}
    place = places.anchor(None, outcome, base)
    return told | {"locations": [{"physicalLocation": _physical(*place)}]} if place else told


def _sound(value: object) -> object:
    """`value` with every text such that UTF-8 can hold it."""
    if isinstance(value, dict):
        return {key: _sound(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_sound(part) for part in value]
    return words.visible(value, keep="\n\t\r") if isinstance(value, str) else value
