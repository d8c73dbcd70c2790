"""The networks and settings of a model, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from textsam.clip.encoder import ClipEncoder
from textsam.clip.pathway import TextPathway
from textsam.errors import WeightsError
from textsam.modeling.core import Core
from textsam.modeling.huggingface.detectors import Detector
from textsam.modeling.huggingface.phrase_maps import MapSource
from textsam.modeling.huggingface.sam3 import ConceptModel
from textsam.modeling.sam import Sam
from textsam.values.calibration import Calibration
from textsam.values.judge import StrategyCurves
from textsam.values.prompts import plain_phrase
from textsam.values.settings import FocusSettings, TextSettings

__all__ = ["ModelParts"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelParts:
    """Everything that inference needs of a model.

    Attributes:
        sam: The SAM core.
        clip: The CLIP model, or None.
        pathway: From CLIP embeddings to prompts, or None.
        map_source: From a phrase to its map, in place of the pathway's dense head, or None.
        concept_model: From a phrase to all its instances, for `strategy="concept"`, or None.
        detector: From phrases to boxes, or None.
        text_settings: Geometry of `strategy="auto"`.
        focus: When to zoom in on small objects; None for never, as in Segment Anything.
        calibration: From evidence to probabilities, and the default thresholds.
        name: The name it was loaded by.
        peeled: What was around the weights in its file, a phrase each: an optimizer, a prefix.

    Raises:
        WeightsError: The pathway was trained for another SAM or another CLIP.
    """

    sam: Core
    clip: ClipEncoder | None = None
    pathway: TextPathway | None = None
    map_source: MapSource | None = None
    concept_model: ConceptModel | None = None
    detector: Detector | None = None
    text_settings: TextSettings = field(default_factory=TextSettings)
    focus: FocusSettings | None = None
    calibration: Calibration = field(default_factory=Calibration)
    name: str = "unnamed"
    peeled: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a pathway of other widths."""
        if self.pathway is None:
            return
        config = self.pathway.config
        clip_width = config.clip_width if self.clip is None else self.clip.width
        for what, width, wanted in (
            ("prompt width", config.prompt_width, self.sam.config.embed_dim),
            ("CLIP width", config.clip_width, clip_width),
        ):
            if width != wanted:
                raise WeightsError(
                    f"the pathway's {what} is {width}, the model's is {wanted}: it was trained for "
                    "another SAM or another CLIP"
                )

    @property
    def device(self) -> torch.device:
        """The device of the SAM core."""
        return self.sam.pixel_mean.device

    @property
    def has_dense_text(self) -> bool:
        """Whether a phrase gives a map over the photo, which `strategy="auto"` starts from."""
        if self.map_source is not None:
            return True
        return self.pathway is not None and self.pathway.dense is not None

    @property
    def has_text_prompts(self) -> bool:
        """Whether a phrase changes what the decoder gets: by its map, its tokens or both."""
        return self.map_source is not None or self.pathway is not None

    def phrase_key(self, phrase: str) -> str:
        """A text that is the same for phrases that the model reads alike: "The dogs", "dog"."""
        plain = plain_phrase(phrase) if self.clip is None else self.clip.plain(phrase)
        return plain.casefold()

    def own_levels(self, curves: StrategyCurves, phrase: str) -> StrategyCurves:
        """The curves with the phrase's own levels, if the calibration has learnt some."""
        if not curves.phrases:
            return curves
        return curves.of(plain_phrase(phrase).casefold(), self.phrase_key(phrase))

    def require_sam(self) -> Sam:
        """The core, if it is our own network, which can be trained and saved; else an error."""
        if not isinstance(self.sam, Sam):
            raise WeightsError(
                f"{self.name} is a {type(self.sam).__name__}, which textsam runs but does not "
                'train; wanted a SAM, SAM-HQ or MobileSAM such as "facebook/sam-vit-base"'
            )
        return self.sam

    def require_detector(self) -> Detector:
        """The detector; a `WeightsError` if the model has none."""
        if self.detector is None:
            raise WeightsError(
                f'{self.name} has no detector, which strategy="detect" asks. Type: '
                'TextSAM.from_pretrained(..., detector="IDEA-Research/grounding-dino-tiny")'
            )
        return self.detector

    def require_clip(self) -> ClipEncoder:
        """The CLIP model; a `WeightsError` if the model has none."""
        if self.clip is None:
            raise WeightsError(
                f"{self.name} takes no phrases: it has no CLIP. Use points, a box or a mask; or "
                "add a detector: TextSAM.from_pretrained(..., "
                'detector="IDEA-Research/grounding-dino-tiny"); or a CLIP: '
                'TextSAM.from_pretrained(..., clip="ViT-L-14-336/openai"); '
                'TextSAM.from_pretrained("tiny") has its own'
            )
        return self.clip

    def require_concept(self) -> ConceptModel:
        """The concept model; a `WeightsError` if the model has none."""
        if self.concept_model is None:
            raise WeightsError(
                f'{self.name} has no concept model, which strategy="concept" needs. Type '
                'strategy="auto"; or load one: TextSAM.from_pretrained("facebook/sam3")'
            )
        return self.concept_model

    def require_text_prompts(self) -> None:
        """A `WeightsError` if a phrase does not change what the decoder gets."""
        if self.has_text_prompts:
            return
        if self.concept_model is not None or self.detector is not None:
            raise WeightsError(
                f"{self.name} answers phrases on their own, and its decoder reads none: leave out "
                "the phrase, or points, box and mask; then click to correct a mask"
            )
        self.require_text()

    def require_text(self) -> tuple[ClipEncoder, TextPathway]:
        """The CLIP model and the text pathway; a `WeightsError` if the model lacks one."""
        clip = self.require_clip()
        if self.pathway is None:
            raise WeightsError(
                f"{self.name} has no trained text pathway, so it takes no phrase as a prompt. Type "
                'strategy="rank", which needs none; or from_pretrained(..., '
                'pathway="pathway.safetensors"); to train one: python -m training.train '
                "text_pathway"
            )
        return clip, self.pathway
