"""The tab with the photo: canvas, phrases, list of objects, settings, export, explanations.

Canvas and list are `gr.HTML` with HTML, CSS and JavaScript from `canvas/`. The value of both is a
scene (`scene.py`), a JSON object that only the server writes. What the user does is sent as data of
two events: `open` (a photo) and `act` (everything else).
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

from ..explorer.exports import FORMATS
from ..explorer.photo_cache import PhotoCache, example_photos
from ..explorer.scene import empty_scene
from . import events
from .sessions import Session

_FOLDER = Path(__file__).resolve().parent / "canvas"
_CANVAS_SCRIPTS = ("masks.js", "drawing.js", "pointer.js", "keyboard.js", "main.js")
_THUMBNAIL = (256, 192)  # pixels, twice the size shown, for high-density screens
_STRATEGIES = [
    ("every instance (auto)", "auto"),
    ("one object (prompt)", "prompt"),
    ("boxes of a detector (detect)", "detect"),
    ("instances of SAM 3 (concept)", "concept"),
    ("ranked masks (rank)", "rank"),
]
_TABLE_HEAD = ["phrase", "what", "score", "gate", "why", "evidence"]

# Canvas and list show by themselves that the server is working; "multiple": a click during an
# answer is not lost.
_QUIET: dict[str, Any] = {
    "show_progress": "hidden",
    "api_visibility": "private",
    "trigger_mode": "multiple",
}
# Clicks have a queue of their own, so that they do not wait behind another user's "everything".
_CLICKS: dict[str, Any] = {"concurrency_id": "clicks", "concurrency_limit": 2}
_WORK: dict[str, Any] = {"concurrency_id": "work", "concurrency_limit": 2}


def add_explore_tab(photos: PhotoCache, session: gr.State) -> list[Any]:
    """Lay out the tab, inside a `gr.Tab`; returns canvas and list."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=7, min_width=320):
            canvas = make_canvas(example_photos(), elem_id="canvas")
        with gr.Column(scale=4, min_width=320):
            with gr.Group():
                text = gr.Textbox(
                    label="What to find",
                    placeholder="wheel, window, -steering wheel",
                    info="Separate phrases with commas; a minus excludes a phrase",
                    elem_id="text",
                    max_length=4000,
                )
                exclude = gr.Textbox(
                    label="Exclude",
                    placeholder="steering wheel",
                    elem_id="exclude",
                    max_length=4000,
                )
            with gr.Row():
                find = gr.Button("Find", variant="primary", elem_id="find", min_width=80)
                everything = gr.Button("Everything", elem_id="everything", min_width=80)
            with gr.Row():
                like = gr.Button("Find more like this", elem_id="like", min_width=80)
                why = gr.Button("Why?", elem_id="why", min_width=80)
            objects = make_object_list(elem_id="objects")
            options, opacity, outline = _add_settings()
            _add_export(session, opacity, outline)
    explanation = _add_explanation()
    outputs = [canvas, objects]
    for event in (canvas.act, objects.act):
        event(events.act, inputs=session, outputs=outputs, **_QUIET, **_CLICKS)

    def open_photo(page: Session | None, event: gr.EventData) -> tuple[Any, ...]:
        return events.open_photo(photos, page, event._data)

    work = {"outputs": outputs, **_QUIET, **_WORK}
    canvas.open(open_photo, inputs=session, **{**work, "outputs": [session, *outputs]})
    for trigger in (find.click, text.submit, exclude.submit):
        _show_waiting(trigger, "Searching")
        trigger(events.find, inputs=[session, text, exclude, *options], **work)
    _show_waiting(everything.click, "Segmenting everything")
    everything.click(events.everything, inputs=session, **work)
    _show_waiting(like.click, "Searching for more like this")
    like.click(events.like, inputs=session, **work)
    # `release`, not `change`: dragging the slider would search at every step.
    strategy, threshold, exclusive = options
    for change in (strategy.input, threshold.release, exclusive.input):
        change(events.find_again, inputs=[session, *options], **work)
    # Without "hidden": the explanation is far from the canvas and shows its own progress.
    shown = {**work, "show_progress": "full", "outputs": explanation}
    why.click(events.explain, inputs=session, **shown)
    return outputs


def _add_settings() -> tuple[tuple[gr.Radio, gr.Slider, gr.Checkbox], gr.Slider, gr.Checkbox]:
    """How phrases are answered and how masks look; the looks never leave the browser."""
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        strategy = gr.Radio(_STRATEGIES, value="auto", label="A phrase finds")
        threshold = gr.Slider(
            0,
            0.99,
            value=0,
            step=0.01,
            label="Minimum probability",
            info="0: the model's calibrated thresholds",
            elem_id="threshold",
        )
        exclusive = gr.Checkbox(False, label="Masks do not overlap", elem_id="exclusive")
        opacity = gr.Slider(0, 1, value=0.45, step=0.05, label="Opacity", elem_id="opacity")
        with gr.Row():
            outline = gr.Checkbox(True, label="Outlines", elem_id="outline", min_width=80)
            labels = gr.Checkbox(True, label="Labels", elem_id="labels", min_width=80)
    for component, key in ((opacity, "opacity"), (outline, "outline"), (labels, "labels")):
        component.change(
            None,
            inputs=component,
            js=f"(v) => {{ document.dispatchEvent(new CustomEvent('textsam-look', "
            f"{{detail: {{{key}: v}}}})); }}",
            api_visibility="private",
        )
    return (strategy, threshold, exclusive), opacity, outline


def _add_export(session: gr.State, opacity: gr.Slider, outline: gr.Checkbox) -> None:
    """A format, and a button that makes the file and downloads it."""
    with gr.Group():
        format = gr.Dropdown(
            list(FORMATS.items()),
            value="overlay",
            label="Export the visible objects",
            elem_id="format",
        )
        button = gr.Button("Download", elem_id="export")
    problem = gr.Markdown(elem_id="export-problem", visible=False)
    file = gr.DownloadButton(visible="hidden", elem_id="export-file")
    made = button.click(
        events.export_file,
        inputs=[session, format, opacity, outline],
        outputs=[file, problem],
        api_visibility="private",
        concurrency_id="work",
        show_progress="minimal",
    )
    # Browsers download on a click only, and the file exists only after the server's answer: so a
    # second, made-up click follows it.
    made.success(
        None,
        inputs=file,
        js="(file) => { if (file) setTimeout(() => { const a = document.createElement('a'); "
        "a.href = file.url; a.download = file.orig_name; a.click(); }, 0); }",
        api_visibility="private",
    )


def _add_explanation() -> list[gr.blocks.Block]:
    """The place for explanations, hidden until "Why?" is pressed; outputs of `events.explain`."""
    with gr.Accordion("Why these masks?", open=False, visible=False, elem_id="why-panel") as panel:
        sentences = gr.Textbox(label="In words", lines=2, interactive=False, elem_id="sentences")
        picture = gr.Image(
            label="Map of the phrase, kept and dropped masks, sweep of the threshold",
            show_label=False,
            format="png",
            interactive=False,
            elem_id="why-picture",
        )
        table = gr.Dataframe(
            headers=_TABLE_HEAD, interactive=False, wrap=True, label="All candidate masks"
        )
    return [panel, sentences, picture, table]


def _show_waiting(trigger: Any, words: str) -> None:
    """Show on the canvas, before the server answers, that something has started."""
    trigger(
        None,
        js="() => { document.dispatchEvent(new CustomEvent('textsam-wait', "
        f"{{detail: {words!r}}})); }}",
        api_visibility="private",
    )


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
