"""Rough masks in, better ones out: what is kept, what is asked, and whole label files."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import PromptError
from textsam.inference.model import TextSAM
from textsam.results.interop import to_coco
from textsam.results.segmentation import Segmentation
from textsam.tasks.refinement import refine, refine_coco
from textsam.values.rle import rle_from_json

SIZE = (50, 90)


def _square(y0: int, y1: int, x0: int, x1: int) -> NDArray[np.bool_]:
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


class Answers:
    """In place of `view.predict`: grows the given mask to the right, and remembers the prompts."""

    def __init__(self, by: int) -> None:
        self.by, self.asked = by, []

    def __call__(self, **prompt: Any) -> Any:
        self.asked.append(prompt)
        mask = prompt["mask"] | np.roll(prompt["mask"], self.by, axis=1)
        logits = SimpleNamespace(full_size=lambda: np.where(mask, 3.0, -3.0).astype(np.float32))
        return SimpleNamespace(masks=[logits] * 4, iou=np.full(4, 0.75, np.float32))


def test_every_mask_keeps_its_place_label_and_score(
    model: TextSAM, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    rough = Segmentation.from_masks(
        np.stack([_square(5, 20, 5, 30), _square(0, 0, 0, 0), _square(30, 48, 50, 70)]),
        labels=["a", "b", "c"],
        scores=[0.1, 0.2, 0.3],
    )
    view = model.open(photo)
    answers = Answers(by=4)
    monkeypatch.setattr(view, "predict", answers)
    found = refine(view, rough)
    assert found.labels == ["a", "b", "c"]
    np.testing.assert_allclose(found.scores, [0.1, 0.2, 0.3])
    assert [item.area for item in found] == [15 * 29, 0, 18 * 24]
    np.testing.assert_array_equal(np.isnan(found.iou), [False, True, False])
    np.testing.assert_allclose(found.stability[[0, 2]], 1.0)
    for prompt, mask in zip(answers.asked, rough.masks[[0, 2]], strict=True):
        (x, y) = prompt["points"][0]
        assert mask[int(y), int(x)]
        y_, x_ = np.nonzero(mask)
        np.testing.assert_array_equal(
            prompt["box"], [x_.min(), y_.min(), x_.max() + 1, y_.max() + 1]
        )


def test_another_thing_is_not_taken(
    model: TextSAM, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    rough = _square(5, 20, 5, 30)
    view = model.open(photo)
    monkeypatch.setattr(
        view,
        "predict",
        lambda **prompt: SimpleNamespace(
            masks=[SimpleNamespace(full_size=lambda: np.full(SIZE, 1.0, np.float32))],
            iou=np.ones(1, np.float32),
        ),
    )
    found = refine(view, rough)
    np.testing.assert_array_equal(found.masks[0], rough)
    assert np.isnan(found.iou[0])


@pytest.mark.parametrize(
    ("box", "point"), [(True, True), (False, True), (True, False), (False, False)]
)
def test_prompts_can_be_left_out(
    model: TextSAM,
    photo: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
    box: bool,
    point: bool,
) -> None:
    view = model.open(photo)
    answers = Answers(by=1)
    monkeypatch.setattr(view, "predict", answers)
    refine(view, _square(5, 20, 5, 30), box=box, point=point)
    (prompt,) = answers.asked
    assert (prompt["box"] is not None, prompt["points"] is not None) == (box, point)


def test_a_model_and_an_image_or_an_open_photo(model: TextSAM, photo: NDArray[np.uint8]) -> None:
    masks = np.stack([_square(5, 20, 5, 30), _square(30, 48, 50, 70)])
    one = refine(model, masks, image=photo)
    other = refine(model.open(photo), Segmentation.from_masks(masks))
    np.testing.assert_array_equal(one.masks, other.masks)
    each = [refine(model, mask, image=photo).masks[0] for mask in masks]
    np.testing.assert_array_equal(one.masks, each)


def test_the_middle_lies_inside_thin_masks(
    model: TextSAM, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    big = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    mask = np.zeros((300, 400), bool)
    mask[np.arange(300), np.arange(300) + 50] = True  # a line of one pixel
    view = model.open(big)
    answers = Answers(by=0)
    monkeypatch.setattr(view, "predict", answers)
    refine(view, mask)
    (x, y) = answers.asked[0]["points"][0]
    assert mask[int(y), int(x)]


def test_wrong_masks_are_told(model: TextSAM, photo: NDArray[np.uint8]) -> None:
    with pytest.raises(PromptError, match=r"wanted bool \(K, 50, 90\)"):
        refine(model, np.zeros((3, 40, 90), bool), image=photo)
    with pytest.raises(PromptError, match="float"):
        refine(model, np.zeros(SIZE), image=photo)
    with pytest.raises(PromptError, match="are for a photo of"):
        refine(model, Segmentation((4, 5), []), image=photo)
    with pytest.raises(PromptError, match="image"):
        refine(model, np.zeros(SIZE, bool))


def _coco(folder: Path, photo: NDArray[np.uint8]) -> Path:
    result = Segmentation.from_masks(
        np.stack([_square(5, 20, 5, 30), _square(30, 48, 50, 70)]), labels=["x", "x"]
    )
    annotations = to_coco(result, image_id=7, categories={"x": 3}, polygons=True)
    annotations[1]["iscrowd"] = 1
    annotations[0]["mine"] = "kept"
    Image.fromarray(photo).save(folder / "a.png")
    payload = {
        "info": {"year": 2026},
        "images": [{"id": 7, "file_name": "a.png", "height": 50, "width": 90}],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "x"}],
    }
    path = folder / "labels.json"
    path.write_text(json.dumps(payload))
    return path


def test_a_coco_file_keeps_all_but_its_masks(
    model: TextSAM, photo: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _coco(tmp_path, photo)
    opened = type(model).open

    def open_grown(self: TextSAM, image: Any) -> Any:
        view = opened(self, image)
        view.predict = Answers(by=4)  # type: ignore[method-assign]
        return view

    monkeypatch.setattr(type(model), "open", open_grown)
    seen: list[tuple[int, int]] = []
    count = refine_coco(
        model,
        path,
        photos=tmp_path,
        out=tmp_path / "out.json",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert count == 1 and seen == [(1, 1)]
    before, after = json.loads(path.read_text()), json.loads((tmp_path / "out.json").read_text())
    assert after["info"] == before["info"] and after["images"] == before["images"]
    assert after["annotations"][1] == before["annotations"][1]  # a crowd
    row = after["annotations"][0]
    assert row["mine"] == "kept" and row["id"] == before["annotations"][0]["id"]
    assert row["area"] == 15 * 29 and row["bbox"] == [5.0, 5.0, 29.0, 15.0]
    assert rle_from_json(row["segmentation"]).size == SIZE


def test_files_that_are_no_coco(model: TextSAM, photo: NDArray[np.uint8], tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    path = tmp_path / "bad.json"
    for text, told in (
        ("{", "not JSON"),
        ("[]", "wanted the lists images"),
        ('{"images": [{}]}', "wanted COCO's list"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=told):
            refine_coco(model, path, photos=tmp_path, out=out)
    path = _coco(tmp_path, photo)
    payload = json.loads(path.read_text())
    payload["annotations"][0]["image_id"] = 8
    path.write_text(json.dumps(payload))
    with pytest.raises(ValueError, match="photo that is not listed"):
        refine_coco(model, path, photos=tmp_path, out=out)
    assert not out.exists()
