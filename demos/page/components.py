"""The canvas and the list of objects: `gr.HTML` with HTML, CSS and JavaScript from `canvas/`.

The value of both is a scene (`scene.py`), a JSON object that only the server writes. What the user
does is sent as data of two events: `open` (a photo) and `act` (everything else).
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

__all__ = ["make_canvas", "make_object_list"]

_FOLDER = Path(__file__).resolve().parent / "canvas"
_CANVAS_SCRIPTS = ("masks.js", "drawing.js", "pointer.js", "keyboard.js", "main.js")
_THUMBNAIL = (256, 192)  # pixels, twice the size shown, for high-density screens


def make_canvas(examples: Sequence[Path] = (), *, elem_id: str) -> gr.HTML:
    """The photo with its masks; the examples are offered before a photo is open."""
    # Not `{{...}}` or `${...}`, which Gradio would evaluate.
    page = _read("canvas.html").replace("@@EXAMPLES@@", _thumbnails(examples))
    return _component(page, "canvas.css", _CANVAS_SCRIPTS, elem_id)


def make_object_list(*, elem_id: str) -> gr.HTML:
    """The objects on the photo, to show, rename, choose and delete."""
    return _component(_read("list.html"), "list.css", ("list.js",), elem_id)


def _component(page: str, css: str, scripts: Sequence[str], elem_id: str) -> gr.HTML:
    # No subclass of gr.HTML: Gradio writes a .pyi file beside the source of every subclass.
    return gr.HTML(
        empty_scene(),
        html_template=page,
        css_template=_read(css),
        js_on_load="\n".join(map(_read, scripts)),
        apply_default_css=False,
        padding=False,
        elem_id=elem_id,
    )


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _thumbnails(examples: Sequence[Path]) -> str:
    """Buttons whose pictures are part of the page, so that they need no address."""
    buttons = []
    for path in examples:
        with Image.open(path) as photo:
            small = photo.convert("RGB")
            small.thumbnail(_THUMBNAIL)
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=82)
        code = base64.b64encode(buffer.getvalue()).decode("ascii")
        name = html.escape(path.stem, quote=True)
        buttons.append(
            f'<button type="button" data-example="{name}" aria-label="Open the example {name}">'
            f'<img alt="" src="data:image/jpeg;base64,{code}"></button>'
        )
    return "".join(buttons)
