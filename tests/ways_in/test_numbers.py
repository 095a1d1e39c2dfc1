"""How numbers are laid out and how wide they are."""

import pytest
import torch
from torch import nn
from ways_oracle import D, Net, check, linear, rows

HALF, IDENTITY = [("scaled", 0.5)], [("identity", 1.0)]
Z = torch.complex128


class Convolutional(nn.Module):
    def __init__(self, memory_format=torch.contiguous_format, dtype=D):
        super().__init__()
        self.stem, self.f = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 4)
        self.to(dtype).to(memory_format=memory_format)

    def forward(self, x):
        x = self.stem(x)
        return self.head((0.5 * x + torch.relu(self.norm(self.f(x)))).mean((2, 3)))


IMAGES = rows(1, 2, 3, 6, 6)
LAYOUTS = {
    "channels-last inputs": (torch.contiguous_format, IMAGES.contiguous(memory_format=torch.channels_last)),
    "channels-last weights": (torch.channels_last, IMAGES),
    "both": (torch.channels_last, IMAGES.contiguous(memory_format=torch.channels_last)),
    "transposed": (torch.contiguous_format, IMAGES.transpose(2, 3)),
    "expanded": (torch.contiguous_format, IMAGES[:1].expand(2, 3, 6, 6)),
    "one sample": (torch.channels_last, IMAGES[:1]),
}


@pytest.mark.parametrize(("memory_format", "images"), LAYOUTS.values(), ids=LAYOUTS)
def test_memory_formats(memory_format, images):
    """λ does not depend on the order of the numbers in memory, and weights keep theirs."""
    check(lambda: Convolutional(memory_format), images, skips=HALF)


class Complex(nn.Module):
    """Complex throughout; `factor` multiplies the skip, `end` makes the output."""

    def __init__(self, factor=0.5, end=lambda y: y):
        super().__init__()
        self.stem, self.f, self.head = (nn.Linear(8, 8, dtype=Z) for _ in range(3))
        self.factor, self.end = factor, end

    def forward(self, x):
        x = self.stem(x.to(Z))
        return self.end(self.head(self.factor * x + torch.tanh(self.f(x))))


COMPLEX = {
    "real inputs": (Complex, rows(), None),
    "complex inputs": (Complex, torch.complex(rows(1), rows(2)), None),
    "a real loss": (Complex, rows(), lambda out: out.abs().square().mean()),
    "moduli": (lambda: Complex(end=torch.abs), rows(), None),
    "pairs of reals": (lambda: Complex(end=torch.view_as_real), rows(), None),
}


@pytest.mark.filterwarnings("ignore:Complex modules are a new feature", "ignore:Casting complex values to real")
@pytest.mark.parametrize(("build", "inputs", "loss"), COMPLEX.values(), ids=COMPLEX)
def test_complex_numbers(build, inputs, loss):
    """Inner products are real parts: λ of a real factor is that factor."""
    check(build, inputs, loss=loss, skips=HALF)


class Paired(nn.Module):
    """Pairs of channels seen as complex numbers for the block, and back."""

    def __init__(self):
        super().__init__()
        self.stem, self.weight, self.head = linear(), nn.Parameter(rows(5, 4, 4, 2)), linear()

    def forward(self, x):
        z = torch.view_as_complex(self.stem(x).unflatten(-1, (4, 2)))
        z = z + torch.tanh(z @ torch.view_as_complex(self.weight))
        return self.head(torch.view_as_real(z).flatten(-2))


class Mixer(nn.Module):
    """Fourier transforms instead of attention: the branch has no weights but its norm's."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.f, self.head = linear(), nn.LayerNorm(8, dtype=D), linear(), linear()

    def forward(self, x):
        x = self.stem(x)
        x = x + torch.fft.fft2(self.norm(x)).real
        return self.head(x + self.f(x))


def test_real_data_through_complex_operators():
    """view_as_complex and Fourier transforms, both ways."""
    check(Paired, rows(), skips=IDENTITY)
    check(Mixer, rows(1, 3, 5, 8), skips=IDENTITY * 2)


class Plain(nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.stem, self.norm, self.f, self.head = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.to(dtype)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + torch.tanh(self.f(self.norm(x))))


class OwnAutocast(Plain):
    def __init__(self, dtype):
        super().__init__()
        self.inner = dtype

    def forward(self, x):
        with torch.autocast("cpu", dtype=self.inner):
            return super().forward(x).float()


class Partly(Plain):
    """One layer in bfloat16, with casts around it."""

    def __init__(self):
        super().__init__()
        self.f.to(torch.bfloat16)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + torch.tanh(self.f(self.norm(x).bfloat16())).float())


NARROW = {
    "autocast bf16": (Plain, torch.float32, "bf16"),
    "autocast fp16": (Plain, torch.float32, "fp16"),
    "autocast bf16 inside": (lambda: OwnAutocast(torch.bfloat16), torch.float32, None),
    "autocast fp16 inside": (lambda: OwnAutocast(torch.float16), torch.float32, None),
    "bfloat16": (lambda: Plain(torch.bfloat16), torch.bfloat16, None),
    "float16": (lambda: Plain(torch.float16), torch.float16, None),
    "partly bfloat16": (Partly, torch.float32, None),
}


@pytest.mark.parametrize(("build", "dtype", "amp"), NARROW.values(), ids=NARROW)
def test_narrow_numbers(build, dtype, amp):
    """λ of an identity is 1 exactly; the ledger closes to the format's own rounding, and nothing is blamed for that."""
    report = check(build, rows().to(dtype), amp=amp, skips=IDENTITY, ledger=2e-2)
    assert [skip.lam for skip in report.skips] == [1.0]
    assert not any("ledger" in note for note in report.run.notes)


def test_convolutions_in_half_precision():
    """Convolutions and batch norms of both sixteen-bit formats."""
    for dtype in (torch.bfloat16, torch.float16):
        check(lambda dtype=dtype: Convolutional(dtype=dtype), IMAGES.to(dtype), skips=HALF, ledger=2e-2)


def test_a_float64_ledger_stays_strict():
    """A float64 model without casts is held to 1e-9, whatever other models of the process were."""
    assert check(Net, rows(), skips=HALF).skips[0].ledger_error < 1e-15
