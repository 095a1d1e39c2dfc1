"""Comments that silence findings, and those that silence nothing."""

import textwrap

import pytest
from render import reports

import gradflow
from gradflow.ignoring import Comments, apply_comments
from gradflow.records import Location


@pytest.fixture
def source(tmp_path, monkeypatch):
    """source(text) -> the file, in the current directory."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="model.py"):
        file = tmp_path / name
        file.write_text(textwrap.dedent(text), encoding="utf-8")
        return file

    return write


def finding(file, line, rule="GF203"):
    return reports.finding(rule, f"line {line}", "wrong", "mend", location=None if line is None else Location(file=str(file), line=line))


def applied(*findings, seen=(), rules=None):
    """(lines kept, lines silenced, notes)."""
    layers = [reports.layer(str(f), "Linear", i, 1.0, location=Location(file=str(f), line=1)) for i, f in enumerate(seen)]
    report = reports.report(layers, findings=findings)
    kept, silenced, notes = apply_comments(findings, report, *([] if rules is None else [rules]))
    assert all(s.by == "ignored" for s in silenced)
    return [(f.rule, f.location.line) for f in kept], [(s.finding.rule, s.finding.location.line) for s in silenced], list(notes)


def test_a_comment_on_the_line(source):
    """It silences its rule there, not another rule, nor another line."""
    file = source("x = 1\ny = x + x  # gradflow: ignore[GF203]\n")
    assert applied(finding(file, 2), finding(file, 2, "GF201"), finding(file, 1)) == ([("GF201", 2), ("GF203", 1)], [("GF203", 2)], [])


@pytest.mark.parametrize(
    "comment",
    ["# gradflow: ignore", "#gradflow:ignore[ GF203 ]", "# noqa: E501  # gradflow: ignore[GF101, GF203]",
     "# gradflow: ignore[GF101] and # gradflow: ignore[gf203]",
     "# gradflow: ignore[GF20]", "# gradflow: ignore[transforming-skip] (by design)", "# gradflow: ignore  # why: see the paper"],
)  # fmt: skip
def test_the_ways_to_write_it(source, comment):
    """Bare, with blanks, behind another comment, several codes, a beginning of a code, a name, and with words after it."""
    kept, silenced, notes = applied(finding(source(f"y = x + x  {comment}\n"), 1), rules={"GF203"})
    assert (kept, silenced) == ([], [("GF203", 1)])
    assert bool(notes) is ("[" not in comment)


def test_a_comment_on_every_rule(source):
    """It silences whatever is found at its line, and what that was is told."""
    file = source("y = x + x  # gradflow: ignore\n")
    kept, _, notes = applied(finding(file, 1, "GF203"), finding(file, 1, "GF201"), finding(file, 1, "GF203"))
    told = "gradflow: ignore silences every rule, here GF201, GF203; gradflow: ignore[GF201, GF203] would leave the others"
    assert (kept, notes) == ([], [f"model.py:1: {told}"])


@pytest.mark.parametrize(
    ("comment", "told"),
    [
        ("ignore GF203", "ignore GF203 silences nothing: rules stand in brackets; write # gradflow: ignore[GF203]"),
        ("ignore: GF203, gf201 # see the paper", "ignore: GF203, gf201 silences nothing: rules stand in brackets; write # gradflow: ignore[GF203, GF201]"),
        ("ignore (GF2)", "ignore (GF2) silences nothing: rules stand in brackets; write # gradflow: ignore[GF2]"),
        ("ignore by design", "ignore by design silences nothing: rules stand in brackets; write # gradflow: ignore[CODE]"),
        ("ignroe[GF203]", "ignroe[GF203] silences nothing: ignroe is no word for it; write # gradflow: ignore[GF203]"),
        ("disable[GF203]", "disable[GF203] silences nothing: disable is no word for it; write # gradflow: ignore[GF203]"),
        ("ignored", "ignored silences nothing: ignored is no word for it; write # gradflow: ignore[CODE]"),
        ("ignoreGF203", "ignoreGF203 silences nothing: ignoreGF203 is no word for it; write # gradflow: ignore[GF203]"),
        ("ignore-next[GF203]", "ignore-next[GF203] silences nothing: ignore-next is no word for it; write # gradflow: ignore[GF203]"),
    ],
)  # fmt: skip
def test_a_comment_that_is_not_written_so(source, comment, told):
    """It silences nothing, and is told with what to write."""
    kept, silenced, notes = applied(finding(source(f"y = x + x  # gradflow: {comment}\n"), 1))
    assert (kept, silenced, notes) == ([("GF203", 1)], [], [f"model.py:1: gradflow: {told}"])


@pytest.mark.parametrize(
    "line",
    [
        'y = x + f("# gradflow: ignore[GF203]")',
        "y = x + x  # gradflow ignore[GF203]",
        "y = x + x  # gradflow: the sum of both paths",
    ],
    ids=["in quotes", "no colon", "prose"],
)
def test_what_is_no_comment_of_ours(source, line):
    """It silences nothing and is not complained of."""
    assert applied(finding(source(line + "\n"), 1)) == ([("GF203", 1)], [], [])


@pytest.mark.parametrize("comment", ["# gradflow: ignore[GF203", "# gradflow: ignore[]", "# gradflow: ignore[ , ]"])
def test_a_comment_that_is_not_closed_or_empty(source, comment):
    """It silences nothing, rather than everything, and says so."""
    kept, silenced, notes = applied(finding(source(f"y = x + x  {comment}\n"), 1))
    assert kept and not silenced
    assert notes == ["model.py:1: gradflow: ignore[ is not closed or names no rule: it silences nothing"]


def test_a_text_of_several_lines(source):
    """A comment sign inside a docstring is no comment."""
    file = source('"""\nx + x  # gradflow: ignore[GF203]\n"""\n')
    assert applied(finding(file, 2)) == ([("GF203", 2)], [], [])


