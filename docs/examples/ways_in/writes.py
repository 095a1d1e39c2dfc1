"""In-place operations, also on views."""

from parts import Block, Network
from torch import Tensor, nn
from torch.nn import functional


class WholeBlock(Block):
    """`out += x` and an in-place ReLU, as torchvision's ResNets write it."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.f(x)
        out += x
        return functional.relu(out, inplace=True)


class SliceBlock(Block):
    """The branch is added to the second half of the channels, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        out = x.clone()
        out[:, 4:] += self.f(x).tanh()
        return out


class FilledBlock(Block):
    """An empty tensor, filled by slices."""

    def forward(self, x: Tensor) -> Tensor:
        branch, out = self.f(x).tanh(), x.new_empty(x.shape)
        out[:, :4] = x[:, :4] + branch[:, :4]
        out[:, 4:] = x[:, 4:] + branch[:, 4:]
        return out


def _network(*blocks: nn.Module) -> nn.Module:
    model = Network()
    model.blocks = nn.Sequential(*blocks)
    return model


def whole() -> nn.Module:
    return _network(WholeBlock(), WholeBlock())


def slices() -> nn.Module:
    return _network(SliceBlock(), SliceBlock())


def filled() -> nn.Module:
    return _network(FilledBlock())
