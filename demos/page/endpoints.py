"""Endpoints for programs: Gradio's Python client, curl, and agents over MCP.

They take a photo and return the library's own JSON; nothing is kept between two calls but the
encoding of the photo, so asking the same photo again is quick.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from textsam.errors import PromptError

from ..explorer.photos import EncodedPhotos, read_photo
from ..explorer.phrases import read_phrases
from .messages import told

__all__ = ["add_endpoints"]


def add_endpoints(photos: EncodedPhotos) -> None:
    """Add `/segment`, `/everything`, `/explain` and `/overlay` to the app that is being built."""
    ask = _Endpoints(photos)
    with gr.Column(visible=False):
        photo = gr.File(label="photo", file_types=["image"], type="filepath")
        text = gr.Textbox(label="text")
        exclude = gr.Textbox(label="exclude")
        points = gr.JSON(label="points")
        box = gr.JSON(label="box")
        strategy = gr.Radio(["auto", "prompt", "rank"], value="auto", label="strategy")
        threshold = gr.Number(label="threshold", value=0, minimum=0, maximum=1)
        overlap = gr.Radio(["allow", "exclusive"], value="allow", label="overlap")
        answer = gr.JSON(label="answer")
        picture = gr.File(label="picture", type="filepath")
        button = gr.Button()
    how = [strategy, threshold, overlap]
    _add(button, ask.segment, [photo, text, exclude, points, box, *how], answer, "segment")
    _add(button, ask.overlay, [photo, text, exclude, *how], picture, "overlay")
    _add(button, ask.explain, [photo, text, exclude, *how], answer, "explain")
    _add(button, ask.everything, [photo], answer, "everything")


def _add(button: gr.Button, fn: Callable[..., Any], inputs: list[Any], out: Any, name: str) -> None:
    button.click(
        _with_plain_errors(fn),
        inputs=inputs,
        outputs=out,
        api_name=name,
        api_description=fn.__doc__,
        concurrency_id="api",
        concurrency_limit=2,
    )


def _with_plain_errors(fn: Callable[..., Any]) -> Callable[..., Any]:
    """What a program reads of an error is what a user would."""

    @wraps(fn)
    def asked(*arguments: Any) -> Any:
        try:
            return fn(*arguments)
        except Exception as error:
            raise gr.Error(told(error), print_exception=False) from None

    return asked


class _Endpoints:
    """The functions behind the endpoints; their docstrings are what agents read."""

    def __init__(self, photos: EncodedPhotos) -> None:
        self.photos = photos

    def segment(
        self,
        photo: str,
        text: str | None = None,
        exclude: str | None = None,
        points: list[list[float]] | None = None,
        box: list[float] | None = None,
        strategy: str = "auto",
        threshold: float = 0,
        overlap: str = "allow",
    ) -> dict[str, Any]:
        """Find things in a photo by phrases, clicks or a box; masks come back as COCO RLE.

        Args:
            photo: The photo.
            text: Phrases between commas, such as "wheel, window". Leave empty with points or box.
            exclude: Phrases that are not meant, between commas.
            points: Clicks [x, y] or [x, y, 1 or 0] in pixels of the photo; 0: not on the object.
            box: [x0, y0, x1, y1] around one object, pixels of the photo.
            strategy: "auto": every instance; "prompt": one object; "rank": ranked automatic masks.
            threshold: Least probability of a phrase and of a mask, 0 to 1; 0: the model's own.
            overlap: "allow", or "exclusive": a pixel belongs to at most one mask.
        """
        view = self._open(photo)
        if not points and not box:
            result = view.segment(**self._asked(text, exclude, strategy, threshold, overlap))
        else:
            phrases = read_phrases(text)[0] if text else None
            result = view.segment(
                text=phrases,
                points=[point[:2] for point in points] if points else None,
                labels=[int(point[2]) if len(point) > 2 else 1 for point in points]
                if points
                else None,
                box=box,
            )
        return result.to_dict()

    def overlay(
        self,
        photo: str,
        text: str,
        exclude: str | None = None,
        strategy: str = "auto",
        threshold: float = 0,
        overlap: str = "allow",
    ) -> str:
        """Find things in a photo by phrases; a picture of the photo with their masks comes back.

        Args:
            photo: The photo.
            text: Phrases between commas, such as "wheel, window".
            exclude: Phrases that are not meant, between commas.
            strategy: "auto": every instance; "prompt": one object; "rank": ranked automatic masks.
            threshold: Least probability of a phrase and of a mask, 0 to 1; 0: the model's own.
            overlap: "allow", or "exclusive": a pixel belongs to at most one mask.
        """
        asked = self._asked(text, exclude, strategy, threshold, overlap)
        result = self._open(photo).segment(**asked)
        folder = Path(photo).parent
        return str(result.save(folder / f"{Path(photo).stem}_overlay.png"))

    def explain(
        self,
        photo: str,
        text: str,
        exclude: str | None = None,
        strategy: str = "auto",
        threshold: float = 0,
        overlap: str = "allow",
    ) -> dict[str, Any]:
        """Tell why phrases find these masks in a photo, or none: which gate closed, by how much.

        Args:
            photo: The photo.
            text: Phrases between commas, such as "wheel, window".
            exclude: Phrases that are not meant, between commas.
            strategy: "auto": every instance; "prompt": one object; "rank": ranked automatic masks.
            threshold: Least probability of a phrase and of a mask, 0 to 1; 0: the model's own.
            overlap: "allow", or "exclusive": a pixel belongs to at most one mask.
        """
        asked = self._asked(text, exclude, strategy, threshold, overlap)
        reasons = self._open(photo).explain(**asked)
        return {"text": str(reasons), **reasons.to_dict()}

    def everything(self, photo: str) -> dict[str, Any]:
        """Find everything in a photo without being told what; masks come back as COCO RLE.

        Args:
            photo: The photo.
        """
        return self._open(photo).everything().to_dict()

    def _open(self, photo: str | None) -> Any:
        if not photo:
            raise PromptError("Give a photo: a file, or its address")
        found = read_photo(Path(photo))
        if found.size != found.original_size:
            height, width = found.original_size
            raise PromptError(
                f"the photo has {width} x {height} pixels; over HTTP give one of at most "
                f"{max(found.size)} on its longer side, so that coordinates mean one thing"
            )
        return self.photos.open(found)

    @staticmethod
    def _asked(
        text: str | None, exclude: str | None, strategy: str, threshold: float, overlap: str
    ) -> dict[str, Any]:
        wanted, unwanted = read_phrases(text, exclude)
        return {
            "text": wanted,
            "exclude": unwanted or None,
            "strategy": strategy,
            "threshold": threshold or None,
            "overlap": overlap,
        }
