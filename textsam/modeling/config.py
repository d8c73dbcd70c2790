"""Sizes of every network, as typed values that can be written to JSON and read back.

`SAM_CONFIGS` holds the published sizes (arXiv 2304.02643, Section 3 and Appendix A).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from textsam.errors import WeightsError

# timm also takes "hf-hub:..." and "local-dir:...", which read settings from the network or from any
# folder; a plain name can only mean a network that timm itself defines.
TIMM_NAME = re.compile(r"\w+(\.\w+)?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """Plain ViT of Segment Anything: windows of 14 with four global blocks (Appendix A)."""

    width: int
    depth: int
    heads: int
    global_attention_indexes: tuple[int, ...]
    window_size: int = 14
    patch_size: int = 16
    mlp_ratio: float = 4.0
    drop_path: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TinyViTConfig:
    """TinyViT-5M as MobileSAM distilled it (arXiv 2306.14289)."""

    widths: tuple[int, ...] = (64, 128, 160, 320)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (2, 4, 5, 10)
    window_sizes: tuple[int, ...] = (7, 7, 14, 7)
    mlp_ratio: float = 4.0
    conv_expansion: float = 4.0
    drop_path: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TimmConfig:
    """Any `timm` backbone that supports `features_only`, with a neck to one stride-16 embedding."""

    name: str  # a plain name of `timm.list_models()`
    # Whether the decoder adds the maps at strides 8 and 4 while it upscales, which a backbone with
    # few channels needs for crisp borders.
    skips: bool = True
    skip_gain: float = 0.3  # scale of these maps at initialisation; at 1 they outweigh the prompt
    # Blocks of self-attention over the coarsest map, and their width: a small CNN sees little of
    # the photo around a place. They start as the identity.
    context_depth: int = 0
    context_width: int = 256
    neck_blocks: int = 0  # ConvNeXt blocks of the neck, at stride 16; they start as the identity

    def __post_init__(self) -> None:
        if not TIMM_NAME.fullmatch(str(self.name)):
            raise WeightsError(
                f"encoder name {self.name!r} is not the plain name of a timm model; wanted one of "
                "timm.list_models(), e.g. 'tf_efficientnet_lite0'"
            )


EncoderConfig = ViTConfig | TinyViTConfig | TimmConfig

_ENCODER_KINDS: dict[str, type[ViTConfig] | type[TinyViTConfig] | type[TimmConfig]] = {
    "vit": ViTConfig,
    "tiny_vit": TinyViTConfig,
    "timm": TimmConfig,
}


@dataclass(frozen=True, kw_only=True)
class SamConfig:
    """A whole Segment Anything model.

    The defaults are the paper's decoder (Section 3, Appendix A). `first_layer_residual` is our
    addition: a residual connection around the decoder's first self-attention. The released networks
    lack it, and a decoder that is trained from scratch on little data needs it.
    """

    stretched: ClassVar[bool] = False  # photos keep their aspect and are padded to the square
    encoder: EncoderConfig
    image_size: int = 1024
    embed_dim: int = 256
    mask_channels: int = 16
    decoder_depth: int = 2
    decoder_heads: int = 8
    decoder_mlp: int = 2048
    attention_downsample: int = 2
    decoder_norm_eps: float = 1e-5
    decoder_dropout: float = 0.0
    first_layer_residual: bool = False
    # SAM-HQ (arXiv 2306.01567): one more output token reads early features of the image encoder,
    # and its mask is added to the others.
    hq: bool = False
    multimasks: int = 3
    iou_depth: int = 3
    iou_hidden: int = 256
    # RGB statistics of ImageNet on the 0..255 scale, as in the released code.
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    @property
    def embedding_size(self) -> int:
        """Side of the square image embedding, whose stride is 16 in every encoder."""
        return self.image_size // 16

    @property
    def mask_size(self) -> int:
        """Side of mask prompts and of the decoder's logits: a quarter of the image side."""
        return 4 * self.embedding_size

    @property
    def early_width(self) -> int:
        """Channels of the encoder's early features, for SAM-HQ; a `ValueError` if it has none."""
        if isinstance(self.encoder, TinyViTConfig):
            return self.encoder.widths[2]
        if not isinstance(self.encoder, ViTConfig) or not self.encoder.global_attention_indexes:
            raise ValueError(
                f"SAM-HQ needs a TinyViT, or a ViT with a global block; got {self.encoder}"
            )
        return self.encoder.width

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; `from_dict` reads them back."""
        kinds = {cls: kind for kind, cls in _ENCODER_KINDS.items()}
        values = asdict(self)
        values["encoder"] = {"kind": kinds[type(self.encoder)], **asdict(self.encoder)}
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SamConfig:
        """Read what `to_dict` wrote; a `WeightsError` for an unknown field or encoder."""
        rest = dict(values)
        encoder_values = dict(rest.pop("encoder", {}))
        kind = encoder_values.pop("kind", None)
        if kind not in _ENCODER_KINDS:
            raise WeightsError(f"unknown encoder kind {kind!r}; known are {sorted(_ENCODER_KINDS)}")
        encoder = build_config(_ENCODER_KINDS[kind], encoder_values)
        config: SamConfig = build_config(cls, {"encoder": encoder, **rest})
        return config


def build_config(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """Instantiate a config dataclass from JSON values; a `WeightsError` for an unknown field."""
    known = {field.name for field in fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise WeightsError(f"{cls.__name__} has no field {unknown}; it has {sorted(known)}")
    tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return cls(**tuples)


def read_pixel_statistics(values: Mapping[str, Any]) -> dict[str, Any]:
    """`pixel_mean` and `pixel_std` of a `preprocessor_config.json`, if they are there.

    Theirs are for pixels in [0, 1], ours for 0..255.
    """
    scale = 1.0 / values.get("rescale_factor", 1 / 255)
    fields = {"pixel_mean": values.get("image_mean"), "pixel_std": values.get("image_std")}
    # Rounded, so that 0.485 * 255 is the 123.675 of the released code.
    return {
        field: tuple(round(float(value) * scale, 6) for value in triple)
        for field, triple in fields.items()
        if triple is not None
    }


SAM_CONFIGS: dict[str, SamConfig] = {
    "vit_b": SamConfig(
        encoder=ViTConfig(width=768, depth=12, heads=12, global_attention_indexes=(2, 5, 8, 11))
    ),
    "vit_l": SamConfig(
        encoder=ViTConfig(width=1024, depth=24, heads=16, global_attention_indexes=(5, 11, 17, 23))
    ),
    "vit_h": SamConfig(
        encoder=ViTConfig(width=1280, depth=32, heads=16, global_attention_indexes=(7, 15, 23, 31))
    ),
    "vit_t": SamConfig(encoder=TinyViTConfig()),
}
