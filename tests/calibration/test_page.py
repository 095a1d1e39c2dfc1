"""docs/calibration.md is put together from its parts, each of which can be written alone."""

from pathlib import Path

import pytest

from tests.calibration.__main__ import HEADINGS, main, with_section
from tests.calibration.healthy import EXCUSES, page, passes, unexplained
from tests.calibration.sick import FAULTS


def test_a_part_written_alone():
    """It takes its place among the others, in their order, and leaves them as they are; what it replaces is gone."""
    page = ""
    for part in ("population", "healthy", "sick"):
        page = with_section(page, part, f"{HEADINGS[part]}\n\nfirst {part}\n")
    assert [line for line in page.splitlines() if line.startswith("## ")] == [HEADINGS[part] for part in ("healthy", "sick", "population")]
    again = with_section(page, "sick", f"{HEADINGS['sick']}\n\nsecond sick\n")
    assert "first sick" not in again and again.replace("second sick", "first sick") == page


def test_an_unknown_part(capsys):
    """It is refused before anything runs."""
    with pytest.raises(SystemExit) as stop:
        main(["healthy", "ill"])
    assert stop.value.code == 2 and "ill" in capsys.readouterr().err


def row(name, *errors, status="ok"):
    return {"library": "transformers", "name": name, "status": status, "verdict": "sick" if errors else "healthy", "severity": 0.0, "errors": list(errors)}


def test_errors_with_and_without_a_reason():
    """A model with an error passes only if its reason is known and the same model without the cause has none."""
    known = next(name.split("/")[1] for name, excuse in EXCUSES.items() if excuse.changes)
    assert passes({"rows": [row("a"), row(known, "GF101 x")], "controls": [row(known)]})
    assert not passes({"rows": [row("a", "GF101 x")], "controls": []})
    assert not passes({"rows": [row(known, "GF101 x")], "controls": [row(known, "GF101 x")]})
    assert not passes({"rows": [row("a", status="died")], "controls": []})
    assert passes({"rows": [row("a", status="own error")], "controls": []})
    assert [r["name"] for r in unexplained({"rows": [row("a", "GF101 x"), row("b")], "controls": []})] == ["a"]
    text = page({"rows": [row("a"), row("b", "GF101 x"), row("c", status="own error")], "controls": []})
    assert "1 of 2 have no error" in text and "**none**" in text


def test_the_page_in_docs():
    """It names every fault that is planted and every model that is excused, and shows none that was missed."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "calibration.md").read_text()
    assert [fault.title for fault in FAULTS if f"| {fault.group} | {fault.name} | {fault.rule} |" not in text] == []
    assert [name for name in EXCUSES if f"| {name} |" not in text] == []
    assert "**missed**" not in text and "**none**" not in text
