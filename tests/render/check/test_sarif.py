"""SARIF, validated by the schema of its standard."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gradflow.records import Checks, Location
from gradflow.render.check.sarif import FINGERPRINT, message, render
from gradflow.rules import RULES
from render import reports

from . import runs

_FILE = Path(__file__).parent / "schemas" / "sarif-2.1.0.json"
VALIDATOR = jsonschema.Draft4Validator(json.loads(_FILE.read_text(encoding="utf-8")))


def run(checks: Checks, **options: Any) -> Any:
    """The run of a valid SARIF log."""
    log = json.loads(render(checks, root=runs.ROOT, **options))
    VALIDATOR.validate(log)
    (found,) = log["runs"]
    return found


def places(result: Any) -> list[tuple[str, int]]:
    found = [place["physicalLocation"] for place in result["locations"]]
    assert all(p["artifactLocation"]["uriBaseId"] == "%SRCROOT%" for p in found)
    return [(p["artifactLocation"]["uri"], p["region"]["startLine"]) for p in found]


@pytest.mark.parametrize("build", runs.EVERY, ids=lambda f: f.__name__)
def test_valid(build: Callable[[], Checks]) -> None:
    """The schema accepts it; each result points at its rule and has one file in the repository."""
    found = run(build())
    rules = found["tool"]["driver"]["rules"]
    for result in found["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        ((uri, line),) = places(result)
        assert not uri.startswith(("/", "file:")) and ":" not in uri and line >= 1
    assert found["invocations"][0]["exitCode"] == build().exit_code


@pytest.mark.parametrize(
    "edit",
    [
        lambda r: r["results"][0].update(level="fatal"),
        lambda r: r["results"][0].pop("message"),
        lambda r: r["tool"]["driver"].pop("name"),
        lambda r: r["results"][0]["suppressions"].append({"kind": "baseline"}),
        lambda r: r["invocations"][0].pop("executionSuccessful"),
    ],
)
def test_a_spoilt_log(edit: Callable[[Any], object]) -> None:
    """The schema is one that can fail."""
    log = json.loads(render(runs.three(), root=runs.ROOT))
    edit(log["runs"][0])
    assert not VALIDATOR.is_valid(log)


def test_the_rules() -> None:
    """The driver has every rule of the table with its texts, its page and its worst severity."""
    rules = {r["id"]: r for r in run(runs.all_healthy())["tool"]["driver"]["rules"]}
    assert list(rules) == list(RULES)
    for code, rule in RULES.items():
        level = {"error": "error", "warning": "warning", "info": "note"}[rule.severities[0]]
        assert rules[code]["defaultConfiguration"]["level"] == level
        assert rule.what in rules[code]["shortDescription"]["text"] and rules[code]["fullDescription"]["text"] == rule.why
        assert all(text in rules[code]["help"]["markdown"] for text in (code, rule.name, rule.what, rule.why, rule.example, rule.fix))
        assert rule.fix in rules[code]["help"]["text"]
        assert "helpUri" not in rules[code]


def test_published_pages() -> None:
    """Where the address of the page of rules is given, each rule has its own on it."""
    rules = run(runs.three(), help_uri="https://example.org/rules.html")["tool"]["driver"]["rules"]
    assert next(r["helpUri"] for r in rules if r["id"] == "GF201") == "https://example.org/rules.html#gf201-attenuating-skip"


def test_a_rule_that_is_not_in_the_table() -> None:
    """A finding of another version's rule is kept, and its rule has a code alone."""
    found = [reports.finding("GF999", "a", "m", "f")]
    log = run(runs.checks([runs.outcome("a.py", reports.report([], findings=found))]))
    assert log["tool"]["driver"]["rules"][log["results"][0]["ruleIndex"]] == {"id": "GF999"}


def test_the_results() -> None:
    """Each finding is a result with its level and its line; one in a library or without a line is put on the model file, and the line beside it."""
    results = run(runs.three())["results"]
    assert [(r["ruleId"], r["level"]) for r in results] == [
        ("GF206", "error"), ("GF101", "error"), *[("GF201", "warning")] * 6, ("GF203", "warning"), ("GF205", "note"), ("GF203", "note"),
    ]  # fmt: skip
    first, second, third = (("models/half.py", line) for line in (1, 31, 40))
    assert [places(r)[0] for r in results] == [*[first] * 2, *[second] * 6, *[third] * 2, ("torchvision%3Aresnet18", 1)]
    related = results[1]["relatedLocations"][0]["physicalLocation"]
    assert (related["artifactLocation"]["uri"], related["region"]["startLine"]) == (f"file://{reports.FILE}", 102)
    assert "relatedLocations" not in results[2]


