"""What a model can be fed when nobody says: from its library's tables, else from its first weighted layer. Draws nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gradflow.errors import NoInput, UninitializedModel
from gradflow.subject.inputs import InputSpec
from gradflow.subject.likeness import likeness
from gradflow.subject.signature import Forward, forward_of
from gradflow.subject.structure import class_name


@dataclass(frozen=True, kw_only=True)
class Guess:
    """Inputs to draw. `same` maps a further keyword to the earlier spec's index whose tensor it repeats (labels, or an attention's key and value)."""

    specs: tuple[InputSpec, ...]
    source: str
    same: tuple[tuple[str, int], ...] = ()


def infer(model: nn.Module) -> Guess:
    """The inputs of a model outside transformers.

    Raises:
        NoInput: forward needs several inputs, it is a detector, or no layer tells a shape.
        UninitializedModel: a lazy module has not seen an input yet.
    """
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise UninitializedModel(name=name)
    whole = _whole(model)
    if whole is not None:
        return whole
    forward = forward_of(model)
    kind = class_name(model)
    if len(forward.required) > 1:
        raise NoInput(model_class=kind, reason=f"its forward needs {', '.join(forward.required)}", names=forward.required)
    known = _timm(model) or _torchvision(model)
    if known is not None:
        return known
    if not forward.described():
        return Guess(specs=(), source="forward takes no input")
    return _from_first_layer(likeness(model) if isinstance(model, torch.jit.ScriptModule) else model, forward)


def _timm(model: nn.Module) -> Guess | None:
    """timm's models carry the size that they were trained with; one that was built for another size or channel count knows that better."""
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    size = config.get("input_size") if isinstance(config, dict) else None
    if size is None:
        return None
    patches = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if isinstance(patches, (tuple, list)) and len(patches) == 2:
        size = (size[0], *patches)
    first = next((layer for layer in model.modules() if isinstance(layer, nn.Conv2d)), None)
    channels = first.in_channels if first is not None and first.in_channels != size[0] and _is_stem(first) else size[0]
    return Guess(specs=(InputSpec(shape=(4, channels, *size[1:])),), source="timm default_cfg")


def _is_stem(conv: nn.Conv2d) -> bool:
    """Stems with space-to-depth see 48 channels in their first convolution for an image of 3."""
    return conv.groups == 1 and conv.in_channels <= 16


_TORCHVISION_SIZES = {"Inception3": (4, 3, 299, 299), "S3D": (2, 3, 16, 224, 224), "MViT": (2, 3, 16, 224, 224)}


def _torchvision(model: nn.Module) -> Guess | None:
    kind, home = type(model).__name__, type(model).__module__
    if not home.startswith("torchvision.models"):
        return None
    if home.startswith("torchvision.models.detection"):
        raise NoInput(model_class=kind, reason="a detector takes a list of images, and a list of boxes with labels in training")
    default = (2, 3, 8, 112, 112) if home.startswith("torchvision.models.video") else (4, 3, 224, 224)
    shape = _TORCHVISION_SIZES.get(kind, default)
    size = getattr(model, "image_size", None)
    if isinstance(size, int):
        shape = (*shape[:-2], size, size)
    return Guess(specs=(InputSpec(shape=shape),), source="torchvision's usual size")


def _whole(model: nn.Module) -> Guess | None:
    """torch's own modules that take several inputs, profiled by themselves."""
    source = f"known for {type(model).__name__}"

    def tokens(*widths: int, batch_first: bool) -> tuple[InputSpec, ...]:
        return tuple(InputSpec(shape=(4, 16, width) if batch_first else (16, 4, width)) for width in widths)

    if isinstance(model, nn.MultiheadAttention):
        if model.kdim == model.embed_dim == model.vdim:
            return Guess(specs=tokens(model.embed_dim, batch_first=model.batch_first), same=(("key", 0), ("value", 0)), source=source)
        return Guess(specs=tokens(model.embed_dim, model.kdim, model.vdim, batch_first=model.batch_first), source=source)
    if isinstance(model, nn.Transformer):
        return Guess(specs=tokens(model.d_model, model.d_model, batch_first=model.batch_first), source=source)
    if isinstance(model, (nn.TransformerDecoder, nn.TransformerDecoderLayer)):
        attention = next(layer for layer in model.modules() if isinstance(layer, nn.MultiheadAttention))
        return Guess(specs=tokens(attention.embed_dim, attention.embed_dim, batch_first=attention.batch_first), source=source)
    return None


