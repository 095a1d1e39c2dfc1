"""timm: one small variant of every module family, by rule; and what some families need beyond the rule."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tests.corpus.case import Case

_SMALL = re.compile(r"tiny|nano|pico|femto|atto|_xxs|_xs|_s$|_s\d|small|micro")
_INPUT = "4x3x96x96"

_DROP_RATE = 0.2
_VIT = {"img_size": 64, "depth": 3, "embed_dim": 48, "num_heads": 4}
_SHALLOW = {"depths": (2, 2, 2, 2)}
_SMALL_IMAGE = "4x3x64x64"

# family -> (variant or "" for the rule's, arguments, input or "" for the rule's)
_FAMILIES: dict[str, tuple[str, Mapping[str, object], str]] = {
    "beit": ("beit_base_patch16_224", _VIT, _SMALL_IMAGE),
    "byoanet": ("lambda_resnet26t", {}, "2x3x128x128"),
    "cait": ("cait_xxs24_224", _VIT, _SMALL_IMAGE),
    "coat": ("coat_tiny", {"img_size": 64}, _SMALL_IMAGE),
    "convit": ("convit_tiny", _VIT, _SMALL_IMAGE),
    "convmixer": ("convmixer_1024_20_ks9_p14", {}, "2x3x56x56"),
    "crossvit": ("crossvit_tiny_240", {}, "2x3x240x240"),
    "csatv2": ("csatv2", {}, "4x3x64x64"),
    "davit": ("davit_tiny", {"depths": (1, 1, 2, 1)}, "2x3x64x64"),
    "deepseek_vit": ("deepseek_vit_412m", {"img_size": 56, "depth": 2, "embed_dim": 64, "num_heads": 4}, "4x3x56x56"),
    "deit": ("deit_tiny_distilled_patch16_224", _VIT, _SMALL_IMAGE),
    "densenet": ("densenet121", {"block_config": (2, 3, 2, 2), "growth_rate": 8}, ""),
    "efficientformer": ("efficientformer_l1", {}, "2x3x224x224"),
    "efficientformer_v2": ("efficientformerv2_s0", {}, "2x3x224x224"),
    "efficientvit_msra": ("efficientvit_m0", {}, "2x3x224x224"),
    "eva": ("eva02_tiny_patch14_224", {"img_size": 56, "depth": 3, "embed_dim": 48, "num_heads": 4}, "4x3x56x56"),
    "focalnet": ("focalnet_tiny_srf", {}, "2x3x64x64"),
    "gcvit": ("gcvit_xxtiny", {}, "2x3x224x224"),
    "gemma4_vit": ("gemma4_vit_167m", {"depth": 2, "embed_dim": 64, "num_heads": 4}, "4x3x96x96"),
    "hiera": ("hiera_tiny_224", {"img_size": 64, "stages": (1, 1, 2, 1), "embed_dim": 24}, _SMALL_IMAGE),
    "hieradet_sam2": ("hieradet_small", {"stages": (1, 1, 2, 1), "embed_dim": 24, "global_att_blocks": (3,)}, "4x3x64x64"),
    "inception_next": ("inception_next_atto", _SHALLOW, ""),
    "inception_resnet_v2": ("inception_resnet_v2", {}, "2x3x96x96"),
    "inception_v3": ("inception_v3", {}, "2x3x96x96"),
    "inception_v4": ("inception_v4", {}, "2x3x96x96"),
    "levit": ("levit_128s", {}, "2x3x224x224"),
    "maxxvit": ("test_maxvit", {}, "2x3x160x160"),
    "mlp_mixer": ("gmlp_s16_224", {"img_size": 64}, _SMALL_IMAGE),
    "mobilenetv5": ("mobilenetv5_base", {}, "2x3x128x128"),
    "mvitv2": ("mvitv2_tiny", {"img_size": 64}, _SMALL_IMAGE),
    "naflexvit": ("naflexvit_base_patch16_gap", {"depth": 3, "embed_dim": 48, "num_heads": 4}, ""),
    "nasnet": ("nasnetalarge", {}, "2x3x96x96"),
    "nest": ("nest_tiny", {}, "2x3x224x224"),
    "nextvit": ("nextvit_small", {}, "2x3x64x64"),
    "pit": ("pit_ti_distilled_224", {}, "2x3x224x224"),
    "pnasnet": ("pnasnet5large", {}, "2x3x96x96"),
    "pvt_v2": ("pvt_v2_b0", {}, ""),
    "qwen3_vit": ("qwen3_vit_88m", {"depth": 2, "embed_dim": 64, "num_heads": 4}, "4x3x64x64"),
    "rdnet": ("rdnet_tiny", {}, "2x3x64x64"),
    "repvit": ("repvit_m0_9", {}, ""),
    "rexnet": ("rexnet_100", {}, ""),
    "senet": ("legacy_seresnet18", {}, ""),
    "sequencer": ("sequencer2d_s", {"img_size": 56, "layers": (1, 1, 2, 1), "embed_dims": (24, 48, 48, 48), "hidden_sizes": (6, 12, 12, 12)}, "4x3x56x56"),
    "swiftformer": ("swiftformer_xs", {}, "2x3x224x224"),
    "swin_transformer": ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (2, 2, 2)}, _SMALL_IMAGE),
    "swin_transformer_v2": ("swinv2_tiny_window8_256", {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (2, 2, 2)}, _SMALL_IMAGE),
    "swin_transformer_v2_cr": ("swinv2_cr_tiny_ns_224", {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (2, 2, 2)}, _SMALL_IMAGE),
    "tiny_vit": ("tiny_vit_5m_224", {}, "2x3x224x224"),
    "tnt": ("tnt_s_patch16_224", {"img_size": 64, "depth": 3}, _SMALL_IMAGE),
    "twins": ("twins_pcpvt_small", {"img_size": 64, "depths": (1, 1, 2, 1)}, _SMALL_IMAGE),
    "vgg": ("vgg11", {}, "2x3x64x64"),
    "visformer": ("visformer_tiny", {}, "2x3x224x224"),
    "vision_transformer": ("test_vit", {"img_size": 64}, _SMALL_IMAGE),
    "vision_transformer_hybrid": ("vit_tiny_r_s16_p8_224", {"img_size": 64, "depth": 3, "embed_dim": 48, "num_heads": 4}, _SMALL_IMAGE),
    "vision_transformer_relpos": ("test_vit_relpos", {"img_size": 64}, _SMALL_IMAGE),
    "vision_transformer_sam": ("samvit_base_patch16_224", {**_VIT, "global_attn_indexes": (1,), "window_size": 3}, _SMALL_IMAGE),
    "vitamin": ("vitamin_small_224", {"img_size": 64}, _SMALL_IMAGE),
    "volo": ("volo_d1_224", {"img_size": 64}, _SMALL_IMAGE),
    "xception": ("legacy_xception", {}, "2x3x96x96"),
    "xcit": ("xcit_nano_12_p8_224", {"img_size": 64, "depth": 3}, _SMALL_IMAGE),
}  # fmt: skip


def cases() -> list[Case]:
    """A profile of every family, and the drop-path check of each."""
    found = []
    for family, variant in representatives().items():
        _, arguments, given = _FAMILIES.get(family, ("", {}, ""))
        common = {"library": "timm", "name": f"{family} ({variant})", "target": f"timm:{variant}", "inputs": (given or _INPUT,)}
        found.append(Case(**common, arguments=arguments))
        found.append(Case(**common, arguments={**arguments, "drop_path_rate": _DROP_RATE}, check="drop path"))
    return found


def representatives() -> dict[str, str]:
    """Module family -> the name of the variant that stands for it."""
    from timm.models import _registry as registry

    members: dict[str, list[str]] = {}
    for name, family in registry._model_to_module.items():
        members.setdefault(family, []).append(name)
    return {family: _FAMILIES.get(family, ("",))[0] or min(names, key=_size) for family, names in sorted(members.items())}


def _size(name: str) -> tuple[int, int, str]:
    """A guess at how large a variant is, from its name: timm's own test models first."""
    return 0 if name.startswith("test_") else 1 if _SMALL.search(name) else 2, len(name), name
