"""The part of the corpus that every commit runs: each kind of skip and each library, on the smallest models."""

from __future__ import annotations

from tests.corpus.case import Case

_WHOLE_LIBRARIES = ("gradflow.zoo", "torch", "written for the corpus")
_PROFILES = frozenset(
    f"{family}:{name}"
    for family, names in {
        "torchvision": "resnet18 shufflenet_v2_x0_5 regnet_y_400mf mobilenet_v3_small mnasnet0_5 squeezenet1_0 efficientnet_b0 googlenet",
        "timm": "test_convnext test_vit test_efficientnet coatnet_pico_rw_224 densenet121 dla46_c cs3darknet_focus_s ghostnet_050 fasternet_t0 davit_tiny"
        " res2net50_26w_4s swin_tiny_patch4_window7_224 efficientvit_b0 tresnet_m",
        "hf": "bert gpt2 t5 llama mamba albert mobilebert minimax xlnet gptj mixtral longformer modernbert lfm2 bart swin segformer wav2vec2 whisper",
        "diffusers": "AutoencoderTiny AutoencoderKL UNet2DModel DiTTransformer2DModel",
        "torch_geometric.nn": "GCN GraphUNet",
    }.items()
    for name in names.split()
)
_NAMES = frozenset({"segmentation_models_pytorch/Linknet (resnet18)", "x_transformers/pre-norm", "hyper_connections/four streams"})
_DROPS = frozenset({"timm:test_convnext", "timm:test_vit", "timm:test_resnet", "timm:pvt_v2_b0"})


def in_slice(case: Case) -> bool:
    """Whether the case belongs to it."""
    if case.check == "drop path":
        return case.target in _DROPS
    return case.library in _WHOLE_LIBRARIES or case.target in _PROFILES or f"{case.library}/{case.name}" in _NAMES
