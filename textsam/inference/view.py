"""One encoded photo: ask it with phrases, points, boxes and masks, as often as you like.

Encoding happens once, when the view is opened; each question costs one run of the decoder. A model
that looks closer (`TextSAM.focus`) encodes a window around a small thing as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.errors import PromptError
from textsam.geometry import Frame
from textsam.images import resize_image
from textsam.inference import text as text_inference
from textsam.inference.closer import predict_closer
from textsam.inference.focus import FocusSettings, Window
from textsam.inference.postprocess import mask_to_low_res, stability_score, to_original_frame
from textsam.inference.prediction import Prediction
from textsam.modeling.features import ImageFeatures
from textsam.modeling.prompt_encoder import BOX_END, BOX_START, NOT_A_POINT, PromptBatch
from textsam.prompts import ArrayLike, Prompt, make_prompt, normalize_phrases
from textsam.rle import encode_masks
from textsam.segmentation import Segmentation

if TYPE_CHECKING:
    from textsam.inference.model import TextSAM

__all__ = ["ImageView", "Prediction", "Step", "Strategy"]

Strategy = Literal["auto", "prompt"]
STRATEGIES: tuple[Strategy, ...] = ("auto", "prompt")


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One step of a dialogue: what was asked, what the decoder said, which mask it goes on from.

    Attributes:
        prompt: Everything asked so far.
        prediction: None after a phrase alone, whose instances have a prompt each.
        reading: Index of the mask in `prediction`.
        result: What came out.
    """

    prompt: Prompt
    prediction: Prediction | None
    reading: int
    result: Segmentation


