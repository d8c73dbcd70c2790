"""The networks of `tiny`: SAM core and text pathway.

Deviations of the core from the paper (arXiv 2304.02643, Appendix A), for two CPU cores: an ImageNet
EfficientNet-Lite0 instead of an MAE ViT-H, up to 384 px in training and 512 in use instead of 1024,
three or four rounds of prompts instead of eleven, batches of eight photos. Its early stages and its
norms stay frozen: their gradient is most of the cost.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from textsam.clip.encoder import ClipEncoder
from textsam.clip.pathway import PathwayConfig, TextPathway
from textsam.modeling.config import SamConfig, TimmConfig
from textsam.modeling.sam import Sam

from ...objectives.sam_objective import align_positions, timm_encoder
from ...pretrained import BACKBONE, PIXEL_MEAN, PIXEL_STD, efficientnet_lite_state

TINY_SAM = SamConfig(
    encoder=TimmConfig(name=BACKBONE, context_depth=3, neck_blocks=1),
    # In use; it is trained smaller, for a CNN gains from more pixels than it was trained with
    # (arXiv 1906.06423).
    image_size=512,
    embed_dim=128,
    decoder_heads=4,
    decoder_mlp=512,
    iou_hidden=128,
    first_layer_residual=True,
    pixel_mean=PIXEL_MEAN,
    pixel_std=PIXEL_STD,
)


def new_tiny_sam(*, seed: int, image_size: int) -> Sam:
    """The core with ImageNet weights in its backbone, everything else random.

    No weight depends on `image_size`: a run may start small, where a step costs less than half, and
    go on at the full size.
    """
    # Decoder, neck and prompt encoder start at random.
    torch.manual_seed(seed)
    sam = Sam(replace(TINY_SAM, image_size=image_size))
    backbone = timm_encoder(sam).backbone
    names = backbone.state_dict().keys()  # the classifier has no place in it
    state = efficientnet_lite_state()
    backbone.load_state_dict({name: value for name, value in state.items() if name in names})
    align_positions(sam)
    return sam.to(memory_format=torch.channels_last)


def new_tiny_pathway(clip: ClipEncoder, *, seed: int) -> TextPathway:
    """A fresh pathway from the tiny CLIP to the core; both backbones have the same maps."""
    channels = {i["reduction"]: i["num_chs"] for i in clip.model.visual.trunk.feature_info}
    torch.manual_seed(seed)
    return TextPathway(
        PathwayConfig(
            clip_width=clip.width,
            prompt_width=TINY_SAM.embed_dim,
            hidden=384,
            dense_channels=tuple(channels[stride] for stride in (8, 16, 32)),
            dense_blocks=2,
        )
    )
