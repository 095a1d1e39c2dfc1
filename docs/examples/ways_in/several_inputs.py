"""Several inputs, inputs by keyword, token ids."""

from parts import Network
from torch import Tensor, nn


class Several(Network):
    """Two inputs; the second gates the first."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(8, 8)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return self.head(self.features(x * self.gate(context).sigmoid()))


class KeywordOnly(Several):
    def forward(self, *, x: Tensor, context: Tensor) -> Tensor:
        return super().forward(x, context)


class Anything(Several):
    """Takes *args and **kwargs and looks itself what came."""

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        return super().forward(args[0], kwargs["context"])


class Tokens(Network):
    """Integer inputs: they have no gradient, what is looked up by them has."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Embedding(50, 8)
