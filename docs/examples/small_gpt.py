"""A small GPT with pre-LN blocks, on random tokens: healthy.

gradflow finds 8 identity skips (attention and feed-forward in each of 4 blocks), each with λ = 1 exactly, and a highway of gain 1 from the last sum to
the embeddings. Every layer gets a gradient.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

VOCAB, TOKENS, WIDTH, HEADS = 128, 32, 64, 4


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class SmallGPT(nn.Module):
    def __init__(self, blocks: int = 4) -> None:
        super().__init__()
        self.token = nn.Embedding(VOCAB, WIDTH)
        self.position = nn.Embedding(TOKENS, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(blocks)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token(ids) + self.position(torch.arange(ids.shape[1], device=ids.device))
        return self.head(self.norm(self.blocks(x)))


model = SmallGPT  # a callable: gradflow builds it under its own seed

tokens = torch.randint(VOCAB, (4, TOKENS + 1), generator=torch.Generator().manual_seed(0))
inputs, targets = tokens[:, :-1], tokens[:, 1:]


def loss(output: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy of the next token; output: [batch, tokens, vocab], targets: [batch, tokens]."""
    return functional.cross_entropy(output.flatten(0, 1), targets.flatten())
