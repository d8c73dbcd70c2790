"""Time from a click to its mask on the screen, in a browser, with one user.

    python -m demos.benchmarks.clicks --clicks 30

The browser's own clock starts when the pointer is pressed and stops when the frame with the mask
has been drawn. First clicks and corrections alternate, over the example photos. In between, the
library gets the same clicks without browser and server, to tell the two apart on a busy machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from pathlib import Path

from textsam.inference.model import TextSAM

from ..explorer.photo_cache import example_photos
from ..page.app import build_app, start_server
from .browser import ExplorerPage, open_chromium

# Places on a photo, as shares of its sides, away from its border.
_PLACES = [(0.5, 0.5), (0.35, 0.45), (0.6, 0.55), (0.45, 0.65), (0.55, 0.35), (0.3, 0.6)]

# Records the time from each press to the frame in which its answer is drawn.
_WATCH = """
() => {
  const stage = document.querySelector("#canvas .ts-stage");
  window.durations = [];
  stage.addEventListener("pointerdown", () => { window.pressed = performance.now(); }, true);
  const canvas = stage.querySelector("canvas");
  new MutationObserver(() => {
    if (window.pressed && Number(canvas.dataset.drawn) === stage.scene.serial
        && !stage.hasAttribute("aria-busy")) {
      window.durations.push(performance.now() - window.pressed);
      window.pressed = 0;
    }
  }).observe(canvas, { attributes: true, attributeFilter: ["data-drawn"] });
}
"""


def measure_page(page: ExplorerPage, name: str) -> list[float]:
    """Milliseconds of each click on an example photo, on a page without earlier objects."""
    page.page.reload()
    page.page.wait_for_selector("#canvas .ts-welcome button")
    page.open_example(name)
    page.page.evaluate(_WATCH)
    for number, (x, y) in enumerate(_PLACES):
        # "New" before every second click: the others correct its object.
        if number % 2 == 0:
            page.press("#canvas [data-act=start_new]")
        page.click(x, y)
    durations: list[float] = page.page.evaluate("window.durations")
    return durations


def measure_library(model: TextSAM, path: Path) -> list[float]:
    """Milliseconds of the same clicks by calls of `ImageView`."""
    view, durations = model.open(path), []
    height, width = view.size
    for number, (x, y) in enumerate(_PLACES):
        start = time.perf_counter()
        if number % 2 == 0:
            view.segment(points=[(x * width, y * height)])
        else:
            view.click(x * width, y * height)
        durations.append(1000 * (time.perf_counter() - start))
    return durations


def summary(durations: list[float]) -> dict[str, int]:
    """Median, 95th percentile and maximum."""
    p95 = sorted(durations)[round(0.95 * (len(durations) - 1))]
    numbers = {"p50_ms": statistics.median(durations), "p95_ms": p95, "max_ms": max(durations)}
    return {name: round(value) for name, value in numbers.items()}


def main() -> None:
    """Serve the app, click, and print the durations as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--clicks", type=int, default=30)
    parser.add_argument("--model", default="tiny")
    options = parser.parse_args()
    app, photos = build_app(options.model, lambda: TextSAM.from_pretrained(options.model))
    url = start_server(app)
    photos.model()
    in_page: list[float] = []
    in_library: list[float] = []
    with open_chromium() as browser:
        page = ExplorerPage(browser.new_page(viewport={"width": 1280, "height": 900}), url)
        measure_page(page, example_photos()[0].stem)  # the first clicks only warm up caches
        for path in itertools.cycle(example_photos()):
            in_page += measure_page(page, path.stem)
            in_library += measure_library(photos.model(), path)
            if len(in_page) >= options.clicks:
                break
    app.close()
    report = {
        "clicks": len(in_page),
        "page": summary(in_page),
        "library": summary(in_library),
        "load_average": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
