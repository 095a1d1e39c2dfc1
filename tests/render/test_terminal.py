"""The terminal report.

The golden files in tests/golden are whole reports as people see them. After a change that is meant, write them anew and read the difference:

    GRADFLOW_UPDATE_GOLDEN=1 pytest tests/render/test_terminal.py; git diff tests/golden
"""

from __future__ import annotations

import dataclasses
import io
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.text import Text

from gradflow.records import Location, Report
from gradflow.render import summary, tables
from gradflow.render.terminal import NARROWEST, render

from . import reports

GOLDEN = Path(__file__).parent.parent / "golden"
Build = Callable[[], Report]
each = pytest.mark.parametrize("build", reports.EVERY, ids=lambda f: f.__name__)


def plain(text: str) -> str:
    return Text.from_ansi(text).plain


@each
@pytest.mark.parametrize("color", [False, True], ids=["plain", "color"])
@pytest.mark.parametrize("width", [80, 160])
def test_golden(build: Build, width: int, color: bool) -> None:
    """The whole report is the one that was last looked at and approved."""
    file = GOLDEN / f"terminal-{build.__name__}-{width}{'-color' if color else ''}.txt"
    text = render(build(), width=width, color=color)
    if os.environ.get("GRADFLOW_UPDATE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@each
@pytest.mark.parametrize("unfold", [False, True], ids=["folded", "unfolded"])
@pytest.mark.parametrize("width", [20, 60, 80, 120, 200])
def test_any_width(build: Build, width: int, unfold: bool) -> None:
    """No line is wider than the terminal (or 60, where that is narrower), and none ends in blanks."""
    for line in render(build(), width=width, unfold=unfold).splitlines():
        assert cell_len(line) <= max(width, NARROWEST), line
        assert line == line.rstrip(), repr(line)


@each
def test_without_color(build: Build) -> None:
    """Without colour there is no escape code, with or without links."""
    assert "\x1b" not in render(build(), color=False, links=True)


@each
def test_color_changes_no_word(build: Build) -> None:
    """Colour and links add nothing but escape codes."""
    assert plain(render(build(), color=True, links=True)).split() == render(build()).split()


def test_no_color_wins_from_the_environment_only_at_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The renderer does what it is told and reads no environment variable."""
    asked = render(reports.gpt(), color=True)
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb"), ("COLUMNS", "20"), ("FORCE_COLOR", "1")):
        monkeypatch.setenv(name, value)
    assert render(reports.gpt(), color=True) == asked
    assert "\x1b" not in render(reports.gpt())


@each
def test_no_column_is_empty(build: Build) -> None:
    """A column of blanks, as the locations of a bare Sequential, stands in no table at any width, and is not said to be left out."""
    report = build()
    bare = dataclasses.replace(
        report, layers=[dataclasses.replace(x, location=None) for x in report.layers], skips=[dataclasses.replace(s, location=None) for s in report.skips]
    )
    view = tables.View(width=80, unfold=False, links=False)
    assert all(any(column.cells) for one in (report, bare) for table in tables.every(one, view) for column in table.columns)
    assert not any(re.search(r"  location$|not shown.*location", line) for width in (80, 200) for line in render(bare, width=width).splitlines())


@each
def test_opening(build: Build) -> None:
    """The verdict, coverage, what stands out and the next step stand in the first 24 lines at 80 columns, before any table."""
    report = build()
    first = render(report).splitlines()[:24]
    assert first[0].split()[0] == report.verdict.upper()
    for label in ("target", "coverage", "next step"):
        assert any(line.startswith(label) for line in first), label
    assert any(line.startswith(("worst layer", "layer ")) for line in first) == any(x.gain or x.name in {"net.0", "blocks.0"} for x in report.layers)


@pytest.mark.parametrize("name", ["[red]", "[/red]", 'a<b&"c', "$x_1$", "_hidden", "模型.层", "back\\slash", ":smile:"])
def test_a_name_that_looks_like_markup(name: str) -> None:
    """It prints as itself, with and without colour."""
    assert name in render(reports.weird_names(), width=120)
    assert name in plain(render(reports.weird_names(), width=120, color=True))


def test_a_name_with_control_codes() -> None:
    """It cannot reach the terminal: it prints as a Python escape."""
    text = render(reports.weird_names(), width=120)
    assert "\\x1b[31mc" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("lam, shown", [(1.0, "1"), (1 + 1e-10, "1"), (0.99999, "0.99999"), (1.0000001, "1.0000001"), (5.551115e-17, "5.55e-17")])
def test_lambda_near_one(lam: float, shown: str) -> None:
    """Only a λ within 1e-9 of 1 prints as 1."""
    skip = reports.skip("block", 0, 2, lam=lam, lam_low=lam, lam_high=lam, lam_full=lam)
    text = render(reports.report([reports.layer("a", "Linear", 0, 1.0)], [skip]), width=160)
    row = next(line for line in text.splitlines() if line.startswith("  block"))
    assert row.split()[2] == shown


def test_an_undefined_value() -> None:
    """It prints as a dash, and a footnote gives its reason once, counted."""
    text = render(reports.healthy_resnet(), width=160)
    assert re.search(r"layer\[2-4\]\.0 +projection +– ", text)
    assert text.count("– fork and join differ in shape: λ (3), misfit (3)") == 1


def test_an_unmeasured_layer() -> None:
    """Coverage names it with its reason, and does not call the model measured."""
    text = " ".join(render(reports.unmeasured(), width=160).split())
    assert "1 of 5 layers measured, not blocks.[0-3] (the gradient is cut by detach())" in text
    assert "4 unreached, in these layers" in text


def test_an_unreached_parameter_of_a_measured_layer() -> None:
    """It is named, with its reason: the layers that were not measured do not tell of it."""
    report = reports.unmeasured()
    head = report.layers[-1]
    lost = dict.fromkeys(("grad_norm", "update_ratio"), "it is not used")
    bias = dataclasses.replace(head.parameters[0], name="head.bias", status="unreached", grad_norm=None, update_ratio=None, undefined=lost)
    report = dataclasses.replace(report, layers=(*report.layers[:-1], dataclasses.replace(head, parameters=(*head.parameters, bias))))
    text = " ".join(render(report, width=160).split())
    assert "5 unreached: blocks.[0-3].weight (the gradient is cut by detach()); head.bias (it is not used)" in text


def test_a_healthy_report_with_gaps() -> None:
    """It does not say that there is nothing to mend."""
    assert "Nothing to mend" in render(reports.gpt())
    assert "not everything was measured" in " ".join(render(reports.extremes()).split())


def test_one_finding_on_many_skips() -> None:
    """It is told once, with the number and the folded names."""
    text = render(reports.half_resnet110())
    assert "error GF201 ×54  layer[1-3].[0-17]" in text
    assert text.count("GF201") == 1
    assert render(reports.half_resnet110(), unfold=True).count("GF201") == 54


def test_branches_closed_at_the_start() -> None:
    """Their zeros are explained, not blamed; the notes fold into one."""
    text = " ".join(render(reports.closed_branches()).split())
    assert text.startswith("HEALTHY")
    assert "info GF105 ×8" in text
    assert "8 layers with a gradient of 0: closed by a zero-initialised parameter (layer1.[0-1].bn2.weight, layer2.[0-1].bn2.weight)" in text


@pytest.mark.parametrize(
    ("gain", "by", "said"),
    [
        (0.0, "gamma", "1 layer with a gradient of 0: closed by a zero-initialised parameter (gamma)"),
        (1e-6, "gamma", "1 layer with a small gradient: closed by a small scale (gamma)"),
        (1e-12, "inner × outer", "1 layer with a small gradient: closed by a small scale (inner × outer)"),
        (0.0, "stochastic depth", "1 layer with a gradient of 0: dropped by stochastic depth"),
    ],
)
def test_what_closes_a_branch_is_said_as_it_is(gain: float, by: str, said: str) -> None:
    """A small scale is not 0, and neither is the gradient behind it."""
    layers = [reports.layer("branch", "Linear", 0, gain, closed_by=by), reports.layer("head", "Linear", 1, 1.0)]
    assert summary.closed(reports.report(layers)) == said


def test_unfolded() -> None:
    """Every layer and skip has a row of its own."""
    text = render(reports.half_resnet110(), width=160, unfold=True)
    for name in ("layer2.7 ", "layer2.8 ", "layer3.17.bn2 ", "layer1.0.conv1 "):
        assert f"\n  {name}" in text
    assert "--all" not in text


def test_too_many_rows() -> None:
    """Of the rows that cannot fold those far from 1 stay, and a line counts the others."""
    layers = [reports.layer(f"part_{'abcdefghij'[i % 10]}{'xyzuvwrst'[i // 10]}", "Linear", i, 1e-9 if i == 57 else 0.9) for i in range(80)]
    text = render(reports.report(layers))
    assert "50 more rows" in text
    assert "\n  part_hw " in text


def test_a_healthy_report_whose_severity_is_a_note_s() -> None:
    """The line under the verdict says whose; a report without such a note, or with an alarm, has none."""
    assert render(reports.counted_note()).splitlines()[1] == "severity       of a note, which is no alarm: GF102 at conv1 [331.9, limit 30]"
    for build in (reports.healthy_resnet, reports.half_resnet110, reports.closed_branches):
        assert not any(line.startswith("severity") for line in render(build()).splitlines())


def test_where_an_infinity_was_made() -> None:
    """The operation, its module, its batch and its line stand in the opening; rows that hold what is not finite fold with no others."""
    text = render(reports.broken_batches(), width=160)
    assert "non-finite     log in scale: first, in the forward pass of batch 2: -inf was made of 3 zeros | `x` @home  nets/<scale>.py:31" in text
    rows = {line.split()[0]: line for line in text.split("Layers ")[1].splitlines()[2:5]}
    assert list(rows) == ["blocks.[0-1].conv", "blocks.[2-3].conv", "scale"]
    assert " 12 " in rows["blocks.[0-1].conv"] and " 0 " in rows["blocks.[2-3].conv"]


def test_what_one_sample_carries_and_which_units_are_dead() -> None:
    """Shares stand below the tables, dead units in a column that is there where any is dead, and so does the spread over batches."""
    text = " ".join(render(reports.broken_batches(), width=160).split())
    assert (
        "of the gradient that one of 64 samples carries: at most 62 % at the output (sample 5 of batch 2), 71 % at blocks.0.conv (sample 5 of batch 2)" in text
    )
    assert "dead units sd decades" in text and "0–38 % 0.2–0.3" in text
    assert "blocks.0.conv (Conv2d): gradient gain 0.5, 38 % dead units, 12 non-finite" in text
    assert "dead units" not in render(reports.half_resnet110(), width=160) and "sd decades" not in render(reports.half_resnet110(), width=160)


def test_the_worst_is_called_so_where_an_alarm_is_about_it() -> None:
    """Of a healthy report the layer, the skip and the highway are those farthest from 1, and no blame is in the word."""
    healthy, sick = ([line[:15].strip() for line in render(report, width=200).splitlines()] for report in (reports.gpt(), reports.half_resnet110()))
    assert {"layer", "skip", "highway"} <= set(healthy) and not any(label.startswith("worst") for label in healthy)
    assert {"worst skip", "worst highway"} <= set(sick)
    assert " (of 54 the farthest from 1)" not in "".join(render(reports.half_resnet110(), width=200).split("worst skip")[1].splitlines()[0])


def test_a_loss_whose_name_is_loss() -> None:
    """The word stands once."""
    report = reports.gpt()
    loss = dataclasses.replace(report.run.loss, name="loss", value=2.5, source="model file's `loss`")
    named = dataclasses.replace(report, run=dataclasses.replace(report.run, loss=loss))
    assert "· loss = 2.5 (model file's `loss`) ·" in render(named, width=300) and "loss loss" not in render(named, width=300)


def test_only_labels_are_bold() -> None:
    """Of the opening's lines the label stands out, and the next step."""
    bold = re.findall(r"\x1b\[1m([^\x1b]*)", render(reports.gpt(), color=True).split("Highways")[0])
    assert [text.strip() for text in bold if not text.startswith(("Nothing", "keeps", "GPT"))] == [
        "target", "coverage", "layer", "skip", "highway", "next step", "gain (log)",
    ]  # fmt: skip


def test_a_location_inside_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It prints relative to it; a far one prints its last parts; a link leads to the whole path."""
    monkeypatch.chdir(tmp_path)
    near = reports.layer("near", "Linear", 0, 0.1, location=Location(file=str(tmp_path / "my nets" / "net.py"), line=7))
    far = reports.layer("far", "Linear", 1, 1.0)
    report = reports.report([near, far])
    text = render(report, width=160)
    assert "my nets/net.py:7" in text
    assert str(tmp_path) not in text
    assert "…/torchvision/models/resnet.py:92" in text
    linked = render(report, width=160, color=True, links=True)
    assert f"\x1b]8;;{(tmp_path / 'my nets' / 'net.py').as_uri()}\x1b\\" in linked
    assert linked == render(report, width=160, color=True, links=True)


@each
def test_read_back_from_json(build: Build) -> None:
    """A report read back from its JSON renders the same text."""
    report = build()
    assert render(Report.from_json(report.to_json()), width=120) == render(report, width=120)


def test_calls_gates_and_intervals() -> None:
    """A reused module shows its calls, a gate its full λ, a spread λ its interval."""
    text = render(reports.cross_purposes(), width=200)
    assert "0.4–0.81" in text
    assert "λ full" in text
    report = reports.cross_purposes()
    again = dataclasses.replace(report, skips=[dataclasses.replace(s, calls=3) for s in report.skips])
    assert "calls" in render(again, width=200)


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Rendering returns text and writes none."""
    render(reports.gpt(), color=True)
    assert capsys.readouterr() == ("", "")
    assert isinstance(render(reports.gpt()), str) and io.StringIO(render(reports.gpt())).read().endswith("\n")
