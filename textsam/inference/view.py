"""One encoded photo: ask it with phrases, points, boxes and masks, as often as you like.

Encoding happens once, when the view is opened; each question costs one run of the decoder. A model
that looks closer (`TextSAM.focus`) encodes a window around a small thing as well.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from textsam.errors import PromptError
from textsam.inference.automatic.generator import automatic_masks
from textsam.inference.dialogue import Step, chosen_instance
from textsam.inference.photo.encoded import EncodedPhoto
from textsam.inference.photo.postprocess import stability_score
from textsam.inference.photo.prediction import Prediction
from textsam.inference.photo.sam_embedding import Latents
from textsam.inference.strategies import query as text_inference
from textsam.inference.strategies.like import Concept, Example, find_alike
from textsam.inference.strategies.overlap import Overlap
from textsam.inference.strategies.query import Strategy
from textsam.inference.strategies.semantic import label_pixels
from textsam.inference.strategies.similar import LEVEL, MaskLike, similar_masks
from textsam.results.explanation import Explanation, explain_fully
from textsam.results.label_map import LabelMap
from textsam.results.segmentation import Segmentation
from textsam.values.prompts import ArrayLike, Prompt, make_prompt, normalize_phrases
from textsam.values.rle import encode_masks
from textsam.values.settings import AutomaticSettings, FocusSettings, Preset

if TYPE_CHECKING:
    from textsam.inference.model import TextSAM
    from textsam.inference.strategies.rank import RankedMasks

__all__ = ["ImageView", "Prediction", "Step", "Strategy"]


class ImageView(EncodedPhoto):
    """A photo that a model has encoded; made by `TextSAM.open`.

    Attributes:
        model: The model that encoded it.
        image: (H, W, 3) uint8 RGB.
        frame: The original and the model frame.
        features: The image encoder's output.
        focus: How closely to look at small things; the model's settings, None to never.
        ranked: What `strategy="rank"` keeps for the next phrase.
        history: The dialogue since the last `segment` of one object; `click` and `undo` extend it.
    """

    def __init__(
        self, model: TextSAM, image: NDArray[np.uint8], *, focus: FocusSettings | None = None
    ) -> None:
        super().__init__(model, image, focus=focus)
        self.history: tuple[Step, ...] = ()
        self._everything: dict[AutomaticSettings, Segmentation] = {}
        self.ranked: dict[AutomaticSettings, RankedMasks] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Forget the dialogue, the last window and automatic masks; features go with the view."""
        self.history = ()
        self._close_up = None
        self._everything.clear()
        self.ranked.clear()

    def fork(self) -> ImageView:
        """Another view of the same encoded photo, with a dialogue of its own.

        What the encoders said is shared and never changed; clicks, windows and automatic masks are
        not, so that two people can ask one photo at the same time.
        """
        other = copy(self)
        other._close_up = None
        other.history = ()
        other._everything = {}
        other.ranked = {}
        return other

    def __repr__(self) -> str:
        height, width = self.size
        return f"ImageView({height} x {width} pixels, {self.model!r})"

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
            result = find_alike(self, like, threshold=threshold, overlap=overlap)
            self._begin(Prompt(), result)
            return result
        by_hand = any(value is not None for value in (points, box, mask))
        if text is None or by_hand:
            text_inference.check_strategy(strategy)
            if exclude is not None or background is not None:
                raise PromptError(
                    "exclude and background come with phrases alone; give text=... without points, "
                    "box or mask"
                )
            phrase = None if text is None else _one_phrase(text)
            prompt = make_prompt(
                self.size, text=phrase, points=points, labels=labels, box=box, mask=mask
            )
            return self._segment_object(prompt, multimask=multimask)
        if labels is not None:
            raise PromptError("labels come with points; give points=[(x, y), ...] too")
        question = text_inference.make_question(
            text,
            exclude=exclude,
            background=background,
            strategy=strategy,
            threshold=threshold,
            overlap=overlap,
        )
        self.history = ()
        answers = text_inference.answer(self, question)
        result = text_inference.to_segmentation(self.image, answers, overlap=question.overlap)
        if len(question.phrases) == 1:  # a click may follow and keeps the phrase
            self._begin(make_prompt(self.size, text=question.phrases[0]), result)
        return result

    def explain(self, text: str | list[str], **options: Any) -> Explanation:
        """Why `segment(text=...)` gives these masks, or none.

        More than `Segmentation.explain`: a phrase on which a gate closed before masks were looked
        for is asked again with the gates open, to tell what lies behind.

        Args:
            text: Phrases.
            **options: `exclude`, `background`, `strategy`, `threshold`, `overlap` as `segment`.
        """
        result = self.segment(text=text, **options)
        history = self.history
        why = explain_fully(
            result, lambda again: self.segment(**{**options, **again}), image=self.image
        )
        self.history = history
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
        if wanted not in self._everything:
            self._everything[wanted] = automatic_masks(self, settings=wanted, progress=progress)
        return self._everything[wanted]

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
            threshold: Least cosine. How much is alike depends on the model; look at `scores`.
            latents: "photo", from the encoding that is there; "crops", the paper's, which encodes
                a crop and its mirror image for every mask of the photo.
            settings: Of the masks of everything: see `everything`.

        Returns:
            Masks whose `scores` are their cosines with the mask, the mask itself (if everything
            found it) first; without labels.

        Raises:
            PromptError: An empty mask or one of another photo's size, or an option that cannot be
                meant.
        """
        return similar_masks(self, mask, threshold=threshold, latents=latents, settings=settings)

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
        return label_pixels(self, phrases, background=background, threshold=threshold)

    def click(self, x: float, y: float, *, foreground: bool = True) -> Segmentation:
        """Add a point to the dialogue: the last mask is corrected, the phrase and box stay.

        After a phrase the click chooses the instance that it lies on, or else the nearest, and that
        one's logits go back in as in training (Appendix A). A click on something else, from which
        the phrase gets a mask apart from that instance, begins a new one.

        Args:
            x: Original pixels.
            y: Original pixels.
            foreground: On the object, or on what the last mask took by mistake.

        Returns:
            The corrected object, one mask (or none, if nothing is left of it).

        Raises:
            PromptError: For a point outside the image, or a first click that is not foreground.
        """
        last = self.history[-1] if self.history else None
        before = last.prompt if last is not None else Prompt()
        chooses = last is not None and bool(last.instances)
        if before.is_empty and not chooses and not foreground:
            raise PromptError("the first click must be on the object: foreground=True")
        new = make_prompt(self.size, points=[(x, y)], labels=[int(foreground)])
        prompt = replace(
            before,
            points=np.concatenate([before.points, new.points]),
            labels=np.concatenate([before.labels, new.labels]),
        )
        if last is not None and last.prediction is None and last.instances:
            fresh = partial(self._predict, prompt, previous=None) if foreground else None
            chosen = chosen_instance(self, last, x, y, fresh=fresh)
            last = replace(last, prediction=chosen)
        return self._answer(prompt, last=last)

    def undo(self) -> Segmentation:
        """Take the last step of the dialogue back; empty when nothing is left.

        Raises:
            PromptError: If there is nothing to take back.
        """
        if not self.history:
            raise PromptError("there is nothing to undo: no click or segment came before")
        self.history = self.history[:-1]
        if self.history:
            return self.history[-1].result
        return Segmentation(self.size, [], image=self.image)

    def _begin(self, prompt: Prompt, result: Segmentation) -> None:
        """Start a dialogue in which a click chooses one of the masks of a result."""
        kept = tuple(item for answer in result.answers for item in answer.kept)
        step = Step(prompt=prompt, prediction=None, reading=0, result=result, instances=kept)
        self.history = (step,)

    def _segment_object(self, prompt: Prompt, *, multimask: bool | None) -> Segmentation:
        self.history = ()
        return self._answer(prompt, last=None, multimask=multimask)

    def _answer(
        self, prompt: Prompt, *, last: Step | None, multimask: bool | None = None
    ) -> Segmentation:
        """Predict one object, append the step, return the step's result."""
        previous = None if last is None else last.prediction
        reading = 0 if last is None else last.reading
        prediction = self._predict(prompt, previous=previous, reading=reading)
        lone_point = len(prompt.points) == 1 and all(
            value is None for value in (prompt.text, prompt.box, prompt.mask, previous)
        )
        ambiguous = lone_point if multimask is None else multimask
        order = [0]
        if ambiguous:
            order = [1 + int(i) for i in np.argsort(-prediction.iou[1:], kind="stable")]
        result = self.to_segmentation(prediction, order, phrase=prompt.text)
        step = Step(prompt=prompt, prediction=prediction, reading=order[0], result=result)
        self.history = (*self.history, step)
        return result

    def to_segmentation(
        self, prediction: Prediction, order: list[int], *, phrase: str | None
    ) -> Segmentation:
        """Masks of a prediction, in the order given; empty ones are dropped."""
        logits = prediction.logits[order]
        kept = [i for i, mask in enumerate(logits) if (mask > 0).any()]
        masks = logits[kept] > 0
        scores = None
        if phrase is not None and self.model.has_dense_text:
            scored = text_inference.score_masks(self, masks, self.text_map(phrase))
            scores = [score for _, score in scored]
        return Segmentation(
            self.size,
            encode_masks(masks),
            scores=scores,
            iou=prediction.iou[order][kept],
            stability=stability_score(torch.from_numpy(logits[kept])).numpy(),
            labels=[phrase] * len(kept),
            image=self.image,
        )


def _one_phrase(text: str | list[str]) -> str:
    phrases = normalize_phrases(text)
    if len(phrases) > 1:
        raise PromptError(
            f"{len(phrases)} phrases with points, a box or a mask, which mean one object; "
            "give one phrase, or the phrases alone"
        )
    return phrases[0]
