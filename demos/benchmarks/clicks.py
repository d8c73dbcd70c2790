"""From the click to the mask on the screen, in a browser, one user.

    python -m demos.benchmarks.clicks --clicks 30

The clock is the browser's own: it starts at the pointer's press and stops when the frame with the
answer's mask has been drawn. First clicks and corrections alternate, over the example photos. The
same clicks are put to the library between those of the browser, without browser and server, so that
on a busy machine the two can be told apart.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textsam.inference.model import TextSAM

from ..explorer.photos import example_photos
from ..page.layout import LAUNCH, build_app
from .browser import ExplorerPage, open_chromium

__all__ = ["main", "measure_clicks"]

# Places on a photo, as shares of its sides, away from its border.
_PLACES = [(0.5, 0.5), (0.35, 0.45), (0.6, 0.55), (0.45, 0.65), (0.55, 0.35), (0.3, 0.6)]

# Keeps the time of the last press, and of the frame in which the answer is drawn.
_WATCH = """
() => {
  const stage = document.querySelector("#canvas .ts-stage");
  window.taken = [];
  stage.addEventListener("pointerdown", () => { window.pressed = performance.now(); }, true);
  const canvas = stage.querySelector("canvas");
  new MutationObserver(() => {
    if (window.pressed && Number(canvas.dataset.drawn) === stage.scene.serial
        && !stage.hasAttribute("aria-busy")) {
      window.taken.push(performance.now() - window.pressed);
      window.pressed = 0;
    }
  }).observe(canvas, { attributes: true, attributeFilter: ["data-drawn"] });
}
"""


def measure_clicks(page: ExplorerPage, name: str) -> list[float]:
    """Milliseconds of some clicks on an example photo, opened in a new page."""
    page.page.reload()
    page.page.wait_for_selector("#canvas .ts-welcome button")
    page.open_example(name)
    page.page.evaluate(_WATCH)
    for number, (x, y) in enumerate(_PLACES):
        if number % 2 == 0:
            page.press("#canvas [data-act=new]")
        page.click(x, y)
    taken: list[float] = page.page.evaluate("window.taken")
    return taken


def measure_library(model: TextSAM, path: Path) -> list[float]:
    """Milliseconds of the same clicks on one photo, asked of a view."""
    view, taken = model.open(path), []
    height, width = view.size
    for number, (x, y) in enumerate(_PLACES):
        start = time.perf_counter()
        if number % 2 == 0:
            view.segment(points=[(x * width, y * height)])
        else:
            view.click(x * width, y * height)
        taken.append(1000 * (time.perf_counter() - start))
    return taken


def percentile(values: list[float], share: float) -> float:
    """The value that a share of the others does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def main(say: Callable[[str], None] = print) -> dict[str, Any]:
    """Serve the app, click, and say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--clicks", type=int, default=30)
    parser.add_argument("--model", default="tiny")
    options = parser.parse_args()
    app, photos = build_app(options.model, lambda: TextSAM.from_pretrained(options.model))
    _, url, _ = app.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **LAUNCH)
    photos.model()
    with open_chromium() as browser:
        page = ExplorerPage(browser.new_page(viewport={"width": 1280, "height": 900}), url)
        measure_clicks(page, example_photos()[0].stem)  # the first ones warm caches up
        taken: list[float] = []
        bare: list[float] = []
        paths = itertools.cycle(example_photos())
        while len(taken) < options.clicks:
            path = next(paths)
            taken += measure_clicks(page, path.stem)
            bare += measure_library(photos.model(), path)
    app.close()
    report = {
        "clicks": len(taken),
        "p50_ms": round(statistics.median(taken)),
        "p95_ms": round(percentile(taken, 0.95)),
        "slowest_ms": round(max(taken)),
        "library_p50_ms": round(statistics.median(bare)),
        "library_p95_ms": round(percentile(bare, 0.95)),
        "load_average": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
    }
    say(json.dumps(report))
    return report


if __name__ == "__main__":
    main()
