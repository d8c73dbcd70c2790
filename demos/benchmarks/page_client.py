"""A page of the explorer without a browser: sends the same requests as a browser.

Gradio's Python client calls only named endpoints, but the events of the page have no names. So this
speaks Gradio's HTTP: upload a file, join the queue, wait for the event with the answer.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from textsam.errors import require

__all__ = ["PageClient"]

_TIMEOUT = 120.0  # seconds, for a busy machine


class PageClient:
    """One page.

    Attributes:
        url: Address of the server, with a slash at its end.
    """

    def __init__(self, url: str) -> None:
        httpx: Any = require("httpx", "demo")
        self.url = url if url.endswith("/") else f"{url}/"
        self._http = httpx.Client(base_url=self.url, timeout=_TIMEOUT)
        self._session = secrets.token_hex(6)
        config = self._http.get("config").json()
        ids = {item["props"].get("elem_id"): item["id"] for item in config["components"]}
        self._canvas = ids["canvas"]
        # The numbers of the canvas's events, which the queue wants in place of names.
        self._events = {
            name: event["id"]
            for event in config["dependencies"]
            for component, name in event["targets"]
            if component == self._canvas
        }

    def open(self, path: Path) -> dict[str, Any]:
        """Upload and open a photo; returns the scene for the canvas."""
        with path.open("rb") as file:
            answer = self._http.post("gradio_api/upload", files={"files": (path.name, file)})
        answer.raise_for_status()
        outputs = self._send("open", {"path": answer.json()[0], "name": path.name})
        scene: dict[str, Any] = outputs[1]  # session, canvas, list
        return scene

    def act(self, action: dict[str, Any]) -> dict[str, Any]:
        """Send an action of the canvas; returns the scene for the canvas."""
        scene: dict[str, Any] = self._send("act", action)[0]
        return scene

    def _send(self, event: str, data: dict[str, Any]) -> list[Any]:
        body = {
            "data": [None],  # the session, which stays on the server
            "event_data": data,
            "fn_index": self._events[event],
            "trigger_id": self._canvas,
            "session_hash": self._session,
        }
        joined = self._http.post("gradio_api/queue/join", json=body)
        joined.raise_for_status()
        event_id = joined.json()["event_id"]
        query = {"session_hash": self._session}
        with self._http.stream("GET", "gradio_api/queue/data", params=query) as stream:
            for line in stream.iter_lines():
                if not line.startswith("data: "):
                    continue
                message = json.loads(line.removeprefix("data: "))
                if message.get("event_id") != event_id or message["msg"] != "process_completed":
                    continue
                if not message["success"]:
                    raise RuntimeError(f"the server failed: {message['output']}")
                outputs: list[Any] = message["output"]["data"]
                return outputs
        raise RuntimeError("the server closed the stream before the answer came")
