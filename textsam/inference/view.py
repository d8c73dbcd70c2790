"""An open photo, for any number of phrases, points, boxes and masks.

The photo is encoded once, when it is opened; each query costs runs of the decoder. A model that
zooms in (`FocusSettings`) encodes a window around a small object as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, Unpack

import numpy as np
from numpy.typing import NDArray

from textsam.errors import PromptError
from textsam.inference.automatic.generator import automatic_masks
from textsam.inference.dialogue import Dialogue, Step
from textsam.inference.photo.encoded import EncodedPhoto, text_map
from textsam.inference.photo.prediction import Prediction
from textsam.inference.photo.sam_embedding import Latents
from textsam.inference.photo.zoom import WindowCache, predict
from textsam.inference.strategies.answering import answer_query, compete, to_segmentation
from textsam.inference.strategies.naming import check_names, name_maps, name_masks
from textsam.inference.strategies.query import (
    PhraseOptions,
    Query,
    QueryOptions,
    SegmentOptions,
    make_query,
    show_keywords,
)
from textsam.inference.strategies.rank import EmbeddedMasks, embed_masks
from textsam.inference.strategies.semantic import label_pixels
from textsam.inference.strategies.similar import LEVEL, MaskLike, similar_masks
from textsam.modeling.precision import in_float32
from textsam.results.explanation import Explanation, explain_fully
from textsam.results.label_map import LabelMap
from textsam.results.segmentation import Segmentation
from textsam.values.geometry import Frame
from textsam.values.judge import PhraseAnswer, Threshold
from textsam.values.prompts import ArrayLike, Prompt, make_prompt
from textsam.values.settings import AutomaticSettings, Preset, Strategy

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
        self._embedded: tuple[Segmentation, EmbeddedMasks] | None = None
        self.dialogue = Dialogue(photo=self.photo, windows=self.windows)

    def fork(self) -> ImageView:
        """Another view of the same encoded photo, with a dialogue and caches of its own."""
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

    @show_keywords(QueryOptions)
    def segment(
        self, text: str | Sequence[str] | None = None, **options: Unpack[SegmentOptions]
    ) -> Segmentation:
        """Segment by phrases, points, a box, a mask, or examples; original pixels everywhere.

        A phrase alone gives every instance, maybe none, and so do examples (`like`). Points, a box
        or a mask, with or without a phrase, mean ONE object. Several boxes or sets of points mean
        one object each: they give the masks that they have one by one, in order, empty ones too.

        Args:
            text: A phrase or several.
            **options: `exclude`, `background`, `points`, `labels`, `box`, `boxes`, `mask`,
                `like`, `strategy`, `threshold`, `overlap`, `multimask`: see `SegmentOptions`,
                `ObjectOptions` and `PhraseOptions` in `textsam.inference.strategies.query`.

        Returns:
            Masks with scores, predicted IoU, stability and labels; `explain()` tells why these.

        Raises:
            UnknownKeywordError: The message names the nearest keyword.
            PromptError: An empty phrase, a point outside the photo, a NaN, an empty box, several
                phrases with a box, or another query that is invalid.
            WeightsError: The model cannot be asked that way, for example by phrases without a CLIP.
        """
        return self.ask(make_query(text=text, **options))

    __call__ = segment

    @in_float32
    def ask(self, query: Query) -> Segmentation:
        """As `segment`, for a query that has been made before: one for many photos."""
        if query.is_several_objects:
            prompts = query.prompts(self.size)
            self.dialogue = self.dialogue.ask_each(prompts, multimask=bool(query.multimask))
            return self.dialogue.result
        if query.is_placed:
            prompt = query.prompt(self.size)
            self.dialogue = self.dialogue.ask(prompt, multimask=query.multimask)
            return self.dialogue.result
        # First, so that a query that fails leaves no dialogue about another one.
        self.dialogue = self.dialogue.cleared()
        answers = compete(self.answers(query), query.overlap)
        result = to_segmentation(self.photo.origin, answers)
        if query.like is not None:
            self.dialogue = self.dialogue.begin(Prompt(), result, answers)
        elif len(query.phrases) == 1:  # a click may follow and keeps the phrase
            self.dialogue = self.dialogue.begin(query.prompt(self.size), result, answers)
        return result

    @in_float32
    def answers(self, query: Query) -> list[PhraseAnswer]:
        """An answer per phrase, before masks compete for pixels; not for one object."""
        return answer_query(self.photo, query, windows=self.windows, embedded=self._embedded_masks)

    @in_float32
    @show_keywords(PhraseOptions)
    def explain(self, text: str | Sequence[str], **options: Unpack[PhraseOptions]) -> Explanation:
        """Why `segment(text=...)` gives these masks, or none; a click may follow as after it.

        More than `Segmentation.explain`: a phrase that is dropped before masks are searched for is
        segmented again with a low threshold, to show the masks behind it.

        Args:
            text: Phrases.
            **options: `exclude`, `background`, `strategy`, `threshold`, `overlap`: see
                `PhraseOptions` in `textsam.inference.strategies.query`.
        """
        query = make_query(text=text, **options)
        result = self.ask(query)
        dialogue = self.dialogue  # of the query as it is, not of the second one below
        explanation = explain_fully(
            result.answers,
            lambda changes: self.ask(query.changed(**changes)).answers,
            image=self.photo.origin,
        )
        self.dialogue = dialogue
        return explanation

    @in_float32
    def everything(
        self,
        settings: AutomaticSettings | Preset | None = None,
        *,
        names: str | Sequence[str] | None = None,
        threshold: Threshold = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Segmentation:
        """Masks of everything, from a grid of points (Appendix B); made once per settings.

        Args:
            settings: `AutomaticSettings`, or "paper", "released-code" or "fast" (the default: few
                points, levels that suit small models, and a second look at each mask).
            names: Phrases that compete for each mask, by masked CLIP and by their maps. A mask gets
                the one that fits it best, with a score, or none.
            threshold: Minimum probability of a name, for all or by name: `{"wheel": 0.3}`; by
                default the levels of the model's calibration.
            progress: Called with (points done, points in all).

        Returns:
            Masks with predicted IoU and stability; with `names` also labels and scores, None and
            NaN where no name fits, and without masks that are empty.

        Raises:
            PromptError: An unknown preset, or an empty name.
            WeightsError: Names for a model without a CLIP.
        """
        query = check_names(self.photo.parts, names, threshold)
        if query is not None:
            masks = self.everything(settings, progress=progress)
            embedded, maps = self._embedded_masks(masks), name_maps(self.photo, query)
            return name_masks(self.photo.parts, embedded, query, maps)
        wanted = AutomaticSettings.from_preset(settings)
        if wanted not in self._automatic:
            masks = automatic_masks(self.photo, settings=wanted, progress=progress)
            self._automatic[wanted] = masks
        return self._automatic[wanted]

    @in_float32
    def similar(
        self,
        mask: MaskLike,
        *,
        threshold: float = LEVEL,
        latents: Latents = "photo",
        settings: AutomaticSettings | Preset | None = None,
    ) -> Segmentation:
        """Masks of everything in this photo that look like one mask, the most similar first.

        By the SAM's latents (Appendix D.6, Figure 17), which hold looks and not names. A low
        threshold gives objects of the same kind, a high one near copies.

        Args:
            mask: `segmentation[0]`, an RLE or (H, W) bool, of this photo.
            threshold: Minimum cosine. How high cosines are depends on the model; look at
                `similarity`.
            latents: "photo", from the encoding of the photo; "crops", as in the paper, from a crop
                and its mirror image for each mask.
            settings: Of the masks of everything: see `everything`.

        Returns:
            Masks whose `similarity` is their cosine with the mask, the mask itself (if it is among
            the masks of everything) first; without labels and scores.

        Raises:
            PromptError: An empty mask or one of another photo's size, or an invalid option.
        """
        return similar_masks(
            self.photo,
            mask,
            among=lambda: self.everything(settings),
            threshold=threshold,
            latents=latents,
        )

    @in_float32
    def label_map(
        self,
        phrases: str | list[str],
        *,
        background: str | list[str] | None = None,
        threshold: Threshold = None,
    ) -> LabelMap:
        """Give each pixel the phrase that describes it best, or none.

        Args:
            phrases: The map numbers them from 1.
            background: Phrases that compete for pixels and leave them unlabelled ("wall", "sky").
            threshold: Minimum presence of a phrase, in (0, 1), for all or by phrase; the
                calibration's level by default.

        Raises:
            PromptError: As `segment`.
            WeightsError: The model takes no phrases.
        """
        return label_pixels(
            self.photo,
            phrases,
            background=background,
            threshold=threshold,
            windows=self.windows,
            embedded=self._embedded_masks,
        )

    @in_float32
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
        """Run the decoder on one prompt and return its whole output.

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
        if text is not None:
            self.photo.parts.require_text_prompts()
        last = None if previous is None else previous.masks[reading]
        if last is None:
            self.windows.start_object()
        return predict(self.photo, prompt, windows=self.windows, previous=last)

    @in_float32
    def text_map(self, phrase: str) -> NDArray[np.float32]:
        """Probability of a phrase at each pixel, (H, W) float32; a `WeightsError` without maps."""
        return text_map(self.photo, phrase)

    @in_float32
    def click(self, x: float, y: float, *, foreground: bool = True) -> Segmentation:
        """Add a point to the dialogue: the last mask is corrected; see `Dialogue.click`.

        Args:
            x: Original pixels.
            y: Original pixels.
            foreground: True on the object; False on pixels that the mask covers by mistake.

        Returns:
            The corrected object, one mask (or none, if nothing is left of it).

        Raises:
            PromptError: A point outside the image, or a first click that is not foreground.
        """
        self.dialogue = self.dialogue.click(x, y, foreground=foreground)
        return self.dialogue.result

    def undo(self) -> Segmentation:
        """Undo the last step of the dialogue; a `PromptError` if there is none."""
        self.dialogue = self.dialogue.undo()
        return self.dialogue.result

    def redo(self) -> Segmentation:
        """Redo the step that was undone last; a `PromptError` if there is none."""
        self.dialogue = self.dialogue.redo()
        return self.dialogue.result

    def _embedded_masks(self, masks: Segmentation | None = None) -> EmbeddedMasks:
        """Automatic masks with embeddings; those of the last masks are kept."""
        masks = self.everything() if masks is None else masks
        if self._embedded is None or self._embedded[0] is not masks:
            self._embedded = masks, embed_masks(self.photo, masks)
        return self._embedded[1]
