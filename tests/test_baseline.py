"""The baseline: what is known does not fail, what is new or worse does."""

import dataclasses
import json
from importlib import metadata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from render import reports

from gradflow import blocks, errors
from gradflow.baseline import BASELINE_SCHEMA, Baseline, apply_baseline, baseline_notes, baseline_of, read_baseline, write_baseline
from gradflow.records import Checks, Location, Outcome, Silenced, Trouble

TARGET = "model.py"


def finding(where, rule="GF201", severity="warning", decades=0.1, **more):
    return reports.finding(rule, where, f"{where} is not well", "mend it", severity=severity, decades=decades, **more)


def report(*findings, depth=8, skips=()):
    layers = [reports.layer(f"blocks.{i}.{part}", "Linear", 2 * i + j, 1.0) for i in range(depth) for j, part in enumerate(("fc1", "fc2"))]
    return reports.report(layers, [reports.skip(s, 0, 2) for s in skips], findings=findings)


def outcome(of, target=TARGET, silenced=()):
    return Outcome(target=target, state="failed", findings=of.findings, silenced=silenced, report=of, trouble=None, exit_code=1, seconds=0.1)


def checks(*outcomes):
    return Checks(gradflow_version="0.1.0", outcomes=outcomes, fail_on="error", exit_code=1)


def baseline(*findings, depth=8):
    return baseline_of(checks(outcome(report(*findings, depth=depth))))


def kept(findings, known, depth=8):
    found, silenced = apply_baseline(TARGET, findings, known, report(depth=depth))
    assert sorted([*found, *(s.finding for s in silenced)], key=str) == sorted(findings, key=str)
    assert all(s.by == "baseline" for s in silenced)
    return [f.where for f in found]


def test_a_known_finding():
    """It is silenced, although its line, its message and its value changed."""
    now = finding("blocks.3", value=0.71, location=Location(file="other.py", line=7))
    assert kept([now], baseline(finding("blocks.3"))) == []


def test_another_rule_or_place():
    """It is new."""
    known = baseline(finding("blocks.3"))
    assert kept([finding("blocks.4"), finding("blocks.3", rule="GF202")], known) == ["blocks.4", "blocks.3"]


def test_a_target_that_is_new():
    """All its findings are."""
    found, silenced = apply_baseline("other.py", [finding("blocks.3")], baseline(finding("blocks.3")))
    assert len(found) == 1 and not silenced


def test_a_path_with_a_leading_dot():
    """`./model.py` is `model.py`."""
    assert apply_baseline("./model.py", [finding("blocks.3")], baseline(finding("blocks.3")))[0] == ()


@pytest.mark.parametrize(
    ("rule", "severity", "decades", "is_kept"),
    [
        ("GF206", "warning", 0.6, False), ("GF206", "warning", 0.61, True), ("GF206", "error", 0.1, True), ("GF206", "info", 0.1, False),
        ("GF206", "warning", 0.0, False), ("GF201", "warning", 0.15, False), ("GF201", "warning", 0.16, True), ("GF209", "warning", 0.36, True),
        ("GF999", "warning", 0.6, False), ("GF999", "warning", 0.61, True),
    ],
    ids=["half a decade", "more", "more severe", "less severe", "better", "λ by a little", "λ by more", "a branch", "an unknown rule", "the same, worse"],
)  # fmt: skip
def test_a_known_finding_that_changed(rule, severity, decades, is_kept):
    """It fails again where it is more severe, or further beyond the limit by more than its rule's tolerance; a note says how it was."""
    known, now = baseline(finding("blocks.3", rule)), finding("blocks.3", rule, severity=severity, decades=decades)
    assert bool(kept([now], known)) is is_kept
    notes = baseline_notes(TARGET, [now], known, report())
    assert [n for n in notes if "got worse since the baseline: warning, 0.1 decades beyond the limit, now" in n] == list(notes)
    assert len(notes) == is_kept


def test_two_findings_where_one_was():
    """Each entry excuses one finding."""
    known = baseline(finding("blocks.3", decades=1.0))
    assert kept([finding("blocks.3", decades=0.2), finding("blocks.3", decades=1.04)], known) == ["blocks.3"]


def test_a_block_added_to_a_run_in_which_all_have_the_finding():
    """Its finding is new; the others, one of them renumbered, are known."""
    known = baseline(*(finding(f"blocks.{i}") for i in range(7)), depth=7)
    assert kept([finding(f"blocks.{i}") for i in range(8)], known, depth=8) == ["blocks.7"]


