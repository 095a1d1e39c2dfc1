"""What changed between two reports: blocks that came and went, values that moved, and whether it got worse."""

import dataclasses
import itertools
import json
from importlib import metadata
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from render import reports

from gradflow.alignment import Alignment
from gradflow.difference import Difference, difference
from gradflow.records import Report
from gradflow.render.difference import render
from gradflow.render.json_schema import schema, text


def block(name, kind="Linear", **parts):
    return {f"{name}.norm": "LayerNorm", f"{name}.fc": kind} | {f"{name}.{k}": v for k, v in parts.items()}


def stack(*kinds, path="blocks", head="head"):
    names = {"stem": "Conv2d"}
    for i, kind in enumerate(kinds):
        names |= block(f"{path}.{i}", kind)
    return names | {head: "Linear"}


def report(*kinds, findings=(), gains=None, lams=None, **changes):
    """A report with one residual block for each of `kinds`."""
    names = stack(*kinds)
    layers = [reports.layer(n, t, i, (gains or {}).get(n, 1.0)) for i, (n, t) in enumerate(names.items())]
    skips = [reports.skip(f"blocks.{i}", 2 * i + 1, 2 * i + 3, **(lams or {}).get(i, {})) for i in range(len(kinds))]
    return reports.report(layers, skips, [reports.highway(skips)] if skips else [], findings, **changes)


def finding(where, severity="warning", decades=0.1, rule="GF206"):
    return reports.finding(rule, where, f"{where} is not well", "mend it", severity=severity, decades=decades)


def test_the_same_report():
    """Nothing changed."""
    for build in (reports.cross_purposes, report):
        one = build()
        found = difference(one, one)
        assert not found.worse and not found.findings
        assert all(not (p.added or p.removed or p.words or p.numbers) for p in (found.layers, found.skips, found.highways))
        assert " NO CHANGE " in render(found)


def test_a_block_added_at_the_end():
    """It is added, with its skip; the highway is the one that it was, longer."""
    found = difference(report(*["Linear"] * 4), report(*["Linear"] * 5))
    assert found.layers.added == ("blocks.4.norm", "blocks.4.fc") and not found.layers.removed
    assert (found.skips.added, found.skips.removed) == (("blocks.4",), ())
    (change,) = found.highways.numbers
    assert (change.was, change.name, change.field, change.before, change.after) == ("blocks.0 … blocks.3", "blocks.0 … blocks.4", "skips", 4.0, 5.0)
    assert not found.worse


@pytest.mark.parametrize("at", range(5))
def test_a_block_of_another_kind_added_in_a_run_of_equal_ones(at):
    """It alone is added, wherever it came in: its neighbours are renumbered and not changed."""
    kinds = ["Linear"] * 4
    after = [*kinds[:at], "Conv1d", *kinds[at:]]
    found = difference(report(*kinds), report(*after))
    assert found.layers.added == (f"blocks.{at}.norm", f"blocks.{at}.fc")
    assert found.skips.added == (f"blocks.{at}",)
    assert not found.layers.words and not found.layers.removed and not found.skips.removed
    back = difference(report(*after), report(*kinds))
    assert back.layers.removed == found.layers.added and not back.layers.added


def test_a_block_replaced():
    """Its layers are the same ones of another type: nothing came or went."""
    found = difference(report("Linear", "Linear", "Linear"), report("Linear", "Conv1d", "Linear"))
    assert [(c.name, c.field, c.before, c.after) for c in found.layers.words] == [("blocks.1.fc", "type", "Linear", "Conv1d")]
    assert not found.layers.added and not found.layers.removed


def test_a_block_replaced_and_one_added_before_it():
    """The replaced one pairs with what it has more in common with."""
    align = Alignment(stack("Linear") | {"blocks.0.gate": "Linear"}, stack("Conv1d", "Conv2d") | {"blocks.1.gate": "Linear"})
    assert align("blocks.0.fc") == "blocks.1.fc"


def test_names_that_are_not_numbered():
    """They are aligned by name alone: one that is renamed was removed, and one was added."""
    found = difference(reports.report([reports.layer("old", "Linear", 0, 1.0)]), reports.report([reports.layer("new", "Linear", 0, 1.0)]))
    assert (found.layers.added, found.layers.removed) == (("new",), ("old",))


def test_the_stages_of_a_resnet():
    """A block more in one stage moves none of another's."""
    before = stack("A", "B", path="layer1") | stack("A", "A", path="layer2")
    after = stack("A", "B", "B", path="layer1") | stack("A", "A", path="layer2")
    align = Alignment(before, after)
    assert {name: align(name) for name in before} == {name: name for name in before}


