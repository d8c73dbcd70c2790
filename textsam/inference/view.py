"""One encoded photo: ask it with phrases, points, boxes and masks, as often as you like.

The photo is encoded once, when the view is opened; each question costs one run of the decoder. A
model that zooms in (`FocusSettings`) encodes a window around a small object as well.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from textsam.errors import PromptError
from textsam.inference.automatic.generator import automatic_masks
from textsam.inference.dialogue import Dialogue, Step
from textsam.inference.photo.encoded import EncodedPhoto
from textsam.inference.photo.phrase_map import text_map
from textsam.inference.photo.prediction import Prediction
from textsam.inference.photo.sam_embedding import Latents
from textsam.inference.photo.zoom import WindowCache, predict
from textsam.inference.strategies.like import Concept, Example, find_alike
from textsam.inference.strategies.overlap import Overlap
from textsam.inference.strategies.query import (
    Question,
    Strategy,
    answer,
    check_strategy,
    make_question,
    to_segmentation,
)
from textsam.inference.strategies.rank import EmbeddedMasks, embed_masks
from textsam.inference.strategies.semantic import label_pixels
from textsam.inference.strategies.similar import LEVEL, MaskLike, similar_masks
from textsam.results.explanation import Explanation, explain_fully
from textsam.results.label_map import LabelMap
from textsam.results.segmentation import Segmentation
from textsam.values.candidates import PhraseAnswer
from textsam.values.geometry import Frame
from textsam.values.prompts import ArrayLike, Prompt, make_prompt, normalize_phrases
from textsam.values.settings import AutomaticSettings, Preset

__all__ = ["ImageView", "Prediction", "Step", "Strategy"]


class ImageView:
    """A photo that a model has encoded; made by `TextSAM.open`.

    Attributes:
        photo: The photo, its encoding and the model's parts; never changes.
        dialogue: The dialogue about one object since the last `segment`.
        windows: The last window that was encoded to zoom in.
    """

    def __init__(self, photo: EncodedPhoto) -> None:
        self.photo = photo
        self._forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Forget the dialogue, the last window and automatic masks; features go with the view."""
        self._forget()

    def _forget(self) -> None:
        self.windows = WindowCache()
        self._automatic: dict[AutomaticSettings, Segmentation] = {}
        self._embedded: EmbeddedMasks | None = None
        self.dialogue = Dialogue(photo=self.photo, windows=self.windows)

    def fork(self) -> ImageView:
        """Another view of the same encoded photo, with a dialogue and caches of its own.

        Two people can use one photo in this way at the same time.
        """
        return ImageView(self.photo)

    def __repr__(self) -> str:
        height, width = self.size
        return f"ImageView({height} x {width} pixels, {self.photo.parts.name!r})"

    @property
    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        return self.photo.image

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the photo."""
        return self.photo.size

    @property
    def frame(self) -> Frame:
        """The original and the model frame."""
        return self.photo.frame

    def segment(
        self,
        *,
        text: str | list[str] | None = None,
        exclude: str | list[str] | None = None,
        background: str | list[str] | None = None,
        points: ArrayLike | None = None,
        labels: ArrayLike | int | None = None,
        box: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        strategy: Strategy = "auto",
        threshold: float | None = None,
        overlap: Overlap = "allow",
        multimask: bool | None = None,
        like: Example | Concept | None = None,
    ) -> Segmentation:
        """Segment what the prompts name; all coordinates are original pixels.

        A phrase alone gives every instance that `strategy` finds, maybe none; so do examples
        (`like`). With points, a box or a mask beside a phrase (or instead of it), the prompts mean
        ONE object.

        Args:
            text: A phrase, or several (then without other prompts).
            exclude: Phrases that are not wanted: "wheel" without "steering wheel". They compete
                with `text` for every place, and what they win is cut from the masks.
            background: Phrases that compete with `text` for every place and are not painted.
            points: (N, 2) x, y.
            labels: (N,) 1 on the object, 0 beside it; all 1 by default.
            box: x0, y0, x1, y1.
            mask: (H, W) bool or logits, a rough mask to start from.
            strategy: "auto": text finds, points separate, every instance; "prompt": the paper's
                way, one object, its three readings (Section 7.5); "rank": automatic masks ranked by
                masked CLIP, which needs nothing trained. "auto" is "rank" for a model whose pathway
                makes no map, or that has none.
            threshold: A phrase that is less probably in the picture, and a mask that it less
                probably describes, are left out; in (0, 1). By default the two levels that the
                model's calibration names.
            overlap: "allow", or "exclusive": a pixel belongs to at most one mask of all phrases;
                parts win from their wholes, then the better score.
            multimask: Give all three readings of an ambiguous prompt, best predicted IoU first. By
                default only for one point on its own; the first of them is the best guess.
            like: In place of text, masks of another photo (or of this one): `segmentation[0]`, a
                `Segmentation` of one label, a list of masks, or what `model.concept` made of them.
                Goes with `threshold` and `overlap` only.

        Returns:
            Masks with scores, predicted IoU, stability and labels; `explain()` tells why these.

        Raises:
            PromptError: For prompts that cannot be meant: an empty phrase, a point outside the
                image, a NaN, an empty box, several phrases with a box.
            WeightsError: For a phrase when the model cannot be asked that way.
        """
        if like is not None:
            others = (text, exclude, background, points, labels, box, mask, multimask)
            if strategy != "auto" or any(value is not None for value in others):
                raise PromptError(
                    "like stands in place of text, points, box and mask; give segment(like=...) "
                    "with threshold and overlap only"
                )
            result = find_alike(
                self.photo,
                like,
                threshold=threshold,
                overlap=overlap,
                embedded=self._embedded_masks,
            )
            self.dialogue = self.dialogue.begin(Prompt(), result)
            return result
        by_hand = any(value is not None for value in (points, box, mask))
        if text is None or by_hand:
            check_strategy(strategy)
            if exclude is not None or background is not None:
                raise PromptError(
                    "exclude and background come with phrases alone; give text=... without points, "
                    "box or mask"
                )
            phrase = None if text is None else _one_phrase(text)
            prompt = make_prompt(
                self.size, text=phrase, points=points, labels=labels, box=box, mask=mask
            )
            self.dialogue = self.dialogue.ask(prompt, multimask=multimask)
            return self.dialogue.result
        if labels is not None:
            raise PromptError("labels come with points; give points=[(x, y), ...] too")
        question = make_question(
            text,
            exclude=exclude,
            background=background,
            strategy=strategy,
            threshold=threshold,
            overlap=overlap,
        )
        self.dialogue = self.dialogue.cleared()
        answers = self.answers(question)
        result = to_segmentation(self.image, answers, overlap=question.overlap)
        if len(question.phrases) == 1:  # a click may follow and keeps the phrase
            prompt = make_prompt(self.size, text=question.phrases[0])
            self.dialogue = self.dialogue.begin(prompt, result)
        return result

    def answers(self, question: Question) -> list[PhraseAnswer]:
        """What the question's strategy says about each phrase, outside of any dialogue."""
        return answer(self.photo, question, windows=self.windows, embedded=self._embedded_masks)

    def explain(self, text: str | list[str], **options: Any) -> Explanation:
        """Why `segment(text=...)` gives these masks, or none.

        More than `Segmentation.explain`: a phrase on which a gate closed before masks were looked
        for is asked again with the gates open, to tell what lies behind.

        Args:
            text: Phrases.
            **options: `exclude`, `background`, `strategy`, `threshold`, `overlap` as `segment`.
        """
        result = self.segment(text=text, **options)
        dialogue = self.dialogue
        why = explain_fully(
            result, lambda again: self.segment(**{**options, **again}), image=self.image
        )
        self.dialogue = dialogue
        return why

    def everything(
        self,
        settings: AutomaticSettings | Preset | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> Segmentation:
        """Masks of everything, from a grid of points (Appendix B); made once per settings.

        Args:
            settings: `AutomaticSettings`, or "paper", "released-code" or "fast" (the default: few
                points, levels that suit small models, and a second look at each mask).
            progress: Called with (points done, points in all).

        Returns:
            Masks with predicted IoU and stability, without labels.

        Raises:
            PromptError: An unknown preset.
        """
        wanted = AutomaticSettings.from_preset(settings)
        if wanted not in self._automatic:
            masks = automatic_masks(self.photo, settings=wanted, progress=progress)
            self._automatic[wanted] = masks
        return self._automatic[wanted]

    def similar(
        self,
        mask: MaskLike,
        *,
        threshold: float = LEVEL,
        latents: Latents = "photo",
        settings: AutomaticSettings | Preset | None = None,
    ) -> Segmentation:
        """Masks of everything in this photo that look like one mask, the most similar first.

        By the SAM's latents (Appendix D.6, Figure 17): looks, not names. A low threshold gives what
        is of a kind, a high one what is almost the same.

        Args:
            mask: `segmentation[0]`, an RLE or (H, W) bool, of this photo.
            threshold: Minimum cosine. How high cosines are depends on the model; look at
                `similarity`.
            latents: "photo", from the encoding that is there; "crops", the paper's, which encodes
                a crop and its mirror image for every mask of the photo.
            settings: Of the masks of everything: see `everything`.

        Returns:
            Masks whose `similarity` is their cosine with the mask, the mask itself (if it is among
            the masks of everything) first; without labels and scores.

        Raises:
            PromptError: An empty mask or one of another photo's size, or an option that cannot be
                meant.
        """
        return similar_masks(
            self.photo,
            mask,
            among=lambda: self.everything(settings),
            threshold=threshold,
            latents=latents,
        )

    def label_map(
        self,
        phrases: str | list[str],
        *,
        background: str | list[str] | None = None,
        threshold: float | None = None,
    ) -> LabelMap:
        """Give each pixel the phrase that describes it best, or none.

        Args:
            phrases: What to look for; the map numbers them from 1.
            background: Phrases that win pixels without being painted ("wall", "sky").
            threshold: Least presence of a phrase, in (0, 1); the calibration's level by default.

        Raises:
            PromptError: As `segment`.
            WeightsError: If the model cannot be asked by text.
        """
        return label_pixels(
            self.photo,
            phrases,
            background=background,
            threshold=threshold,
            windows=self.windows,
            embedded=self._embedded_masks,
        )

    def predict(
        self,
        *,
        text: str | None = None,
        points: ArrayLike | None = None,
        labels: ArrayLike | int | None = None,
        box: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        previous: Prediction | None = None,
        reading: int = 0,
    ) -> Prediction:
        """Run the decoder on one prompt and return everything it says.

        Args:
            text: A phrase.
            points: (N, 2) x, y, original pixels.
            labels: (N,) 1 or 0.
            box: x0, y0, x1, y1, original pixels.
            mask: (H, W) bool or logits.
            previous: An earlier prediction on this photo, to be corrected; in place of `mask`.
            reading: Which of its four masks.

        Raises:
            PromptError: As `segment`; or `reading` is not 0 to 3.
        """
        if reading not in range(4):
            raise PromptError(f"reading is {reading}; a prediction has masks 0, 1, 2 and 3")
        prompt = make_prompt(self.size, text=text, points=points, labels=labels, box=box, mask=mask)
        last = None if previous is None else previous.masks[reading]
        return predict(self.photo, prompt, windows=self.windows, previous=last)

    def text_map(self, phrase: str) -> NDArray[np.float32]:
        """Probability of a phrase at each pixel, (H, W) float32.

        Raises:
            WeightsError: If the model's pathway has no dense head.
        """
        return text_map(self.photo, phrase)

    def click(self, x: float, y: float, *, foreground: bool = True) -> Segmentation:
        """Add a point to the dialogue: the last mask is corrected; see `Dialogue.click`.

        Args:
            x: Original pixels.
            y: Original pixels.
            foreground: On the object, or on what the last mask has too much.

        Returns:
            The corrected object, one mask (or none, if nothing is left of it).

        Raises:
            PromptError: For a point outside the image, or a first click that is not foreground.
        """
        self.dialogue = self.dialogue.click(x, y, foreground=foreground)
        return self.dialogue.result

    def undo(self) -> Segmentation:
        """Take the last step of the dialogue back; empty when nothing is left.

        Raises:
            PromptError: If there is nothing to take back.
        """
        self.dialogue = self.dialogue.undo()
        return self.dialogue.result

    def redo(self) -> Segmentation:
        """Bring back the step that `undo` took back last.

        Raises:
            PromptError: If there is nothing to bring back.
        """
        self.dialogue = self.dialogue.redo()
        return self.dialogue.result

    def _embedded_masks(self) -> EmbeddedMasks:
        """Automatic masks with embeddings, made at the first call."""
        if self._embedded is None:
            self._embedded = embed_masks(self.photo, self.everything())
        return self._embedded


def _one_phrase(text: str | list[str]) -> str:
    phrases = normalize_phrases(text)
    if len(phrases) > 1:
        raise PromptError(
            f"{len(phrases)} phrases with points, a box or a mask, which mean one object; "
            "give one phrase, or the phrases alone"
        )
    return phrases[0]
