"""docs/inside.md against the code: its floors are those of the import contract, and what it names is there."""

import importlib
import re
from pathlib import Path

import pytest

import gradflow

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/inside.md").read_text()
PACKAGE = Path(gradflow.__file__).parent
MODULES = {path.stem for path in PACKAGE.iterdir() if (path.suffix == ".py" or (path / "__init__.py").exists()) and not path.stem.startswith("__")}
NAMED = sorted({name for name in re.findall(r"`([a-z_]+(?:\.\w+)+)`", PAGE) if name.split(".")[0] in MODULES})


def test_the_floors_are_those_of_the_contract():
    """A module that moved to another floor, came or went is moved on the page as well."""
    contract = (ROOT / "pyproject.toml").read_text().split("exhaustive = true")[1].split("\nlayers = [")[1].split("]")[0]
    floors = [set(re.findall(r"\w+", floor)) for floor in re.findall(r'"(.+)"', contract)]
    rows = [set(re.findall(r"`(\w+)`", row)) for row in re.findall(r"^\| (`.+?) \|", PAGE, re.MULTILINE)]
    assert rows == [floor for floor in floors if floor != {"__main__"}]
    assert set().union(*rows) == MODULES


@pytest.mark.parametrize("name", NAMED)
def test_what_the_page_names_is_there(name):
    """A dotted name is a module, or something in one."""
    module, _, last = name.rpartition(".")
    found = importlib.import_module(f"gradflow.{module}")
    assert hasattr(found, last) or importlib.import_module(f"gradflow.{name}")
