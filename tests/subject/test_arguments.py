"""--arg name=value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradflow.errors import ArgumentError
from gradflow.subject import parse_arguments


def test_literals_and_bare_words():
    """Values are Python literals; a bare word stands for itself."""
    items = ["depth=20", "rate=1e-3", "sizes=(1, 2)", "act=relu", "flag=False", "none=None", "quoted='false'", "path=a/b.txt", "eq='a=b'"]
    assert parse_arguments(items) == {
        "depth": 20,
        "rate": 1e-3,
        "sizes": (1, 2),
        "act": "relu",
        "flag": False,
        "none": None,
        "quoted": "false",
        "path": "a/b.txt",
        "eq": "a=b",
    }


@pytest.mark.parametrize("item", ["depth", "=3", "2x=3", "a b=3", "depth=[1", "depth=", "x=__import__('os')", "bias=false", "bias=true"])
def test_malformed_argument(item):
    """What is neither a literal nor a bare word is an error, and so is `false`, which as a string would be true."""
    with pytest.raises(ArgumentError):
        parse_arguments([item])


def test_argument_given_twice():
    """The second value would silently win."""
    with pytest.raises(ArgumentError, match="given twice"):
        parse_arguments(["depth=1", "depth=2"])


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5))
def test_any_literal_round_trips(value):
    """Whatever repr writes is read back."""
    assert parse_arguments([f"name={value!r}"]) == {"name": value}
