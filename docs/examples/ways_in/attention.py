"""torch's own attention and transformers."""

from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """x + attention(norm(x)); torch never calls the module's `out_proj`, and its gradient is measured all the same."""

    def __init__(self, need_weights: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 8)
        self.need_weights = need_weights

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return self.head(x + self.attention(y, y, y, need_weights=self.need_weights)[0])


class ByHand(nn.Module):
    """The same around scaled_dot_product_attention."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, -1))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.out(y.transpose(1, 2).flatten(-2))


def transformer() -> nn.Module:
    return nn.Transformer(8, 2, 1, 1, 16, batch_first=True)


def encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)


def decoder() -> nn.Module:
    return nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True, norm_first=True), 2)
