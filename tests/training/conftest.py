"""Tiny random models in folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from textsam.clip.encoder import ClipEncoder
from textsam.clip.pathway import PathwayConfig, TextPathway
from textsam.inference.model import TextSAM
from textsam.modeling.config import SamConfig, TimmConfig, ViTConfig
from textsam.modeling.sam import Sam

SIDE = 64
ENCODERS = {
    "vit": ViTConfig(width=32, depth=2, heads=2, global_attention_indexes=(1,), window_size=2),
    "timm": TimmConfig(name="test_efficientnet"),
}
CLIPS: dict[str, dict[str, Any]] = {
    "vit": {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2},
    "timm": {"image_size": 32, "timm_model_name": "test_efficientnet", "timm_proj": "mlp"},
}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
CLIP_WIDTH = 24


@pytest.fixture
def clip_folder(tmp_path: Path) -> Callable[..., Path]:
    """A tiny random CLIP in a folder that `ClipEncoder.from_pretrained` reads."""

    def write(kind: str = "vit") -> Path:
        torch.manual_seed(1)
        config = {"embed_dim": CLIP_WIDTH, "vision_cfg": CLIPS[kind], "text_cfg": TEXT}
        model = open_clip.CLIP(**config)
        tokenizer = open_clip.SimpleTokenizer(context_length=TEXT["context_length"])
        half = (0.5, 0.5, 0.5)
        encoder = ClipEncoder.from_model(
            model, tokenizer=tokenizer, name=f"tiny-{kind}", config=config, mean=half, std=half
        )
        return encoder.save(tmp_path / f"clip-{kind}")

    return write


@pytest.fixture
def model_folder(tmp_path: Path, clip_folder: Callable[..., Path]) -> Callable[..., Path]:
    """A tiny random model in a folder: a core alone, or with a CLIP and a pathway."""

    def write(*, kind: str = "vit", phrases: bool = False) -> Path:
        torch.manual_seed(0)
        sam = Sam(
            SamConfig(
                encoder=ENCODERS[kind],
                image_size=SIDE,
                embed_dim=32,
                decoder_heads=4,
                decoder_mlp=48,
                iou_hidden=24,
                first_layer_residual=True,
            )
        )
        if not phrases:
            return TextSAM(sam, name="core").save_pretrained(tmp_path / "core")
        clip = ClipEncoder.from_pretrained(clip_folder("timm"))
        info = clip.model.visual.trunk.feature_info
        channels = {i["reduction"]: i["num_chs"] for i in info}
        pathway = TextPathway(
            PathwayConfig(
                clip_width=CLIP_WIDTH,
                prompt_width=32,
                hidden=16,
                dense_channels=tuple(channels[s] for s in (8, 16, 32)),
                dense_width=16,
                dense_image_size=SIDE,
            )
        )
        pathway.text_mean.fill_(0.05)
        pathway.image_mean.fill_(-0.05)
        model = TextSAM(sam, clip=clip, pathway=pathway, name="whole")
        return model.save_pretrained(tmp_path / "whole")

    return write
