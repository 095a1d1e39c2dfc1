"""Any transformers config made tiny: which of its fields to set to what, sub-configs included. Knows names of fields, not models."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

WIDTH, INNER, HEADS, HEAD, VOCABULARY, LONGEST = 64, 128, 4, 16, 128, 64
ORDINARY_TOKENS = 100  # ids of special tokens lie above, so that a text drawn below holds none

Rule = Callable[[Any], Any]


def _at_most(limit: int) -> Rule:
    return lambda value: min(value, limit) if value > 0 else value


def _set(number: int) -> Rule:
    return lambda value: number if value >= 16 else value


def _head(value: int) -> int:
    return HEAD if value > 1 else value


_NUMBERS: tuple[tuple[str, Rule], ...] = tuple(
    (re.compile(pattern), rule)
    for pattern, rule in (
        (r"type_vocab_size|.*token_type.*|num_labels|num_channels|in_chans|num_return.*", lambda value: value),
        (r".*(q_lora|kv_lora|lora)_rank|.*_lora_dim|time_step_rank|.*low_rank.*", _set(16)),
        (r".*vocab(_size.*)?|.*codebook_size|num_embeddings|.*num_codevectors.*|num_bins", _at_most(VOCABULARY)),
        (r"rotary_dim|rotary_ndims", _set(8)),
        (r"mamba_(n|num)_heads", _set(8)),
        (r".*groups", _at_most(4)),
        (r".*(state_size|d_state|ssm_state)", _at_most(8)),
        (r"(qk_|v_|index_|linear_)?(rope_|nope_)?(key_|value_)?head_dim|qk_(rope|nope)_head_dim", _head),
        (r"d_kv|dim_head|attention_head_size|kv_channels|.*head_dim|mamba_d_head|qk_head_dim", _head),
        (r".*(num_key_value_heads|num_kv_heads|num_attention_kv_heads|n_head_kv|key_value_heads|linear_num_key_heads)", _at_most(2)),
        (r".*(attention_heads|num_heads|n_heads?|_heads|heads|num_attn_heads)", _at_most(HEADS)),
        (r".*(experts_per_tok|num_experts_per_token|moe_topk|moe_top_k|moe_k|top_k|router_top_k)", _at_most(2)),
        (r"n_group|topk_group|num_expert_group", _at_most(1)),
        (r".*(num_experts|n_routed_experts|num_local_experts|moe_num_experts|expert_num)", _at_most(4)),
        (r".*(intermediate_size|ffn_dim|d_ff|n_inner|mlp_dim|ffn_hidden_size|ffn_embed_dim|feedforward.*|inner_dim|intermediate_dim)", _set(INNER)),
        (r"num_feat_extract_layers|.*adapter_layers|num_conv_layers|.*max_window_layers|.*_layers_to_.*", lambda value: value),
        (r".*(num_hidden_layers|n_layers?|num_layers|encoder_layers|decoder_layers|_depth|depth|num_blocks|_layers|num_.*_blocks)", _at_most(2)),
        (r".*max_(source|target|text)?_?(position|length|seq).*|n_positions|n_ctx|seq_length", _at_most(LONGEST)),
        (r"num_position_embeddings|num_patches", _at_most(64)),
        (r".*(sliding_window|attention_window|local_window|window_left|block_size|chunk_size)", _at_most(16)),
        (r".*(num_queries|num_query_tokens|num_object_queries|num_latents|query_length)", _at_most(8)),
        (r"num_denoising|train_num_points|index_topk", _at_most(8)),
        (r".*(hidden_size|d_model|n_embd|embed_dim|embedding_size|_channels|dim)", _set(WIDTH)),
        (r".*(hidden_size_global|hidden_size_per_layer_input|feature_size|fusion_hidden_size|latent_size|entity_emb_size|out_features_dim|width)", _set(WIDTH)),
    )
)  # fmt: skip
_PICTURE = ("image_size", "img_size", "input_size", "pretrain_image_size")
_TOKEN = re.compile(r".*(token_id|token_index|_idx|_token|eos_token_id|bos_token_id|pad_token_id)s?")
_WIDTHS = re.compile(r".*(hidden_sizes|embed_dims|embed_dim|channels|conv_dim|dims|hidden_dims|tdnn_dim|encoder_hidden_sizes)")
_COMMON = ("id2label", "label2id", "architectures", "dtype", "torch_dtype", "transformers_version", "num_labels", "chunk_size_feed_forward", "return_dict")


def shrunk(config: Any) -> dict[str, Any]:
    """The fields to set, as `--arg` takes them: numbers, lists, and for sub-configs dictionaries."""
    fields = {name: value for name, value in config.to_dict().items() if name not in _COMMON and not name.startswith("_")}
    small: dict[str, Any] = {}
    for name, value in fields.items():
        sub = vars(config).get(name)
        if name == "per_layer_config":
            small[name] = {}  # all layers alike
        elif name == "architecture":
            small[name] = "test_vit"  # a timm model inside
        elif hasattr(sub, "to_dict") and hasattr(sub, "model_type"):
            small[name] = {"model_type": sub.model_type, **shrunk(sub)}
        elif isinstance(value, bool):
            continue
        elif isinstance(value, int):
            _put(small, name, value, _number(name, value))
        elif isinstance(value, list) and value and all(type(v) is int for v in value):
            _put(small, name, value, _numbers(name, value))
        elif isinstance(value, Mapping) and "mrope_section" in value:
            small[name] = {**value, "mrope_section": [2, 3, 3]}
    small |= _tokens(fields) | _heads(fields, small)
    small |= _per_layer(fields, small)
    small |= _picture(fields)
    return small


def _put(small: dict[str, Any], name: str, old: Any, new: Any) -> None:
    if new != old:
        small[name] = new


def _number(name: str, value: int) -> int:
    rule = next((rule for pattern, rule in _NUMBERS if pattern.fullmatch(name)), None)
    return value if rule is None or _TOKEN.fullmatch(name) else rule(value)


def _numbers(name: str, values: list[int]) -> list[int]:
    if re.fullmatch(r".*depths|layers|stage_.*blocks|layer_nums", name):
        return [min(v, 2) for v in values]
    if re.fullmatch(r".*(num_attention_heads|num_heads|heads)", name):
        return [next(n for n in (4, 2, 1) if n <= v) for v in values]
    if _WIDTHS.fullmatch(name):  # equal widths stay equal
        return [v if v <= 16 else 16 if v <= 128 else 32 if v <= 512 else WIDTH for v in values]
    return values


def _heads(fields: Mapping[str, Any], small: Mapping[str, Any]) -> dict[str, Any]:
    """As many heads of keys and values as of queries where that was so before."""
    if fields.get("num_key_value_heads") and fields.get("num_key_value_heads") == fields.get("num_attention_heads"):
        return {"num_key_value_heads": small.get("num_attention_heads", fields["num_attention_heads"])}
    return {}


def _tokens(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Special tokens inside the vocabulary, each with an id of its own, above the ordinary ones."""
    ids = {name: value for name, value in fields.items() if _TOKEN.fullmatch(name) and type(value) is int and value >= ORDINARY_TOKENS}
    several = {
        name: value
        for name, value in fields.items()
        if _TOKEN.fullmatch(name) and isinstance(value, list) and any(type(v) is int and v >= ORDINARY_TOKENS for v in value)
    }
    known = {value: ORDINARY_TOKENS + i for i, value in enumerate(sorted(set(ids.values())))}
    return {name: known[value] for name, value in ids.items()} | {name: [ORDINARY_TOKENS + 20 + i for i in range(len(v))] for name, v in several.items()}


