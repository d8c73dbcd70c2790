"""What each family of zero-shot detectors wants to be asked, and how its output is read.

Outputs are read as by `post_process_grounded_object_detection` of the family's processor, but a
label is the place of the phrase: that of Grounding DINO decodes its tokens to text, in which
"Front-door" has become "front - door".
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from textsam.errors import PromptError
from textsam.modeling.huggingface.found_boxes import FoundBoxes
from textsam.values.geometry import clip_boxes

__all__ = ["FAMILIES", "DetectorFamily", "PhraseInputs"]

Sizes = Sequence[tuple[int, int]]  # (H, W) of each photo


@dataclass(frozen=True, kw_only=True, eq=False)
class PhraseInputs:
    """Prompts as a network takes them for one photo."""

    inputs: Mapping[str, Tensor]
    count: int  # P
    # (P, L) bool, the tokens of each phrase; only where phrases are one text.
    tokens: Tensor = field(default_factory=lambda: torch.zeros(0))


class DetectorFamily(ABC):
    """The rules of one family, for one model."""

    box_level: ClassVar[float]
    text_level: ClassVar[float]
    # Submodules whose output depends on the photo alone.
    towers: ClassVar[tuple[str, ...]]
    # Submodules that `Detector.to` may put in half precision; the towers if there are none.
    halved: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model
        self.tokenizer = processor.tokenizer

    @abstractmethod
    def prompt(self, phrase: str) -> str:
        """A phrase as the family was trained to read it; a `PromptError` if it cannot."""

    @abstractmethod
    def groups(self, prompts: Sequence[str]) -> list[list[str]]:
        """Prompts in groups that fit into one run."""

    @abstractmethod
    def text(self, prompts: Sequence[str]) -> PhraseInputs:
        """The inputs of a group."""

    @abstractmethod
    def boxes(self, output: Any, text: PhraseInputs, sizes: Sizes) -> list[FoundBoxes]:
        """The boxes of each photo of a run."""

    def forget(self) -> None:  # noqa: B027  # most families have nothing to forget
        """Drop what the network has cached of phrases, which stays on the old device."""

    def _length(self, text: str) -> int:
        """Number of tokens, without the special ones at both ends."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _too_long(self, phrase: str, length: int, limit: int) -> PromptError:
        return PromptError(
            f"the phrase {phrase[:60]!r} has {length} tokens; the detector reads {limit}. Give "
            "fewer words"
        )


class GroundingDinoFamily(DetectorFamily):
    """Grounding DINO (arXiv 2303.05499): one text of lower-case phrases with full stops between.

    Photo and phrases are fused from the first layer of the encoder on, so that only the backbone is
    kept for a second phrase; fusion and decoder run again.
    """

    # `box_threshold` and `text_threshold` of the authors' demo.
    box_level, text_level = 0.35, 0.25
    towers = ("model.backbone",)

    def prompt(self, phrase: str) -> str:
        """Lower case; a full stop or question mark within would end the phrase for the model."""
        text = " ".join(re.sub(r"[.?]", " ", phrase.lower()).split())
        length = self._length(text)
        if not length:
            raise PromptError(f"the phrase {phrase!r} has no letter or digit to look for")
        if length > self._room - 1:
            raise self._too_long(phrase, length, self._room - 1)
        return text

    @property
    def _room(self) -> int:
        """Tokens of all phrases and their full stops; two are for [CLS] and [SEP]."""
        return int(self.model.config.max_text_len) - 2

    def groups(self, prompts: Sequence[str]) -> list[list[str]]:
        """As many phrases as `max_text_len` holds, which is what the published models saw."""
        lengths = [self._length(prompt) + 1 for prompt in prompts]
        groups: list[list[str]] = [[]]
        used = 0
        for prompt, length in zip(prompts, lengths, strict=True):
            if used + length > self._room:
                groups.append([])
                used = 0
            groups[-1].append(prompt)
            used += length
        return groups

    def text(self, prompts: Sequence[str]) -> PhraseInputs:
        """One text, and which of its tokens lie in which phrase."""
        text = ". ".join(prompts) + "."
        encoded = self.tokenizer(
            text, return_tensors="pt", return_token_type_ids=True, return_offsets_mapping=True
        )
        starts, ends = encoded.pop("offset_mapping")[0].unbind(-1)
        tokens = torch.zeros(len(prompts), len(starts), dtype=torch.bool)
        first = 0
        for row, prompt in zip(tokens, prompts, strict=True):
            # Special tokens span no characters.
            row |= (starts >= first) & (ends <= first + len(prompt)) & (ends > starts)
            first += len(prompt) + len(". ")
        return PhraseInputs(inputs=dict(encoded), count=len(prompts), tokens=tokens)

    def boxes(self, output: Any, text: PhraseInputs, sizes: Sizes) -> list[FoundBoxes]:
        """A box has the score of its best token, a phrase that of its best one for the box."""
        # (B, Q, L); beyond the text the model pads with minus infinity.
        chances = output.logits.float().sigmoid().cpu()
        found = []
        for logits, boxes, size in zip(chances, output.pred_boxes, sizes, strict=True):
            length = text.tokens.shape[1]
            by_phrase = torch.stack([logits[:, :length][:, row].amax(1) for row in text.tokens], 1)
            corners = _corners(boxes) * torch.tensor([size[1], size[0]] * 2)
            found.append(_found(corners, logits.amax(1), by_phrase, _best_only(by_phrase), size))
        return found


