"""Tensors -> sums, on the tensor's own device, accumulated in float64 without a float64 copy of the whole. Never waits for the device."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 1 << 16  # elements converted to float64 at a time on a CPU: the copy stays in the cache
_FP16_ZERO = 2.0**-25  # what rounds to 0 in float16: half its smallest subnormal, ties to even


def inner(a: Tensor, b: Tensor, samples: int) -> Tensor:
    """⟨a, b⟩ in float64, one per sample.

    Args:
        a, b: tensors of one shape; if complex, the real part of ⟨a, b⟩.
        samples: size of the leading batch dimension, or 1 for one sum over everything.

    Returns:
        [samples], float64, on the tensors' device.
    """
    a, other = _real(a), None if b is a else _real(b)
    if a.device.type != "cpu":
        left = a.reshape(samples, -1).double()
        right = left if other is None else other.reshape(samples, -1).double()
        return (left * right).sum(dim=1)
    flat, other = _flat(a, other, samples)
    return torch.stack([_dot(flat[i], None if other is None else other[i]) for i in range(samples)])


def _real(a: Tensor) -> Tensor:
    a = a.detach()
    if a.is_sparse:
        a = a.coalesce().values()
    return torch.view_as_real(a) if a.is_complex() else a


def _flat(a: Tensor, b: Tensor | None, samples: int) -> tuple[Tensor, Tensor | None]:
    """Both as [samples, -1] in one common element order; a view where the memory is dense with the batch outermost."""
    strides = a.stride()
    order = sorted(range(a.dim()), key=lambda d: (-strides[d], d))
    if a.dim() and order[0] == 0 and (b is None or a.stride() == b.stride()):
        a, b = a.permute(order), None if b is None else b.permute(order)
    return a.reshape(samples, -1), None if b is None else b.reshape(samples, -1)


def _dot(a: Tensor, b: Tensor | None) -> Tensor:
    if a.dtype == torch.float64:
        return torch.dot(a, a if b is None else b)
    result = torch.zeros((), dtype=torch.float64)
    for i in range(0, a.numel(), _CHUNK):
        left = a[i : i + _CHUNK].double()
        result += torch.dot(left, left if b is None else b[i : i + _CHUNK].double())
    return result


def census(grad: Tensor) -> Tensor:
    """Sums over one gradient: [count, Σ|g|², zeros, nonfinite, fp16 underflow] in float64, [5]."""
    grad = _real(grad)
    if grad.device.type == "cpu":
        return _census_on_cpu(grad)
    wide = grad.double()
    size = wide.abs()
    zeros = (size == 0).sum()
    count = torch.full((), grad.numel(), dtype=torch.float64, device=grad.device)
    parts = (count, (wide * wide).sum(), zeros, (~wide.isfinite()).sum(), (size <= _FP16_ZERO).sum() - zeros)
    return torch.stack([p.double() for p in parts])


def _census_on_cpu(grad: Tensor) -> Tensor:
    flat = _flat(grad, None, 1)[0][0]
    squares, small, zeros, nonfinite = 0.0, 0, 0, 0
    for i in range(0, flat.numel(), _CHUNK):
        chunk = flat[i : i + _CHUNK]
        wide = chunk.double()
        part = torch.dot(wide, wide).item()
        squares += part
        tiny = int(torch.count_nonzero(wide.abs() <= _FP16_ZERO))  # not abs_: a float64 chunk is the gradient itself
        if tiny:
            small += tiny
            zeros += chunk.numel() - int(torch.count_nonzero(chunk))
        if part - part != 0:
            nonfinite += chunk.numel() - int(torch.count_nonzero(chunk.isfinite()))
    return torch.tensor([flat.numel(), squares, zeros, nonfinite, small - zeros], dtype=torch.float64)
