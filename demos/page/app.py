"""The page: its theme, its tabs and the endpoints; `serve` is what `textsam demo` calls.

app, photos = build_app("tiny", lambda: TextSAM.from_pretrained("tiny"))
print(start_server(app))
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

# Before Gradio is imported, which reads it then: otherwise it reports every start to its makers.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr

from textsam.errors import TextSamError

from ..explorer.photo_cache import ModelInBackground, PhotoCache
from ..explorer.searching import Indexes
from .endpoints import add_endpoints
from .explore_tab import add_explore_tab
from .model_tab import add_model_tab
from .search_tab import add_search_tab
from .sessions import Session, close_session

if TYPE_CHECKING:
    from textsam.inference.model import TextSAM

# Fonts of the user's machine: Gradio's own are fetched from Google.
_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
_MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")
# Gradio's greys and blue are too pale on white: WCAG asks for a contrast of 4.5 to 1.
_THEME = gr.themes.Default(
    primary_hue="blue", neutral_hue="slate", font=_FONT, font_mono=_MONO
).set(
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
#canvas .html-container, #objects .html-container { padding: 0; }
.dark { --color-accent: var(--primary-400); }
footer { opacity: 0.8; }
"""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SESSION_LIFETIME = 4 * 3600  # seconds after the last event
_DELETE_FILES = (1800, 6 * 3600)  # every so many seconds, files that are that old


def build_app(
    name: str, load: Callable[[], TextSAM], *, index: str | None = None, choose_index: bool = True
) -> tuple[gr.Blocks, PhotoCache]:
    """Build the app and its cache of photos; the model is loaded in the background.

    The Search tab opens `index` first. With `choose_index` a page may open other indexes, at any
    path that this process can read.
    """
    model = ModelInBackground(name, load)
    photos = PhotoCache(model)
    with gr.Blocks(
        title="textsam", analytics_enabled=False, delete_cache=_DELETE_FILES, fill_width=True
    ) as app:
        # First, because Gradio numbers names that the page's own events have taken already.
        add_endpoints(photos)
        session = gr.State(None, time_to_live=_SESSION_LIFETIME, delete_callback=close_session)
        gr.Markdown("# textsam\nSay what you want, get its mask.", elem_id="title")
        with gr.Tabs() as tabs:
            with gr.Tab("Explore", id="explore"):
                explored = add_explore_tab(photos, session)
            if index is not None or choose_index:
                with gr.Tab("Search", id="search"):
                    add_search_tab(
                        Indexes(model), session, explored, tabs, first=index, choose=choose_index
                    )
            with gr.Tab("Model", id="model"):
                add_model_tab(model)
        # Every page gets a session of its own, before its first event.
        app.load(lambda: Session(photos), outputs=session, api_visibility="private", queue=False)
    # `api_open=False`: no request can skip the queue.
    app.queue(default_concurrency_limit=2, max_size=64, api_open=False)
    return app, photos


def start_server(
    app: gr.Blocks, *, host: str = "127.0.0.1", port: int = 0, mcp: bool = False
) -> str:
    """Serve an app in the background; returns the address of the page. Port 0: any free one."""
    _, url, _ = app.launch(
        server_name=host,
        server_port=port or None,
        mcp_server=mcp,
        theme=_THEME,
        css=_CSS,
        max_file_size="64mb",
        state_session_capacity=64,  # pages; a further one replaces the oldest
        run_history=False,  # Gradio would keep a copy of every question
        footer_links=["api"],
        prevent_thread_lock=True,
        quiet=True,
        inbrowser=False,
        share=False,
        ssr_mode=False,
        show_error=False,
    )
    return url


def serve(
    name: str,  # of the model, on the page
    load: Callable[[], TextSAM],
    *,
    say: Callable[[str], None],  # called with sentences about the progress
    index: str | None = None,  # address of a `MaskIndex` for the Search tab
    host: str = "127.0.0.1",
    port: int = 7860,
    mcp: bool = False,
) -> None:
    """Serve the explorer until it is interrupted."""
    start = time.perf_counter()
    # Pages on other machines must not find out which files exist on this one.
    app, photos = build_app(name, load, index=index, choose_index=host in _LOOPBACK)
    try:
        url = start_server(app, host=host, port=port, mcp=mcp)
    except OSError as error:
        raise TextSamError(
            f"cannot listen on {host}:{port} ({error}); type another --port, or --port 0"
        ) from error
    say(f"open {url} ({time.perf_counter() - start:.1f} s); the model {name} is being loaded")
    if mcp:
        say(f"agents: {url}gradio_api/mcp/")
    try:
        photos.model()
    except TextSamError as error:
        say(f"{error}. Type: textsam info")
        app.close()
        raise
    say(f"{name} is loaded; Ctrl-C stops")
    app.block_thread()
