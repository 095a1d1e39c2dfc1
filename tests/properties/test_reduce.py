"""Sums over tensors against exact references: any shape, stride, type and magnitude."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gradflow.reduce import census, inner

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64)
_SPECIAL = (0.0, -0.0, 1.0, -1.0, 1e-38, -1e-38, 1e-45, 1e-25, 2.0**-24, 2.0**-25, 2.0**-26, 6e-8, 2000.0, 65504.0, 1e19, 1e38, -1e38)
_BROKEN = (math.nan, math.inf, -math.inf)
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
    """`count` tensors of one shape and type, [batch, …], each at strides of its own."""
    shape = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    dtype = draw(st.sampled_from(DTYPES))
    parts = 2 if dtype.is_complex else 1
    found = []
    for _ in range(count):
        numbers = draw(st.lists(_values(broken), min_size=math.prod(shape) * parts, max_size=math.prod(shape) * parts))
        wide = torch.tensor(numbers, dtype=torch.float64)
        flat = torch.view_as_complex(wide.float().reshape(-1, 2)) if dtype.is_complex else wide.to(dtype)
        if not broken and not dtype.is_complex:
            flat = torch.nan_to_num(flat, posinf=1.0, neginf=-1.0)  # what the type cannot hold
        found.append(_laid_out(flat.reshape(shape), draw(st.sampled_from(_LAYOUTS))))
    return found


def _numbers(tensor: Tensor) -> list[float]:
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return [float(x) for x in real.reshape(-1).double()]


def _exact(a: Tensor, b: Tensor) -> tuple[float, float]:
    """⟨a, b⟩ and Σ|aᵢbᵢ| without rounding before the last."""
    products = [Fraction(x) * Fraction(y) for x, y in zip(_numbers(a), _numbers(b), strict=True)]
    return float(sum(products)), float(sum(map(abs, products)))


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
    count, squares, zeros, nonfinite, underflow = census(grad).tolist()
    assert count == numbers.size
    assert zeros == np.count_nonzero(numbers == 0)
    assert nonfinite == np.count_nonzero(~np.isfinite(numbers))
    with np.errstate(over="ignore", under="ignore"):
        assert underflow == np.count_nonzero((numbers.astype(np.float64).astype(np.float16) == 0) & (numbers != 0))
    expected = float((numbers**2).sum())
    assert squares == pytest.approx(expected, rel=1e-14, nan_ok=True)
    assert math.isfinite(squares) is (nonfinite == 0)


@given(_tensors(count=2, broken=True))
def test_inputs_of_the_sums(pair: list[Tensor]) -> None:
    """Nothing that is summed is changed, nor put on the tape."""
    before = [t.clone() for t in pair]
    versions = [t._version for t in pair]
    tracked = [t.detach().requires_grad_() for t in pair]
    results = [inner(tracked[0], tracked[1], len(pair[0])), inner(pair[0], pair[0], 1), census(tracked[0]), census(pair[1])]
    assert not any(r.requires_grad for r in results)
    for tensor, copy, version in zip(pair, before, versions, strict=True):
        assert torch.equal(torch.view_as_real(tensor) if tensor.is_complex() else tensor, torch.view_as_real(copy) if copy.is_complex() else copy) or _has_nan(copy)
        assert np.array_equal(_numbers(tensor), _numbers(copy), equal_nan=True)
        assert tensor._version == version


def _has_nan(tensor: Tensor) -> bool:
    return bool(tensor.isnan().any())


@given(_tensors(count=2), st.data())
def test_batch_in_two_parts(pair: list[Tensor], data: st.DataObject) -> None:
    """Sums over two parts of a batch add up to those over the whole."""
    a, b = pair
    at = data.draw(st.integers(0, len(a)), label="split at")
    parts = [(x, y) for x, y in ((a[:at], b[:at]), (a[at:], b[at:])) if len(x)]
    assert torch.cat([inner(x, y, len(x)) for x, y in parts]).tolist() == pytest.approx(inner(a, b, len(a)).tolist(), rel=1e-14, abs=1e-14 * _exact(a, b)[1])
    assert sum(census(x) for x, _ in parts).tolist() == pytest.approx(census(a).tolist(), rel=1e-14)  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 50_000), (2, 3, 40_000), (1, 200_001), (2, 64, 33, 32)], ids=str)
def test_tensor_longer_than_a_chunk(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Nothing is lost or counted twice where a tensor is converted piece by piece."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, generator=generator, dtype=torch.complex64 if dtype.is_complex else torch.float32).to(dtype) for _ in range(2))
    a.reshape(-1)[:: len(a.reshape(-1)) // 7] = 0
    left, right = (np.array(_numbers(t), dtype=np.longdouble) for t in (a, b))
    assert inner(a, b, 1).item() == pytest.approx(float((left * right).sum()), rel=1e-11)
    per_sample = (left * right).reshape(shape[0], -1).sum(1).astype(np.float64)
    assert inner(a.transpose(0, -1).contiguous().transpose(0, -1), b, shape[0]).tolist() == pytest.approx(per_sample.tolist(), rel=1e-11)
    count, squares, zeros, nonfinite, underflow = census(a).tolist()
    assert (count, zeros, nonfinite) == (left.size, np.count_nonzero(left == 0), 0)
    assert squares == pytest.approx(float((left**2).sum()), rel=1e-13)
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