def test_the_other_names():
    """A skip's number in its module, a parameter and a name that no layer has follow the modules that they name."""
    align = Alignment(stack("B", "A"), stack("A"))
    assert align("blocks.1#2") == "blocks.0#2"
    assert align("blocks.1.fc.weight") == "blocks.0.fc.weight"
    assert align("blocks.0") is None and align("blocks.0.fc") is None
    assert align("(Net)") == "(Net)" and align("output") == "output"


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [(1.0, 2.0, False), (1.0, 2.01, True), (1.0, 0.49, True), (0.0, 0.0, False), (0.0, 1e-300, True), (None, None, False), (None, 1.0, True)],
)
def test_a_gain_that_changed(before, after, shown):
    """By more than the factor, from or to 0, or from or to undefined."""
    found = difference(report("Linear", gains={"stem": before}), report("Linear", gains={"stem": after}))
    changes = [(c.before, c.after) for c in found.layers.numbers if (c.name, c.field) == ("stem", "gain")]
    assert changes == ([(before, after)] if shown else [])


def test_a_factor_of_ones_own():
    """Gains within it are not shown."""
    one, two = report("Linear"), report("Linear", gains={"stem": 5.0})
    assert difference(one, two, factor=5.0).layers.numbers == ()
    assert [c.after for c in difference(one, two, factor=4.9).layers.numbers] == [5.0]


@pytest.mark.parametrize(("lam", "shown"), [(1.0009, False), (0.9989, True), (-1.0, True)])
def test_a_lambda_that_changed(lam, shown):
    """By more than 1e-3."""
    found = difference(report("Linear"), report("Linear", lams={0: {"lam": lam}}))
    assert [c.after for c in found.skips.numbers] == ([lam] if shown else [])


def test_a_skip_of_another_kind():
    """Its kind is shown, and the layers that its branch bypasses."""
    found = difference(report("Linear", "Linear"), report("Linear", "Linear", lams={1: {"kind": "projection", "bypassed_layers": 3}}))
    assert [(c.name, c.before, c.after) for c in found.skips.words] == [("blocks.1", "identity", "projection")]
    assert [(c.field, c.before, c.after) for c in found.skips.numbers] == [("bypassed_layers", 2.0, 3.0)]


@pytest.mark.parametrize(
    ("before", "after", "change", "worse"),
    [
        (None, ("warning", 0.1), "new", True), (None, ("info", 0.0), "new", False), (("warning", 0.1), ("error", 0.1), "worse", True),
        (("warning", 0.1), ("warning", 0.7), "worse", True), (("info", 0.0), ("info", 0.9), "worse", False), (("warning", 0.1), ("warning", 0.5), None, False),
        (("error", 2.0), ("warning", 0.1), "better", False), (("warning", 1.0), ("warning", 0.1), "better", False), (("error", 1.0), None, "gone", False),
    ],
)  # fmt: skip
def test_a_finding_that_changed(before, after, change, worse):
    """New, worse, better or gone; a note is never a reason to fail."""
    one, two = (report("Linear", findings=[finding("blocks.0", *f)] if f else []) for f in (before, after))
    found = difference(one, two)
    assert [f.change for f in found.findings] == ([change] if change else [])
    assert found.worse is worse


def test_a_finding_at_a_block_that_was_renumbered():
    """It is the old one; at another block it is new, and the old one gone."""
    one = report("Conv1d", "Linear", findings=[finding("blocks.1"), finding("blocks.0 … blocks.1", rule="GF206")])
    moved = report("Conv1d", "Conv2d", "Linear", findings=[finding("blocks.2"), finding("blocks.0 … blocks.2", rule="GF206")])
    assert difference(one, moved).findings == ()
    other = report("Conv1d", "Conv2d", "Linear", findings=[finding("blocks.1")])
    assert [(f.change, f.where) for f in difference(one, other).findings] == [
        ("new", "blocks.1"), ("gone", "blocks.1"), ("gone", "blocks.0 … blocks.1"),
    ]  # fmt: skip


def test_a_verdict_that_got_worse():
    """It is worse whatever the findings say."""
    one = report("Linear")
    assert difference(one, dataclasses.replace(one, verdict="sick")).worse
    assert not difference(dataclasses.replace(one, verdict="sick"), one).worse


def test_the_text():
    """The verdict comes first, then findings with their place, then skips before layers, and equal changes of blocks in a run fold into one line."""
    half = {i: {"lam": 0.5, "kind": "scaled"} for i in range(4)}
    shown = render(difference(report(*["Linear"] * 4), report(*["Linear"] * 4, lams=half, findings=[finding("blocks.2", "error", 1.2)])))
    assert shown.startswith(" WORSE   verdict healthy → sick, severity 0 → 1.2\n")
    assert "new     error GF206 blocks.2 is not well" in shown and "resnet.py:102" in shown
    assert "changed blocks.[0-3]  kind identity → scaled, λ 1 → 0.5" in shown
    unfolded = render(difference(report("Linear", "Linear"), report("Linear", "Linear", lams=half)), unfold=True)
    assert sum("λ 1 → 0.5" in line for line in unfolded.splitlines()) == 2