def _sequence(layer: Any, width: int) -> tuple[int, ...]:
    return (4, 16, width) if layer.batch_first else (16, 4, width)


# `Any` because torch types the attributes of a Module as Tensor | Module.
_FLOATING: tuple[tuple[type[nn.Module], Callable[[Any], tuple[int, ...]]], ...] = (
    (nn.Linear, lambda m: (4, m.in_features)),
    (nn.Conv1d, lambda m: (4, m.in_channels, 64)),
    (nn.Conv2d, lambda m: (4, m.in_channels, 64, 64)),
    (nn.Conv3d, lambda m: (2, m.in_channels, 8, 32, 32)),
    (nn.ConvTranspose1d, lambda m: (4, m.in_channels, 16)),
    (nn.ConvTranspose2d, lambda m: (4, m.in_channels, 16, 16)),
    (nn.ConvTranspose3d, lambda m: (2, m.in_channels, 4, 8, 8)),
    (nn.RNNBase, lambda m: _sequence(m, m.input_size)),
    (nn.RNNCellBase, lambda m: (4, m.input_size)),
    (nn.MultiheadAttention, lambda m: _sequence(m, m.embed_dim)),
    (nn.LayerNorm, lambda m: (4, 16, *m.normalized_shape)),
    (nn.RMSNorm, lambda m: (4, 16, *m.normalized_shape)),
    (nn.BatchNorm1d, lambda m: (4, m.num_features)),
    (nn.BatchNorm2d, lambda m: (4, m.num_features, 64, 64)),
    (nn.BatchNorm3d, lambda m: (2, m.num_features, 8, 32, 32)),
    (nn.GroupNorm, lambda m: (4, m.num_channels, 64, 64)),
)


_SEQUENCES = re.compile(r"attention|transformer", re.IGNORECASE)
"""Classes that work on [batch, tokens, width]: [batch, width] would often run, with the samples taken for tokens."""


def _from_first_layer(model: nn.Module, forward: Forward) -> Guess:
    for name, layer in model.named_modules():
        if not any(True for _ in layer.parameters()):
            continue
        spec = _spec_for(layer, name, model)
        if spec is not None:
            where = f"{name}: {type(layer).__name__}" if name else type(layer).__name__
            return Guess(specs=(_placed(spec, forward),), source=f"inferred from the first weighted layer ({where})")
    raise NoInput(model_class=type(model).__name__, reason="it has no layer that tells the shape of its input")


def _placed(spec: InputSpec, forward: Forward) -> InputSpec:
    """By position, or by name where forward has keyword-only parameters alone."""
    if forward.positional or forward.more_positional or not forward.keywords:
        return spec
    return InputSpec(name=(forward.required or forward.keywords)[0], dtype=spec.dtype, shape=spec.shape, high=spec.high)


def _spec_for(layer: nn.Module, name: str, model: nn.Module) -> InputSpec | None:
    if isinstance(layer, (nn.Embedding, nn.EmbeddingBag)):
        tables = positional_tables(model)
        if layer in tables and any(isinstance(other, nn.Embedding) and other not in tables for other in model.modules()):
            return None
        length = min([16, *(table.num_embeddings for table in tables if table is not layer)])
        return InputSpec(dtype=torch.int64, shape=(4, length), high=layer.num_embeddings)
    if isinstance(layer, nn.Linear) and any(_SEQUENCES.search(type(module).__name__) for module in model.modules()):
        return InputSpec(shape=(4, 16, layer.in_features))
    for kind, shape in _FLOATING:
        if isinstance(layer, kind):
            weight = next(layer.parameters())
            return InputSpec(shape=shape(layer), dtype=weight.dtype if weight.is_complex() else None)
    return None


def positional_tables(model: nn.Module) -> list[nn.Embedding]:
    """Embeddings whose name says that they are looked up by position ("pos_emb", "wpe"): they bound the length, and their ids are not tokens."""
    return [
        layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Embedding) and ("pos" in name.rpartition(".")[2].lower() or name.rpartition(".")[2] == "wpe")
    ]


def vocabulary(model: nn.Module) -> tuple[str, int] | None:
    """Name and size of the first embedding that is not looked up by position, None without one."""
    tables = positional_tables(model)
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Embedding, nn.EmbeddingBag)) and layer not in tables:
            return name or type(layer).__name__, layer.num_embeddings
    return None
