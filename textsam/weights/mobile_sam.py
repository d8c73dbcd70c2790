"""MobileSAM's checkpoint (`mobile_sam.pt`, TinyViT) <-> our weights.

The released names are those of github.com/ChaoningZhang/MobileSAM (Apache-2.0). Its encoder carries
an ImageNet classifier that no forward pass reads; we have none, so of a round trip from their file
these four tensors alone do not come back as they were.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from textsam.modeling.config import SamConfig
from textsam.weights.key_map import KeyMap
from textsam.weights.official import DECODER_PAIRS, NECK_PAIRS, STACKED
from textsam.weights.strict import export_state, import_state

__all__ = ["from_mobile_sam", "to_mobile_sam"]

_CLASSIFIER = (
    "image_encoder.norm_head.weight",
    "image_encoder.norm_head.bias",
    "image_encoder.head.weight",
    "image_encoder.head.bias",
)
_IMAGENET_CLASSES = 1000


def _conv_norm(ours: str, theirs: str) -> tuple[tuple[str, str], ...]:
    return ((f"{ours}.conv", f"{theirs}.c"), (f"{ours}.norm", f"{theirs}.bn"))


_OURS, _THEIRS = "image_encoder.stages.#", "image_encoder.layers.#"
_BLOCK, _LAYER = f"{_OURS}.blocks.#", f"{_THEIRS}.blocks.#"

_MOBILE_SAM = KeyMap(
    "MobileSAM",
    (
        *DECODER_PAIRS,
        *NECK_PAIRS,
        *_conv_norm("image_encoder.stem.0", "image_encoder.patch_embed.seq.0"),
        *_conv_norm("image_encoder.stem.2", "image_encoder.patch_embed.seq.2"),
        *_conv_norm(f"{_BLOCK}.expand", f"{_LAYER}.conv1"),
        *_conv_norm(f"{_BLOCK}.depthwise", f"{_LAYER}.conv2"),
        *_conv_norm(f"{_BLOCK}.project", f"{_LAYER}.conv3"),
        *_conv_norm(f"{_OURS}.merge.expand", f"{_THEIRS}.downsample.conv1"),
        *_conv_norm(f"{_OURS}.merge.depthwise", f"{_THEIRS}.downsample.conv2"),
        *_conv_norm(f"{_OURS}.merge.project", f"{_THEIRS}.downsample.conv3"),
        *_conv_norm(f"{_BLOCK}.local_conv", f"{_LAYER}.local_conv"),
        (f"{_BLOCK}.attention.norm", f"{_LAYER}.attn.norm"),
        (f"{_BLOCK}.attention.qkv", f"{_LAYER}.attn.qkv"),
        (f"{_BLOCK}.attention.proj", f"{_LAYER}.attn.proj"),
        (f"{_BLOCK}.attention.biases", f"{_LAYER}.attn.attention_biases"),
        (f"{_BLOCK}.mlp.0", f"{_LAYER}.mlp.norm"),
        (f"{_BLOCK}.mlp.1", f"{_LAYER}.mlp.fc1"),
        (f"{_BLOCK}.mlp.3", f"{_LAYER}.mlp.fc2"),
    ),
    stacked=STACKED,
)


def from_mobile_sam(
    state: Mapping[str, Tensor], config: SamConfig | None = None
) -> dict[str, Tensor]:
    """Translate MobileSAM's state dict, leaving out its unused classifier.

    Args:
        state: `mobile_sam`'s `Sam.state_dict()` of `vit_t`.
        config: Sizes that the weights must have; read off their shapes if not given.

    Returns:
        The weights under our names, for `Sam(config).load_state_dict`.

    Raises:
        WeightsError: A key is missing or unexpected, or a shape does not fit; it is named.
    """
    used = {key: tensor for key, tensor in state.items() if key not in _CLASSIFIER}
    return import_state(used, _MOBILE_SAM, config)


def to_mobile_sam(
    state: Mapping[str, Tensor], config: SamConfig | None = None
) -> dict[str, Tensor]:
    """Translate our weights to a state dict that `mobile_sam` loads strictly.

    Args:
        state: `Sam.state_dict()` of ours, with the TinyViT image encoder.
        config: Sizes that the weights must have; read off their shapes if not given.

    Returns:
        Weights under their names; the classifier that nobody reads is there, and zero.

    Raises:
        WeightsError: The weights are incomplete or have no counterpart there; they are named.
    """
    renamed = export_state(state, _MOBILE_SAM, config)
    neck = state["image_encoder.neck.0.weight"]
    width = neck.shape[1]
    shapes = ((width,), (width,), (_IMAGENET_CLASSES, width), (_IMAGENET_CLASSES,))
    for key, shape in zip(_CLASSIFIER, shapes, strict=True):
        renamed[key] = torch.zeros(shape, dtype=neck.dtype)
    return renamed
