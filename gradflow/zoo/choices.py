"""What a builder's arguments may be: tables of named choices, and refusals that name what is allowed. Draws from torch's global generator, never seeds it."""

import math
from collections.abc import Callable, Collection
from functools import partial

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "linear": nn.Identity,
}

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda width: nn.Identity(),
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
}


def lecun_(weight: Tensor, gain: float = 1.0) -> Tensor:
    """Fill `weight` [out, in, ...] from N(0, gain²/fan_in) and return it (LeCun et al. 1998); for a square matrix this is Xavier's rule."""
    return nn.init.normal_(weight, std=gain / math.sqrt(weight[0].numel()))


def _keep(weight: Tensor) -> Tensor:
    return weight


INITS: dict[str, Callable[[Tensor], Tensor]] = {
    "default": _keep,
    "he": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "xavier": nn.init.xavier_normal_,
    "lecun": lecun_,
    "orthogonal": nn.init.orthogonal_,
    "small": partial(nn.init.normal_, std=0.01),
    "large": partial(lecun_, gain=4.0),
    "zero": nn.init.zeros_,
}


def one_of(name: str, value: str, allowed: Collection[str]) -> str:
    """`value`, if it is among `allowed`.

    Raises:
        ValueError: it is not; the message lists `allowed`.
    """
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}")
    return value


def at_least(least: int, **values: object) -> None:
    """Check that every keyword's value is an integer of `least` or more.

    Raises:
        ValueError: one is not; the message names it and `least`.
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name}={value!r} must be an integer of at least {least}")


def initialise(model: nn.Module, init: str) -> None:
    """Fill every linear and convolution weight of `model` by the rule `INITS[init]` and zero their biases; "default" leaves torch's own.

    Raises:
        ValueError: `init` names no rule.
    """
    rule = INITS[one_of("init", init, INITS)]
    if init == "default":
        return
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            rule(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def random_rotation(width: int) -> Tensor:
    """A random orthogonal matrix [width, width], uniform by Haar's measure, drawn in float64 and rounded to the default dtype."""
    q, r = torch.linalg.qr(torch.randn(width, width, dtype=torch.float64))
    rotation: Tensor = q * r.diagonal().sign()
    return rotation.to(torch.get_default_dtype())
