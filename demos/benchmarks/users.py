"""Several users at once: no errors, nobody sees another's photo or masks, memory stays bounded.

    python -m demos.benchmarks.users --users 8 --minutes 5

Each user has a photo with a background colour and a disk of their own. After each step they check
that the server shows this photo, and that the mask under the click is this disk. They speak HTTP
without a browser, so that two cores can serve eight of them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import secrets
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from textsam.errors import require
from textsam.inference.model import TextSAM
from textsam.values.rle import RLE, decode_rle

from ..page.app import build_app, start_server

_WIDTH, _HEIGHT = 480, 360


_TIMEOUT = 120.0  # seconds, for a busy machine


class PageClient:
    """A page of the explorer without a browser: sends the same requests as a browser.

    Gradio's Python client calls only named endpoints, but the events of the page have no names.
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


class SimulatedUser:
    """One user with a photo that nobody else has."""

    def __init__(self, number: int, url: str, folder: Path) -> None:
        self.random = random.Random(number)
        hue = number * 28
        self.color = (40 + hue % 160, 220 - hue % 150, 60 + (hue * 3) % 170)
        self.center = (90 + (number % 4) * 95, 110 + (number // 4 % 2) * 130)
        self.radius = 34 + 3 * (number % 5)
        self.path = folder / f"user{number}.png"
        photo = Image.new("RGB", (_WIDTH, _HEIGHT), self.color)
        x, y = self.center
        box = (x - self.radius, y - self.radius, x + self.radius, y + self.radius)
        ImageDraw.Draw(photo).ellipse(box, fill=(250, 250, 245))
        photo.save(self.path)
        ys, xs = np.mgrid[:_HEIGHT, :_WIDTH]
        self.disk = np.hypot(xs - x, ys - y) <= self.radius
        self.page = PageClient(url)
        self.steps = 0
        self.problems: list[str] = []

    def run(self, until: float) -> None:
        """Repeat a round of actions until a time of `time.monotonic`."""
        try:
            while time.monotonic() < until:
                self._round()
        except Exception as error:
            self.problems.append(f"{type(error).__name__}: {error}")

    def _round(self) -> None:
        """Open, click, undo, clear, drag a box."""
        x, y = self.center
        self._check_photo(self.page.open(self.path))
        self._click(x, y)
        for _ in range(self.random.randint(1, 4)):
            dx, dy = (self.random.uniform(-0.5, 0.5) * self.radius for _ in "xy")
            self._click(x + dx, y + dy)
        if self._act({"do": "undo"})["undo"] < 1:
            self.problems.append("undo lost the first click")
        self._act({"do": "clear"})
        half = self.radius + 6
        corners = {"x0": x - half, "y0": y - half, "x1": x + half, "y1": y + half}
        self._check_disk(self._act({"do": "box", **corners}))

    def _click(self, x: float, y: float) -> None:
        self._check_disk(self._act({"do": "click", "x": x, "y": y, "foreground": True}))

    def _act(self, action: dict[str, Any]) -> dict[str, Any]:
        scene = self.page.act(action)
        self.steps += 1
        if scene["error"]:
            self.problems.append(scene["message"])
        if scene["photo"] is None or scene["photo"]["name"] != self.path.stem:
            self.problems.append(f"{self.path.stem} was shown {scene['photo']}")
        return scene

    def _check_photo(self, scene: dict[str, Any]) -> None:
        self.steps += 1
        with urllib.request.urlopen(self.page.url + scene["photo"]["url"]) as answer:
            corner = np.asarray(Image.open(answer).convert("RGB")).astype(int)[3, 3]
        if np.abs(corner - self.color).max() > 12:  # JPEG changes colours a little
            self.problems.append(f"{self.path.stem} was shown another photo: {corner}")

    def _check_disk(self, scene: dict[str, Any]) -> None:
        """The only mask is where this user's disk is."""
        if len(scene["objects"]) != 1:
            self.problems.append(f"{len(scene['objects'])} objects on a board that has one")
            return
        item = scene["objects"][0]
        x0, y0, x1, y1 = item["box"]
        mask = np.zeros_like(self.disk)
        mask[y0:y1, x0:x1] = decode_rle(RLE((y1 - y0, x1 - x0), item["counts"].encode("ascii")))
        share = (mask & self.disk).sum() / self.disk.sum()
        if share < 0.5:
            self.problems.append(f"the mask covers {share:.0%} of {self.path.stem}'s disk")


def main() -> None:
    """Serve the app, run the users, and print a report as JSON, then the first problems."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=5)
    options = parser.parse_args()
    app, photos = build_app("tiny", lambda: TextSAM.from_pretrained("tiny"))
    url = start_server(app)
    photos.model()
    memory = []
    with tempfile.TemporaryDirectory() as folder:
        users = [SimulatedUser(number, url, Path(folder)) for number in range(options.users)]
        start = time.monotonic()
        until = start + 60 * options.minutes
        threads = [threading.Thread(target=user.run, args=(until,)) for user in users]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(1)
            memory.append(_resident_mb())
    app.close()
    problems = [problem for user in users for problem in user.problems]
    third = max(1, len(memory) // 3)
    report = {
        "users": options.users,
        "seconds": round(time.monotonic() - start),
        "steps": sum(user.steps for user in users),
        "min_steps_of_a_user": min(user.steps for user in users),
        "problems": len(problems),
        # A leak would show as a difference between the first and the last third.
        "resident_mb_first_third": round(max(memory[:third])),
        "resident_mb_last_third": round(max(memory[-third:])),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "photos_kept": photos.size[0],
        "load_average": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(report), *problems[:20], sep="\n")


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])  # Linux only
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