def test_the_text_of_what_was_mended():
    """Errors and warnings that are gone, and no new ones, are better; a note that is gone is not."""
    sick = report(*["Linear"] * 2, findings=[finding("blocks.0", "error", 1.2)])
    assert render(difference(sick, report(*["Linear"] * 2))).startswith(" BETTER   verdict sick → healthy")
    noted = report(*["Linear"] * 2, findings=[finding("blocks.0", "info", 0.1)])
    assert " NO WORSE " in render(difference(noted, report(*["Linear"] * 2)))


def test_places_are_links():
    """Where they are asked for and colour is; a link holds the place and no more."""
    found = difference(report("Linear"), report("Linear", findings=[finding("blocks.0", "error", 1.2)]))
    linked = render(found, width=160, color=True, links=True)
    assert f"\x1b]8;;file://{reports.FILE}\x1b\\\x1b[2m…/torchvision/models/resnet.py:102\x1b[0m\x1b]8;;\x1b\\" in linked
    assert "\x1b" not in render(found, links=True) and "]8;;" not in render(found, color=True)


def test_gains_that_drift_along_the_blocks():
    """One row for blocks whose gains changed alike, with the range before and after; one that changed the other way has a row of its own."""
    before = {f"blocks.{i}.fc": 1.5**i for i in range(12)}
    after = {f"blocks.{i}.fc": 0.01 * 1.4**i if i != 7 else 1000.0 for i in range(12)}
    found = difference(report(*["Linear"] * 12, gains=before), report(*["Linear"] * 12, gains=after))
    shown = render(found).splitlines()
    assert "  changed blocks.[0-6].fc  gain 1–11.4 → 0.01–0.0753" in shown
    assert "  changed blocks.7.fc  gain 17.09 → 1000" in shown
    assert "  changed blocks.[8-11].fc  gain 25.6–86.5 → 0.148–0.405" in shown
    assert sum("changed" in line for line in render(found, unfold=True).splitlines()) == 1 + 12


def test_many_findings_of_one_rule():
    """They are told once, with the number, the folded names, and the range of what changed; unfolded each stands alone."""
    one, two = (report(*["Linear"] * 5, findings=[finding(f"blocks.{i}", "warning", size * (i + 1)) for i in range(5)]) for size in (1.0, 3.0))
    shown = " ".join(render(difference(one, two), width=120).split())
    assert "worse warning, 1–5 → 3–15 decades: GF206 ×5 blocks.[0-4]: blocks.0 is not well" in shown and shown.count("GF206") == 1
    assert render(difference(one, two), unfold=True).count("GF206") == 5


def test_too_many_rows():
    """Those that changed most stay, and a line counts the others."""
    names = [f"part_{'abcdefghij'[i % 10]}{'xyzuv'[i // 10]}" for i in range(50)]
    one, two = ([reports.layer(n, "Linear", i, g[i]) for i, n in enumerate(names)] for g in ([1.0] * 50, [3.0 + 0.1 * i for i in range(50)]))
    shown = render(difference(reports.report(one), reports.report(two)))
    assert "20 more rows, all of which changed less: --all shows every row" in shown
    assert "part_jv" in shown and "part_ax" not in shown


NASTY = st.text(st.characters(codec="utf-8", exclude_characters=" …"), min_size=1, max_size=6)


@given(st.lists(NASTY, max_size=5, unique=True), st.lists(NASTY, max_size=5, unique=True), st.integers(60, 120))
def test_whatever_the_names(before, after, width):
    """Every name is added, removed or matched, once; the JSON reads back; no line of the text is too long."""
    one, two = ([reports.layer(n, "Linear", i, 1.0) for i, n in enumerate(names)] for names in (before, after))
    found = difference(reports.report(one), reports.report(two))
    kept = len(before) - len(found.layers.removed)
    assert kept == len(after) - len(found.layers.added) >= 0
    assert {*found.layers.removed} <= {*before} and {*found.layers.added} <= {*after}
    assert Difference.from_json(found.to_json()) == found
    from rich.cells import cell_len

    assert all(cell_len(line) <= width for line in render(found, width=width).splitlines())


