"""Everyday phrases on everyday photos: which are answered right, wrong, or with nothing.

    python -m training.evaluation.everyday --photos ../shared/data/photos --sheet everyday.png

`everyday.json` has ten phrases for each photo with points on what they mean and points off it, in
percent of width and height, marked by hand. An answer is right if it covers at least half of the
points on and none off; a phrase without points is not in the photo, and right if left empty.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.pictures.contact_sheet import CELL, Cell, contact_sheet, fitted_size
from textsam.pictures.draw import PALETTE, encode_picture, overlay
from textsam.values.files import write_atomically
from textsam.values.images import load_image

from .command import Options, load_model, progress, run_command, write_report
from .data_sets import BadInputError
from .figures.result_table import Column, show_figures

_TRUTH = Path(__file__).with_suffix(".json")
_ROOT = Path(__file__).parents[2]  # photos of `examples/` are beside the package


@dataclass(frozen=True, kw_only=True)
class EverydayOptions(Options):
    """Count everyday phrases that are answered right, wrong, or with nothing."""

    model: str = "tiny"  # What TextSAM.from_pretrained takes: "tiny", a folder or a hub id
    detector: str | None = None  # A zero-shot detector that answers phrases: a folder or a hub id
    photos: Path | None = None  # Folder of the photos that are not among the examples
    json: Path | None = None  # Also write every verdict to this file
    sheet: Path | None = None  # Also draw every answer into this picture file


def judge(mask: NDArray[np.bool_], truth: str) -> str:
    """Verdict on a mask (H, W) bool, by points "x,y x,y | x,y" on and off, in percent."""
    on, off = (_points(part, mask) for part in (*truth.split("|"), "")[:2])
    if not mask.any():
        return "nothing" if on else "right"
    enough = 2 * sum(bool(mask[y, x]) for x, y in on) >= max(1, len(on))
    return "right" if enough and not any(mask[y, x] for x, y in off) else "wrong"


def _points(text: str, mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    height, width = mask.shape
    pairs = [pair.split(",") for pair in text.split()]
    return [(int(float(x) * width / 100), int(float(y) * height / 100)) for x, y in pairs]


def _run(options: EverydayOptions) -> None:
    truths: Mapping[str, Mapping[str, str]] = json.loads(_TRUTH.read_text(encoding="utf-8"))
    places = {name: (_ROOT if "/" in name else options.photos or _ROOT) / name for name in truths}
    found = {name: place for name, place in places.items() if place.is_file()}
    if not found:
        raise BadInputError(f"no photo of {_TRUTH.name} in {_ROOT}. Type: --photos FOLDER")
    detector = {} if options.detector is None else {"detector": options.detector}
    model = load_model(options.model, **detector)
    cells: dict[str, list[Cell]] = {}
    verdicts: dict[str, dict[str, str]] = {}
    for name, place in progress(list(found.items()), "photos"):
        image = load_image(place)
        view = model.open(image)
        cells[name], verdicts[name] = [], {}
        for phrase, truth in truths[name].items():
            answer = view.segment(text=phrase)
            union = answer.masks.any(0) if len(answer) else np.zeros(image.shape[:2], bool)
            verdict = verdicts[name][phrase] = judge(union, truth)
            cells[name].append(_cell(image, answer, f"{phrase}: {verdict}"))
    _show(verdicts, missing=len(truths) - len(found), model=options.model)
    write_report(options, [{"name": n, "verdicts": said} for n, said in verdicts.items()])
    if options.sheet is not None:
        picture = contact_sheet(cells, columns=5)
        write_atomically(options.sheet, encode_picture(picture, options.sheet.suffix))


def _show(verdicts: Mapping[str, Mapping[str, str]], *, missing: int, model: str) -> None:
    counts = {Path(name).stem: Counter(said.values()) for name, said in verdicts.items()}
    counts["all"] = sum(counts.values(), Counter())
    columns = [Column("photo", "photo")]
    columns += [Column(kind, kind) for kind in ("right", "wrong", "nothing")]
    rows = [{"photo": name, **count} for name, count in counts.items()]
    notes = [f"{missing} more photos with --photos FOLDER"] if missing else []
    show_figures(f"Everyday phrases, model {model}", columns, rows, notes=notes)


def _cell(image: NDArray[np.uint8], answer: Any, caption: str) -> Cell:
    drawn = overlay(image, answer.rles, colors=[PALETTE[1]] * len(answer), alpha=0.5)
    small = drawn.resize(fitted_size(drawn.size, CELL), Image.Resampling.LANCZOS)
    return Cell(picture=small, caption=caption)


if __name__ == "__main__":
    sys.exit(run_command(EverydayOptions, _run))
