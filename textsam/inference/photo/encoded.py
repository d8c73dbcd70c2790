"""A photo as a model has encoded it, and the decoder's raw answers about it.

What `ImageView` is made of: no dialogue, no strategies, no automatic masks; the frames, the
encoding, and the window that a model which looks closer (`TextSAM.focus`) encoded last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.errors import PromptError
from textsam.inference.photo import phrase_map as language
from textsam.inference.photo.postprocess import to_original_frame
from textsam.inference.photo.prediction import Prediction
from textsam.inference.photo.prompt_batch import prompt_batch
from textsam.inference.photo.windows import Window
from textsam.inference.photo.zoom import predict_closer
from textsam.modeling.image_encoder import ImageFeatures
from textsam.modeling.prompt_encoder import PromptBatch
from textsam.values.geometry import Frame
from textsam.values.prompts import ArrayLike, Prompt, make_prompt
from textsam.values.resizing import resize_image
from textsam.values.settings import FocusSettings

if TYPE_CHECKING:
    from textsam.inference.model import TextSAM

__all__ = ["EncodedPhoto"]


class EncodedPhoto:
    """A photo, its encoding, and the decoder to ask about it.

    Attributes:
        model: The model that encoded it.
        image: (H, W, 3) uint8 RGB.
        frame: The original and the model frame.
        features: The image encoder's output.
        focus: How closely to look at small things; the model's settings, None to never.
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
        self._text_features: Tensor | None = None
        self._close_up: tuple[Window, EncodedPhoto] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the photo."""
        return self.frame.size

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
            PromptError: As `ImageView.segment`; or `reading` is not 0 to 3.
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
        logits = language.dense_logits(self, [phrase])
        frame = language.dense_frame(self)
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
            self._text_features = language.encode_dense(self)
        return self._text_features

    def close_up(self, window: Window, *, reuse: float) -> tuple[Window, EncodedPhoto]:
        """The encoded window, or the last one if it shows the same as closely."""
        if self._close_up is None or not self._close_up[0].serves(window, reuse=reuse):
            cut = self.image[window.y0 : window.y1, window.x0 : window.x1]
            self._close_up = (window, EncodedPhoto(self.model, np.ascontiguousarray(cut)))
        return self._close_up

    @torch.no_grad()
    def decode_prompt(self, prompt: Prompt, low_res: NDArray[np.float32] | None) -> Prediction:
        """Decode one prompt on the whole photo, with logits (m, m) of an earlier answer or not."""
        logits, iou = self.decode(prompt_batch(self, prompt, low_res))
        return Prediction(
            logits=to_original_frame(logits[0], self.frame).numpy(),
            iou=iou[0].numpy(),
            low_res=logits[0].numpy(),
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

    @torch.no_grad()
    def _encode(self) -> ImageFeatures:
        resized = resize_image(self.image, self.frame.resized)
        tensor = torch.from_numpy(resized).permute(2, 0, 1).to(self.model.device)
        return self.model.sam.encode_image(self.model.sam.preprocess([tensor]))
