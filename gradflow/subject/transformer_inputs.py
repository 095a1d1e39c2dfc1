"""What a transformers model is fed: read from its config and its main_input_name. Imports nothing of transformers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gradflow.errors import NoInput
from gradflow.subject.infer import Guess, positional_tables
from gradflow.subject.inputs import InputSpec
from gradflow.subject.signature import forward_of

_LANGUAGE_MODEL = re.compile(r"ForCausalLM|LMHeadModel|ForMaskedLM|ForConditionalGeneration")
_CLASSIFIER = re.compile(r"For(Sequence|Image|Video|Audio)Classification$")
_LONGEST = 128
_BATCH = 2


def is_transformers(model: nn.Module) -> bool:
    """Whether the model, or a class that it inherits from, is one of transformers'."""
    return any(cls.__module__.startswith("transformers.") for cls in type(model).__mro__) and hasattr(model, "config")


def infer_transformers(model: nn.Module) -> Guess:
    """The main input, the decoder's input of an encoder-decoder, and labels where the class turns them into a `.loss`.

    Language models get their own input as labels, classifiers seeded random class ids; the attention mask is left to its default.

    Raises:
        NoInput: the main input is of an unknown kind, or the config does not give its size.
    """
    config: Any = model.config
    main = str(getattr(model, "main_input_name", "input_ids"))
    maker = _MAIN.get(main)
    if maker is None:
        needed = tuple(dict.fromkeys((main, *forward_of(model).required)))
        raise NoInput(model_class=type(model).__name__, reason=f"its main input is {main!r}", names=needed)
    specs = [maker(model, config)]
    accepted = forward_of(model).keywords
    if "return_loss" in accepted and "pixel_values" in accepted and main == "input_ids":
        specs.append(_pixels(model, config))  # CLIP and its kin compare texts with images: they need both
    decoder = getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in accepted
    if decoder:
        specs.append(_tokens(model, config, name="decoder_input_ids"))
    same: tuple[tuple[str, int], ...] = ()
    kind = type(model).__name__
    if "labels" in accepted and _LANGUAGE_MODEL.search(kind) and (decoder or main == "input_ids"):
        same = (("labels", len(specs) - 1 if decoder else 0),)
    elif "labels" in accepted and _CLASSIFIER.search(kind):
        specs.append(_classes(config))
    return Guess(specs=tuple(specs), same=same, source=f"transformers' {main}")


def _tokens(model: nn.Module, config: Any, name: str = "input_ids") -> InputSpec:
    text = config.get_text_config(decoder=name.startswith("decoder")) if hasattr(config, "get_text_config") else config
    vocabulary = getattr(text, "vocab_size", getattr(getattr(config, "text_config", None), "vocab_size", None))
    if not isinstance(vocabulary, int) or vocabulary < 1:
        vocabulary = _embedded(model)
    if not isinstance(vocabulary, int):
        raise NoInput(model_class=type(model).__name__, reason="its config gives no vocabulary size")
    limits = [getattr(text, key, None) for key in ("max_position_embeddings", "max_target_positions" if name.startswith("decoder") else "n_positions")]
    longest = min([_LONGEST, *(limit - _reserved(model) for limit in limits if isinstance(limit, int) and limit > 0)])
    return InputSpec(name=name, dtype=torch.int64, shape=(_BATCH, max(longest, 1)), high=vocabulary)


def _embedded(model: nn.Module) -> int | None:
    """Rows of the table in which tokens are looked up; transformers raises where it knows of none."""
    lookup: Any = getattr(model, "get_input_embeddings", lambda: None)
    try:
        return getattr(lookup(), "num_embeddings", None)
    except (NotImplementedError, AttributeError):
        return None


def _reserved(model: nn.Module) -> int:
    """RoBERTa and its kin count positions from padding_idx + 1, so that the first rows of their table are not for tokens."""
    return max((table.padding_idx + 1 for table in positional_tables(model) if table.padding_idx is not None), default=0)


def _pixels(model: nn.Module, config: Any) -> InputSpec:
    vision = getattr(config, "vision_config", None) or config
    size = getattr(vision, "image_size", None) or 224
    if isinstance(size, dict):
        size = (size["height"], size["width"])
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    channels = getattr(vision, "num_channels", None) or 3
    frames = getattr(vision, "num_frames", None)
    shape = (_BATCH, frames, channels, height, width) if isinstance(frames, int) else (_BATCH, channels, height, width)
    return InputSpec(name="pixel_values", shape=shape)


def _waveform(model: nn.Module, config: Any) -> InputSpec:
    """One second at 16 kHz; a spectrogram transformer takes [batch, frames, mel bins], a codec [batch, channels, samples]."""
    mel, frames, channels = (getattr(config, key, None) for key in ("num_mel_bins", "max_length", "audio_channels"))
    if isinstance(mel, int) and isinstance(frames, int):
        return InputSpec(name="input_values", shape=(_BATCH, frames, mel))
    if isinstance(channels, int):
        return InputSpec(name="input_values", shape=(_BATCH, channels, 16000))
    return InputSpec(name="input_values", shape=(_BATCH, 16000))


def _features(model: nn.Module, config: Any) -> InputSpec:
    """Whisper takes [batch, mel bins, frames], two frames for each position of its encoder; Speech2Text and wav2vec2-BERT [batch, frames, features]."""
    keys = ("num_mel_bins", "max_source_positions", "input_feat_per_channel", "input_channels", "feature_projection_input_dim")
    mel, positions, per_channel, channels, projected = (getattr(config, key, None) for key in keys)
    if isinstance(mel, int) and isinstance(positions, int):
        return InputSpec(name="input_features", shape=(_BATCH, mel, 2 * positions))
    if isinstance(per_channel, int) and isinstance(channels, int):
        return InputSpec(name="input_features", shape=(_BATCH, _LONGEST, per_channel))
    if isinstance(projected, int):
        return InputSpec(name="input_features", shape=(_BATCH, _LONGEST, projected))
    raise NoInput(model_class=type(model).__name__, reason="its config does not tell the size of input_features")


_MAIN: dict[str, Callable[[nn.Module, Any], InputSpec]] = {
    "input_ids": _tokens,
    "pixel_values": _pixels,
    "input_values": _waveform,
    "input_features": _features,
}


def _classes(config: Any) -> InputSpec:
    """Class ids, one a sample; with a single label transformers computes a regression, which wants floats."""
    count = int(getattr(config, "num_labels", 2))
    if count == 1:
        return InputSpec(name="labels", shape=(_BATCH,))
    return InputSpec(name="labels", dtype=torch.int64, shape=(_BATCH,), high=count)
