"""Fully connected networks, plain and residual, of any depth: [batch, inputs] -> [batch, outputs]. Nothing but a constant λ lies on a trunk."""

from torch import Tensor, nn

from gradflow.zoo.choices import ACTIVATIONS, NORMS, at_least, initialise, one_of
from gradflow.zoo.residual import Residual


class MLP(nn.Sequential):
    """A plain stack of linear, norm, activation, `depth` times, and a linear head."""


class VectorUnit(Residual):
    """λx + c·F(x) on [batch, width], where F is norm, activation, linear, `layers` times: nothing but λ lies on the trunk."""

    def __init__(self, width: int, *, scale: float, branch_scale: float, layers: int, activation: str, norm: str) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for _ in range(layers):
            steps += [NORMS[norm](width), ACTIVATIONS[activation](), nn.Linear(width, width)]
        self.branch = nn.Sequential(*(step for step in steps if not isinstance(step, nn.Identity)))
        self.scale, self.branch_scale = scale, branch_scale

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.branch(x)
        skip = x if self.scale == 1.0 else x * self.scale
        return skip + self.severed(branch if self.branch_scale == 1.0 else branch * self.branch_scale)


class ResidualMLP(nn.Module):
    """[batch, inputs] -> [batch, outputs]: an optional linear stem, `blocks` (one unit each) and an optional linear head."""

    def __init__(self, units: list[Residual], width: int, inputs: int | None, outputs: int | None) -> None:
        super().__init__()
        self.stem = nn.Identity() if inputs is None else nn.Linear(inputs, width)
        self.blocks = nn.Sequential(*units)
        self.head = nn.Identity() if outputs is None else nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks(self.stem(x)))
        return out


def mlp(
    depth: int = 8,
    width: int = 64,
    *,
    activation: str = "relu",
    init: str = "default",
    norm: str = "none",
    inputs: int | None = None,
    outputs: int = 10,
    bias: bool = True,
) -> MLP:
    """A plain network of `depth` hidden layers (linear, norm, activation) and a linear head: [batch, inputs] -> [batch, outputs].

    Args:
        depth: hidden layers; there are depth + 1 linear maps.
        width: units of a hidden layer.
        activation: "relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu" or "linear".
        init: "default" (torch's), "he", "xavier", "lecun", "orthogonal", "small" (σ = 0.01), "large" (4 × lecun) or "zero".
        norm: "none", "batch" or "layer", before the activation.
        inputs: features of x; None means `width`.
        outputs: features of the output.
        bias: whether the linear maps have one; where `init` is not "default" it starts at 0.

    Raises:
        ValueError: an argument is outside its allowed values, which the message names.
    """
    one_of("activation", activation, ACTIVATIONS)
    one_of("norm", norm, NORMS)
    at_least(1, depth=depth, width=width, inputs=width if inputs is None else inputs, outputs=outputs)
    steps: list[nn.Module] = []
    for layer in range(depth):
        inside = inputs if layer == 0 and inputs is not None else width
        steps += [nn.Linear(inside, width, bias), NORMS[norm](width), ACTIVATIONS[activation]()]
    network = MLP(*(step for step in steps if not isinstance(step, nn.Identity)), nn.Linear(width, outputs, bias))
    initialise(network, init)
    return network


def residual_mlp(
    depth: int = 8,
    width: int = 64,
    *,
    scale: float = 1.0,
    branch_scale: float = 1.0,
    branch_layers: int = 1,
    activation: str = "relu",
    norm: str = "none",
    init: str = "he",
    inputs: int | None = None,
    outputs: int | None = 10,
) -> ResidualMLP:
    """A residual network on vectors, x_{l+1} = λ·x_l + c·F(x_l), F being (norm, activation, linear) × `branch_layers`; a highway of exactly λ^depth.

    He-initialised and without norm, a branch has the gain 1 whatever `branch_layers` is, so that the total gain² grows as (λ² + c²)^depth.

    Args:
        depth: residual units.
        width: features of the trunk.
        scale: λ.
        branch_scale: c.
        branch_layers: linear maps of a branch.
        activation: see `mlp`.
        norm: see `mlp`.
        init: see `mlp`.
        inputs: features of x, mapped to the trunk by a linear stem; None means that x is the trunk's first state, [batch, width].
        outputs: logits of a linear head; None means that the trunk's last state is the output.

    Raises:
        ValueError: an argument is outside its allowed values, which the message names.
    """
    one_of("activation", activation, ACTIVATIONS)
    one_of("norm", norm, NORMS)
    sizes = {name: size for name, size in (("inputs", inputs), ("outputs", outputs)) if size is not None}
    at_least(1, depth=depth, width=width, branch_layers=branch_layers, **sizes)
    units: list[Residual] = [
        VectorUnit(width, scale=scale, branch_scale=branch_scale, layers=branch_layers, activation=activation, norm=norm) for _ in range(depth)
    ]
    network = ResidualMLP(units, width, inputs, outputs)
    initialise(network, init)
    return network