def test_a_block_renumbered_by_one_that_came_before_it():
    """It is known by its new number, no farther than blocks came, and not the other way."""
    known = baseline(finding("blocks.3"), depth=8)
    assert kept([finding("blocks.5")], known, depth=10) == []
    assert kept([finding("blocks.6")], known, depth=10) == ["blocks.6"]
    assert kept([finding("blocks.2")], known, depth=10) == ["blocks.2"]
    assert kept([finding("blocks.2")], known, depth=7) == []
    assert kept([finding("blocks.4.fc1")], baseline(finding("blocks.3.fc1")), depth=9) == []


def test_a_block_renumbered_that_is_worse():
    """It is new: nothing says that it is the old one."""
    assert kept([finding("blocks.4", severity="error")], baseline(finding("blocks.3")), depth=9) == ["blocks.4"]


def test_one_block_mended_and_another_broken():
    """Where no block came or went the other one is new, and the mended one is gone."""
    known = baseline(finding("blocks.3"))
    assert kept([finding("blocks.4")], known) == ["blocks.4"]
    notes = baseline_notes(TARGET, [finding("blocks.4")], known, report())
    assert notes == ("1 finding of the baseline is gone from model.py: GF201 at blocks.3. Update it with --update-baseline",)


def test_many_that_are_gone():
    """One note for the target: every rule with how many, and three places in all."""
    known = baseline(*(finding(f"blocks.{i}") for i in range(8)), finding("head", rule="GF104"), finding("", rule="GF107"))
    (note,) = baseline_notes(TARGET, [finding("blocks.1")], known, report())
    told = "GF104 at head; GF107 at (the model itself); GF201 ×7 at blocks.0, …"
    assert note == f"9 findings of the baseline are gone from model.py: {told}. Update it with --update-baseline"
    alone = baseline(*(finding(f"blocks.{i}") for i in range(8)), finding("fc", rule="GF202"))
    assert baseline_notes(TARGET, [], alone, report())[0].endswith(": GF201 ×8 at blocks.0, blocks.1, blocks.2, …; GF202. Update it with --update-baseline")


def test_many_that_got_worse():
    """The worst three are told, and how many more there are: each of them is a finding that counts."""
    known = baseline(*(finding(f"blocks.{i}") for i in range(8)))
    *told, last = baseline_notes(TARGET, [finding(f"blocks.{i}", decades=1.0 + i) for i in range(8)], known, report())
    assert [note.split(" got worse")[0] for note in told] == [f"model.py: GF201 at blocks.{i}" for i in (7, 6, 5)]
    assert last == "model.py: 5 more findings got worse since the baseline"


def test_a_highway_that_grew():
    """It is named by its ends, and known while they are as far as blocks came."""
    known = baseline(finding("blocks.0 … blocks.7", rule="GF206"))
    assert kept([finding("blocks.0 … blocks.8", rule="GF206")], known, depth=9) == []
    assert kept([finding("blocks.0 … blocks.9", rule="GF206")], known, depth=9) == ["blocks.0 … blocks.9"]


def test_an_entry_whose_rule_was_not_looked_for():
    """It is not called gone."""
    assert baseline_notes(TARGET, [], baseline(finding("blocks.3")), report(), rules={"GF101"}) == ()


def test_a_baseline_written_and_read(tmp_path):
    """The file gives back what was written, the same bytes whatever the order of the findings, one line for each."""
    some = [finding("blocks.10"), finding("blocks.9", severity="error", decades=1 / 3), finding("head", rule="GF104")]
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    write_baseline(one, checks(outcome(report(*some))))
    write_baseline(two, checks(outcome(report(*reversed(some)))))
    assert one.read_bytes() == two.read_bytes()
    assert read_baseline(one) == baseline(*some)
    known = json.loads(one.read_text())["targets"][TARGET]
    assert [(f["rule"], f["where"], f["decades"]) for f in known["findings"]] == [
        ("GF104", "head", 0.1), ("GF201", "blocks.9", 0.33), ("GF201", "blocks.10", 0.1),
    ]  # fmt: skip
    assert known["blocks"] == {"blocks.*": 8, "blocks.*.fc*": 16}
    assert sum("GF201" in line for line in one.read_text().splitlines()) == 2


def test_a_baseline_of_nothing(tmp_path):
    """It is a file that can be read."""
    write_baseline(tmp_path / "b.json", checks())
    assert read_baseline(tmp_path / "b.json") == Baseline()


