"""transformers: every model type, from its own config made tiny; and what some types need beyond that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tests.corpus.case import Case
from tests.corpus.shrink import ORDINARY_TOKENS, shrunk

_RESNET = {"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 16, 32, 64], "depths": [1, 1, 2, 1], "out_features": ["stage4"]}
_ROTARY = {"rope_type": "default", "rope_theta": 10000.0}
_SECTIONS = {"rope_parameters": {**_ROTARY, "mrope_section": [2, 3, 3]}}
_HALF_SECTIONS = {"rope_parameters": {**_ROTARY, "mrope_section": [1, 1, 2], "partial_rotary_factor": 0.5}}

# pattern of the model type -> fields beside those that `shrunk` sets; a field that is a dictionary is merged into what is there
_OVERRIDES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    (r"(conditional_|dab-|deformable_)?detr|omdet-turbo", {"backbone_config": _RESNET}),
    (r"qwen2(_5)?_vl_text|paddleocr_vl_text", _SECTIONS),
    (r"qwen2(_5)?_vl|paddleocr_vl", {"text_config": _SECTIONS}),
    (r"glm4v(_moe)?_text|glm_image_text|glm_ocr_text|glmga", _HALF_SECTIONS),
    (r"glm4v(_moe)?|glm46v|glm_image|glm_ocr", {"text_config": _HALF_SECTIONS}),
    (r"mamba2", {"num_heads": 8, "head_dim": 16}),
    (r"autoformer|informer|time_series_transformer", {"prediction_length": 4, "context_length": 8, "lags_sequence": [1, 2]}),
    (r"reformer", {"axial_pos_shape": [8, 8], "axial_pos_embds_dim": [32, 32], "attn_layers": ["local", "lsh"], "num_hidden_layers": 2, "is_decoder": True}),
)
# small as they are, and of linked sizes
_WHOLE = re.compile(r"bit|efficientnet|hgnet_v2|pp_(?!formulanet).*|poolformer|pvt|hiera|dinat|levit|dac|mobilebert|textnet|uvdoc.*|ibert|lilt")
_TEXT = f"input_ids=int64[2,16]<{ORDINARY_TOKENS}"
_SHORT = f"input_ids=int64[2,8]<{ORDINARY_TOKENS}"
_PICTURE = "pixel_values=2x{channels}x{height}x{width}"
_FEATURES = "input_features=float32[2,64,80]"

# pattern of the model type -> what it is fed; a picture has the size of its (vision) config
_INPUTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"parakeet_(rnnt|tdt)|nemotron_asr_streaming|canary|cohere_asr|lasr_ctc", (_FEATURES, f"labels=int64[2,4]<{ORDINARY_TOKENS}")),
    (r"(parakeet|nemotron_asr|lasr).*", (_FEATURES,)),
    (r"canine", ("input_ids=int64[2,64]<100",)),
    (r"vits", ("input_ids=int64[1,2]<38",)),  # its random durations make a long sound of a short text
    (r"(align|altclip|chinese_clip|clipseg|flava|groupvit|owlv2|owlvit|aimv2|tipsv2|metaclip_2|clap|blip)", (_SHORT, _PICTURE)),
    (r"xclip", (_SHORT, "pixel_values=float32[2,8,3,{height},{width}]")),
    (r"bros", (_SHORT, "bbox=float32[2,8,8]")),
    (r"perceiver", ("inputs=int64[2,16]<100",)),
    (r"blip_2_qformer", ("query_embeds=float32[2,8,64]", "encoder_hidden_states=float32[2,4,1408]")),
    (r"lxmert", (_SHORT, "visual_feats=float32[2,4,64]", "visual_pos=float32[2,4,4]")),
    (r"patchtst|patchtsmixer", ("past_values=2x32x1",)),
    (r"encodec|dac", ("input_values=2x1x2048",)),
    (r"(?!aya_|cohere2_|sam2|sam3|edgetam|videoprism).*_vision(_model|_encoder)?", (_PICTURE,)),
)
# vision towers of language models take patches and the grid that they came from
_TOWERS = (
    r"(qwen2(_5)?|qwen3|qwen3_5|qwen4_exp|glm_ocr|glm4v|glm_image|glm5_next|exaone4_5|cohere_compass|ernie4_5)(_vl)?(_moe)?_vision"
    r"|(cosmos3_edge|dots3_note|hunyuan_vl|lfm3_vl|minimax_m3_vl|muse_glimmer|muse_spark|inkling2)_vision(_encoder)?|qwen(2_5|3)_omni(_moe)?_vision_encoder"
)


def cases() -> list[Case]:
    """One case for each model type."""
    from transformers import CONFIG_MAPPING

    return [_case(name) for name in sorted(set(CONFIG_MAPPING.keys()))]


def _case(name: str) -> Case:
    from transformers import CONFIG_MAPPING

    try:
        config = CONFIG_MAPPING[name]()
        arguments = shrunk(config)
    except Exception:  # it has no default config: hf:NAME says so itself
        config, arguments = None, {}
    if _WHOLE.fullmatch(name):
        arguments = {}
    for pattern, fields in _OVERRIDES:
        if re.fullmatch(pattern, name):
            arguments |= {n: {**arguments.get(n, {}), **v} if isinstance(v, Mapping) else v for n, v in fields.items()}
    if re.fullmatch(_TOWERS, name):
        arguments = {"model_type": name, "fields": arguments}
        return Case(library="transformers", name=name, target="tests.corpus.builders:vision_tower", arguments=arguments, inputs=(_patches(config),))
    given = next((specs for pattern, specs in _INPUTS if re.fullmatch(pattern, name)), (_TEXT,) if _mixes(config) else ())
    size = _picture(config, arguments)
    return Case(library="transformers", name=name, target=f"hf:{name}", arguments=arguments, inputs=tuple(spec.format(**size) for spec in given))


def _picture(config: Any, arguments: Mapping[str, Any]) -> dict[str, int]:
    """Channels, height and width of the picture that the small config takes."""
    vision, small = getattr(config, "vision_config", None), arguments.get("vision_config", {})
    if vision is None:
        vision, small = config, arguments
    size = small.get("image_size", getattr(vision, "image_size", None)) or 64
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return {"channels": getattr(vision, "num_channels", None) or 3, "height": height, "width": width}


def _patches(config: Any) -> str:
    channels = getattr(config, "in_channels", None) or getattr(config, "in_chans", None) or getattr(config, "num_channels", None) or 3
    return f"float32[16,{channels * (getattr(config, 'temporal_patch_size', None) or 1) * config.patch_size**2}]"


def _mixes(config: Any) -> bool:
    """Whether the text holds places for images, videos or sounds: then it is drawn without them."""
    return any(hasattr(config, f"{kind}_token_{end}") for kind in ("image", "audio", "video") for end in ("id", "index")) and hasattr(config, "text_config")
