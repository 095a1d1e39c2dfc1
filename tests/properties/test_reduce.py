"""Sums over tensors against exact references: any shape, stride, type and magnitude."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gradflow.reduce import census, inner, products, squares

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64)
_SPECIAL = (0.0, -0.0, 1.0, -1.0, 1e-38, -1e-38, 1e-45, 1e-25, 2.0**-24, 2.0**-25, 2.0**-26, 6e-8, 2000.0, 65504.0, 1e19, 1e38, -1e38)
_BROKEN = (math.nan, math.inf, -math.inf)
_PRODUCTS_IN_FLOAT32 = 1e-5  # census and products multiply chunks of float32 in float32: the norm is good to five digits and more
_LAYOUTS = ("contiguous", "transposed", "channels_last", "expanded", "sliced", "strided", "flipped batch")


def _values(broken: bool) -> st.SearchStrategy[float]:
    # magnitudes whose squares sum within float64
    return st.sampled_from(_SPECIAL + (_BROKEN if broken else ())) | st.floats(-(2.0**126), 2.0**126, width=32) | st.floats(-1, 1, width=32)


def _laid_out(values: Tensor, layout: str) -> Tensor:
    """The same numbers at other strides."""
    if layout == "transposed":
        return values.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "channels_last" and values.dim() == 4:
        return values.contiguous(memory_format=torch.channels_last)
    if layout == "expanded":
        return values[:, :1].expand_as(values)
    if layout == "sliced":
        return torch.cat([torch.full_like(values, 7), values, torch.full_like(values, 7)])[len(values) : 2 * len(values)]
    if layout == "strided":
        return torch.stack([values, torch.full_like(values, 7)], dim=-1)[..., 0]
    if layout == "flipped batch":
        return values.permute(*reversed(range(values.dim()))).contiguous().permute(*reversed(range(values.dim())))
    return values


@st.composite
def _tensors(draw: st.DrawFn, count: int = 1, broken: bool = False) -> list[Tensor]:
    """`count` tensors of one shape and type, [batch, …], each of drawn and random numbers and at strides of its own."""
    shape = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    dtype = draw(st.sampled_from(DTYPES))
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    found = []
    for _ in range(count):
        palette = np.array([*draw(st.lists(_values(broken), min_size=1, max_size=6)), *random.standard_normal(4)])
        wide = torch.from_numpy(random.choice(palette, size=(*shape, 2) if dtype.is_complex else shape))
        narrow = torch.view_as_complex(wide.float()) if dtype.is_complex else wide.to(dtype)
        if not broken and not dtype.is_complex:
            narrow = torch.nan_to_num(narrow, posinf=1.0, neginf=-1.0)  # what the type cannot hold
        found.append(_laid_out(narrow, draw(st.sampled_from(_LAYOUTS))))
    return found


def _numbers(tensor: Tensor) -> list[float]:
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return real.double().flatten().tolist()


def _exact(a: Tensor, b: Tensor) -> tuple[float, float]:
    """⟨a, b⟩ and Σ|aᵢbᵢ|: the sums do not round, and neither do the products of numbers of 24 bits."""
    products = [x * y for x, y in zip(_numbers(a), _numbers(b), strict=True)]
    return math.fsum(products), math.fsum(map(abs, products))


@given(_tensors(count=2))
def test_inner_product_of_two_tensors(pair: list[Tensor]) -> None:
    """⟨a, b⟩ is exact to float64's rounding of its terms, per sample and over all."""
    a, b = pair
    whole, size = _exact(a, b)
    assert inner(a, b, 1).tolist() == [pytest.approx(whole, rel=0, abs=1e-14 * size)]
    found = inner(a, b, len(a))
    assert found.dtype == torch.float64 and found.shape == (len(a),)
    for i in range(len(a)):
        part, size = _exact(a[i], b[i])
        assert found[i].item() == pytest.approx(part, rel=0, abs=1e-14 * size)


@given(_tensors())
def test_inner_product_with_itself(only: list[Tensor]) -> None:
    """⟨a, a⟩ has a relative error of float64's, at 1e-38 and at 1e38, and is the same whether or not the operand is the same object."""
    (a,) = only
    found = inner(a, a, len(a))
    for i in range(len(a)):
        assert found[i].item() == pytest.approx(_exact(a[i], a[i])[0], rel=1e-14)
    assert inner(a, a.clone(), len(a)).tolist() == pytest.approx(found.tolist(), rel=1e-14)


@given(_tensors(count=2))
def test_inner_product_in_the_other_order(pair: list[Tensor]) -> None:
    """⟨a, b⟩ = ⟨b, a⟩, whatever the strides."""
    a, b = pair
    _, size = _exact(a, b)
    assert inner(a, b, 1).item() == pytest.approx(inner(b, a, 1).item(), rel=0, abs=1e-14 * size)


@given(_tensors(broken=True))
def test_census(only: list[Tensor]) -> None:
    """Count, Σ|g|², zeros, non-finite and fp16-underflowing elements are those of a count in numpy's longdouble."""
    (grad,) = only
    numbers = np.array(_numbers(grad), dtype=np.longdouble)
    count, total, zeros, nonfinite, underflow = census(grad).tolist()
    assert count == numbers.size
    assert zeros == np.count_nonzero(numbers == 0)
    assert nonfinite == np.count_nonzero(~np.isfinite(numbers))
    with np.errstate(over="ignore", under="ignore"):
        assert underflow == np.count_nonzero((numbers.astype(np.float64).astype(np.float16) == 0) & (numbers != 0))
    expected = float((numbers**2).sum())
    assert total == pytest.approx(expected, rel=_rounding(grad), nan_ok=True)
    assert math.isfinite(total) is (nonfinite == 0)


