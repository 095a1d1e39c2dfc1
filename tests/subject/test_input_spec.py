"""The --input grammar."""

import contextlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradflow.errors import BadInputSpec
from gradflow.subject import InputSpec
from gradflow.subject.inputs import DTYPES
from gradflow.subject.seeding import stream

SIZES = st.lists(st.integers(1, 6), max_size=4).map(tuple)
NAMES = st.none() | st.from_regex(r"[a-z_][a-z_0-9]{0,6}", fullmatch=True)


@st.composite
def specs(draw):
    dtype = draw(st.none() | st.sampled_from(list(DTYPES.values())))
    shape = draw(SIZES)
    high = draw(st.none() | st.integers(1, 127)) if dtype in (torch.int64, torch.int32, torch.int8, torch.uint8) else None
    return InputSpec(name=draw(NAMES), dtype=dtype, shape=shape if dtype is not None else shape or (1,), high=high)


@given(specs())
def test_printed_spec_reads_back(spec):
    """A spec that is printed reads back as itself."""
    assert InputSpec.parse(str(spec)) == spec


@given(specs(), st.integers(0, 2**40))
def test_drawn_tensor_is_what_the_spec_says(spec, seed):
    """Shape, dtype and bound are those of the spec, and the seed fixes every value."""
    first, second = (spec.drawn(stream(seed, "inputs"), torch.float64) for _ in range(2))
    assert (tuple(first.shape), first.dtype) == (spec.shape, spec.dtype or torch.float64)
    assert torch.equal(first, second)
    if spec.is_integer:
        assert bool(((first >= 0) & (first < (spec.high or 2))).all())


@given(st.text(max_size=20) | st.from_regex(r"(x=)?[a-z0-9]{1,9}\[[0-9,x-]{0,6}\](<-?[0-9a-z]{1,4})?", fullmatch=True))
def test_any_text_is_a_spec_or_an_error(text):
    """No text gets anything but a spec or the one error."""
    with contextlib.suppress(BadInputSpec):
        InputSpec.parse(text)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("8x3x224x224", InputSpec(shape=(8, 3, 224, 224))),
        ("5", InputSpec(shape=(5,))),
        ("x=8x3", InputSpec(name="x", shape=(8, 3))),
        ("x=float32[4,16]", InputSpec(name="x", dtype=torch.float32, shape=(4, 16))),
        ("ids=int64[2, 128] < 50257", InputSpec(name="ids", dtype=torch.int64, shape=(2, 128), high=50257)),
        ("bool[]", InputSpec(dtype=torch.bool, shape=())),
        ("uint8[1]<256", InputSpec(dtype=torch.uint8, shape=(1,), high=256)),
    ],
)
def test_spec_is_read(text, spec):
    """Every form of the grammar."""
    assert InputSpec.parse(text) == spec


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "neither a shape nor"),
        ("8x0x3", "below 1"),
        ("8xx3", "not all whole numbers"),
        ("float32[-1]", "below 1"),
        ("float32[a]", "not all whole numbers"),
        ("float23[3]", "did you mean float32?"),
        ("x==3", "neither a shape nor"),
        ("1x=3", "not a parameter name"),
        ("float32[3]<5", "<HIGH is for integers"),
        ("int64[3]<0", "HIGH must lie between"),
        ("int8[3]<200", "HIGH must lie between 1 and 127"),
        ("int64[3]<many", "not a whole number"),
        ("99999999999x99999999999", "more elements"),
    ],
)
def test_nonsense_spec(text, reason):
    """Each mistake has its reason, and the grammar stands in the remedy."""
    with pytest.raises(BadInputSpec) as caught:
        InputSpec.parse(text)
    assert reason in caught.value.fact
    assert "8x3x224x224" in caught.value.remedy


def test_spec_that_does_not_fit_into_memory():
    """A petabyte is refused in a sentence."""
    with pytest.raises(BadInputSpec, match="do not fit into memory"):
        InputSpec.parse("1000000x1000000x1000").drawn(stream(0, "inputs"), torch.float32)