class MMGroundingDinoFamily(GroundingDinoFamily):
    """MM Grounding DINO (arXiv 2401.02361): asked as Grounding DINO."""

    box_level, text_level = 0.3, 0.25  # `pred_score_thr` of the authors' demo; as above


class OwlFamily(DetectorFamily):
    """OWL-ViT (arXiv 2205.06230): a sentence for each phrase, all of which meet the same boxes.

    Phrases do not see the photo, so the whole vision tower is kept for a second phrase.
    """

    box_level, text_level = 0.1, 0.1  # default of `post_process_grounded_object_detection`
    towers = ("owlvit.vision_model",)
    # Without the last norm of the tower, which the network applies to its output once more.
    halved = ("owlvit.vision_model.encoder",)
    is_padded: ClassVar[bool] = False  # whether the photo is padded to a square

    def prompt(self, phrase: str) -> str:
        """The template that the authors evaluate with; the bare phrase if it is too long for it."""
        text = " ".join(phrase.split())
        has_article = re.match(r"(a|an|the)\s", text, re.IGNORECASE)
        sentence = f"a photo of {'' if has_article else 'a '}{text}"
        if text.lower().startswith("a photo of "):
            sentence = text
        limit = self._limit - 2  # start and end of the text
        for choice in (sentence, text):
            if self._length(choice) <= limit:
                return choice
        raise self._too_long(phrase, self._length(text), limit)

    @property
    def _limit(self) -> int:
        return int(self.model.config.text_config.max_position_embeddings)

    def groups(self, prompts: Sequence[str]) -> list[list[str]]:
        """All at once: each has a text of its own."""
        return [list(prompts)]

    def text(self, prompts: Sequence[str]) -> PhraseInputs:
        """A row of tokens for each prompt."""
        encoded = self.tokenizer(
            list(prompts), padding="max_length", max_length=self._limit, return_tensors="pt"
        )
        inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        return PhraseInputs(inputs=inputs, count=len(prompts))

    def boxes(self, output: Any, text: PhraseInputs, sizes: Sizes) -> list[FoundBoxes]:
        """A box has the score of its best phrase."""
        found = []
        for logits, boxes, size in zip(output.logits, output.pred_boxes, sizes, strict=True):
            scores = logits.float().sigmoid().cpu()
            height, width = (max(size), max(size)) if self.is_padded else size
            corners = _corners(boxes) * torch.tensor([width, height] * 2)
            found.append(_found(corners, scores.amax(1), scores, _best_only(scores), size))
        return found


class Owlv2Family(OwlFamily):
    """OWLv2 (arXiv 2306.09683): as OWL-ViT, on photos padded to a square."""

    towers = ("owlv2.vision_model",)
    halved = ("owlv2.vision_model.encoder",)
    is_padded = True


