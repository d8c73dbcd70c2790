"""Small random checkpoints in the format of the hub: config, processor, tokenizer, safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def clip_tokenizer() -> Any:
    """CLIP's tokenizer with letters only."""
    from transformers import CLIPTokenizer

    tokens = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    # The end must have the highest number: old configurations find it by argmax.
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=[],
        unk_token="<|endoftext|>",
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        model_max_length=16,
    )


def write_clipseg(folder: Path, *, seed: int = 0) -> Path:
    """A CLIPSeg with an input of 64 pixels and a CLIP trained at 32."""
    from transformers import (
        CLIPSegConfig,
        CLIPSegForImageSegmentation,
        CLIPSegProcessor,
        ViTImageProcessor,
    )

    torch.manual_seed(seed)
    tokenizer = clip_tokenizer()
    config = CLIPSegConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 16,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": tokenizer.bos_token_id,
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
        },
        projection_dim=12,
        extract_layers=[0, 1, 2],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
        initializer_factor=1.0,
    )
    model = CLIPSegForImageSegmentation(config)
    with torch.no_grad():
        # Random weights give flat maps; a large last layer gives regions.
        model.decoder.transposed_convolution.weight.mul_(3)
    model.save_pretrained(folder)
    images = ViTImageProcessor(size={"height": 64, "width": 64}, image_mean=[0.4] * 3)
    CLIPSegProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
    return folder


def _sam3_vision() -> dict[str, Any]:
    """An image encoder of 8 x 8 patches."""
    return {
        "backbone_config": {
            "model_type": "sam3_vit_model",
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 112,
            "patch_size": 14,
            "window_size": 4,
            "global_attn_indexes": [1],
            "pretrain_image_size": 56,
        },
        "fpn_hidden_size": 32,
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
    }


def sam3_config() -> Any:
    """Detector and tracker with one image encoder, as `facebook/sam3`."""
    from transformers import Sam3VideoConfig

    tokenizer = clip_tokenizer()
    small = {"hidden_size": 32, "num_attention_heads": 2}
    layers = {**small, "num_layers": 1, "intermediate_size": 32, "dropout": 0.0}
    return Sam3VideoConfig(
        detector_config={
            "vision_config": _sam3_vision(),
            "text_config": {
                "vocab_size": len(tokenizer),
                "hidden_size": 16,
                "intermediate_size": 16,
                "projection_dim": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "max_position_embeddings": 32,
                "eos_token_id": tokenizer.eos_token_id,
            },
            "geometry_encoder_config": layers,
            "detr_encoder_config": layers,
            "detr_decoder_config": {**layers, "num_queries": 12},
            "mask_decoder_config": {**small, "num_upsampling_stages": 3},
        },
        tracker_config={
            "image_size": 112,  # it sets the sizes of all parts
            "vision_config": _sam3_vision(),
            "prompt_encoder_config": {"hidden_size": 32, "image_size": 112, "patch_size": 14},
            "mask_decoder_config": {
                **small,
                "mlp_dim": 32,
                "iou_head_hidden_dim": 32,
            },
            "memory_attention_hidden_size": 32,
            "memory_attention_num_layers": 1,
            "memory_attention_feed_forward_hidden_size": 32,
            "memory_attention_rope_feat_sizes": [8, 8],
            "memory_encoder_hidden_size": 32,
            "memory_encoder_output_channels": 16,
            "mask_downsampler_embed_dim": 32,
            "memory_fuser_num_layers": 1,
            "memory_fuser_embed_dim": 32,
            "memory_fuser_intermediate_dim": 32,
        },
    )


def write_sam3(folder: Path, *, seed: int = 0) -> Path:
    """A SAM 3 with an input of 112 pixels."""
    from transformers import Sam3ImageProcessor, Sam3Processor, Sam3VideoModel

    torch.manual_seed(seed)
    model = Sam3VideoModel(sam3_config())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # the default of 0.02 makes all instances alike
                torch.nn.init.normal_(parameter, std=0.25)
    model.save_pretrained(folder)
    weights = folder / "model.safetensors"
    # `save_pretrained` doubles this prefix; the published files have it once.
    tensors = {
        key.replace("tracker_model.tracker_model.", "tracker_model."): value
        for key, value in load_file(weights).items()
    }
    save_file(tensors, weights, metadata={"format": "pt"})
    images = Sam3ImageProcessor(size={"height": 112, "width": 112})
    Sam3Processor(image_processor=images, tokenizer=clip_tokenizer()).save_pretrained(folder)
    return folder
