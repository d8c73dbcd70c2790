"""Endpoints for programs: Gradio's Python client, curl, and agents over MCP.

They take a photo and return the library's own JSON. Only the encoding of the photo is kept between
calls, so further questions about the same photo are fast.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import gradio as gr

from textsam.errors import PromptError
from textsam.values.settings import Overlap, Strategy

from ..explorer.explorer import phrase_query, read_phrases
from ..explorer.photo_cache import PhotoCache, read_photo
from .sessions import error_message

if TYPE_CHECKING:
    from textsam.inference.view import ImageView


def add_endpoints(photos: PhotoCache) -> None:
    """Add `/segment`, `/everything`, `/explain` and `/overlay` to the app that is being built."""
    functions = _EndpointFunctions(photos)
    # Gradio takes names and types of the parameters from components; nobody sees these.
    with gr.Column(visible=False):
        photo = gr.File(label="photo", file_types=["image"], type="filepath")
        text = gr.Textbox(label="text")
        exclude = gr.Textbox(label="exclude")
        points = gr.JSON(label="points")
        box = gr.JSON(label="box")
        strategy = gr.Radio([*get_args(Strategy)], value="auto", label="strategy")
        threshold = gr.Number(label="threshold", value=0, minimum=0, maximum=1)
        overlap = gr.Radio([*get_args(Overlap)], value="allow", label="overlap")
        answer = gr.JSON(label="answer")
        picture = gr.File(label="picture", type="filepath")
        button = gr.Button()
    options = [strategy, threshold, overlap]
    for function, inputs, output in (
        (functions.segment, [photo, text, exclude, points, box, *options], answer),
        (functions.overlay, [photo, text, exclude, *options], picture),
        (functions.explain, [photo, text, exclude, *options], answer),
        (functions.everything, [photo], answer),
    ):
        endpoint = _make_endpoint(function)
        button.click(
            endpoint,
            inputs=inputs,
            outputs=output,
            api_name=endpoint.__name__,
            api_description=endpoint.__doc__,
            concurrency_id="api",
            concurrency_limit=2,
        )


# What agents read of the parameters.
_PARAMETERS = {
    "photo": "The photo.",
    "text": 'Phrases separated by commas: "wheel, window".',
    "exclude": "Phrases to exclude, separated by commas.",
    "points": "Clicks [x, y] or [x, y, 1 or 0] in pixels of the photo; 0: not on the object.",
    "box": "[x0, y0, x1, y1] around one object, in pixels of the photo; or a list of them: one "
    "mask for each.",
    "strategy": '"auto": every instance; "prompt": one object; "detect": boxes of a '
    'detector; "concept": instances of SAM 3; "rank": ranked automatic masks.',
    "threshold": "Minimum probability of a phrase and of a mask, 0 to 1; 0: the calibrated levels.",
    "overlap": '"allow", or "exclusive": a pixel belongs to at most one mask.',
}


def _make_endpoint(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the descriptions of the parameters, and give programs the messages that users get."""

    @wraps(function)
    def endpoint(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            raise gr.Error(error_message(error), print_exception=False) from None

    # Gradio reads the descriptions from the docstring, in this layout.
    lines = [f"    {name}: {_PARAMETERS[name]}" for name in signature(function).parameters]
    endpoint.__doc__ = "\n".join([f"{function.__doc__}\n", "Args:", *lines])
    return endpoint


class _EndpointFunctions:
    """The functions behind the endpoints; agents read their docstrings and parameter names."""

    def __init__(self, photos: PhotoCache) -> None:
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
        """Find objects in a photo by phrases, clicks or a box; masks are returned as COCO RLE."""
        view = self._open(photo)
        if not points and not box:
            query = phrase_query(text, exclude, strategy, threshold, overlap)
            return view.segment(**query).to_dict()
        points = points or []
        result = view.segment(
            text=read_phrases(text)[0] if text else None,
            points=[point[:2] for point in points] or None,
            labels=[int(point[2]) if len(point) > 2 else 1 for point in points] or None,
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
        """Find objects in a photo by phrases; returns a picture of the photo with their masks."""
        query = phrase_query(text, exclude, strategy, threshold, overlap)
        result = self._open(photo).segment(**query)
        path = Path(photo)
        return str(result.save(path.with_name(f"{path.stem}_overlay.png")))

    def explain(
        self,
        photo: str,
        text: str,
        exclude: str | None = None,
        strategy: str = "auto",
        threshold: float = 0,
        overlap: str = "allow",
    ) -> dict[str, Any]:
        """Explain why phrases find these masks in a photo, or none: which gate rejected them."""
        query = phrase_query(text, exclude, strategy, threshold, overlap)
        why = self._open(photo).explain(**query)
        return {"text": str(why), **why.to_dict()}

    def everything(self, photo: str) -> dict[str, Any]:
        """Segment everything in a photo, without a prompt; masks are returned as COCO RLE."""
        return self._open(photo).everything().to_dict()

    def _open(self, path: str | None) -> ImageView:
        if not path:
            raise PromptError("Give a photo: a file, or its address")
        photo = read_photo(Path(path))
        if photo.size != photo.original_size:
            # A page shows the scaled photo; a program would get masks of a size it does not know.
            height, width = photo.original_size
            raise PromptError(
                f"the photo has {width} x {height} pixels; over HTTP, give one with at most "
                f"{max(photo.size)} pixels on the longer side, so that coordinates are unambiguous"
            )
        return self.photos.open(photo)
