"""The skip paths of convolutional residual units. Each maps [batch, inside, height, width] to [batch, outside, height/stride, width/stride]."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradflow.zoo.choices import one_of


class OptionA(nn.Module):
    """He et al. 2015, option A: keep every `stride`-th pixel and pad the missing channels with zeros, after the others. It has no parameters.

    Backwards it copies the gradient of the kept channels to the kept pixels and drops the rest.

    Raises:
        ValueError: `outside` is smaller than `inside`, or `stride` is less than 1.
    """

    def __init__(self, inside: int, outside: int, stride: int = 2) -> None:
        super().__init__()
        if outside < inside:
            raise ValueError(f"option A pads channels and cannot drop them: {inside} -> {outside}; the outer width must be at least the inner")
        if stride < 1:
            raise ValueError(f"stride={stride} must be at least 1")
        self.missing, self.stride = outside - inside, stride

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.missing))


class Scaled(nn.Module):
    """λx with a constant λ = `scale`: He et al. 2016, eq. 6."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Gate(nn.Module):
    """g(x) = σ(Wx + b) with W a 1×1 convolution and one bias b for all channels: He et al. 2016, section 3.1.

    With `weights="zero"` the gate is σ(b) everywhere, whatever x is; with "he" W is drawn from N(0, 2/fan_in).
    """

    def __init__(self, inside: int, outside: int, stride: int, bias: float, weights: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, 1, stride)
        self.bias, self.weights = bias, weights
        self.reset()

    def reset(self) -> None:
        """Set W and b to their initial values."""
        if self.weights == "zero":
            nn.init.zeros_(self.conv.weight)
        else:
            nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        nn.init.constant_(self.conv.bias, self.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(x))


def resize(inside: int, outside: int, stride: int, option: str) -> nn.Module:
    """The shortcut that meets the branch's shape: the identity where shapes agree, else option "A" or "B" (a bare strided 1×1 convolution)."""
    one_of("option", option, ("A", "B"))
    if inside == outside and stride == 1:
        return nn.Identity()
    return OptionA(inside, outside, stride) if option == "A" else nn.Conv2d(inside, outside, 1, stride, bias=False)
