"""JUnit XML, read back by a parser and validated by the Jenkins schema."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
import xmlschema
from hypothesis import given, settings
from hypothesis import strategies as st

from gradflow.records import Checks
from gradflow.render.check.junit import render
from gradflow.rules import EVERY, RULES, choose
from render import reports

from . import runs

SCHEMA = xmlschema.XMLSchema(Path(__file__).parent / "schemas" / "junit-10.xsd")


def parsed(text: str) -> Element:
    SCHEMA.validate(text)
    return ElementTree.fromstring(text)


def case(suite: Element, name: str) -> Element:
    (found,) = [c for c in suite if c.get("name") == name]
    return found


@pytest.mark.parametrize("build", runs.EVERY, ids=lambda f: f.__name__)
def test_valid(build: Callable[[], Checks]) -> None:
    """The schema accepts it, and every count is the number of elements."""
    root = parsed(render(build()))
    for suite in root:
        for key, tag in (("tests", "."), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.get(key, "")) == len([c for c in suite.findall("testcase") if tag == "." or c.find(tag) is not None])
    for key in ("tests", "failures", "errors"):
        assert int(root.get(key, "")) == sum(int(s.get(key, "")) for s in root)


def test_a_schema_that_refuses() -> None:
    """The schema is one that can fail: a case without a name is refused."""
    text = render(runs.three()).replace('name="profiled" ', "", 1)
    assert not SCHEMA.is_valid(text)


def test_the_cases() -> None:
    """Each target is a suite with one case per rule and one for the profile, named by code and name."""
    for suite in parsed(render(runs.three())):
        assert [c.get("name") for c in suite.findall("testcase")] == ["profiled", *(f"{r.code} {r.name}" for r in RULES.values())]
        assert {c.get("classname") for c in suite.findall("testcase")} == {suite.get("name")}


def test_selected_rules() -> None:
    """Rules that were not selected have no case, unless they found something."""
    suite = parsed(render(runs.three(), rules=choose(RULES, ["GF3", "GF204"] if any(c.startswith("GF3") for c in RULES) else ["GF204"])))[1]
    names = {(c.get("name") or "").split()[0] for c in suite.findall("testcase")}
    assert {"profiled", "GF204", "GF203"} <= names and "GF101" not in names


@pytest.mark.parametrize("fail_on", ["error", "warning"])
def test_what_fails(fail_on: str) -> None:
    """Findings at or above fail_on are failures, those below it output; a suite has a failure exactly where its target failed."""
    checks = runs.checks([runs.outcome("half.py", runs.sick(), fail_on), runs.outcome("x.py", reports.cross_purposes(), fail_on)], fail_on)  # type: ignore[arg-type]
    root = parsed(render(checks))
    assert [int(s.get("failures", "")) > 0 for s in root] == [o.state == "failed" for o in checks.outcomes]
    weak = case(root[0], "GF201 attenuating-skip")
    assert (weak.find("failure") is not None) == (fail_on == "warning")
    text = weak.findtext("failure" if fail_on == "warning" else "system-out") or ""
    assert text.startswith("warning GF201 attenuating-skip ×6\nlayer1.0: λ = 0.5") and text.count("[0.5, limit 0.95]") == 6
    assert text.count("Fix: Let the skip be the identity") == text.count(f"At: {runs.FILE}:31") == 1


def test_a_broken_target() -> None:
    """Its profile is an error with the kind and the frames, and its rules are skipped."""
    suite = parsed(render(runs.three()))[2]
    error = suite.find("testcase/error")
    assert error is not None and error.get("type") == "ModelFailed"
    assert "x @ w" in (error.text or "")
    assert suite.get("errors") == "1" and suite.get("failures") == "0"
    assert suite.get("skipped") == str(len(EVERY.selected))


def test_silenced_findings() -> None:
    """They are output of a case that passed, with the reason."""
    found = case(parsed(render(runs.three()))[0], "GF203 transforming-skip")
    assert found.find("failure") is None
    assert (found.findtext("system-out") or "").startswith("silenced (baseline): warning GF203 transforming-skip layer2.0")


@pytest.mark.parametrize("name", runs.HOSTILE, ids=ascii)
def test_a_hostile_name(name: str) -> None:
    """It is read back as itself, but for characters that XML cannot hold: those are Python escapes."""
    root = parsed(render(runs.hostile(name)))
    text = name.replace("\r\n", "\n")
    expected = "".join(c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    assert [s.get("name") for s in root] == [expected] * 2
    failure = case(root[0], "GF101 vanishing-gradient").find("failure")
    assert failure is not None and f"Fix: Mend {expected}." in (failure.text or "")
    assert root[1].find("testcase/error").get("message") == expected  # type: ignore[union-attr]


@settings(deadline=None, max_examples=40)
@given(st.text())
def test_any_name(name: str) -> None:
    """The XML is well-formed and valid whatever a name holds."""
    assert len(parsed(render(runs.hostile(name)))) == 2


def test_notes() -> None:
    """The run's notes are output of the last suite."""
    assert "unused ignore comment" in (parsed(render(runs.three()))[-1].findtext("system-out") or "")
