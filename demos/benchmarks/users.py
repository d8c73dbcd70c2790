"""Several users at once: no error, nobody sees another's photo or masks, memory stays bounded.

    python -m demos.benchmarks.users --users 8 --minutes 5

Every user has a photo of one colour with a disk of its own size at a place of its own, and checks
after each step that the picture which the server shows is that photo, and that the mask under the
click is that disk and nobody else's. The users talk to the server as browsers do, by Gradio's own
client, so that two cores can carry eight of them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from textsam.inference.model import TextSAM
from textsam.values.rle import RLE, decode_rle

from ..page.layout import LAUNCH, build_app
from .page_client import PageClient

__all__ = ["User", "main"]

_SIDES = (480, 360)


class User:
    """One user with a photo that nobody else has."""

    def __init__(self, number: int, url: str, folder: Path) -> None:
        """Draw the photo and open a page."""
        self.random = random.Random(number)
        hue = number * 28
        self.color = (40 + hue % 160, 220 - hue % 150, 60 + (hue * 3) % 170)
        self.center = (90 + (number % 4) * 95, 110 + (number // 4 % 2) * 130)
        self.radius = 34 + 3 * (number % 5)
        picture = Image.new("RGB", _SIDES, self.color)
        x, y = self.center
        box = (x - self.radius, y - self.radius, x + self.radius, y + self.radius)
        ImageDraw.Draw(picture).ellipse(box, fill=(250, 250, 245))
        self.path = folder / f"user{number}.png"
        picture.save(self.path)
        self.page = PageClient(url)
        self.steps = 0
        self.problems: list[str] = []

    def live(self, until: float) -> None:
        """Open, click, box, undo and clear, again and again."""
        try:
            while time.monotonic() < until:
                self._round()
        except Exception as error:
            self.problems.append(f"{type(error).__name__}: {error}")

    def _round(self) -> None:
        x, y = self.center
        scene = self.page.open(self.path)
        self._check_photo(scene)
        self._check_disk(self._act({"do": "click", "x": x, "y": y, "on": True}))
        for _ in range(self.random.randint(1, 4)):
            dx, dy = (self.random.uniform(-0.5, 0.5) * self.radius for _ in "xy")
            self._check_disk(self._act({"do": "click", "x": x + dx, "y": y + dy, "on": True}))
        if self._act({"do": "undo"})["undo"] < 1:
            self.problems.append("undo lost the first click")
        self._act({"do": "clear"})
        reach = self.radius + 6
        asked = {"do": "box", "box": [x - reach, y - reach, x + reach, y + reach]}
        self._check_disk(self._act(asked))

    def _act(self, what: dict[str, Any]) -> dict[str, Any]:
        scene = self.page.act(what)
        self.steps += 1
        if scene["error"]:
            self.problems.append(scene["message"])
        if scene["photo"] is None or scene["photo"]["name"] != self.path.stem:
            self.problems.append(f"{self.path.stem} was shown {scene['photo']}")
        return scene

    def _check_photo(self, scene: dict[str, Any]) -> None:
        self.steps += 1
        with urllib.request.urlopen(self.page.url + scene["photo"]["url"]) as answer:
            pixels = np.asarray(Image.open(answer).convert("RGB")).astype(int)
        if np.abs(pixels[3, 3] - self.color).max() > 12:
            self.problems.append(f"{self.path.stem} was shown another photo: {pixels[3, 3]}")

    def _check_disk(self, scene: dict[str, Any]) -> None:
        """The mask is where this user's disk is: another's would lie elsewhere."""
        if len(scene["things"]) != 1:
            self.problems.append(f"{len(scene['things'])} things on a board that has one")
            return
        thing = scene["things"][0]
        x0, y0, x1, y1 = thing["box"]
        inside = decode_rle(RLE((y1 - y0, x1 - x0), thing["counts"].encode("ascii")))
        mask = np.zeros((_SIDES[1], _SIDES[0]), dtype=bool)
        mask[y0:y1, x0:x1] = inside
        ys, xs = np.mgrid[: _SIDES[1], : _SIDES[0]]
        disk = (xs - self.center[0]) ** 2 + (ys - self.center[1]) ** 2 <= self.radius**2
        share = (mask & disk).sum() / disk.sum()
        if share < 0.5:
            self.problems.append(f"the mask covers {share:.0%} of {self.path.stem}'s disk")


def main(say: Callable[[str], None] = print) -> dict[str, Any]:
    """Serve the app, let the users at it, and say what happened."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=5)
    options = parser.parse_args()
    app, photos = build_app("tiny", lambda: TextSAM.from_pretrained("tiny"))
    _, url, _ = app.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **LAUNCH)
    photos.model()
    with tempfile.TemporaryDirectory() as folder:
        users = [User(number, url, Path(folder)) for number in range(options.users)]
        start = time.monotonic()
        until = start + 60 * options.minutes
        threads = [threading.Thread(target=user.live, args=(until,)) for user in users]
        for thread in threads:
            thread.start()
        memory = []
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
        "least_steps_of_a_user": min(user.steps for user in users),
        "problems": len(problems),
        "resident_mb_first_third": round(max(memory[:third])),
        "resident_mb_last_third": round(max(memory[-third:])),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "photos_kept": photos.size[0],
        "load_average": round(os.getloadavg()[0], 1),
    }
    say(json.dumps(report))
    for problem in problems[:20]:
        say(problem)
    return report


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
