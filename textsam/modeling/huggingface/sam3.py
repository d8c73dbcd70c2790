"""SAM 3 (arXiv 2511.16719): every instance of a concept, given by a phrase or by boxes of examples.

Its detector and its tracker share one image encoder: the photo is encoded once, by the core, and
the detector's own neck reads that encoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.errors import WeightsError, one_line
from textsam.modeling.huggingface.cores import HuggingFaceCore, read_core_config, read_network
from textsam.modeling.image_encoder import ImageFeatures
from textsam.values.files import read_settings

__all__ = ["SAM3_TYPES", "ConceptModel", "Instances", "Sam3Core", "read_sam3"]

SAM3_TYPES = ("sam3", "sam3_video", "sam3_tracker")  # `model_type` of folders with a SAM 3
_TRACKER_PARTS = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
_TEXT_LENGTH = 32  # tokens, as in `Sam3Processor`
_EXAMPLES_ONLY = "visual"  # the phrase that stands for "like these boxes", as in the released code


@dataclass(frozen=True, kw_only=True, eq=False)
class Instances:
    """What SAM 3 found for one concept; all on the CPU."""

    logits: Tensor  # (Q, n, n) float32 of masks, stretched over the photo
    scores: Tensor  # (Q,) probability that the concept is there and that the mask is one of it
    presence: float  # probability that the concept is in the photo at all
    similarity: NDArray[np.float32]  # (n, n) probability of the concept at each place


class ConceptModel:
    """The detector of a SAM 3, `Sam3Model` of `transformers`.

    Attributes:
        name: What it was loaded as.
        network: The `Sam3Model`.
    """

    def __init__(self, network: Any, tokenizer: Any, *, name: str = "sam3") -> None:
        self.name = name
        self.network = network.eval()
        self._tokenizer = tokenizer

    @torch.no_grad()
    def features(self, features: ImageFeatures) -> Any:
        """What any concept needs of a photo, from the shared image encoder's own map of it."""
        from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

        (backbone,) = (each.to(self.network.dtype) for each in features.pyramid)
        maps, positions = self.network.vision_encoder.neck(backbone)
        return Sam3VisionEncoderOutput(
            last_hidden_state=backbone, fpn_hidden_states=maps, fpn_position_encoding=positions
        )

    @torch.no_grad()
    def find(
        self,
        features: Any,
        phrase: str | None = None,
        # (N, 4) x0, y0, x1, y1 as shares of the photo's sides
        boxes: NDArray[np.float32] | None = None,
        labels: Sequence[int] | None = None,  # N, 1 or 0 for what is not meant; all 1 by default
    ) -> Instances:
        """Every instance of a phrase, of what boxes show, or of both."""
        device, dtype = self.network.device, self.network.dtype
        text = self._tokenizer(
            [_EXAMPLES_ONLY if phrase is None else phrase],
            padding="max_length",
            max_length=_TEXT_LENGTH,
            truncation=True,
            return_tensors="pt",
        ).to(device)
        examples: dict[str, Tensor] = {}
        if boxes is not None:
            corners = torch.from_numpy(np.asarray(boxes, np.float32))[None]
            first, last = corners[..., :2], corners[..., 2:]
            # The network wants centre and size.
            centred = torch.cat([(first + last) / 2, last - first], dim=-1)
            examples["input_boxes"] = centred.to(device, dtype)
            signs = [1] * len(boxes) if labels is None else list(labels)
            examples["input_boxes_labels"] = torch.tensor([signs]).to(device)
        out = self.network(
            vision_embeds=features,
            input_ids=text.input_ids,
            attention_mask=text.attention_mask,
            **examples,
        )
        presence = float(out.presence_logits[0].float().sigmoid())
        return Instances(
            logits=out.pred_masks[0].float().cpu(),
            scores=out.pred_logits[0].float().sigmoid().cpu() * presence,
            presence=presence,
            similarity=out.semantic_seg[0, 0].float().sigmoid().cpu().numpy(),
        )

    def to(self, target: str | torch.device | torch.dtype) -> ConceptModel:
        """Move the network in place, or change its type."""
        self.network.to(target)
        return self


class Sam3Core(HuggingFaceCore):
    """The tracker of a SAM 3, `Sam3TrackerModel`, as a core for points, boxes and masks."""

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """As every core; `pyramid` is the backbone's map, which the detector's neck reads too."""
        maps: list[Tensor] = []
        neck = self.network.vision_encoder.neck
        hook = neck.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))
        try:
            features = super().encode_image(pixels)
        finally:
            hook.remove()
        return replace(features, pyramid=tuple(maps))


def read_sam3(folder: Path, *, name: str) -> tuple[Sam3Core, ConceptModel | None]:
    """The tracker of a folder in hub layout and its detector, which share the image encoder.

    A folder of a tracker alone has no detector.

    Raises:
        WeightsError: No tracker, or files that do not fit `transformers`.
    """
    try:
        from transformers import (
            AutoTokenizer,
            Sam3Config,
            Sam3Model,
            Sam3TrackerConfig,
            Sam3TrackerModel,
        )
    except ImportError as error:
        raise WeightsError(
            f"{name} needs a newer transformers: pip install -U transformers"
        ) from error

    config = read_settings(folder / "config.json")
    if "timm_wrapper" in str(config):  # whose name may be a folder or a repository
        raise WeightsError(f"{name} has a backbone of timm; wanted that of SAM 3, sam3_vit_model")
    # The published folder describes a model for videos; what describes its memory is left out.
    own, found = (config.get(f"{part}_config") or config for part in ("tracker", "detector"))
    try:
        sizes = Sam3TrackerConfig(**{part: own[part] for part in _TRACKER_PARTS if part in own})
        detector_sizes = Sam3Config(**found)
    except Exception as error:  # it checks values by errors of its own
        raise WeightsError(f"{folder / 'config.json'} is damaged: {one_line(error)}") from error
    try:
        tracker = read_network(Sam3TrackerModel, folder, name=name, config=sizes)
    except WeightsError as error:
        if config.get("model_type") != "sam3":
            raise
        raise WeightsError(
            f"{name} holds the detector of a SAM 3 without the tracker, which turns clicks and "
            "boxes into masks; wanted a folder with both, model_type sam3_video, as "
            f'"facebook/sam3" has them ({error})'
        ) from error
    core = Sam3Core(tracker, read_core_config(folder, "sam3", tracker))
    if config.get("model_type") == "sam3_tracker":
        return core, None
    detector = read_network(Sam3Model, folder, name=name, config=detector_sizes)
    # One encoder in memory, and one run of it per photo.
    detector.vision_encoder.backbone = tracker.vision_encoder.backbone
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{name} has no tokenizer that can be read: {error}") from error
    return core, ConceptModel(detector, tokenizer, name=name)
