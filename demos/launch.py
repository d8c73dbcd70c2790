"""Start the explorer and say what it is doing; `textsam demo` calls it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

# Before gradio is imported, which reads them then: it shall tell nobody that it was started.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from textsam.errors import TextSamError

from .page.layout import LAUNCH, build_app

if TYPE_CHECKING:
    from textsam.inference.model import TextSAM

__all__ = ["serve"]

_HERE = ("127.0.0.1", "localhost", "::1")


def serve(
    name: str,
    load: Callable[[], TextSAM],
    *,
    say: Callable[[str], None],
    index: str | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    mcp: bool = False,
    wait: bool = True,
) -> str:
    """Serve the explorer until it is interrupted.

    Args:
        name: What to call the model.
        load: Loads it, while the page can be opened already.
        say: Told, sentence by sentence, what is going on.
        index: Address of a `MaskIndex` that the search tab begins with.
        host: Address to listen on; "0.0.0.0" lets other machines in, whose pages can search this
            index only.
        port: 0 for any free one.
        mcp: Whether agents may call it over the Model Context Protocol.
        wait: Whether to stay here while it is served.

    Returns:
        The address of the page.

    Raises:
        TextSamError: The port is taken.
    """
    start = time.perf_counter()
    # What lies where on this machine is nobody's business on another one.
    app, photos = build_app(name, load, index=index, choose_index=host in _HERE)
    try:
        _, url, _ = app.launch(
            server_name=host,
            server_port=port or None,
            prevent_thread_lock=True,
            quiet=True,
            inbrowser=False,
            share=False,
            mcp_server=mcp,
            **LAUNCH,
        )
    except OSError as error:
        raise TextSamError(
            f"cannot listen on {host}:{port} ({error}); type another --port, or --port 0"
        ) from error
    say(f"open {url} ({time.perf_counter() - start:.1f} s); the model {name} is being loaded")
    if mcp:
        say(f"agents: {url}gradio_api/mcp/")
    if not wait:
        return url
    try:
        photos.model()
        say(f"{name} is loaded; Ctrl-C stops")
    except TextSamError as error:
        say(f"{error}. Type: textsam info")
        app.close()
        raise
    app.block_thread()
    return url
