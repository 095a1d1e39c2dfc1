"""Outputs that are more than a tensor; and a model that returns its loss."""

from collections import namedtuple
from dataclasses import dataclass

import torch
from parts import Network
from torch import Tensor, nn
from torch.nn import functional


@dataclass
class Answer:
    logits: Tensor
    score: Tensor
    note: str = ""


Pair = namedtuple("Pair", "logits score")


class TwoHeads(Network):
    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(8, 1)

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        return self.head(features), self.score(features)

    def forward(self, x: Tensor) -> object:
        return self.both(x)


class Dictionary(TwoHeads):
    def forward(self, x: Tensor) -> object:
        logits, score = self.both(x)
        return {"logits": logits, "more": {"score": score, "classes": logits.argmax(-1)}}


class Dataclass(TwoHeads):
    def forward(self, x: Tensor) -> object:
        return Answer(*self.both(x), note="not a tensor")


class NamedTuple(TwoHeads):
    def forward(self, x: Tensor) -> object:
        return Pair(*self.both(x))


class NestedTuple(TwoHeads):
    def forward(self, x: Tensor) -> object:
        logits, score = self.both(x)
        return logits, (score, None, [logits.detach()])


class Distribution(TwoHeads):
    """An object that is no container: its attributes are looked at."""

    def forward(self, x: Tensor) -> object:
        logits, score = self.both(x)
        return torch.distributions.Normal(logits, score.exp(), validate_args=False)


class OwnLoss(Network):
    """Returns the loss beside the logits, as transformers' models do."""

    def forward(self, x: Tensor) -> object:
        logits = self.head(self.features(x))
        return {"loss": functional.cross_entropy(logits, torch.arange(len(x)) % 3), "logits": logits}
