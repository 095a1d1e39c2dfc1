"""Random numbers of a run: every draw belongs to one seed and one purpose. Draws happen on the CPU, so they are the same on every device."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed torch, `random` and numpy's global generator."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run user code that draws under `seed`, and leave the global generators as they were."""
    kept_python, kept_numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices):
        seed_everything(seed)
        try:
            yield
        finally:
            random.setstate(kept_python)
            np.random.set_state(kept_numpy)


def stream(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator of its own for each purpose.

    One generator seeded alike for weights, inputs and cotangents would hand out the same numbers three times: a probe equal to the input is no probe.
    """
    digest = hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def draw(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, high: int | None = None) -> torch.Tensor:
    """One tensor on the CPU: N(0,1) for floating and complex dtypes, uniform in [0, high) for integers, Bernoulli(1/2) for bool.

    Floats are drawn in float32 and then cast, so that a run in another precision sees the same batch.
    """
    if dtype.is_complex:
        return torch.randn(shape, dtype=torch.complex64, generator=generator).to(dtype)
    if dtype.is_floating_point:
        return torch.randn(shape, dtype=torch.float32, generator=generator).to(dtype)
    return torch.randint(0, 2 if high is None else high, shape, dtype=torch.int64, generator=generator).to(dtype)
