"""Smaller libraries: segmentation_models_pytorch, x_transformers, torch_geometric, hyper_connections."""

from __future__ import annotations

from collections.abc import Mapping

from tests.corpus.case import Case

_BUILDERS = "tests.corpus.builders"
_SMP = "segmentation_models_pytorch"

# decoder -> (encoder, further arguments, input)
_SEGMENTERS: dict[str, tuple[str, Mapping[str, object], str]] = {
    "Unet": ("resnet18", {}, ""),
    "UnetPlusPlus": ("resnet18", {}, ""),
    "FPN": ("mobilenet_v2", {}, ""),
    "PSPNet": ("resnet18", {}, ""),
    "DeepLabV3": ("resnet18", {}, ""),
    "DeepLabV3Plus": ("resnet18", {}, ""),
    "Linknet": ("resnet18", {}, ""),
    "MAnet": ("resnet18", {}, ""),
    "PAN": ("resnet18", {}, "2x3x128x128"),
    "UPerNet": ("resnet18", {}, ""),
    "Segformer": ("mit_b0", {}, ""),
    "DPT": ("tu-vit_tiny_patch16_224", {"dynamic_img_size": True}, "2x3x64x64"),
}
_ENCODERS = ("vgg11", "densenet121", "efficientnet-b0", "mobileone_s0", "timm-regnety_002", "se_resnet50", "xception", "mit_b0", "tu-convnext_atto")

_X_TRANSFORMERS: dict[str, Mapping[str, object]] = {
    "pre-norm": {},
    "post-norm": {"pre_norm": False},
    "pre- and post-norm": {"pre_and_post_norm": True},
    "sandwich norm": {"sandwich_norm": True},
    "sandwich order": {"sandwich_coef": 1},
    "gate_residual": {"gate_residual": True},
    "scale_residual": {"scale_residual": True},
    "DeepNorm": {"pre_norm": False, "scale_residual_constant": 2.0},
    "depth_scale_residual": {"depth_scale_residual": True},
    "orthogonal residual": {"orthog_residual": True},
    "gated multi-stream residual": {"gated_multi_residual": True, "num_residual_streams": 2, "residual_fn_kwargs": {"read_gate_rank": 4}},
    "macaron": {"macaron": True},
    "LayerScale": {"use_layerscale": True},
    "zero-initialised branches (ReZero, SkipInit)": {"zero_init_branch_output": True},
    "hyper-connections": {"num_residual_streams": 2},
    "hyper-connections, differing q, k, v": {"num_residual_streams": 2, "qkv_receive_diff_residuals": True},
    "attention over residuals": {"attn_aggregated_residuals": True, "dim": 96},
    "RMSNorm, SwiGLU": {"use_rmsnorm": True, "ff_swish": True, "ff_glu": True},
    "residual attention": {"residual_attn": True},
    "shift tokens": {"shift_tokens": 1},
    "value residual": {"add_value_residual": True, "learned_value_residual_mix": True},
    "layer dropout": {"layer_dropout": 0.1},
    "U-Net skips": {"unet_skips": True, "depth": 4},
    "layer integration": {"integrate_layers": True},
    "reinjected input": {"reinject_input": True, "learned_reinject_input_gate": True},
    "tied layers": {"weight_tie_layers": True},
    "rotary": {"rotary_pos_emb": True},
}

_GRAPHS = ("gcn2", "deep_res+", "deep_res", "deep_dense", "deep_plain", "jumping_cat", "jumping_max", "jumping_lstm", "res_gated", "graph_unet", "gps",
           "gat_residual", "gatv2_residual", "transformer", "gin", "sage", "edge")  # fmt: skip

LIBRARIES = ("diffusers", _SMP, "x_transformers", "torch_geometric", "hyper_connections")


def cases() -> list[Case]:
    """One case for each architecture of each library."""
    return [*_segmenters(), *_transformers(), *_graphs(), *_streams()]


def _segmenters() -> list[Case]:
    found = []
    for name, (encoder, further, given) in {**_SEGMENTERS, **{f"Unet {e}": (e, {}, "") for e in _ENCODERS}}.items():
        decoder = name.partition(" ")[0]
        arguments = {"encoder_name": encoder, "encoder_weights": None, "classes": 3, **further}
        found.append(Case(library=_SMP, name=f"{decoder} ({encoder})", target=f"{_SMP}:{decoder}", arguments=arguments, inputs=(given or "2x3x64x64",)))
    return found


def _transformers() -> list[Case]:
    return [
        Case(
            library="x_transformers",
            name=name,
            target=f"{_BUILDERS}:x_transformer",
            arguments=dict(arguments),
            inputs=("int64[2,16]<64",),
        )
        for name, arguments in _X_TRANSFORMERS.items()
    ]


def _graphs() -> list[Case]:
    return [Case(library="torch_geometric", name=kind, target=f"{_BUILDERS}:graph_network", arguments={"kind": kind}, inputs=("32x8",)) for kind in _GRAPHS]


def _streams() -> list[Case]:
    variants: dict[str, Mapping[str, object]] = {
        "four streams": {},
        "one stream": {"streams": 1},
        "manifold-constrained": {"file": "manifold_constrained_hyper_connections"},
        "manifold-constrained, second version": {"file": "mHCv2"},
        "several inputs": {"file": "hyper_connections_with_multi_input_streams"},
    }
    target = f"{_BUILDERS}:hyper_connected"
    return [Case(library="hyper_connections", name=name, target=target, arguments=arguments, inputs=("2x8x16",)) for name, arguments in variants.items()]
