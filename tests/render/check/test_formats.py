"""The output formats of `gradflow check`, whole.

The golden files in tests/golden are whole outputs as people and machines see them. After a change that is meant, write them anew and read the difference:

    GRADFLOW_UPDATE_GOLDEN=1 pytest tests/render/check; git diff tests/golden
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import jsonschema
import pytest

from gradflow.records import Checks
from gradflow.render.check import RENDERERS
from gradflow.render.json_schema import schema, text
from gradflow.rules import RULES, Rules

from . import runs

GOLDEN = Path(__file__).parents[2] / "golden"
PUBLISHED = Path(__file__).parents[3] / "docs" / "checks-v1.schema.json"
ENDINGS = {"text": "txt", "json": "json", "github": "txt", "junit": "xml", "sarif": "sarif", "markdown": "md"}
WORDED = {
    code: dataclasses.replace(RULES[code], what="What.", why="Why.", example="x", fix="Fix.", warning=0.9, error=None, note=None, below=True, tolerance=0.5)
    for code in ("GF101", "GF201", "GF203", "GF204", "GF205", "GF206")
}
RULED = Rules(table=WORDED, selected=frozenset({"GF101", "GF201", "GF204"}))  # other words in the table of rules are no other format
OPTIONS: Mapping[str, Mapping[str, object]] = {"github": {"root": runs.ROOT}, "sarif": {"root": runs.ROOT, "rules": RULED}, "junit": {"rules": RULED}}


def rendered(name: str, checks: Checks) -> str:
    return RENDERERS[name](checks, **OPTIONS.get(name, {}))


def golden(name: str, found: str) -> None:
    if os.environ.get("GRADFLOW_UPDATE_GOLDEN"):
        (GOLDEN / name).write_text(found, encoding="utf-8")
    assert found == (GOLDEN / name).read_text(encoding="utf-8")


def without_reports(text: str) -> str:
    """The JSON of a run with each report, a format of its own, cut down to its verdict."""
    plain = json.loads(text)
    for outcome in plain["outcomes"]:
        outcome["report"] = outcome["report"] and {"verdict": outcome["report"]["verdict"]}
    return json.dumps(plain, indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("build", [runs.three, runs.all_healthy], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ENDINGS)
def test_golden(name: str, build: Callable[[], Checks]) -> None:
    """The whole output is the one that was last looked at and approved."""
    golden(f"check-{name}-{build.__name__}.{ENDINGS[name]}", without_reports(rendered(name, build())) if name == "json" else rendered(name, build()))


def test_golden_colors() -> None:
    """So is the text in colour on a wide terminal."""
    golden("check-text-three-160-color.txt", RENDERERS["text"](runs.three(), width=160, color=True))


def test_the_formats() -> None:
    """They are those of the command line, and each has a renderer."""
    assert set(RENDERERS) == set(ENDINGS)


@pytest.mark.parametrize("name", ENDINGS)
def test_called_with_nothing_but_the_run(name: str) -> None:
    """Every format has a default for all else, and ends its last line."""
    assert RENDERERS[name](runs.three()).endswith("\n")


@pytest.mark.parametrize("name", ENDINGS)
def test_the_same_run_twice(name: str) -> None:
    """The same run gives the same bytes."""
    assert rendered(name, runs.three()) == rendered(name, runs.three())


@pytest.mark.parametrize("hostile", runs.HOSTILE, ids=ascii)
@pytest.mark.parametrize("name", [n for n in ENDINGS if n != "json"])
def test_a_hostile_name(name: str, hostile: str) -> None:
    """No name breaks a format: what comes out can be written as UTF-8 and has no control character but newline and tab."""
    found = rendered(name, runs.hostile(hostile))
    found.encode("utf-8")
    assert not [c for c in found if (ord(c) < 0x20 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0]


@pytest.mark.parametrize("build", [runs.three, runs.nothing], ids=lambda f: f.__name__)
def test_json(build: Callable[[], Checks]) -> None:
    """The JSON of a run is valid by its schema, and read back it equals the run."""
    found = RENDERERS["json"](build())
    jsonschema.Draft202012Validator(schema(Checks)).validate(json.loads(found))
    assert Checks.from_json(found) == build()


def test_the_published_schema() -> None:
    """It is what the records say now; else: python -m gradflow.render.json_schema checks > docs/checks-v1.schema.json."""
    assert PUBLISHED.read_text(encoding="utf-8") == text(Checks)


def test_a_spoilt_run() -> None:
    """The schema refuses a run whose outcome has an unknown state."""
    plain = json.loads(runs.three().to_json())
    plain["outcomes"][0]["state"] = "fine"
    assert not jsonschema.Draft202012Validator(schema(Checks)).is_valid(plain)


def test_no_torch() -> None:
    """The formats can be had without torch."""
    words = "import sys, gradflow.render.check; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", words], check=False).returncode == 0
