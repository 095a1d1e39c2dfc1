"""The published JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gradflow.records import Layer, Report, Skip
from gradflow.render.json_schema import schema, text

from . import reports

PUBLISHED = Path(__file__).parents[2] / "docs" / "report-v1.schema.json"
Edit = Callable[[dict[str, Any]], object]


def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema())


def test_the_published_file() -> None:
    """It is what the records say now; else: python -m gradflow.render.json_schema > docs/report-v1.schema.json."""
    assert PUBLISHED.read_text(encoding="utf-8") == text()


def test_the_schema_itself() -> None:
    """It is a valid schema of its draft."""
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("build", [b for b in reports.EVERY if b is not reports.thousand_layers], ids=lambda f: f.__name__)
def test_a_report(build: Callable[[], Report]) -> None:
    """What a report writes is valid."""
    validator().validate(json.loads(build().to_json()))


@pytest.mark.parametrize(
    "edit",
    [
        lambda r: r.pop("schema"),
        lambda r: r.update(schema="gradflow/report/v2"),
        lambda r: r.update(extra=1),
        lambda r: r["layers"][0].pop("gain"),
        lambda r: r["layers"][0].update(gain="1"),
        lambda r: r["layers"][0]["undefined"].update(name="not a measured field"),
        lambda r: r["skips"][0].update(kind="teleport"),
        lambda r: r["skips"][0].update(location={"file": "a.py"}),
        lambda r: r.update(verdict=None),
    ],
)
def test_a_spoilt_report(edit: Edit) -> None:
    """It is refused."""
    plain = json.loads(reports.cross_purposes().to_json())
    edit(plain)
    assert not validator().is_valid(plain)


@pytest.mark.parametrize("record", [Layer, Skip])
def test_described_fields(record: type) -> None:
    """Every field that the record's docstring explains is explained in the schema."""
    definitions: Any = schema()["$defs"]
    described = definitions[record.__name__]["properties"]
    assert all("description" in described[name] for name in record.optional)  # type: ignore[attr-defined]
