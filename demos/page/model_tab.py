"""The tab about the model: what it is, how fast it is on this machine, and what it cannot do."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import gradio as gr

from textsam.errors import TextSamError
from textsam.inference.strategies.answering import choose_strategy
from textsam.values.images import load_image
from textsam.weights.info import read_model_info
from textsam.weights.model_table import find_entry

from ..explorer.photo_cache import ModelInBackground, example_photos

if TYPE_CHECKING:
    from textsam.inference.model import TextSAM

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
                headers=["step", "median, ms", "slowest, ms"],
                interactive=False,
                label="Each step five times on an example photo",
                elem_id="speed",
            )
            gr.Markdown("Measured on the server, which may be busy with other work.")
    # Polls until the model is loaded, then stops itself.
    timer = gr.Timer(1.0)

    def refresh() -> tuple[str, gr.Timer]:
        return _describe(model), gr.Timer(active=model.state == "loading")

    timer.tick(refresh, outputs=[about, timer], api_visibility="private", show_progress="hidden")
    button.click(
        lambda: _measure(model()), outputs=speed, api_visibility="private", concurrency_id="work"
    )


def _describe(model: ModelInBackground) -> str:
    """The model as Markdown."""
    if model.state == "loading":
        return f"Loading {model.name} ..."
    try:
        loaded = model()
    except TextSamError as error:
        return f"### {model.name}\n\n{error}"
    try:
        info = read_model_info(model.name)
        size = sum(file.size for file in info.files)
        entry = find_entry(model.name)
        known = None if entry is None else entry.license
        facts = [
            f"Licence of the weights: {info.license or known or 'not stated in its files'}",
            f"{info.parameters / 1e6:.1f} million parameters, {size / 1e6:.1f} MB on disk",
        ]
    except TextSamError:
        facts = ["Licence and size are unknown: its files do not state them"]
    clip = "none" if loaded.clip is None else loaded.clip.name
    choice = choose_strategy(loaded.parts)
    facts += [
        f"Input: photos scaled to {loaded.sam.config.image_size} pixels on the longer side",
        f"CLIP: {clip}",
        f"Detector: {'none' if loaded.detector is None else loaded.detector.name}",
        f'Phrases: strategy "{choice.strategy}", since {choice.reason}',
        f"Runs on: {loaded.device} ({platform.machine()})",
        f"Loaded in {model.seconds or 0:.1f} s",
    ]
    sections = (f"### {model.name}", facts), ("### Limitations", _limitations(loaded))
    return "\n\n".join(
        head + "\n\n" + "\n".join(f"- {line}" for line in lines) for head, lines in sections
    )


def _limitations(model: TextSAM) -> list[str]:
    lines = []
    strategy = choose_strategy(model.parts).strategy
    if strategy == "rank" and model.clip is None:
        lines.append("It takes no phrases, because it has no CLIP. Click, or drag a box.")
    elif strategy == "rank":
        lines.append("Phrases rank automatic masks, which is slow and rough.")
    if model.name == "tiny":
        lines += [
            "Small objects that are rare in its training data (a fork, a tie) are mostly missed.",
            "Touching objects with the same name are often returned as one mask.",
            "Asked for a part that the photo does not show, it sometimes returns a mask all the "
            "same: look at the probability, and press “Why?”.",
            "Words that were not in its training data are guesses.",
        ]
    lines.append(
        "A mask is a proposal, not a measurement; do not use masks for decisions about people."
    )
    return lines


def _measure(model: TextSAM) -> list[list[str | float]]:
    """Time the steps of a session on an example photo: name, median and slowest milliseconds."""
    path = example_photos()[0]
    photo = load_image(path)
    height, width = photo.shape[:2]
    view = model.open(photo)
    steps: dict[str, Callable[[], object]] = {
        "open a photo": lambda: model.open(photo),
        "one click": lambda: view.segment(points=[(width / 2, height / 2)]),
        "a box": lambda: view.segment(box=(width / 4, height / 4, width * 0.75, height * 0.75)),
    }
    if model.clip is not None and model.has_dense_text:
        steps["a phrase"] = lambda: view.segment(text=path.stem)
    rows: list[list[str | float]] = []
    for name, step in steps.items():
        times = []
        for _ in range(_ROUNDS):
            start = time.perf_counter()
            step()
            times.append(1000 * (time.perf_counter() - start))
        rows.append([name, round(statistics.median(times)), round(max(times))])
    return rows
