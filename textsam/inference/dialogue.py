"""A dialogue about one object: prompts and clicks, each a correction of the last mask.

    dialogue = Dialogue(photo=encode_photo(parts, image))
    dialogue = dialogue.click(300, 285)
    dialogue = dialogue.click(320, 290, foreground=False)
    dialogue.result, dialogue.undo().result

A dialogue never changes: each method returns another one. It keeps logits at the resolution of the
decoder only, 64 kB per step for `tiny`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from textsam.errors import PromptError
from textsam.inference.photo.encoded import EncodedPhoto, mask_to_low_res, text_map
from textsam.inference.photo.many_objects import masks_of_prompts
from textsam.inference.photo.prediction import MaskLogits, Prediction, nearest_mask, stability_score
from textsam.inference.photo.zoom import WindowCache, predict
from textsam.inference.strategies.prompt import score_masks
from textsam.modeling.precision import in_float32
from textsam.results.segmentation import Segmentation
from textsam.values.judge import Candidate, PhraseAnswer
from textsam.values.prompts import Prompt, make_prompt
from textsam.values.rle import decode_rle, encode_masks, rle_area

__all__ = ["Dialogue", "Step"]

# Steps that keep their logits, 64 kB each for `tiny` and 256 kB for a SAM. A click after going back
# further than this starts from the mask itself.
_MAX_LOGITS = 128


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One step of a dialogue.

    Attributes:
        prompt: All prompts up to this step.
        result: The masks that came out.
        mask: Logits that the next click corrects; None after a phrase alone or several objects,
            whose instances have logits of their own.
        instances: After those, the candidate behind each mask of `result`.
    """

    prompt: Prompt
    result: Segmentation
    mask: MaskLogits | None = None
    instances: tuple[Candidate, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Dialogue:
    """Steps of a dialogue about one photo.

    Attributes:
        photo: The photo.
        windows: The photo's cache of zoom windows, shared by dialogues about the same photo.
        steps: From the first to the last.
        undone: Steps that `redo` brings back, the next one last.
    """

    photo: EncodedPhoto
    windows: WindowCache = field(default_factory=WindowCache)
    steps: tuple[Step, ...] = ()
    undone: tuple[Step, ...] = ()

    @property
    def result(self) -> Segmentation:
        """The last step's masks; none without a step."""
        if self.steps:
            return self.steps[-1].result
        return Segmentation(self.photo.size, [], image=self.photo.origin)

    def cleared(self) -> Dialogue:
        """A dialogue about the same photo without any step."""
        return replace(self, steps=(), undone=())

    def begin(
        self, prompt: Prompt, result: Segmentation, answers: Sequence[PhraseAnswer]
    ) -> Dialogue:
        """Start again from a result and the answers behind it: the next click chooses a mask.

        The phrase of its prompt stays in the prompts of later clicks.
        """
        kept = tuple(item for answer in answers for item in answer.kept)
        return self.cleared()._with(Step(prompt=prompt, result=result, instances=kept))

    @in_float32
    def ask(self, prompt: Prompt, *, multimask: bool | None = None) -> Dialogue:
        """Start again from a prompt, original pixels.

        With `multimask` all three readings come out, highest predicted IoU first, instead of the
        one mask for unambiguous prompts; by default only for one point on its own.
        """
        if prompt.text is not None:
            self.photo.parts.require_text_prompts()
        self.windows.start_object()
        return self.cleared()._predicted(prompt, previous=None, multimask=multimask)

    @in_float32
    def ask_each(self, prompts: Sequence[Prompt], *, multimask: bool = False) -> Dialogue:
        """Start again from several objects, of which the next click chooses one.

        One mask of each, or its three readings, best predicted IoU first; also where it is empty.
        """
        phrase = prompts[0].text if prompts else None
        if phrase is not None:
            self.photo.parts.require_text_prompts()
        found = masks_of_prompts(self.photo, prompts, multimask=multimask)
        scores = None
        if phrase is not None and self.photo.parts.has_dense_text:
            # One at a time: masks of many boxes are not in memory together.
            probability = text_map(self.photo, phrase)
            scores = [
                score_masks(self.photo, decode_rle(rle)[None], probability)[0][1]
                if rle_area(rle)
                else math.nan
                for rle in found.rles
            ]
        result = Segmentation(
            self.photo.size,
            found.rles,
            scores=scores,
            iou=found.iou,
            stability=found.stability,
            labels=[phrase] * len(found.rles),
            image=self.photo.origin,
        )
        instances = tuple(
            Candidate(rle=rle, iou=iou, stability=stability, low_res=low_res)
            for rle, iou, stability, low_res in zip(
                found.rles, found.iou, found.stability, found.low_res, strict=True
            )
        )
        return self.cleared()._with(
            Step(prompt=Prompt(text=phrase), result=result, instances=instances)
        )

    @in_float32
    def click(self, x: float, y: float, *, foreground: bool = True) -> Dialogue:
        """Add a point: the last mask is corrected, phrase and box stay in the prompt.

        After a phrase the click chooses the instance under it, or else the nearest one, whose
        logits become the mask prompt (as in training, arXiv 2304.02643, Appendix A). If phrase and
        click alone give a mask that hardly overlaps that instance, the click starts a new object.

        Args:
            x: Original pixels.
            y: Original pixels.
            foreground: True on the object; False on pixels that the last mask covers by mistake.

        Raises:
            PromptError: A point outside the image, or a first click that is not foreground.
        """
        last = self.steps[-1] if self.steps else None
        before = Prompt() if last is None else last.prompt
        if before.is_empty and not foreground and (last is None or not last.instances):
            raise PromptError("the first click must be on the object: foreground=True")
        point = make_prompt(self.photo.size, points=[(x, y)], labels=[int(foreground)])
        prompt = replace(
            before,
            points=np.concatenate([before.points, point.points]),
            labels=np.concatenate([before.labels, point.labels]),
        )
        if last is None:
            return self._predicted(prompt, previous=None)
        if last.mask is None and last.instances:
            return self._chosen(last, prompt, x, y, foreground=foreground)
        previous = last.mask
        if previous is None and len(last.result):  # a step so long ago that its logits are gone
            previous = _from_mask(last.result.masks[0], self.photo)
        return self._predicted(prompt, previous=previous)

    def undo(self) -> Dialogue:
        """The dialogue before its last step; a `PromptError` if there is none."""
        if not self.steps:
            raise PromptError("there is nothing to undo: no click or segment came before")
        return replace(self, steps=self.steps[:-1], undone=(*self.undone, self.steps[-1]))

    def redo(self) -> Dialogue:
        """The dialogue with the step that was undone last; a `PromptError` if there is none."""
        if not self.undone:
            raise PromptError("there is nothing to redo: no undo came before")
        return replace(self, steps=(*self.steps, self.undone[-1]), undone=self.undone[:-1])

    def _predicted(
        self, prompt: Prompt, *, previous: MaskLogits | None, multimask: bool | None = None
    ) -> Dialogue:
        prediction = predict(self.photo, prompt, windows=self.windows, previous=previous)
        return self._with_prediction(prompt, prediction, previous=previous, multimask=multimask)

    def _chosen(
        self, last: Step, prompt: Prompt, x: float, y: float, *, foreground: bool
    ) -> Dialogue:
        """The first click after a phrase, which means one of its instances or something else."""
        masks = last.result.masks
        index = nearest_mask(masks, x, y)
        # A background click corrects an instance, wherever it lies.
        if foreground and not masks[index][int(y), int(x)]:
            fresh = predict(self.photo, prompt, windows=self.windows)
            share = self.photo.parts.text_settings.same_object
            if _overlap(fresh.masks[0].full_size() > 0, masks[index]) < share:
                return self._with_prediction(prompt, fresh, previous=None)
        low_res = last.instances[index].low_res
        if low_res is None:
            previous = _from_mask(masks[index], self.photo)
        else:
            grids = low_res.astype(np.float32)[None]
            previous = MaskLogits(frame=self.photo.frame, grids=grids)
        return self._predicted(prompt, previous=previous)

    def _with_prediction(
        self,
        prompt: Prompt,
        prediction: Prediction,
        *,
        previous: MaskLogits | None,
        multimask: bool | None = None,
    ) -> Dialogue:
        """Append the step that a prediction makes."""
        lone_point = len(prompt.points) == 1 and all(
            value is None for value in (prompt.text, prompt.box, prompt.mask, previous)
        )
        order = [0]
        if lone_point if multimask is None else multimask:
            order = [1 + int(i) for i in np.argsort(-prediction.iou[1:], kind="stable")]
        result = _segmentation(self.photo, prediction, order, phrase=prompt.text)
        mask = prediction.masks[order[0]].compact()
        return self._with(Step(prompt=prompt, result=result, mask=mask))

    def _with(self, step: Step) -> Dialogue:
        steps = (*self.steps, step)
        if len(steps) > _MAX_LOGITS:
            old = replace(steps[-1 - _MAX_LOGITS], mask=None)
            steps = (*steps[: -1 - _MAX_LOGITS], old, *steps[-_MAX_LOGITS:])
        return replace(self, steps=steps, undone=())


def _segmentation(
    photo: EncodedPhoto, prediction: Prediction, order: list[int], *, phrase: str | None
) -> Segmentation:
    """Masks of a prediction in the order given; empty ones are left out."""
    logits = np.stack([prediction.masks[k].full_size() for k in order])
    kept = [i for i, mask in enumerate(logits) if (mask > 0).any()]
    masks = logits[kept] > 0
    scores = None
    if phrase is not None and photo.parts.has_dense_text:
        scores = [score for _, score in score_masks(photo, masks, text_map(photo, phrase))]
    return Segmentation(
        photo.size,
        encode_masks(masks),
        scores=scores,
        iou=prediction.iou[order][kept],
        stability=stability_score(torch.from_numpy(logits[kept])).numpy(),
        labels=[phrase] * len(kept),
        image=photo.origin,
    )


def _from_mask(mask: NDArray[np.bool_], photo: EncodedPhoto) -> MaskLogits:
    """A mask (H, W) as logits on the decoder's grid."""
    grids = mask_to_low_res(mask, photo.frame, photo.parts.sam.config.mask_size)[0].numpy()
    return MaskLogits(frame=photo.frame, grids=grids)


def _overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Share of the smaller of two masks that the other one has, too."""
    smaller = min(int(a.sum()), int(b.sum()))
    # An empty mask is no sign of another object.
    return int((a & b).sum()) / smaller if smaller else 1.0
