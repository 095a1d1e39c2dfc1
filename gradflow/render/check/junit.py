"""JUnit XML, as test reports in CI read it: a suite per target, a case per rule. A suite has a failure exactly where its target failed.

Well-formed XML 1.0 by the Jenkins schema junit-10.xsd: characters that XML cannot hold become their Python escapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from gradflow.blocks import called
from gradflow.records import Checks, Finding, Outcome
from gradflow.render import summary
from gradflow.render.check import words
from gradflow.rules import EVERY, Rules

_COUNTED = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def render(checks: Checks, *, rules: Rules = EVERY) -> str:
    """One testsuite per target: a case "profiled" (an error where it was not), and one case per rule that was selected.

    Args:
        checks: what to show.
        rules: which cases there are, findings or not; a rule that has findings has a case in any event.
    """
    root = Element("testsuites", name="gradflow check")
    root.extend(_suite(outcome, checks, rules) for outcome in checks.outcomes)
    for key in ("tests", "failures", "errors"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    root.set("time", f"{sum(o.seconds for o in checks.outcomes):.3f}")
    if checks.notes and len(root):
        SubElement(root[-1], "system-out").text = _text("\n".join(f"note: {note}" for note in checks.notes))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _suite(outcome: Outcome, checks: Checks, rules: Rules) -> Element:
    suite = Element("testsuite", name=_text(outcome.target))
    profiled = _case(suite, outcome, "profiled", outcome.seconds)
    if outcome.trouble:
        fact = _text(outcome.trouble.fact)
        SubElement(profiled, "error", type=_text(outcome.trouble.kind), message=fact).text = _text(words.broken(outcome.trouble))
    elif outcome.report:
        left_out = f" ({words.silenced(outcome)})" if outcome.silenced else ""
        report = words.report(outcome) or outcome.report
        said = f"{report.verdict}, {summary.verdict(report)}{left_out}; {summary.coverage(report)}"
        SubElement(profiled, "system-out").text = _text(said)
    found = {f.rule for f in outcome.findings} | {s.finding.rule for s in outcome.silenced}
    for code in sorted({code for code in rules.table if code in rules} | found):
        _rule(_case(suite, outcome, words.title(code), 0.0), code, outcome, checks)
    suite.set("tests", str(len(suite)))
    for key, tag in _COUNTED.items():
        suite.set(key, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("time", f"{outcome.seconds:.3f}")
    return suite


def _case(suite: Element, outcome: Outcome, name: str, seconds: float) -> Element:
    return SubElement(suite, "testcase", classname=_text(outcome.target), name=_text(name), time=f"{seconds:.3f}")


def _rule(case: Element, code: str, outcome: Outcome, checks: Checks) -> None:
    """What the rule found: at or above `fail_on` it is the case's failure, and anything else its output."""
    if outcome.trouble:
        SubElement(case, "skipped", message="the target was not profiled")
        return
    found = [f for f in outcome.findings if f.rule == code]
    failing = [f for f in found if words.fails(f, checks)]
    if failing:
        SubElement(case, "failure", type=failing[0].severity, message=_text(words.told(failing))).text = _text("\n\n".join(_entries(failing)))
    others = _entries([f for f in found if f not in failing])
    for by in dict.fromkeys(s.by for s in outcome.silenced):
        others += [f"silenced ({by}): {entry}" for entry in _entries([s.finding for s in outcome.silenced if s.by == by and s.finding.rule == code])]
    if others:
        SubElement(case, "system-out").text = _text("\n\n".join(others))


def _entries(findings: Sequence[Finding]) -> list[str]:
    """Each group as lines: what it is, a line for each finding, then the fix and the place that they share."""
    return ["\n".join(_entry(group)) for group in words.groups(findings)]


def _entry(group: Sequence[Finding]) -> list[str]:
    first = group[0]
    which = called(first.where) if len(group) == 1 else f"×{len(group)}"
    messages = [first.message + summary.limits(group)] if len(group) == 1 else [words.told([finding]) for finding in group]
    fixes = [f"Fix: {fix}" for fix in dict.fromkeys(finding.fix for finding in group) if fix]
    return [f"{first.severity} {words.title(first.rule)} {which}", *messages, *fixes, *([f"At: {first.location}"] if first.location else [])]


def _text(text: str) -> str:
    return words.visible(text.replace("\r\n", "\n"), keep="\n\t")
