"""Starts the explorer; `textsam demo` calls it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

# Before Gradio is imported, which reads it then: otherwise it reports every start to its makers.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from textsam.errors import TextSamError

from .page.app import build_app, start_server

if TYPE_CHECKING:
    from textsam.inference.model import TextSAM

__all__ = ["serve"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    name: str,
    load: Callable[[], TextSAM],
    *,
    say: Callable[[str], None],
    index: str | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    mcp: bool = False,
) -> None:
    """Serve the explorer until it is interrupted.

    Args:
        name: Name of the model on the page.
        load: Loads the model; the page can be opened meanwhile.
        say: Called with sentences about the progress.
        index: Address of a `MaskIndex` for the Search tab.
        host: Address to listen on. With "0.0.0.0" other machines have access, and their pages can
            search this index only.
        port: 0 for any free one.
        mcp: Whether to offer the endpoints over the Model Context Protocol.

    Raises:
        TextSamError: The port is taken, or the model cannot be loaded.
    """
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