def test_a_statement_of_several_lines(source):
    """At its end a comment speaks for all its lines, inside for its own."""
    file = source("""\
        y = (
            x  # gradflow: ignore[GF201]
            + f(x)
        )  # gradflow: ignore[GF203]
        z = 1
    """)
    assert applied(finding(file, 1), finding(file, 2), finding(file, 3), finding(file, 5)) == (
        [("GF203", 5)], [("GF203", 1), ("GF203", 2), ("GF203", 3)], ["model.py:2: unused: gradflow: ignore[GF201] silences nothing"],
    )  # fmt: skip
    assert applied(finding(file, 2, "GF201"), finding(file, 3, "GF201"), finding(file, 3))[0] == [("GF201", 3)]


def test_a_comment_at_the_head_of_a_block(source):
    """It speaks for the head alone, and a comment on a line of its own for nothing below it."""
    file = source("""\
        # gradflow: ignore[GF203]
        if x:  # gradflow: ignore[GF203]
            # gradflow: ignore[GF203]
            y = x + x
    """)
    kept, silenced, notes = applied(finding(file, 2), finding(file, 4))
    assert (kept, silenced) == ([("GF203", 4)], [("GF203", 2)])
    assert [n.split(": ")[0] for n in notes] == ["model.py:1", "model.py:3"]


def test_an_unused_comment(source):
    """It is told with its place, code by code, in every file that the report names, also where nothing was found."""
    file = source("a = 1\nb = a + a  # gradflow: ignore[GF203, GF201]\nc = 1  # gradflow: ignore\n")
    other = source("d = 1  # gradflow: ignore[GF999]\n", "other.py")
    assert applied(finding(file, 2), seen=[other])[2] == [
        "model.py:2: unused: gradflow: ignore[GF201] silences nothing",
        "model.py:3: unused: gradflow: ignore silences nothing",
        "other.py:1: gradflow: ignore[GF999] names no rule; gradflow rule lists them",
    ]


def test_a_rule_that_was_not_looked_for(source):
    """A comment on it is not called unused, nor is one on every rule."""
    file = source("a = 1  # gradflow: ignore[GF201]\nb = 1  # gradflow: ignore\nc = 1  # gradflow: ignore[GF203]\n")
    assert applied(seen=[file], rules={"GF203"})[2] == ["model.py:3: unused: gradflow: ignore[GF203] silences nothing"]


def test_two_targets_of_one_file(source):
    """A comment that one of them uses is used."""
    file = source("a = x + x  # gradflow: ignore[GF203]\nb = 1  # gradflow: ignore[GF203]\n")
    comments = Comments()
    one, two = finding(file, 1), finding(file, 7)
    assert comments.apply([one], reports.report([], findings=[one]))[0] == ()
    assert comments.apply([two], reports.report([], findings=[two]))[0] == (two,)
    assert comments.notes() == ("model.py:2: unused: gradflow: ignore[GF203] silences nothing",)


def test_a_file_elsewhere(source, tmp_path, monkeypatch):
    """Its comments count; that one is unused is not the user's to mend."""
    file = source("a = x + x  # gradflow: ignore[GF203]\nb = 1  # gradflow: ignore[GF203]\n")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert applied(finding(file, 1)) == ([], [("GF203", 1)], [])


def test_a_relative_path(source):
    """A location may be relative to the current directory."""
    source("a = x + x  # gradflow: ignore[GF203]\nb = 1  # gradflow: ignore[GF201]\n")
    assert applied(finding("model.py", 1)) == ([], [("GF203", 1)], ["model.py:2: unused: gradflow: ignore[GF201] silences nothing"])


@pytest.mark.parametrize("text", [None, b"x = (  # gradflow: ignore\n", b"if x:\n    a\n  b  # gradflow: ignore\n", b"# gradflow: ignore\n\xff = 1"])
def test_what_cannot_be_read(tmp_path, text):
    """It silences nothing and is no error: no file, a bracket that is not closed, a wrong indent, no UTF-8. So are places that name no file."""
    file = tmp_path / "model.py"
    if text is not None:
        file.write_bytes(text)
    found = [finding(file, line) for line in (1, 2, 3)]
    assert applied(*found, finding("<string>", 1))[0] == [("GF203", 1), ("GF203", 2), ("GF203", 3), ("GF203", 1)]


def test_a_finding_without_a_place(source):
    """No comment speaks of it."""
    finding_ = finding("model.py", None)
    assert apply_comments([finding_], reports.report([], findings=[finding_])) == ((finding_,), (), ())


def test_a_join_of_a_real_model(source):
    """The comment stands on the line of the sum, as the report gives it."""
    import torch

    file = source("""\
        import torch
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)) for _ in range(3))

            def forward(self, x):
                for layer in self.layers:
                    x = 0.5 * x + layer(x)  # gradflow: ignore[GF201]
                return x
    """)
    space = {"__name__": "model"}
    exec(compile(file.read_text(), str(file), "exec"), space)
    torch.manual_seed(0)
    report = gradflow.profile(space["Net"](), torch.randn(4, 8))
    kept, silenced, notes = apply_comments(report.findings, report)
    assert {s.finding.rule for s in silenced} == {"GF201"} and len(silenced) == 3
    assert "GF201" not in {f.rule for f in kept} and not notes