def _rounding(tensor: Tensor) -> float:
    return 1e-14 if tensor.dtype == torch.float64 else _PRODUCTS_IN_FLOAT32


@given(_tensors(count=3))
def test_products_of_several_tensors(vectors: list[Tensor]) -> None:
    """Each inner product has an error that is small against Σ|aᵢbᵢ|, and so has what a total differs by from its parts."""
    a, b, c = vectors
    pairs = [(a, a), (a, b), (b, c)]
    *found, rest = products(pairs, a, [b, c]).tolist()
    for (x, y), value in zip(pairs, found, strict=True):
        expected, size = _exact(x, y)
        assert value == pytest.approx(expected, rel=0, abs=_rounding(a) * size)
    scale = sum(_exact(x, x)[0] for x in vectors)
    left = [x - y - z for x, y, z in zip(*map(_numbers, vectors), strict=True)]
    assert rest == pytest.approx(math.fsum(x * x for x in left), rel=_rounding(a), abs=_rounding(a) * scale)


@given(_tensors(broken=True))
def test_squares(only: list[Tensor]) -> None:
    """The count, the sum of squares and the non-finite elements alone are those of the census."""
    (a,) = only
    count, total, _, nonfinite, _ = census(a).tolist()
    assert squares(a).tolist() == [count, pytest.approx(total, rel=_rounding(a), nan_ok=True), nonfinite]


@given(_tensors(count=2, broken=True))
def test_inputs_of_the_sums(pair: list[Tensor]) -> None:
    """Nothing that is summed is changed, nor put on the tape."""
    before = [t.clone() for t in pair]
    versions = [t._version for t in pair]
    tracked = [t.detach().requires_grad_() for t in pair]
    results = [
        inner(tracked[0], tracked[1], len(pair[0])),
        inner(pair[0], pair[0], 1),
        census(tracked[0]),
        census(pair[1]),
        products([(tracked[0], tracked[1])], tracked[0], [tracked[1]]),
    ]
    assert not any(r.requires_grad for r in results)
    for tensor, copy, version in zip(pair, before, versions, strict=True):
        assert np.array_equal(_numbers(tensor), _numbers(copy), equal_nan=True)
        assert tensor._version == version


@given(_tensors(count=2), st.data())
def test_batch_in_two_parts(pair: list[Tensor], data: st.DataObject) -> None:
    """Sums over two parts of a batch add up to those over the whole."""
    a, b = pair
    at = data.draw(st.integers(0, len(a)), label="split at")
    parts = [(x, y) for x, y in ((a[:at], b[:at]), (a[at:], b[at:])) if len(x)]
    assert torch.cat([inner(x, y, len(x)) for x, y in parts]).tolist() == pytest.approx(inner(a, b, len(a)).tolist(), rel=1e-14, abs=1e-14 * _exact(a, b)[1])
    assert sum(census(x) for x, _ in parts).tolist() == pytest.approx(census(a).tolist(), rel=_rounding(a))  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 50_000), (2, 3, 40_000), (1, 200_001), (2, 64, 33, 32)], ids=str)
def test_tensor_longer_than_a_chunk(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Nothing is lost or counted twice where a tensor is converted piece by piece."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, generator=generator, dtype=torch.complex64 if dtype.is_complex else torch.float32).to(dtype) for _ in range(2))
    a.reshape(-1)[:: len(a.reshape(-1)) // 7] = 0
    left, right = (np.array(_numbers(t)).astype(np.longdouble) for t in (a, b))
    assert inner(a, b, 1).item() == pytest.approx(float((left * right).sum()), rel=1e-11)
    per_sample = (left * right).reshape(shape[0], -1).sum(1).astype(np.float64)
    assert inner(a.transpose(0, -1).contiguous().transpose(0, -1), b, shape[0]).tolist() == pytest.approx(per_sample.tolist(), rel=1e-11)
    count, total, zeros, nonfinite, underflow = census(a).tolist()
    assert (count, zeros, nonfinite) == (left.size, np.count_nonzero(left == 0), 0)
    assert total == pytest.approx(float((left**2).sum()), rel=1e-13 if dtype == torch.float64 else 1e-6)
    assert underflow == np.count_nonzero((left.astype(np.float16) == 0) & (left != 0))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_without_elements_or_dimensions(dtype: torch.dtype) -> None:
    """An empty tensor sums to zero, and a 0-d tensor is one element (two numbers, if complex)."""
    empty, scalar = torch.zeros(0, 3, dtype=dtype), torch.tensor(2.0, dtype=dtype)
    assert inner(empty, empty, 1).tolist() == [0.0]
    assert census(empty).tolist() == [0, 0, 0, 0, 0]
    assert inner(scalar, scalar, 1).tolist() == [4.0]
    assert census(scalar)[:2].tolist() == [2.0 if dtype.is_complex else 1.0, 4.0]


def test_batch_without_features() -> None:
    """A [batch, 0] gradient has a sum of 0 for each of its samples."""
    empty = torch.zeros(3, 0)
    assert inner(empty, empty, 3).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("first", [0.15, 4096.0], ids=["equal", "one large"])
def test_numbers_whose_float32_sum_drifts(first: float) -> None:
    """Where float32's rounding errors all go one way, the squares are still right to four digits, and what λ is made of to float64's."""
    numbers = torch.cat([torch.tensor([first]), torch.full((199_999,), 0.15 if first < 1 else 1.7)])
    exact = float((numbers.double() ** 2).sum())
    assert census(numbers)[1].item() == pytest.approx(exact, rel=5e-6)
    assert products([(numbers, numbers.clone())], numbers, [numbers])[0].item() == pytest.approx(exact, rel=5e-6)
    assert inner(numbers, numbers.clone(), 1).item() == pytest.approx(exact, rel=1e-12)
