"""torchvision: every builder of classification, segmentation, detection, optical flow and video models; of the sizes of one architecture the smallest."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tests.corpus.case import Case

_CLASSES = 8  # heads are not what is profiled
_BUILDERS = "tests.corpus.builders"
_QUANTIZED = "quantized_"

# (pattern of the name, arguments, input); the first that matches holds
_TABLE: tuple[tuple[str, Mapping[str, object], str], ...] = (
    (r"vit_", {"num_classes": _CLASSES, "image_size": 64}, "2x3x64x64"),
    (r"maxvit_t", {"num_classes": _CLASSES}, "1x3x224x224"),
    (r"swin3d_", {"num_classes": _CLASSES}, "1x3x8x64x64"),
    (r"swin_", {"num_classes": _CLASSES}, "2x3x64x64"),
    (r"mvit_", {"num_classes": _CLASSES}, "1x3x16x224x224"),
    (r"s3d", {"num_classes": _CLASSES}, "1x3x16x224x224"),
    (r"r3d_|mc3_|r2plus1d_", {"num_classes": _CLASSES}, "2x3x4x32x32"),
    (r"(quantized_)?googlenet", {"num_classes": _CLASSES, "aux_logits": True}, "2x3x64x64"),
    (r"(quantized_)?inception_v3", {"num_classes": _CLASSES, "aux_logits": True}, "2x3x299x299"),
    (r"lraspp_", {"num_classes": _CLASSES}, "2x3x64x64"),
    (r"fcn_|deeplabv3_", {"num_classes": _CLASSES, "aux_loss": True}, "2x3x64x64"),
    (r"alexnet|vgg|squeezenet", {"num_classes": _CLASSES}, "2x3x64x64"),
    (r"", {"num_classes": _CLASSES}, "2x3x64x64"),
)
_DETECTORS = re.compile(r"rcnn|retinanet|fcos|ssd")

_SIZES = {
    "convnext": "convnext_tiny",
    "densenet": "densenet121",
    "efficientnet_b": "efficientnet_b0",
    "efficientnet_v2": "efficientnet_v2_s",
    "mnasnet": "mnasnet0_5",
    "regnet_x": "regnet_x_400mf",
    "regnet_y": "regnet_y_400mf",
    "resnext": "resnext50_32x4d",
    "shufflenet_v2": "shufflenet_v2_x0_5",
    "squeezenet": "squeezenet1_0",
    "swin3d": "swin3d_t",
    "swin_v2": "swin_v2_t",
    "vgg11_bn": "vgg11_bn",
    "vit": "vit_b_32",
    "wide_resnet": "wide_resnet50_2",
    "quantized_resnext": "quantized_resnext101_32x8d",
    "quantized_shufflenet": "quantized_shufflenet_v2_x0_5",
}
"""Architectures of many sizes -> the one that stands for them."""
_ALSO = {"swin_s": "swin_t", "swin_b": "swin_t", "vgg13": "vgg11", "vgg16": "vgg11", "vgg19": "vgg11", "resnet34": "resnet18", "resnet101": "resnet50",
         "resnet152": "resnet50", "vgg13_bn": "vgg11_bn", "vgg16_bn": "vgg11_bn", "vgg19_bn": "vgg11_bn", "resnext101_64x4d": "resnext50_32x4d"}  # fmt: skip


def cases() -> list[Case]:
    """One case for each architecture."""
    from torchvision.models import list_models

    return [_case(name) for name in list_models() if _stands_for_itself(name)]


def _stands_for_itself(name: str) -> bool:
    if name in _ALSO:
        return False
    families = [stem for stem in _SIZES if name.startswith(stem)]
    return not families or name == _SIZES[max(families, key=len)]


def _case(name: str) -> Case:
    if _DETECTORS.search(name):
        return Case(library="torchvision", name=name, target=f"{_BUILDERS}:detector", arguments={"name": name}, inputs=("2x3x128x128",))
    if name.startswith("raft"):
        return Case(library="torchvision", name=name, target=f"{_BUILDERS}:optical_flow", arguments={"name": name}, inputs=("2x3x128x128", "2x3x128x128"))
    arguments, given = next((arguments, given) for pattern, arguments, given in _TABLE if re.match(pattern, name))
    if name.startswith(_QUANTIZED):
        arguments = {**arguments, "quantize": False}
    return Case(library="torchvision", name=name, target=f"torchvision:{name}", arguments=arguments, inputs=(given,))
