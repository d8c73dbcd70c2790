"""The page: what stands where, and which event asks what.

app = build_app("tiny")
app.launch(**LAUNCH)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..explorer.exports import FORMATS
from ..explorer.loading import ModelInBackground
from ..explorer.photos import EncodedPhotos, example_photos
from ..explorer.searching import Indexes
from . import events, reasons
from .components import canvas as make_canvas
from .components import thing_list
from .endpoints import add_endpoints
from .model_tab import add_model_tab
from .search_tab import add_search_tab
from .sessions import Session, close_session

if TYPE_CHECKING:
    from textsam.inference.model import TextSAM

__all__ = ["LAUNCH", "build_app"]

# Keeps page, fonts and figures on this machine: nothing is fetched from or told to another one.
_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
_MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")
# Gradio's greys and its blue are too pale on white to be read by everybody (WCAG wants 4.5 to 1).
THEME = gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=_FONT, font_mono=_MONO).set(
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_300",
    input_placeholder_color="*neutral_500",
    input_placeholder_color_dark="*neutral_400",
    color_accent="*primary_600",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_background_fill_dark="*primary_600",
    button_primary_background_fill_hover_dark="*primary_700",
)

_CSS = """
.gradio-container { max-width: 1500px !important; }
#title h1 { margin: 0; font-size: 24px; }
#title p { margin: 0; color: var(--body-text-color-subdued); }
#canvas .html-container, #things .html-container { padding: 0; }
.dark { --color-accent: var(--primary-400); }
footer { opacity: 0.8; }
"""

LAUNCH: dict[str, Any] = {
    "theme": THEME,
    "css": _CSS,
    "max_file_size": "64mb",
    "state_session_capacity": 64,  # pages at once; who comes later takes the oldest one's place
    "run_history": False,  # Gradio would keep a copy of what people ask
    "footer_links": ["api"],
    "ssr_mode": False,
    "show_error": False,
}

_PAGE_LIVES = 4 * 3600  # seconds after its last event
_STRATEGIES = [
    ("every instance (auto)", "auto"),
    ("one object (prompt)", "prompt"),
    ("ranked masks (rank)", "rank"),
]


def build_app(
    name: str,
    load: Callable[[], TextSAM],
    *,
    index: str | None = None,
    choose_index: bool = True,
) -> tuple[gr.Blocks, EncodedPhotos]:
    """Make the app; the model is loaded meanwhile.

    Args:
        name: What to call the model.
        load: Loads it.
        index: Address of a `MaskIndex` that the search tab begins with.
        choose_index: Whether a page may open another, by any path that this process can read.

    Returns:
        The app, and where its photos are encoded.
    """
    model = ModelInBackground(name, load)
    photos = EncodedPhotos(model)
    with gr.Blocks(
        title="textsam", analytics_enabled=False, delete_cache=(1800, 6 * 3600), fill_width=True
    ) as app:
        add_endpoints(photos)  # first, so that the names are theirs and not the page's
        session = gr.State(None, time_to_live=_PAGE_LIVES, delete_callback=close_session)
        gr.Markdown("# textsam\nSay what you want, get its mask.", elem_id="title")
        with gr.Tabs() as tabs:
            with gr.Tab("Explore", id="explore"):
                explored = _explore(photos, session)
            if index is not None or choose_index:
                with gr.Tab("Search", id="search"):
                    add_search_tab(
                        Indexes(model), session, explored, tabs, first=index, choose=choose_index
                    )
            with gr.Tab("Model", id="model"):
                add_model_tab(model)
        app.load(lambda: Session(photos), outputs=session, api_visibility="private", queue=False)
    app.queue(default_concurrency_limit=2, max_size=64, api_open=False)
    return app, photos


def _explore(photos: EncodedPhotos, session: gr.State) -> list[Any]:
    """The tab with the photo; its canvas and its list."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=7, min_width=320):
            canvas = make_canvas(example_photos(), elem_id="canvas")
        with gr.Column(scale=4, min_width=320):
            with gr.Group():
                text = gr.Textbox(
                    label="What to find",
                    placeholder="wheel, window, -steering wheel",
                    info="Phrases between commas; a minus excludes",
                    elem_id="text",
                    max_length=4000,
                )
                unwanted = gr.Textbox(
                    label="But not",
                    placeholder="steering wheel",
                    elem_id="unwanted",
                    max_length=4000,
                )
            with gr.Row():
                find = gr.Button("Find", variant="primary", elem_id="find", min_width=80)
                everything = gr.Button("Everything", elem_id="everything", min_width=80)
            with gr.Row():
                similar = gr.Button("Similar", elem_id="similar", min_width=80)
                why = gr.Button("Why?", elem_id="why", min_width=80)
            things = thing_list(elem_id="things")
            options, opacity, outline = _settings()
            _export(session, opacity, outline)
    reasons_shown = reasons.add_reasons()
    outputs = [canvas, things]
    ask = [session, text, unwanted, *options]
    small = _listen(outputs, concurrency_id="clicks", concurrency_limit=2)
    large = _listen(outputs, concurrency_id="work", concurrency_limit=2)

    def open_photo(page: Session | None, event: gr.EventData) -> tuple[Any, ...]:
        return events.open_photo(photos, page, event._data)

    canvas.open(open_photo, inputs=session, **{**large, "outputs": [session, *outputs]})
    canvas.act(events.act, inputs=session, **small)
    things.act(events.act, inputs=session, **small)
    for trigger in (find.click, text.submit, unwanted.submit):
        _tell(trigger, "Looking for it")
        trigger(events.find, inputs=ask, **large)
    for trigger, words, work in (
        (everything.click, "Looking for everything", events.everything),
        (similar.click, "Looking for similar things", events.similar),
    ):
        _tell(trigger, words)
        trigger(work, inputs=session, **large)
    strategy, threshold, exclusive = options
    for change in (strategy.input, threshold.release, exclusive.input):
        change(events.ask_again, inputs=[session, *options], **large)
    why.click(reasons.why, inputs=session, outputs=reasons_shown, **_quiet(large))
    return outputs


