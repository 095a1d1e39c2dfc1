"""Activation checkpointing, re-entrant and not; by torch, and as transformers switches it on."""

from functools import partial

import torch
from parts import Network
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential, create_selective_checkpoint_contexts


class Checkpointed(Network):
    def __init__(self, reentrant: bool = False) -> None:
        super().__init__()
        self.reentrant = reentrant

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return x


class Sequential(Network):
    def features(self, x: Tensor) -> Tensor:
        return checkpoint_sequential(self.blocks, 2, self.stem(x), use_reentrant=False)


class Selective(Network):
    """Products are kept, the rest is computed again."""

    def features(self, x: Tensor) -> Tensor:
        contexts = partial(create_selective_checkpoint_contexts, [torch.ops.aten.addmm.default])
        return checkpoint(self.blocks, self.stem(x), use_reentrant=False, context_fn=contexts)


def transformer() -> nn.Module:
    """A tiny GPT-2 under transformers' own switch."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=16, n_head=2, n_positions=16, vocab_size=50, bos_token_id=None, eos_token_id=None)).train()
    switch = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable  # the second is the older name
    switch()
    return model
