"""A page of the explorer without a browser: the same requests that a browser sends.

Gradio's Python client calls named endpoints; the page's own events are not named, and carry what
the canvas tells. So this speaks Gradio's HTTP: upload, join the queue, read the answer's event.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from textsam.errors import require

__all__ = ["PageClient"]

_TIMEOUT = 120.0  # seconds, of a busy machine


class PageClient:
    """One page.

    Attributes:
        url: Of the server, with a slash at its end.
    """

    def __init__(self, url: str) -> None:
        """Open a page.

        Args:
            url: Of the server.
        """
        httpx: Any = require("httpx", "demo")
        self.url = url if url.endswith("/") else f"{url}/"
        self._http = httpx.Client(base_url=self.url, timeout=_TIMEOUT)
        self._session = secrets.token_hex(6)
        config = self._http.get("config").json()
        self._names = {item["props"].get("elem_id"): item["id"] for item in config["components"]}
        self._events = {
            (target[0], target[1]): event["id"]
            for event in config["dependencies"]
            for target in event["targets"]
        }

    def open(self, path: Path) -> dict[str, Any]:
        """Upload and open a photo; the scene that the canvas gets."""
        with path.open("rb") as file:
            answer = self._http.post("gradio_api/upload", files={"files": (path.name, file)})
        answer.raise_for_status()
        told = {"path": answer.json()[0], "name": path.name}
        # The session, the canvas, the list.
        scene: dict[str, Any] = self._ask("open", told)[1]
        return scene

    def act(self, what: dict[str, Any]) -> dict[str, Any]:
        """What the canvas tells; the scene that it gets."""
        scene: dict[str, Any] = self._ask("act", what)[0]
        return scene

    def _ask(self, event: str, told: dict[str, Any]) -> list[Any]:
        canvas = self._names["canvas"]
        body = {
            "data": [None],  # the session, which the server knows
            "event_data": told,
            "fn_index": self._events[canvas, event],
            "trigger_id": canvas,
            "session_hash": self._session,
        }
        joined = self._http.post("gradio_api/queue/join", json=body)
        joined.raise_for_status()
        asked = joined.json()["event_id"]
        query = {"session_hash": self._session}
        with self._http.stream("GET", "gradio_api/queue/data", params=query) as stream:
            for line in stream.iter_lines():
                if not line.startswith("data: "):
                    continue
                message = json.loads(line.removeprefix("data: "))
                if message.get("event_id") != asked or message["msg"] != "process_completed":
                    continue
                if not message["success"]:
                    raise RuntimeError(f"the server failed: {message['output']}")
                data: list[Any] = message["output"]["data"]
                return data
        raise RuntimeError("the server closed the stream before the answer came")