@pytest.mark.parametrize("form", ["report", "checks"])
def test_a_report_as_baseline(tmp_path, form):
    """The JSON of a report and of a check excuse what stands in them."""
    old = report(finding("blocks.3"))
    old = dataclasses.replace(old, target=dataclasses.replace(old.target, spec=TARGET))
    (tmp_path / "old.json").write_text((old if form == "report" else checks(outcome(old))).to_json())
    assert kept([finding("blocks.3"), finding("blocks.4")], read_baseline(tmp_path / "old.json")) == ["blocks.4"]


def test_a_baseline_updated(tmp_path):
    """What it silenced stays in it, what a comment silences does not get in, and a target that broke or was not run keeps its entries."""
    silenced = (Silenced(finding=finding("blocks.1"), by="baseline"), Silenced(finding=finding("blocks.2"), by="ignored"))
    trouble = Trouble(kind="ModelFailed", fact="it raised", remedy="", detail="", exit_code=3)
    broken = Outcome(target="broken.py", state="broken", findings=(), silenced=(), report=None, trouble=trouble, exit_code=3, seconds=0.0)
    old = Baseline(targets={"broken.py": baseline(finding("x")).targets[TARGET], "./model.py": baseline(finding("y")).targets[TARGET]})
    new = baseline_of(checks(outcome(report(finding("blocks.0")), silenced=silenced), broken), old)
    assert {name: [e.where for e in known.findings] for name, known in new.targets.items()} == {"broken.py": ["x"], TARGET: ["blocks.0", "blocks.1"]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such file"), ("{", "it is not JSON: Expecting"), ("[" * 100_000, "recursion"), ("[]", "JSON that gradflow did not write: it has no schema"),
        ('{"schema": "other/v1", "targets": {}}', "did not write: its schema is 'other/v1'"),
        (f'{{"schema": "{BASELINE_SCHEMA}", "targets": {{"m": {{"blocks": {{}}}}}}}}', "missing key 'findings'"),
    ],
    ids=["no file", "no JSON", "too deep", "no object", "another schema", "a key is missing"],
)  # fmt: skip
def test_what_is_no_baseline(tmp_path, text, said):
    """It is refused, with the file and the reason, and exit code 2."""
    file = tmp_path / "b.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(errors.RecordFileError, match=said) as caught:
        read_baseline(file)
    assert str(file) in caught.value.fact and caught.value.remedy and caught.value.exit_code == 2


@pytest.mark.parametrize("form", ["report", "checks"])
def test_a_baseline_of_another_version(tmp_path, form):
    """Where the record has other fields, the place is named and both versions are; where it has the same ones, it is read."""
    old = dataclasses.replace(report(finding("blocks.3")), gradflow_version="9.8.7")
    written = old if form == "report" else dataclasses.replace(checks(outcome(old)), gradflow_version="9.8.7")
    (tmp_path / "b.json").write_text(written.to_json())
    assert read_baseline(tmp_path / "b.json").targets
    (tmp_path / "b.json").write_text(written.to_json().replace('"highways"', '"motorways"'))
    with pytest.raises(errors.RecordFileError, match=r"(Report|report): unknown key 'motorways' \(gradflow 9.8.7 wrote it, and this is gradflow") as caught:
        read_baseline(tmp_path / "b.json")
    assert caught.value.remedy == f"Write it anew with gradflow {metadata.version('gradflow-profiler')}, or read it with gradflow 9.8.7."


NAMES = st.lists(st.sampled_from(["blocks.0", "blocks.1.fc", "blocks.02", "x2y", "a.1.b.2", "é.3", "(Net)#2", "a … b.1"]) | st.text(max_size=8), max_size=6)


@given(NAMES, st.lists(st.sampled_from(["error", "warning", "info"]), min_size=6, max_size=6))
def test_a_run_against_its_own_baseline(names, severities):
    """Nothing is new, nothing is gone, whatever the names; also after the file was read back."""
    found = [finding(name, severity=s) for name, s in zip(names, severities, strict=False)]
    known = baseline(*found)
    assert apply_baseline(TARGET, found, known, report(*found))[0] == ()
    assert baseline_notes(TARGET, found, known, report(*found)) == ()
    assert json.loads(known.to_json())["targets"][TARGET]["findings"] == [dataclasses.asdict(e) for e in known.of(TARGET).findings]


@given(st.text(max_size=12) | st.from_regex(r"([a-z]{1,2}\d{0,2}\.){0,3}\d{1,3}", fullmatch=True))
def test_a_name_in_tokens(name):
    """They put the name together again, text and numbers by turns; no name is its own renumbering."""
    parts = blocks.tokens(name)
    assert "".join(map(str, parts)) == name
    assert all(isinstance(part, int) is bool(i % 2) for i, part in enumerate(parts))
    assert not blocks.renumbered(name, name, {"*": 9})