def _settings() -> tuple[tuple[gr.Radio, gr.Slider, gr.Checkbox], gr.Slider, gr.Checkbox]:
    """How phrases are answered, and how masks look; the looks never leave the browser."""
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        strategy = gr.Radio(_STRATEGIES, value="auto", label="How a phrase is answered")
        threshold = gr.Slider(
            0,
            0.99,
            value=0,
            step=0.01,
            label="Least probability",
            info="0: the levels that the model was calibrated to",
            elem_id="threshold",
        )
        exclusive = gr.Checkbox(False, label="No pixel in two masks", elem_id="exclusive")
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


def _export(session: gr.State, opacity: gr.Slider, outline: gr.Checkbox) -> None:
    """A format, and a button that makes the file and lets the browser fetch it."""
    with gr.Group():
        format = gr.Dropdown(
            list(FORMATS.items()), value="overlay", label="Export what is shown", elem_id="format"
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
    # A browser fetches a file on a click only, and the file is there after the server's answer.
    made.success(
        None,
        inputs=file,
        js="(file) => { if (file) setTimeout(() => { const a = document.createElement('a'); "
        "a.href = file.url; a.download = file.orig_name; a.click(); }, 0); }",
        api_visibility="private",
    )


def _listen(outputs: list[Any], **limits: Any) -> dict[str, Any]:
    return {
        "outputs": outputs,
        "show_progress": "hidden",  # the canvas tells it itself
        "api_visibility": "private",
        "trigger_mode": "multiple",
        **limits,
    }


def _quiet(listen: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in listen.items() if key not in ("outputs", "show_progress")}


def _tell(trigger: Any, words: str) -> None:
    """Say on the canvas, in the browser, that something has begun."""
    trigger(
        None,
        js="() => { document.dispatchEvent(new CustomEvent('textsam-wait', "
        f"{{detail: {words!r}}})); }}",
        api_visibility="private",
    )
