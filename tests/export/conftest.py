"""A small random SAM with a text pathway, and the folder that it was exported to."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from textsam.clip.encoder import ClipEncoder
from textsam.clip.pathway import PathwayConfig, TextPathway
from textsam.export.parity import Parity
from textsam.inference.model import TextSAM
from textsam.modeling.config import SamConfig, TimmConfig
from textsam.modeling.sam import Sam

BACKBONE = "test_efficientnet"


class Exported(NamedTuple):
    """A model and what became of it."""

    model: TextSAM
    folder: Path
    rows: list[Parity]


def build_model() -> TextSAM:
    """A CNN with skips, a dense text head on its own maps, a one-layer text tower."""
    import open_clip

    torch.manual_seed(1)
    vision = {
        "timm_model_name": BACKBONE,
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "image_size": 32,
    }
    text = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    clip = ClipEncoder.from_model(
        open_clip.CustomTextCLIP(16, vision, text),
        tokenizer=open_clip.SimpleTokenizer(context_length=12),
        name="random-clip",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        templates=["{}", "a photo of a {}."],
    )
    clip.aliases = {"wheels": "wheel"}
    sam = Sam(
        SamConfig(
            encoder=TimmConfig(name=BACKBONE),
            image_size=64,
            embed_dim=32,
            decoder_depth=1,
            decoder_heads=4,
            decoder_mlp=48,
            iou_hidden=24,
            first_layer_residual=True,
        )
    )
    torch.nn.init.constant_(sam.mask_decoder.iou_head.layers[-1].bias, 0.3)  # not all below zero
    pathway = TextPathway(
        PathwayConfig(
            clip_width=16,
            prompt_width=32,
            hidden=24,
            dense_channels=(32, 48, 64),
            dense_width=16,
            dense_image_size=64,
            dense_source="sam",
        )
    )
    assert pathway.dense is not None
    torch.nn.init.constant_(pathway.dense.bias, 0.0)  # random maps have both signs
    return TextSAM(sam, clip=clip, pathway=pathway, name="random")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Every graph, once for all tests: the exporter takes seconds for each."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from textsam.export import export_model

    model, folder = build_model(), tmp_path_factory.mktemp("exported")
    return Exported(model, folder, export_model(model, folder))
