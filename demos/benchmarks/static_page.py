"""Times of the static page, by the browser's own clock, with threads and without.

    textsam demo --static site
    python -m demos.benchmarks.static_page site
    python -m demos.benchmarks.static_page site --vit-b --json times.json

"Prompt to mask" begins with the pointer's event and ends when the frame with the mask is painted.
`--vit-b` times the decoder of a ViT-B SAM as well, with random weights, in the same browser.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..web.static_site import make_lean, page_weight, serve_site
from .browser import open_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_TIMEOUT = 180_000  # milliseconds
# A worker of its own, so that nothing else waits in it.
_TIME_DECODER = """([folder, runs, threads]) => new Promise((resolve, reject) => {
  const worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data }) => {
    if (data.kind === "failed") reject(new Error(data.message));
    if (data.kind === "done") { worker.terminate(); resolve(data.result.times); }
  };
  const address = new URL(folder, document.baseURI).href;
  worker.postMessage({ kind: "time", ticket: 1, folder: address, runs, threads });
})"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="Times of the static page in Chromium.")
    parser.add_argument("site", type=Path, help="a folder of textsam demo --static")
    parser.add_argument("--prompts", type=int, default=40, help="places to point at")
    parser.add_argument("--vit-b", action="store_true", help="time a ViT-B's decoder, too")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        shutil.copytree(options.site, site)
        if options.vit_b:
            _export_vit_b(site / "vit_b")
        rows = _measure(site, prompts=options.prompts, vit_b=options.vit_b)
    weights = {
        "page weight, WebAssembly": page_weight(options.site) / 1e6,
        "page weight, WebGPU": page_weight(options.site, gpu=True) / 1e6,
    }
    for name, megabytes in weights.items():
        print(f"{name:<40} {megabytes:5.1f} MB")
    print(f"\n{'milliseconds':<40} " + " ".join(f"{name:>16}" for name in rows))
    for name in next(iter(rows.values())):
        print(f"{name:<40} " + " ".join(f"{row[name]:16.0f}" for row in rows.values()))
    if options.json:
        content = {"megabytes": weights, "milliseconds": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


def _measure(site: Path, *, prompts: int, vit_b: bool) -> dict[str, dict[str, float]]:
    """Figures by the way the page is served."""
    rows = {}
    with open_chromium() as browser:
        for name, isolated in (("with threads", True), ("without", False)):
            with serve_site(site, isolated=isolated) as url:
                rows[name] = _visit(browser, url, prompts=prompts, vit_b=vit_b)
    return rows


def _visit(browser: Browser, url: str, *, prompts: int, vit_b: bool) -> dict[str, float]:
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(_TIMEOUT)
    start = time.perf_counter()
    # Without the service worker, which would bring threads to the page that is to have none.
    page.goto(f"{url}?offline=0&gpu=0")
    page.wait_for_selector("#choose:enabled")
    ready = time.perf_counter() - start
    page.wait_for_selector("#stage[data-text=ready]")
    loaded = time.perf_counter() - start
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    page.click("[data-example='bus.jpg']")
    page.wait_for_selector("#stage[data-encode][data-state=ready]")
    encode = float(page.get_attribute("#stage", "data-encode") or 0)
    hover = _point(page, prompts)
    figures = {
        "first paint": paint,
        "ready for a photo": ready * 1e3,
        "ready for phrases": loaded * 1e3,
        "encode 640 x 427": encode,
        "prompt to mask on screen, median": statistics.median(hover),
        "prompt to mask on screen, fastest": min(hover),
        "click, all closer looks": _after(page, lambda: page.mouse.click(*_place(page, 0.5, 0.5))),
        "first phrase": _phrase(page, "wheel"),
        "further phrase": _phrase(page, "window"),
        "absent phrase": _phrase(page, "unicorn"),
        "everything (100 points)": _after(page, lambda: page.click("#everything")),
    }
    for name, folder in (("tiny", "model/"), ("ViT-B", "vit_b/"))[: 2 if vit_b else 1]:
        times = page.evaluate(_TIME_DECODER, [folder, 30, None])
        figures[f"decoder alone, {name}, median"] = statistics.median(times[5:])
    page.close()
    return figures


def _place(page: Page, x: float, y: float) -> tuple[float, float]:
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def _point(page: Page, prompts: int) -> list[float]:
    """Move the pointer from place to place, each after the mask of the last one is there."""
    measured = "performance.getEntriesByName('prompt to mask')"
    for number in range(prompts + 5):
        page.mouse.move(*_place(page, 0.25 + 0.5 * number / (prompts + 5), 0.5))
        for _ in range(500):
            if page.evaluate(f"{measured}.length") > number:
                break
            page.wait_for_timeout(10)
    times: list[float] = page.evaluate(f"{measured}.map((each) => each.duration)")
    return times[5:]  # the first ones warm up


def _after(page: Page, act: Any) -> float:
    """Milliseconds until the page is at rest again."""
    start = time.perf_counter()
    act()
    page.wait_for_selector("#stage[data-state=busy]")
    page.wait_for_selector("#stage[data-state=ready]")
    return (time.perf_counter() - start) * 1e3


def _phrase(page: Page, phrase: str) -> float:
    page.fill("#phrase", phrase)
    start = time.perf_counter()
    page.click("#find")
    page.wait_for_selector(f"#answers li:has-text('{phrase}')")
    return (time.perf_counter() - start) * 1e3


def _export_vit_b(folder: Path) -> None:
    """The decoder of a SAM of ViT-B size with random weights."""
    from textsam.export.exporting import export_model
    from textsam.inference.model import TextSAM
    from textsam.modeling.config import SAM_CONFIGS
    from textsam.modeling.sam import Sam

    export_model(TextSAM(Sam(SAM_CONFIGS["vit_b"])), folder, parts=["decoder"])
    make_lean(folder)


if __name__ == "__main__":
    main()