class OmDetFamily(DetectorFamily):
    """OmDet-Turbo (arXiv 2403.06892): a list of classes, and a task that names them.

    Phrases enter in the decoder, so backbone and encoder are kept for a second phrase.
    """

    box_level, text_level = 0.3, 0.3  # default of `post_process_grounded_object_detection`
    towers = ("vision_backbone", "encoder")
    _MAX_IOU = 0.5  # of two boxes of one class, default there as well

    def prompt(self, phrase: str) -> str:
        """As typed, without spaces at the ends."""
        text = " ".join(phrase.split())
        length = self._length(_task([text]))
        if length > self._limit - 2:
            raise self._too_long(phrase, length, self._limit - 2)
        return text

    @property
    def _limit(self) -> int:
        return int(self.model.config.text_config.max_position_embeddings)

    def groups(self, prompts: Sequence[str]) -> list[list[str]]:
        """As many classes as the task has room to name."""
        groups: list[list[str]] = [[]]
        for prompt in prompts:
            if groups[-1] and self._length(_task([*groups[-1], prompt])) > self._limit - 2:
                groups.append([])
            groups[-1].append(prompt)
        return groups

    def text(self, prompts: Sequence[str]) -> PhraseInputs:
        """The task, the classes, and how many there are."""
        options = {"padding": "max_length", "max_length": self._limit, "return_tensors": "pt"}
        task = self.tokenizer([_task(prompts)], **options)
        classes = self.tokenizer(list(prompts), **options)
        inputs = {"classes_structure": torch.tensor([len(prompts)])}
        for name in ("input_ids", "attention_mask"):
            inputs |= {f"tasks_{name}": task[name], f"classes_{name}": classes[name]}
        return PhraseInputs(inputs=inputs, count=len(prompts))

    def boxes(self, output: Any, text: PhraseInputs, sizes: Sizes) -> list[FoundBoxes]:
        """The best pairs of box and class, without those that a better one of the class covers."""
        from torchvision.ops.boxes import batched_nms  # type: ignore[import-untyped]

        found = []
        for logits, boxes, size in zip(
            output.decoder_class_logits, output.decoder_coord_logits, sizes, strict=True
        ):
            scores = logits.float().sigmoid().cpu()
            values, places = scores.flatten().topk(len(scores))
            queries, labels = places // text.count, places % text.count
            corners = _corners(boxes)[queries] * torch.tensor([size[1], size[0]] * 2)
            kept = batched_nms(corners, values, labels, self._MAX_IOU)
            own = torch.nn.functional.one_hot(labels[kept], text.count).bool()
            found.append(_found(corners[kept], values[kept], scores[queries[kept]], own, size))
        return found

    def forget(self) -> None:
        """Empty the model's caches of embedded classes and tasks."""
        for cache in (self.model.language_cache_class, self.model.language_cache_prompt):
            cache.cache.clear()
            cache.current_load = 0


FAMILIES: Mapping[str, type[DetectorFamily]] = {
    "grounding-dino": GroundingDinoFamily,
    "mm-grounding-dino": MMGroundingDinoFamily,
    "owlv2": Owlv2Family,
    "owlvit": OwlFamily,
    "omdet-turbo": OmDetFamily,
}


def _task(classes: Sequence[str]) -> str:
    """The task that the processor writes by default."""
    return f"Detect {', '.join(classes)}."


def _corners(boxes: Tensor) -> Tensor:
    """(Q, 4) centre, width and height to corners, on the CPU."""
    centre, side = boxes.float().cpu().split(2, dim=-1)
    return torch.cat([centre - side / 2, centre + side / 2], dim=-1)


def _best_only(scores: Tensor) -> Tensor:
    """(Q, P) bool, true for the best phrase of each box."""
    own = torch.zeros_like(scores, dtype=torch.bool)
    return own.scatter_(1, scores.argmax(1, keepdim=True), value=True)


def _found(
    corners: Tensor, scores: Tensor, text_scores: Tensor, own: Tensor, size: tuple[int, int]
) -> FoundBoxes:
    order = scores.argsort(descending=True, stable=True)
    return FoundBoxes(
        boxes=clip_boxes(corners[order].numpy(), size).astype(np.float32),
        scores=scores[order].numpy(),
        text_scores=text_scores[order].numpy(),
        own=own[order].numpy(),
    )
