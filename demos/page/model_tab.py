"""The tab that tells what model this is, how fast it is here, and what it cannot do."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import gradio as gr

from textsam.errors import TextSamError
from textsam.values.images import load_image
from textsam.weights.info import KNOWN_MODELS, read_model_info

from ..explorer.loading import ModelInBackground
from ..explorer.photos import example_photos

if TYPE_CHECKING:
    from textsam.inference.model import TextSAM

__all__ = ["add_model_tab", "describe", "limits", "measure"]

_ROUNDS = 5


def add_model_tab(model: ModelInBackground) -> None:
    """Lay out the tab, inside a `gr.Tab`."""
    with gr.Row():
        with gr.Column():
            about = gr.Markdown(f"Loading {model.name} ...")
        with gr.Column():
            gr.Markdown("### Speed on this machine")
            button = gr.Button("Measure", elem_id="measure")
            speed = gr.Dataframe(
                headers=["what", "median, ms", "slowest, ms"],
                interactive=False,
                label="Each step five times on an example photo",
                elem_id="speed",
            )
            gr.Markdown(
                "Measured now, on the processor that answers you, beside whatever else it does."
            )
    refresh = gr.Timer(1.0)

    def look() -> tuple[str, gr.Timer]:
        return describe(model), gr.Timer(active=model.state == "loading")

    refresh.tick(look, outputs=[about, refresh], api_visibility="private", show_progress="hidden")
    button.click(
        lambda: measure(model()),
        outputs=speed,
        api_visibility="private",
        concurrency_id="work",
    )


def describe(model: ModelInBackground) -> str:
    """What is loaded, as Markdown."""
    if model.state == "loading":
        return f"Loading {model.name} ..."
    try:
        loaded = model()
    except TextSamError as error:
        return f"### {model.name}\n\n{error}"
    lines = [f"### {model.name}", ""]
    try:
        info = read_model_info(model.name)
        size = sum(file.size for file in info.files)
        known = next((told.license for told in KNOWN_MODELS if told.name == model.name), None)
        lines += [
            f"- Licence of the weights: {info.license or known or 'not stated in its files'}",
            f"- {info.parameters / 1e6:.1f} million parameters, {size / 1e6:.1f} MB on disk",
        ]
    except TextSamError:
        lines.append("- Its files tell nothing of their licence or size")
    clip = "none, so it takes clicks and boxes only" if loaded.clip is None else loaded.clip.name
    lines += [
        f"- Looks at photos with {loaded.sam.config.image_size} pixels on the longer side",
        f"- CLIP: {clip}",
        f"- Runs on: {loaded.device} ({platform.machine()})",
        f"- Loaded in {model.seconds or 0:.1f} s",
        "",
        "### What it cannot do",
        "",
        *(f"- {limit}" for limit in limits(loaded)),
    ]
    return "\n".join(lines)


def limits(model: TextSAM) -> list[str]:
    """The limits of a model in plain words."""
    found = []
    if model.clip is None:
        found.append("It takes no phrases: it has no CLIP. Click, or drag a box.")
    elif not model.has_dense_text:
        found.append("Phrases are answered by ranking automatic masks, which is slow and rough.")
    if model.name == "tiny":
        found += [
            "Small things of names that its data shows rarely (a fork, a tie) are mostly missed.",
            "Touching things of one name often come back as one mask.",
            "Asked for a part that this photo does not show, it paints something now and then: "
            "look at the probability, and press Why.",
            "Words it was never trained on are guesses.",
        ]
    found.append(
        "A mask is a proposal, not a measurement; nothing here is fit for decisions about people."
    )
    return found


def measure(model: TextSAM) -> list[list[str | float]]:
    """Time the steps of a session on an example photo: name, median and slowest milliseconds."""
    photo = load_image(example_photos()[0])
    height, width = photo.shape[:2]
    view = model.open(photo)
    steps: dict[str, Callable[[], object]] = {
        "open a photo": lambda: model.open(photo),
        "one click": lambda: view.segment(points=[(width / 2, height / 2)]),
        "a box": lambda: view.segment(box=(width / 4, height / 4, width * 0.75, height * 0.75)),
    }
    if model.clip is not None and model.has_dense_text:
        steps["a phrase"] = lambda: view.segment(text=example_photos()[0].stem)
    rows: list[list[str | float]] = []
    for name, step in steps.items():
        times = []
        for _ in range(_ROUNDS):
            start = time.perf_counter()
            step()
            times.append(1000 * (time.perf_counter() - start))
        rows.append([name, round(statistics.median(times)), round(max(times))])
    return rows
