"""SAM 3 (arXiv 2511.16719): every instance of a concept, given by a phrase or by boxes of examples.

Its detector and its tracker share one image encoder: the photo is encoded once, by the core, and
the detector's own neck reads that encoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.modeling.image_encoder import ImageFeatures

__all__ = ["ConceptModel", "Instances"]

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
            examples["input_boxes_labels"] = torch.ones(centred.shape[:2], dtype=torch.int64).to(
                device
            )
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
