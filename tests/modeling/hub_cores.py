"""Small random models of `transformers` in folders as the hub has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

SIDE = 64
_SIZES = [[SIDE // 4, SIDE // 4], [SIDE // 8, SIDE // 8], [SIDE // 16, SIDE // 16]]
KINDS = ("sam2", "sam2_video", "edgetam", "edgetam_video")


def write_core(kind: str, folder: Path, *, processor: bool = True) -> Any:
    """Write a model of a kind of `CORE_KINDS`, and return its image part as an oracle."""
    torch.manual_seed(5)
    stem = "EdgeTam" if kind.startswith("edgetam") else "Sam2"
    named = f"{stem}Video" if kind.endswith("_video") else stem
    network = getattr(transformers, f"{named}Model")(_config(stem, named))
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            # Values that matter, also where a weight starts as zeros.
            scale = 0.5 if tensor.ndim < 2 else tensor[0].numel() ** -0.5
            tensor.normal_(1.0 if name.endswith("norm.weight") else 0.0, scale)
    network.save_pretrained(folder)
    if processor:
        images = transformers.Sam2ImageProcessor(
            size={"height": SIDE, "width": SIDE},
            mask_size={"height": SIDE // 4, "width": SIDE // 4},
        )
        transformers.Sam2Processor(images).save_pretrained(folder)
    return getattr(transformers, f"{stem}Model").from_pretrained(folder).eval()


def _config(stem: str, named: str) -> Any:
    def make(name: str, **values: Any) -> Any:
        return getattr(transformers, name)(**values)

    widths = [8, 16, 32, 64]
    if stem == "Sam2":
        backbone = transformers.Sam2HieraDetConfig(
            hidden_size=8,
            image_size=[SIDE, SIDE],
            blocks_per_stage=[1, 1, 2, 1],
            embed_dim_per_stage=widths,
            num_attention_heads_per_stage=[1, 1, 2, 2],
            window_size_per_stage=[4, 2, 2, 2],
            global_attention_blocks=[3],
            window_positional_embedding_background_size=[4, 4],
        )
    else:
        backbone = transformers.TimmWrapperConfig(
            architecture="test_convnext",  # widths 24, 32, 48, 64
            model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
        )
        widths = [24, 32, 48, 64]
    extra: dict[str, Any] = {}
    if named.endswith("Video"):
        extra = {
            "image_size": SIDE,
            "memory_attention_hidden_size": 32,
            "memory_attention_feed_forward_hidden_size": 48,
            "memory_attention_num_layers": 1,
            "memory_encoder_hidden_size": 32,
            "memory_encoder_output_channels": 16,
            "mask_downsampler_embed_dim": 32,
            "memory_fuser_embed_dim": 32,
            "memory_fuser_intermediate_dim": 48,
        }
    return make(
        f"{named}Config",
        vision_config=make(
            f"{stem}VisionConfig",
            backbone_config=backbone,
            backbone_channel_list=widths[::-1],
            backbone_feature_sizes=_SIZES,
            fpn_hidden_size=32,
        ),
        prompt_encoder_config=make(
            f"{named}PromptEncoderConfig", hidden_size=32, image_size=SIDE, mask_input_channels=8
        ),
        mask_decoder_config=make(
            f"{named}MaskDecoderConfig",
            hidden_size=32,
            mlp_dim=48,
            num_attention_heads=4,
            iou_head_hidden_dim=24,
        ),
        **extra,
    )
