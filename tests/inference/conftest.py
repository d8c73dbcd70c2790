"""A random TextSAM, small enough that encoding takes milliseconds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from textsam.clip.encoder import ClipEncoder
from textsam.clip.pathway import PathwayConfig, TextPathway
from textsam.inference.model import TextSAM
from textsam.modeling.config import SamConfig, TimmConfig
from textsam.modeling.sam import Sam

BACKBONE = "test_efficientnet"
CLIP_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {
        "timm_model_name": BACKBONE,
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "image_size": 32,
    },
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    "custom_text": True,
}


def build_clip(seed: int = 0) -> ClipEncoder:
    import open_clip

    torch.manual_seed(seed)
    values = {key: value for key, value in CLIP_CONFIG.items() if key != "custom_text"}
    return ClipEncoder.from_model(
        open_clip.CustomTextCLIP(**values),
        tokenizer=open_clip.SimpleTokenizer(context_length=12),
        name="random-clip",
        config=CLIP_CONFIG,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


def build_model(*, dense: bool = True, text: bool = True) -> TextSAM:
    torch.manual_seed(1)
    sam = Sam(
        SamConfig(
            encoder=TimmConfig(name=BACKBONE),
            image_size=64,
            embed_dim=32,
            decoder_heads=4,
            decoder_mlp=48,
            iou_hidden=24,
            first_layer_residual=True,
        )
    )
    torch.nn.init.constant_(sam.mask_decoder.iou_head.layers[-1].bias, 0.3)  # not all below zero
    if not text:
        return TextSAM(sam, name="no-text")
    config = PathwayConfig(
        clip_width=16,
        prompt_width=32,
        hidden=24,
        dense_channels=(32, 48, 64) if dense else (),
        dense_width=16,
        dense_image_size=64,
    )
    return TextSAM(sam, clip=build_clip(), pathway=TextPathway(config), name="random")


@pytest.fixture(scope="session")
def model() -> TextSAM:
    """With a dense text head."""
    return build_model()


@pytest.fixture(scope="session")
def token_model() -> TextSAM:
    """The paper's pathway: a token and nothing else."""
    return build_model(dense=False)


@pytest.fixture(scope="session")
def handless_model() -> TextSAM:
    """A bare SAM, which takes no phrases."""
    return build_model(text=False)


@pytest.fixture
def photo() -> NDArray[np.uint8]:
    """(50, 90, 3) noise."""
    return np.random.default_rng(5).integers(0, 256, (50, 90, 3), dtype=np.uint8)