@given(st.lists(st.sampled_from("ABC"), max_size=5), st.lists(st.sampled_from("ABC"), max_size=5))
def test_an_alignment_of_blocks(before, after):
    """It keeps the order and pairs what has the most in common: of all pairings, enumerated, none has more. A run is aligned with itself one to one."""
    align = Alignment(stack(*before), stack(*after))
    pairs = [(i, int(new.split(".")[1])) for i in range(len(before)) if (new := align(f"blocks.{i}")) is not None]
    assert all(a < c and b < d for (a, b), (c, d) in itertools.pairwise(pairs))

    def common(pairing):  # two of the four types in two blocks are one, where their layers differ
        return sum(1.0 if before[i] == after[j] else 0.5 for i, j in pairing)

    every = (
        zip(left, right, strict=True)
        for n in range(min(len(before), len(after)) + 1)
        for left in itertools.combinations(range(len(before)), n)
        for right in itertools.combinations(range(len(after)), n)
    )
    assert common(pairs) == max(map(common, every))
    again = Alignment(stack(*before), stack(*before))
    assert [again(name) for name in stack(*before)] == [*stack(*before)]


def test_the_published_schema():
    """It is what the records say now, else: python -m gradflow.render.json_schema difference > docs/difference-v1.schema.json; what is written is valid."""
    assert (Path(__file__).parents[1] / "docs/difference-v1.schema.json").read_text(encoding="utf-8") == text(Difference)
    one, two = report("Linear", lams={0: {"lam": None}}), report("Conv1d", "Linear", findings=[finding("blocks.0")], lams={0: {"kind": "scaled"}})
    validator = jsonschema.Draft202012Validator(schema(Difference))
    for found in (difference(one, two), difference(two, one)):
        plain = json.loads(found.to_json())
        validator.validate(plain)
        assert not validator.is_valid(plain | {"worse": None})


@pytest.fixture
def files(tmp_path):
    """(a healthy report, one with a finding), as files."""
    for name, found in (("before", []), ("after", [finding("blocks.0")])):
        (tmp_path / f"{name}.json").write_text(report("Linear", findings=found).to_json())
    return tmp_path / "before.json", tmp_path / "after.json"


def test_the_command(run, files):
    """Exit code 1 where something got worse, 0 where not, also where it got better."""
    before, after = files
    code, out, err = run("diff", before, after)
    assert code == 1 and out.startswith(" WORSE ") and not err
    assert run("diff", after, before)[0] == 0
    assert run("diff", before, before)[:2] == (0, run("diff", before, before)[1])


def test_the_command_as_json(run, files, tmp_path):
    """JSON alone on standard output; a file takes it with the same exit code."""
    code, out, _ = run("diff", *files, "--format", "json")
    assert code == 1 and json.loads(out)["worse"] is True
    code, nothing, err = run("diff", *files, "--format", "json", "--output", tmp_path / "d.json")
    assert code == 1 and nothing == "" and "wrote" in err
    assert (tmp_path / "d.json").read_text() == out
    assert Difference.from_json(out) == difference(*(Report.from_json(f.read_text()) for f in files))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plain: plain.update(extra=1), "Report: unknown key 'extra'"),
        (lambda plain: plain.pop("highways"), "Report: missing key 'highways'"),
        (lambda plain: plain["layers"][0].update(extra=1), "Report.layers[0]: unknown key 'extra'"),
        (lambda plain: plain.update(schema="gradflow/report/v2", extra=1), "schema is 'gradflow/report/v2', expected 'gradflow/report/v1'"),
        (lambda plain: plain.update(layers={"a": [*range(1000)]}), "Report.layers: expected a list, found {'a': [0, 1, 2, 3, 4, 5, ...]}"),
    ],
    ids=["more fields", "fewer fields", "more fields of a layer", "another schema", "another type"],
)
def test_a_report_of_another_version(run, files, change, said):
    """What does not fit, where, which version wrote it and which reads it, and what to do; of this version there is no word of versions."""
    plain = json.loads(files[0].read_text())
    change(plain)
    this = metadata.version("gradflow-profiler")
    for version, told in (
        ("9.8.7", f" (gradflow 9.8.7 wrote it, and this is gradflow {this}).\nWrite it anew with gradflow {this}, or"),
        (this, ".\nWrite it with"),
    ):
        files[0].write_text(json.dumps(plain | {"gradflow_version": version}))
        code, out, err = run("diff", *files)
        assert (code, out) == (2, "") and f"before.json: {said}{told}" in err


@pytest.mark.parametrize("content", [None, "{}", "no JSON", "[" * 100_000])
def test_what_is_no_report(run, files, tmp_path, content):
    """It is the user's to mend: exit code 2, and the file is named."""
    file = tmp_path / "other.json"
    if content is not None:
        file.write_text(content)
    code, out, err = run("diff", files[0], file)
    assert code == 2 and not out and "other.json" in err and "Traceback" not in err
