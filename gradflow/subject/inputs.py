"""The --input grammar: [NAME=]SHAPE or [NAME=]DTYPE[SHAPE][<HIGH]. A spec that is printed reads back as itself."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass

import torch

from gradflow.errors import BadInputSpec
from gradflow.subject.seeding import draw
from gradflow.subject.structure import dtype_name

DTYPES = {
    dtype_name(dtype): dtype
    for dtype in (
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int8,
        torch.uint8,
        torch.bool,
        torch.complex64,
    )
}
_INTEGERS = (torch.int64, torch.int32, torch.int8, torch.uint8)
_SPEC = re.compile(r"(?:(?P<name>[^=]*)=)?(?:(?P<bare>\d[\dx×]*)|(?P<dtype>\w+)\[(?P<shape>[^\]]*)\](?:<(?P<high>-?\w+))?)")


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """One input tensor to draw.

    Attributes:
        name: the keyword of forward, None for a positional input.
        dtype: None for the dtype of the model's parameters.
        shape: sizes, all positive; () is one number.
        high: integers are drawn from [0, high); None where it was not given.
    """

    name: str | None = None
    dtype: torch.dtype | None = None
    shape: tuple[int, ...]
    high: int | None = None

    @classmethod
    def parse(cls, text: str) -> InputSpec:
        """Read one --input.

        Raises:
            BadInputSpec: not of this grammar, an unknown dtype, a size below 1, or a HIGH that the dtype cannot hold.
        """
        match = _SPEC.fullmatch(text.replace(" ", ""))
        if match is None:
            raise BadInputSpec(spec=text, reason="it is neither a shape nor a dtype with a shape in brackets")
        name = match["name"]
        if name is not None and not name.isidentifier():
            raise BadInputSpec(spec=text, reason=f"{name!r} is not a parameter name")
        if match["bare"] is not None:
            return cls(name=name, shape=_sizes(text, re.split("[x×]", match["bare"])))
        dtype = DTYPES.get(match["dtype"])
        if dtype is None:
            near = difflib.get_close_matches(match["dtype"], DTYPES, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise BadInputSpec(spec=text, reason=f"{match['dtype']!r} is not one of {', '.join(DTYPES)}{hint}")
        sizes = match["shape"].removesuffix(",").split(",") if match["shape"] else []
        return cls(name=name, dtype=dtype, shape=_sizes(text, sizes), high=_high(text, dtype, match["high"]))

    def __str__(self) -> str:
        name = f"{self.name}=" if self.name else ""
        if self.dtype is None:
            return name + "x".join(map(str, self.shape))
        high = f"<{self.high}" if self.high is not None else ""
        return f"{name}{dtype_name(self.dtype)}[{','.join(map(str, self.shape))}]{high}"

    @property
    def is_integer(self) -> bool:
        """Whether a HIGH applies."""
        return self.dtype in _INTEGERS

    def drawn(self, generator: torch.Generator, default: torch.dtype) -> torch.Tensor:
        """The tensor, on the CPU; `default` is the dtype where the spec has none.

        Raises:
            BadInputSpec: it does not fit into memory.
        """
        try:
            return draw(self.shape, self.dtype or default, generator, self.high)
        except (RuntimeError, MemoryError) as error:
            raise BadInputSpec(spec=str(self), reason=f"{math.prod(self.shape):,} elements do not fit into memory") from error


def _sizes(text: str, sizes: list[str]) -> tuple[int, ...]:
    if not all(re.fullmatch(r"-?\d+", size, re.ASCII) for size in sizes):
        raise BadInputSpec(spec=text, reason="its sizes are not all whole numbers")
    shape = tuple(int(size) for size in sizes)
    if any(size < 1 for size in shape):
        raise BadInputSpec(spec=text, reason="a size is below 1")
    if math.prod(shape) >= 2**62:
        raise BadInputSpec(spec=text, reason="it has more elements than a tensor can have")
    return shape


def _high(text: str, dtype: torch.dtype, high: str | None) -> int | None:
    if high is None:
        return None
    if dtype not in _INTEGERS:
        raise BadInputSpec(spec=text, reason=f"<HIGH is for integers, not for {dtype_name(dtype)}")
    if not re.fullmatch(r"-?\d+", high, re.ASCII):
        raise BadInputSpec(spec=text, reason=f"HIGH is {high!r}, not a whole number")
    limit = torch.iinfo(dtype).max
    if not 1 <= int(high) <= limit + (dtype is not torch.int64):
        raise BadInputSpec(spec=text, reason=f"HIGH must lie between 1 and {limit} for {dtype_name(dtype)}")
    return int(high)
