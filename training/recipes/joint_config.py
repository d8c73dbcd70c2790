"""Numbers of `tiny`'s joint stages."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..data import ViewConfig
from ..losses import LossConfig
from ..prompting import PromptConfig
from .word_draw import WordConfig

__all__ = ["JOINT_SOURCES", "WIDE_SOURCES", "JointConfig"]

# Share of the photos drawn from each file: COCO's more than its size, for its 80 names.
JOINT_SOURCES = {
    "voc": 0.27,
    "named_objects": 0.20,
    "clothing": 0.08,
    "coco_person": 0.06,
    "car_parts": 0.13,
    "coco": 0.18,
    "coco_panoptic": 0.08,
}

# The long last stage sees COCO's few photos less often, and whole things more often.
WIDE_SOURCES = {
    "voc": 0.29,
    "named_objects": 0.22,
    "clothing": 0.08,
    "coco_person": 0.07,
    "car_parts": 0.13,
    "coco": 0.15,
    "coco_panoptic": 0.06,
}


@dataclass(frozen=True, kw_only=True)
class JointConfig:
    """Everything that decides what the stage makes.

    Attributes:
        seed: Of every random choice.
        photos_per_step: Views of a step.
        masks_per_photo: Most masks of a view that are prompted.
        new_points: Most points that come before each round; the first has its first prompt.
        central: Share of the points that lie in the middle of what they mean.
        text_share: Probability that a photo's masks are asked by phrase.
        with_point: Share of those phrases that come with a point, as `auto` asks.
        paste: Probability that a view gets an object of another photo.
        word_weight: Of the words' loss beside the masks'.
        decoder_rate: Learning rate of the decoder, the prompt encoder and the neck.
        head_rate: Of the pathway: the dense head and the token's projection.
        backbone_rate: Of the backbone.
        weight_decay: Of matrices and kernels.
        frozen_stages: First stages of the backbone that stay ImageNet's, beside its stem and norms.
        train_depthwise: Whether depthwise kernels of the other stages learn, too. On a CPU their
            gradient is slow.
        min_area: Smaller masks are not prompted, pixels.
        max_share: Nor larger ones, as a share of the picture (Appendix A).
        view: How a photo is shown, all of its masks.
        words: The words' loss.
        prompts: First prompts.
        loss: The masks' loss.
    """

    seed: int = 2
    photos_per_step: int = 8
    masks_per_photo: int = 4
    new_points: tuple[int, ...] = (1, 1, 2, 4)
    central: float = 0.5
    text_share: float = 0.35
    with_point: float = 0.4
    paste: float = 0.35
    word_weight: float = 1.0
    decoder_rate: float = 5e-4
    head_rate: float = 1e-3
    backbone_rate: float = 1e-4
    weight_decay: float = 0.05
    frozen_stages: int = 2
    train_depthwise: bool = False
    min_area: int = 40
    max_share: float = 0.9
    view: ViewConfig = field(
        default_factory=lambda: ViewConfig(
            image_size=384, max_masks=80, min_area=4, max_share=1.0, focus=0.3
        )
    )
    words: WordConfig = field(default_factory=WordConfig)
    prompts: PromptConfig = field(default_factory=PromptConfig)
    loss: LossConfig = field(default_factory=LossConfig)
