"""Calls that mypy checks and nobody runs: an unused `type: ignore` is an error there."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import numpy as np

from textsam import Segmentation, TextSAM, segment
from textsam.batch.folders import segment_folder


def correct() -> None:
    """As README.md has them."""
    assert_type(segment("bus.jpg", text="wheel"), Segmentation)
    assert_type(segment("bus.jpg", "wheel"), Segmentation)
    assert_type(
        TextSAM.from_pretrained()("bus.jpg", ["wheel", "door"], threshold=0.3), Segmentation
    )
    segment("bus.jpg", text=["bus", "wheel"], overlap="exclusive", threshold=0.3, model="tiny")
    model = TextSAM.from_pretrained()
    results = model.segment(["a.jpg", "b.jpg"], text=["cat", "banana"])
    assert_type(results, list[Segmentation])
    view = model.open("dog.jpg")
    view.segment(points=[(300, 200)], labels=[1], multimask=True)
    view.segment(box=(60, 40, 400, 420), mask=np.ones((3, 3), bool))
    view("bus", exclude="wheel")
    view.segment(boxes=[[60, 40, 400, 420], [1, 2, 3, 4]])
    view.segment("bus", exclude="wheel", background=["street"], strategy="rank")
    view.segment(like=results[0][0], threshold=0.5)
    view.explain("bus", exclude="wheel")
    model.open_tiled("city.jpg").segment(text="car", progress=print, overlap="exclusive")
    segment_folder(model, "photos", Path("out"), text="wheel", box=(0, 0, 9, 9), format="json")


def wrong() -> None:
    """Each line has one mistake."""
    model = TextSAM.from_pretrained()
    view = model.open("dog.jpg")
    view.segment(bbox=(0, 0, 9, 9))  # type: ignore[call-arg]
    view.segment(text=3)  # type: ignore[arg-type]
    view.segment(text="a", strategy="guess")  # type: ignore[arg-type]
    view.explain("a", box=(0, 0, 9, 9))  # type: ignore[call-arg]
    segment("bus.jpg", prompt="wheel")  # type: ignore[call-overload]
    model.segment("bus.jpg", conf=0.3)  # type: ignore[call-overload]
    model.open_tiled("city.jpg").segment(text="car", points=[(1, 1)])  # type: ignore[call-arg]
    segment_folder(model, "photos", "out", text="a", mask=[[1]])  # type: ignore[call-arg]
