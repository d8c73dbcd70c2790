"""The canvas and the list beside it: `gr.HTML` with pages of our own, without a build step.

Their HTML, CSS and JavaScript lie in `canvas/`. The value of both is a scene (`scene.py`), a JSON
object that only the server writes; what the user does comes back as data of the events `open` (a
photo) and `act` (everything else). They are no subclasses, because Gradio writes a `.pyi` file
beside the source of each subclass, also into a checkout.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
from PIL import Image

from ..explorer.scene import empty_scene

__all__ = ["canvas", "thing_list"]

_FOLDER = Path(__file__).resolve().parent / "canvas"
_CANVAS_SCRIPTS = ("masks.js", "drawing.js", "pointer.js", "keyboard.js", "main.js")
_THUMB = (256, 192)  # pixels, twice what is shown, for fine screens


def canvas(examples: Sequence[Path] = (), *, elem_id: str) -> gr.HTML:
    """The photo with its masks, to click, drag, zoom and type on.

    Args:
        examples: Photos that are offered before one is open.
        elem_id: Its name in the page.
    """
    return gr.HTML(
        empty_scene(),
        html_template=_read("canvas.html").replace("@@EXAMPLES@@", _thumbnails(examples)),
        css_template=_read("canvas.css"),
        js_on_load="\n".join(map(_read, _CANVAS_SCRIPTS)),
        apply_default_css=False,
        padding=False,
        elem_id=elem_id,
    )


def thing_list(*, elem_id: str) -> gr.HTML:
    """The things on the photo, to show, rename, choose and delete."""
    return gr.HTML(
        empty_scene(),
        html_template=_read("list.html"),
        css_template=_read("list.css"),
        js_on_load=_read("list.js"),
        apply_default_css=False,
        padding=False,
        elem_id=elem_id,
    )


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