class ImageView:
    """A photo that a model has encoded; made by `TextSAM.open`.

    Attributes:
        model: The model that encoded it.
        image: (H, W, 3) uint8 RGB.
        frame: The original and the model frame.
        features: The image encoder's output.
        focus: How closely to look at small things; the model's settings, None to never.
        history: The dialogue since the last `segment` of one object; `click` and `undo` extend it.
    """

    def __init__(
        self, model: TextSAM, image: NDArray[np.uint8], *, focus: FocusSettings | None = None
    ) -> None:
        self.model = model
        self.image = image
        self.focus = focus
        height, width = image.shape[:2]
        self.frame = Frame(height=height, width=width, image_size=model.sam.config.image_size)
        self.features: ImageFeatures = self._encode()
        self.history: tuple[Step, ...] = ()
        self._text_features: Tensor | None = None
        self._close_up: tuple[Window, ImageView] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Forget the dialogue and the last window; the features go with the view itself."""
        self.history = ()
        self._close_up = None

    def __repr__(self) -> str:
        height, width = self.size
        return f"ImageView({height} x {width} pixels, {self.model!r})"

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the photo."""
        return self.frame.size

    def segment(
        self,
        *,
        text: str | list[str] | None = None,
        points: ArrayLike | None = None,
        labels: ArrayLike | int | None = None,
        box: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        strategy: Strategy = "auto",
        threshold: float | None = None,
        multimask: bool | None = None,
    ) -> Segmentation:
        """Segment what the prompts name; all coordinates are original pixels.

        A phrase alone gives every instance that `strategy` finds, maybe none. With points, a box or
        a mask beside it (or instead of it), the prompts mean ONE object.

        Args:
            text: A phrase, or several (then without other prompts).
            points: (N, 2) x, y.
            labels: (N,) 1 on the object, 0 beside it; all 1 by default.
            box: x0, y0, x1, y1.
            mask: (H, W) bool or logits, a rough mask to start from.
            strategy: "auto": a map of the phrase proposes points, each gives an instance;
                "prompt": the paper's way, one object, its three readings (Section 7.5).
            threshold: For "auto": probability from which a place counts as the phrase, in (0, 1).
                By default the model's own two: a lower one for a place, a higher one that an
                instance must reach somewhere.
            multimask: Give all three readings of an ambiguous prompt, best predicted IoU first. By
                default only for one point on its own; the first of them is the best guess.

        Returns:
            Masks with scores, predicted IoU, stability and labels.

        Raises:
            PromptError: For prompts that cannot be meant: an empty phrase, a point outside the
                image, a NaN, an empty box, several phrases with a box.
            WeightsError: For a phrase when the model has no text pathway.
        """
        if strategy not in STRATEGIES:
            raise PromptError(f"strategy is {strategy!r}; it can be {' or '.join(STRATEGIES)}")
        by_hand = any(value is not None for value in (points, box, mask))
        if text is None or by_hand:
            phrase = None if text is None else _one_phrase(text)
            prompt = make_prompt(
                self.size, text=phrase, points=points, labels=labels, box=box, mask=mask
            )
            return self._segment_object(prompt, multimask=multimask)
        if labels is not None:
            raise PromptError("labels come with points; give points=[(x, y), ...] too")
        phrases = normalize_phrases(text)
        self.history = ()
        result = text_inference.segment_phrases(
            self, phrases, strategy=strategy, threshold=threshold
        )
        if len(phrases) == 1:  # a click may follow and keeps the phrase
            prompt = make_prompt(self.size, text=phrases[0])
            self.history = (Step(prompt=prompt, prediction=None, reading=0, result=result),)
        return result

    def click(self, x: float, y: float, *, foreground: bool = True) -> Segmentation:
        """Add a point to the dialogue: the last mask is corrected, the phrase and box stay.

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
        if before.is_empty and not foreground:
            raise PromptError("the first click must be on the object: foreground=True")
        new = make_prompt(self.size, points=[(x, y)], labels=[int(foreground)])
        prompt = replace(
            before,
            points=np.concatenate([before.points, new.points]),
            labels=np.concatenate([before.labels, new.labels]),
        )
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
        return self._predict(prompt, previous=previous, reading=reading)

    def text_map(self, phrase: str) -> NDArray[np.float32]:
        """Probability of a phrase at each pixel, (H, W) float32.

        Raises:
            WeightsError: If the model's pathway has no dense head.
        """
        logits = text_inference.dense_logits(self, [phrase])
        frame = text_inference.dense_frame(self)
        return to_original_frame(logits, frame)[0].sigmoid().numpy()

    @torch.no_grad()
    def decode(self, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        """Decode prompts in the model frame: logits (P, 4, m, m) and IoU (P, 4), on the CPU."""
        prediction = self.model.sam.decode(self.features, prompts)
        return prediction.logits.float().cpu(), prediction.iou.float().cpu()

    @torch.no_grad()
    def text_features(self) -> Tensor:
        """Text-aligned features (1, D, h8, w8) of the photo, computed at the first phrase."""
        if self._text_features is None:
            self._text_features = text_inference.encode_dense(self)
        return self._text_features

    @torch.no_grad()
    def _encode(self) -> ImageFeatures:
        resized = resize_image(self.image, self.frame.resized)
        tensor = torch.from_numpy(resized).permute(2, 0, 1).to(self.model.device)
        return self.model.sam.encode_image(self.model.sam.preprocess([tensor]))

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
            probability = self.text_map(phrase)
            scores = [float(probability[mask].mean()) for mask in masks]
        return Segmentation(
            self.size,
            encode_masks(masks),
            scores=scores,
            iou=prediction.iou[order][kept],
            stability=stability_score(torch.from_numpy(logits[kept])).numpy(),
            labels=[phrase] * len(kept),
            image=self.image,
        )

    def _predict(
        self, prompt: Prompt, *, previous: Prediction | None, reading: int = 0
    ) -> Prediction:
        """Decode on the whole photo, or on a window around the thing where that shows more."""
        if self.focus is not None:
            return predict_closer(
                self, prompt, settings=self.focus, previous=previous, reading=reading
            )
        return self.decode_prompt(prompt, None if previous is None else previous.low_res[reading])

    def close_up(self, window: Window, *, reuse: float) -> tuple[Window, ImageView]:
        """The encoded window, or the last one if it shows the same as closely."""
        if self._close_up is None or not self._close_up[0].serves(window, reuse=reuse):
            cut = self.image[window.y0 : window.y1, window.x0 : window.x1]
            self._close_up = (window, ImageView(self.model, np.ascontiguousarray(cut)))
        return self._close_up

    @torch.no_grad()
    def decode_prompt(self, prompt: Prompt, low_res: NDArray[np.float32] | None) -> Prediction:
        """Decode one prompt on the whole photo, with logits (m, m) of an earlier answer or not."""
        batch = self._to_batch(prompt, low_res)
        logits, iou = self.decode(batch)
        return Prediction(
            logits=to_original_frame(logits[0], self.frame).numpy(),
            iou=iou[0].numpy(),
            low_res=logits[0].numpy(),
        )

    def _to_batch(self, prompt: Prompt, low_res: NDArray[np.float32] | None) -> PromptBatch:
        """One prompt in the model frame; without a box it ends in `not_a_point` (code)."""
        device = self.model.device
        points = self.frame.points_to_model(prompt.points)
        labels = prompt.labels
        if prompt.box is None:
            points = np.concatenate([points, np.zeros((1, 2), np.float32)])
            labels = np.append(labels, NOT_A_POINT)
        else:
            corners = self.frame.boxes_to_model(prompt.box).reshape(2, 2)
            points = np.concatenate([points, corners])
            labels = np.concatenate([labels, [BOX_START, BOX_END]])
        size = self.model.sam.config.mask_size
        masks: Tensor | None = None
        if prompt.mask is not None and low_res is None:
            masks = mask_to_low_res(prompt.mask, self.frame, size)
        elif low_res is not None:
            masks = torch.from_numpy(np.array(low_res, dtype=np.float32))[None, None]
        tokens: Tensor | None = None
        if prompt.text is not None:
            tokens = text_inference.phrase_tokens(self.model, [prompt.text])
            if masks is None and self.model.has_dense_text:
                masks = text_inference.dense_prompt(self, [prompt.text])
        return PromptBatch(
            points=torch.as_tensor(points, dtype=torch.float32, device=device)[None],
            labels=torch.as_tensor(labels, dtype=torch.int64, device=device)[None],
            image_index=torch.zeros(1, dtype=torch.int64, device=device),
            masks=None if masks is None else masks.to(device),
            tokens=tokens,
        )


def _one_phrase(text: str | list[str]) -> str:
    phrases = normalize_phrases(text)
    if len(phrases) > 1:
        raise PromptError(
            f"{len(phrases)} phrases with points, a box or a mask, which mean one object; "
            "give one phrase, or the phrases alone"
        )
    return phrases[0]
