"""Memory formats and number formats."""

import torch
from parts import Network
from torch import Tensor, nn


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.f = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.norm(self.f(x)).relu()
        return self.head(x.mean((2, 3)))


def channels_last() -> nn.Module:
    return Convolutional().to(memory_format=torch.channels_last)


class Complex(nn.Module):
    """Complex weights; the skip is multiplied by 0.8 + 0.6i, whose size is 1 and whose λ is its real part."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.f = nn.Linear(8, 8, dtype=torch.complex64), nn.Linear(8, 8, dtype=torch.complex64)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return (0.8 + 0.6j) * x + self.f(x).tanh()


class Fourier(nn.Module):
    """x + irfft(W · rfft(x)): real data, complex weights."""

    def __init__(self, tokens: int = 16) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(8, 8), nn.Linear(8, 3)
        self.filter = nn.Parameter(torch.randn(tokens // 2 + 1, 8, 8, dtype=torch.complex64) / 8**0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        mixed = torch.fft.rfft(x, dim=1).unsqueeze(2) @ self.filter
        return self.head(x + torch.fft.irfft(mixed.squeeze(2), n=x.shape[1], dim=1))


class OwnAutocast(Network):
    """Enters autocast itself."""

    def features(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            return super().features(x).float()


plain = Network