@pytest.mark.parametrize(
    "target, uri", [("/elsewhere/net.py:make", "elsewhere/net.py%3Amake"), ("../net.py", "net.py"), ("lab.nets:Net", "lab.nets%3ANet"), ("", "target")]
)
def test_a_target_outside_the_repository(target: str, uri: str) -> None:
    """Code scanning takes relative paths alone: the target's name stands as one."""
    found = [reports.finding("GF101", "a", "m", "f", location=None)]
    (result,) = run(runs.checks([runs.outcome(target, reports.report([], findings=found))]))["results"]
    assert places(result) == [(uri, 1)]


def test_silenced_findings() -> None:
    """They are results with a suppression, in the source for a comment and external for the baseline; all others say that they have none."""
    suppressions = [r["suppressions"] for r in run(runs.three())["results"]]
    assert [*suppressions[:8], suppressions[-1]] == [[]] * 9
    assert [(s["kind"], s["status"]) for (s,) in suppressions[8:10]] == [("external", "accepted"), ("inSource", "accepted")]


def test_a_broken_target() -> None:
    """It is a notification of the invocation, which then did not succeed; findings alone leave it successful."""
    (invocation,) = run(runs.three())["invocations"]
    assert invocation["executionSuccessful"] is False and invocation["exitCode"] == 3
    (notification,) = invocation["toolExecutionNotifications"]
    assert notification["exception"] == {"kind": "ModelFailed", "message": "forward raised ValueError: bad shape."}
    assert places(notification) == [("models/gone.py", 1)]
    assert invocation["toolConfigurationNotifications"][0]["message"]["text"].startswith("models/half.py:12: unused")
    (sick,) = run(runs.checks([runs.outcome("half.py", runs.sick())]))["invocations"]
    assert sick["executionSuccessful"] is True and sick["exitCode"] == 1


def fingerprints(checks: Checks) -> list[str]:
    return [r["partialFingerprints"][FINGERPRINT] for r in run(checks)["results"]]


def test_fingerprints() -> None:
    """No two results share one; neither a moved line nor another value changes it; rule, target and place do."""
    base = runs.checks(runs.three().outcomes[:1])
    known = fingerprints(base)
    assert len(set(known)) == len(known)
    first = base.outcomes[0]
    moved = [dataclasses.replace(f, location=Location(file="other.py", line=9), value=0.4, message="else", decades=3.0) for f in first.findings]
    assert fingerprints(runs.checks([dataclasses.replace(first, findings=moved)])) == known
    assert not set(fingerprints(runs.checks([dataclasses.replace(first, target="b.py")]))) & set(known)
    renamed = [dataclasses.replace(f, where=f"{f.where}x") for f in first.findings]
    assert not set(fingerprints(runs.checks([dataclasses.replace(first, findings=renamed, silenced=())]))) & set(known)


def test_two_findings_of_one_rule_at_one_place() -> None:
    """They are told apart by their number."""
    twice = [reports.finding("GF201", "a", m, "f") for m in ("one", "two")]
    assert len(set(fingerprints(runs.checks([runs.outcome("a.py", reports.report([], findings=twice))])))) == 2


@pytest.mark.parametrize("name", runs.HOSTILE, ids=ascii)
def test_a_hostile_name(name: str) -> None:
    """It is read back as itself from the properties, its file from the URI; what UTF-8 or a line cannot hold is a Python escape."""
    found = run(runs.hostile(name))
    expected = "".join(c if c in "\n\t\r" or c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    first, *_ = found["results"]
    assert first["properties"]["where"] == expected and first["properties"]["target"] == expected
    path = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in f"{name}.py")
    assert unquote(places(first)[0][0]) == path


@settings(deadline=None, max_examples=40)
@given(st.text())
def test_any_name(name: str) -> None:
    """The log is valid whatever a name holds."""
    assert len(run(runs.hostile(name))["results"]) == 3


@example("[a](1) {0}")
@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("{}[]()\\01")))
def test_any_message(text: str) -> None:
    """Read by the standard (doubled braces are one, an escaped bracket is a bracket) it is the text, with no placeholder and no link."""
    found = message(text)["text"]
    assert isinstance(found, str)
    assert "](" not in found.replace("\\](", "")
    assert not {"{", "}"} & set(found.replace("{{", "").replace("}}", ""))
    assert found.replace("\\](", "](").replace("{{", "{").replace("}}", "}") == text.replace("\\](", "](")
