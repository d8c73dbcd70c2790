"""The canvas and the list beside it: `gr.HTML` components of our own, without a build step.

Their HTML, CSS and JavaScript lie in `canvas/`. The value of both is a scene (`scene.py`), a JSON
object that only the server writes; what the user does comes back as data of the events `open` (a
photo) and `act` (everything else).
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from .scene import empty_scene

__all__ = ["Canvas", "ThingList"]

_FOLDER = Path(__file__).resolve().parent / "canvas"
_CANVAS_SCRIPTS = ("masks.js", "drawing.js", "pointer.js", "keyboard.js", "main.js")
_THUMB = (256, 192)  # pixels, twice what is shown, for fine screens


class Canvas(gr.HTML):
    """The photo with its masks, to click, drag, zoom and type on."""

    def __init__(self, examples: Sequence[Path] = (), **options: Any) -> None:
        """Make a canvas.

        Args:
            examples: Photos that are offered before one is open.
            **options: Of every Gradio component.
        """
        options.setdefault("value", empty_scene())
        super().__init__(
            html_template=_read("canvas.html").replace("@@EXAMPLES@@", _thumbnails(examples)),
            css_template=_read("canvas.css"),
            js_on_load="\n".join(map(_read, _CANVAS_SCRIPTS)),
            apply_default_css=False,
            **options,
        )

    def api_info(self) -> dict[str, Any]:
        """The value's JSON schema."""
        return {"type": "object", "description": "A scene: a photo and the things on it"}


class ThingList(gr.HTML):
    """The things on the photo, to show, rename, choose and delete."""

    def __init__(self, **options: Any) -> None:
        """Make a list; options are those of every Gradio component."""
        options.setdefault("value", empty_scene())
        super().__init__(
            html_template=_read("list.html"),
            css_template=_read("list.css"),
            js_on_load=_read("list.js"),
            apply_default_css=False,
            **options,
        )

    def api_info(self) -> dict[str, Any]:
        """The value's JSON schema."""
        return {"type": "object", "description": "A scene: a photo and the things on it"}


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _thumbnails(examples: Sequence[Path]) -> str:
    """Buttons with small pictures inside the page, so that no address is needed for them."""
    buttons = []
    for path in examples:
        with Image.open(path) as photo:
            small = photo.convert("RGB")
            small.thumbnail(_THUMB)
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=82)
        code = base64.b64encode(buffer.getvalue()).decode("ascii")
        name = html.escape(path.stem, quote=True)
        buttons.append(
            f'<button type="button" data-example="{name}" aria-label="Open the example {name}">'
            f'<img alt="" src="data:image/jpeg;base64,{code}"></button>'
        )
    return "".join(buttons)
