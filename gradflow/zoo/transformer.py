"""Transformers that differ in one thing: where the LayerNorm stands, inside the branch (pre) or on the trunk after the sum (post), and what λ scales the skip.

Weights are drawn from N(0, gain²/fan_in), which for square maps is Xavier's rule (Xiong et al. 2020, section 3.2); biases and positions start at 0 and
small. A ReLU feed-forward branch then carries half the variance of its input, at any hidden width: one post-LN sublayer multiplies the highway by √(2/3).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradflow.zoo.choices import ACTIVATIONS, at_least, lecun_, one_of
from gradflow.zoo.residual import Residual


def _linear(inside: int, outside: int, gain: float = 1.0) -> nn.Linear:
    linear = nn.Linear(inside, outside)
    lecun_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
    return linear


class SelfAttention(nn.Module):
    """Multi-head attention [..., tokens, width] -> the same; `causal` hides the tokens to the right."""

    def __init__(self, width: int, heads: int, causal: bool, beta: float) -> None:
        super().__init__()
        self.query, self.key = _linear(width, width), _linear(width, width)
        self.value, self.out = _linear(width, width, beta), _linear(width, width, beta)
        self.heads, self.causal = heads, causal

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (project(x).unflatten(-1, (self.heads, -1)).transpose(-3, -2) for project in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        out: Tensor = self.out(mixed.transpose(-3, -2).flatten(-2))
        return out


class FeedForward(nn.Sequential):
    """linear, activation, linear on [..., width]."""

    def __init__(self, width: int, hidden: int, activation: str, beta: float) -> None:
        super().__init__(_linear(width, hidden, beta), ACTIVATIONS[activation](), _linear(hidden, width, beta))


class PreNormUnit(Residual):
    """λx + F(LN(x)) on [..., width]: the norm is branch."""

    def __init__(self, width: int, body: nn.Module, scale: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.body, self.scale = body, scale

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.scale == 1.0 else x * self.scale
        return skip + self.severed(self.body(self.norm(x)))


class PostNormUnit(Residual):
    """LN(λx + F(x)) on [..., width]: the norm is trunk."""

    def __init__(self, width: int, body: nn.Module, scale: float) -> None:
        super().__init__()
        self.body, self.scale = body, scale
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.scale == 1.0 else x * self.scale
        out: Tensor = self.norm(skip + self.severed(self.body(x)))
        return out


class TokenInput(nn.Module):
    """Token numbers [..., tokens] -> [..., tokens, width]: an embedding plus a learned position, for at most `context` tokens."""

    def __init__(self, vocab: int, width: int, context: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocab, width)
        self.position = nn.Embedding(context, width)
        nn.init.normal_(self.position.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        tokens, context = ids.shape[-1], self.position.num_embeddings
        if tokens > context:
            raise ValueError(f"{tokens} tokens do not fit into a context of {context}: pass fewer, or build the model with context={tokens}")
        out: Tensor = self.token(ids) + self.position(torch.arange(tokens, device=ids.device))
        return out


class Transformer(nn.Module):
    """Token numbers [..., tokens] -> logits [..., tokens, vocab], or states [..., tokens, width] -> the same where there is no vocabulary.

    `blocks` holds the residual units in order: attention and feed-forward by turns, or feed-forward alone.
    """

    def __init__(
        self,
        *,
        unit: type[PreNormUnit | PostNormUnit],
        blocks: int,
        width: int,
        heads: int,
        hidden: int | None,
        vocab: int | None,
        context: int,
        causal: bool,
        attention: bool,
        activation: str,
        skip_scale: float,
        beta: float = 1.0,
    ) -> None:
        super().__init__()
        hidden = 4 * width if hidden is None else hidden
        one_of("activation", activation, ACTIVATIONS)
        at_least(1, blocks=blocks, width=width, heads=heads, hidden=hidden, context=context, vocab=1 if vocab is None else vocab)
        if attention and width % heads:
            raise ValueError(f"heads={heads} must divide width={width}")
        self.embed = nn.Identity() if vocab is None else TokenInput(vocab, width, context)
        units: list[Residual] = []
        for _ in range(blocks):
            if attention:
                units.append(unit(width, SelfAttention(width, heads, causal, beta), skip_scale))
            units.append(unit(width, FeedForward(width, hidden, activation, beta), skip_scale))
        self.blocks = nn.Sequential(*units)
        self.norm = nn.LayerNorm(width) if unit is PreNormUnit else nn.Identity()
        self.head = nn.Identity() if vocab is None else _linear(width, vocab)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.blocks(self.embed(x))))
        return out


def pre_ln_transformer(
    blocks: int = 6,
    width: int = 64,
    *,
    heads: int = 4,
    hidden: int | None = None,
    vocab: int | None = None,
    context: int = 256,
    causal: bool = False,
    attention: bool = True,
    activation: str = "relu",
    skip_scale: float = 1.0,
) -> Transformer:
    """A pre-LN transformer: x ← λx + F(LN(x)), and a LayerNorm after the last block. `causal=True` with a vocabulary is a GPT.

    With `attention=False` each block is a feed-forward sublayer alone. From unit-variance x, every block adds ½ to the variance of the trunk, so over N
    blocks the highway, from the output (behind the last norm) to x, is 1/√(1 + N/2) = 1/3 at N = 16, all of it the last norm's; the total is near 1.

    Args:
        blocks: N, blocks of an attention and a feed-forward sublayer, each with its own skip.
        width: features d of the trunk.
        heads: attention heads; they divide `width`.
        hidden: features inside the feed-forward sublayer; None means 4·width.
        vocab: tokens; None takes continuous states [batch, tokens, width] and returns such.
        context: the most tokens that a vocabulary's positions allow.
        causal: whether a token sees only those before it.
        attention: False leaves the attention sublayers out.
        activation: of the feed-forward sublayer, see `mlp`.
        skip_scale: λ, on every skip.

    Raises:
        ValueError: an argument is outside its allowed values, which the message names; in forward, more tokens than `context`.
    """
    return Transformer(
        unit=PreNormUnit,
        blocks=blocks,
        width=width,
        heads=heads,
        hidden=hidden,
        vocab=vocab,
        context=context,
        causal=causal,
        attention=attention,
        activation=activation,
        skip_scale=skip_scale,
    )


def post_ln_transformer(
    blocks: int = 6,
    width: int = 64,
    *,
    heads: int = 4,
    hidden: int | None = None,
    vocab: int | None = None,
    context: int = 256,
    causal: bool = False,
    attention: bool = True,
    activation: str = "relu",
    skip_scale: float = 1.0,
) -> Transformer:
    """A post-LN transformer, Vaswani et al. 2017: x ← LN(λx + F(x)); the LayerNorm lies on the trunk.

    With `attention=False` the norm divides by √(1 + ½) in every block, so over N blocks the highway is (2/3)^(N/2) = 0.039 at N = 16 (Xiong et al. 2020,
    theorem 1), while the total stays near 1: each block's (1 + ½)·⅔.

    Args:
        blocks: see `pre_ln_transformer`, as for every argument below.
        width: features of the trunk.
        heads: attention heads.
        hidden: features inside the feed-forward sublayer.
        vocab: tokens, or None.
        context: the most tokens of a vocabulary.
        causal: whether a token sees only those before it.
        attention: False leaves the attention sublayers out.
        activation: of the feed-forward sublayer.
        skip_scale: λ, on every skip.

    Raises:
        ValueError: an argument is outside its allowed values, which the message names; in forward, more tokens than `context`.
    """
    return Transformer(
        unit=PostNormUnit,
        blocks=blocks,
        width=width,
        heads=heads,
        hidden=hidden,
        vocab=vocab,
        context=context,
        causal=causal,
        attention=attention,
        activation=activation,
        skip_scale=skip_scale,
    )


def deepnorm_transformer(
    blocks: int = 32,
    width: int = 64,
    *,
    heads: int = 4,
    hidden: int | None = None,
    vocab: int | None = None,
    context: int = 256,
    causal: bool = False,
    attention: bool = True,
    activation: str = "relu",
    alpha: float | None = None,
    beta: float | None = None,
) -> Transformer:
    """DeepNorm (Wang et al. 2022, fig. 2): x ← LN(αx + F(x)), with the feed-forward, value and output weights scaled by β.

    Args:
        blocks: N.
        width: see `pre_ln_transformer`, as for every argument up to `activation`.
        heads: attention heads.
        hidden: features inside the feed-forward sublayer.
        vocab: tokens, or None.
        context: the most tokens of a vocabulary.
        causal: whether a token sees only those before it.
        attention: False leaves the attention sublayers out.
        activation: of the feed-forward sublayer.
        alpha: the skip's λ; None means (2N)^¼, the rule for a single stack (encoder or decoder).
        beta: the weights' gain; None means (8N)^(−¼).

    Raises:
        ValueError: an argument is outside its allowed values, which the message names; in forward, more tokens than `context`.
    """
    at_least(1, blocks=blocks)
    return Transformer(
        unit=PostNormUnit,
        blocks=blocks,
        width=width,
        heads=heads,
        hidden=hidden,
        vocab=vocab,
        context=context,
        causal=causal,
        attention=attention,
        activation=activation,
        skip_scale=(2 * blocks) ** 0.25 if alpha is None else alpha,
        beta=(8 * blocks) ** -0.25 if beta is None else beta,
    )