def _per_layer(fields: Mapping[str, Any], small: Mapping[str, Any]) -> dict[str, Any]:
    """Lists with one entry a layer, cut to a few layers so that each combination that occurs is kept (four at most)."""
    count = next((n for n in ("num_hidden_layers", "num_layers", "n_layer", "depth", "n_layers") if type(fields.get(n)) is int), None)
    lists = {n: v for n, v in fields.items() if count and isinstance(v, list) and len(v) == fields[count] > 2}
    if not lists:
        return {}
    rows = list(zip(*(map(str, v) for v in lists.values()), strict=True))
    kept = sorted({rows.index(row) for row in dict.fromkeys(rows)})[:4]
    kept = kept if len(kept) > 1 else [0, 1]
    return {count: len(kept)} | {n: [small.get(n, v)[i] for i in kept] for n, v in lists.items()}


def _picture(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Images of four by four patches, or of 64 pixels."""
    patch = fields.get("patch_size")
    side = patch[0] if isinstance(patch, (list, tuple)) and patch else patch
    size = 4 * side if isinstance(side, int) and 8 <= side <= 32 else 64
    small: dict[str, Any] = {}
    for name in _PICTURE:
        value = fields.get(name)
        if type(value) is int and value > size:
            small[name] = size
        elif isinstance(value, (list, tuple)) and len(value) == 2 and all(type(v) is int and v > size for v in value):
            small[name] = [size, size]
    return small
