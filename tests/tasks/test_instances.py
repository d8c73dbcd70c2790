"""Masks of a detector's boxes: batches, order, the three forms of boxes, whole files, errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import ImageError, PromptError
from textsam.inference.model import TextSAM
from textsam.inference.photo import many_objects, zoom
from textsam.inference.photo.encoded import encode_photo
from textsam.inference.view import ImageView
from textsam.tasks.detections import read_boxes
from textsam.tasks.instances import instances, refine_results
from textsam.values.geometry import boxes_to_xywh
from textsam.values.prompts import make_prompt
from textsam.values.rle import decode_rle, encode_masks, rle_from_json
from textsam.values.settings import FocusSettings

Photo = NDArray[np.uint8]
# More than a group, so that the last one is a short one; the last box is the whole photo.
BOXES = np.array(
    [(3 * k, k, 3 * k + 20 + 4 * k, k + 12 + 2 * k) for k in range(10)] + [(0, 0, 90, 50)],
    np.float32,
)
NAMES = [f"thing {k % 3}" for k in range(len(BOXES))]
SCORES = np.linspace(0.9, 0.1, len(BOXES)).astype(np.float32)


def _loop(view: ImageView, *, refine: bool) -> tuple[list, list[float]]:
    """What `ImageView.predict` says, box by box."""
    rles, iou = [], []
    for box in BOXES:
        answer = view.predict(box=box)
        if refine:
            answer = view.predict(box=box, previous=answer)
        rles += encode_masks(answer.logits[:1] > 0)
        iou.append(float(answer.iou[0]))
    return rles, iou


@pytest.mark.parametrize("refine", [False, True])
def test_groups_equal_the_loop(model: TextSAM, photo: Photo, refine: bool) -> None:
    view = model.open(photo)
    found = instances(view, BOXES, refine=refine)
    rles, iou = _loop(view, refine=refine)
    assert len(found) == len(BOXES)
    np.testing.assert_allclose(found.iou, iou, atol=1e-5)
    for got, wanted in zip(found.masks, rles, strict=True):
        assert (got != decode_rle(wanted)).mean() < 1e-3  # a logit may round across zero


def test_the_second_pass_changes_the_answer(model: TextSAM, photo: Photo) -> None:
    view = model.open(photo)
    once, twice = instances(view, BOXES, refine=False), instances(view, BOXES)
    assert once.rles != twice.rles


def test_the_order_is_that_of_the_boxes(model: TextSAM, photo: Photo) -> None:
    view = model.open(photo)
    straight = instances(view, BOXES, labels=NAMES, scores=SCORES)
    back = instances(view, BOXES[::-1], labels=NAMES[::-1], scores=SCORES[::-1])
    np.testing.assert_allclose(back.iou[::-1], straight.iou, atol=1e-5)
    assert back.labels[::-1] == straight.labels == NAMES
    np.testing.assert_array_equal(straight.scores, SCORES)
    assert (straight.masks != back.masks[::-1]).mean() < 1e-3


def test_an_empty_mask_keeps_its_place(
    model: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = model.open(photo)
    real = many_objects.predict_each

    def second_is_empty(photo, prompts, *, refine=None):
        for index, found in enumerate(real(photo, prompts, refine=refine)):
            if index == 1:
                found.masks[0].grids[:] = -5.0
            yield found

    monkeypatch.setattr(many_objects, "predict_each", second_is_empty)
    found = instances(view, BOXES[:4], labels=NAMES[:4])
    assert found.labels == NAMES[:4]
    assert found.areas[1] == 0 and found.stability[1] == 0
    assert len(found.filter(min_area=1)) == 3


def test_no_boxes_give_no_masks(model: TextSAM, photo: Photo) -> None:
    view = model.open(photo)
    empty = SimpleNamespace(xyxy=np.zeros((0, 4)), confidence=None, class_id=None, data={})
    for boxes in ([], np.zeros((0, 4)), torch.zeros(0, 4), empty):
        found = instances(view, boxes)
        assert len(found) == 0 and found.masks.shape == (0, 50, 90)


def _coco(boxes: NDArray[np.float32], image_id: int = 7) -> list[dict]:
    return [
        {"image_id": image_id, "category_id": k % 3, "bbox": box.tolist(), "score": float(score)}
        for k, (box, score) in enumerate(zip(boxes_to_xywh(boxes), SCORES, strict=False))
    ]


def _supervision(**more) -> SimpleNamespace:
    values = {
        "xyxy": BOXES,
        "confidence": SCORES,
        "class_id": np.arange(len(BOXES)) % 3,
        "data": {"class_name": np.array(NAMES)},
    }
    return SimpleNamespace(**(values | more))


def test_array_tensor_coco_and_supervision_are_one(model: TextSAM, photo: Photo) -> None:
    view = model.open(photo)
    names = {k: f"thing {k}" for k in range(3)}
    wanted = instances(view, BOXES, labels=NAMES, scores=SCORES)
    for found in (
        instances(view, torch.from_numpy(BOXES), labels=NAMES, scores=torch.from_numpy(SCORES)),
        instances(view, BOXES.tolist(), labels=NAMES, scores=SCORES.tolist()),
        instances(view, _coco(BOXES), categories=names),
        instances(view, _supervision()),
        instances(view, _supervision(data={}), categories=names),
    ):
        assert found == wanted
    assert instances(view, _coco(BOXES)).labels[:3] == ["0", "1", "2"]
    bare = instances(view, _supervision(confidence=None, class_id=None, data={}))
    assert set(bare.labels) == {None} and np.isnan(bare.scores).all()
    assert instances(model, BOXES, image=photo, labels=NAMES, scores=SCORES) == wanted


def test_boxes_over_the_edge_are_cut(model: TextSAM, photo: Photo) -> None:
    view = model.open(photo)
    over, inside = [(-5, 10, 30, 99)], [(0, 10, 30, 50)]
    assert instances(view, over) == instances(view, inside)


def open_with(model: TextSAM, photo: Photo, settings: FocusSettings) -> ImageView:
    return ImageView(encode_photo(replace(model.parts, focus=settings), photo))


def test_close_looks_are_those_of_the_view(model: TextSAM, photo: Photo) -> None:
    settings = FocusSettings(limit=0.9)
    view = open_with(model, photo, settings)
    found = instances(view, BOXES)
    answers = [view.predict(box=box) for box in BOXES]
    assert found.rles == [encode_masks(answer.logits[:1] > 0)[0] for answer in answers]
    np.testing.assert_allclose(found.iou, [answer.iou[0] for answer in answers], rtol=1e-6)
    assert instances(view, BOXES, focus=False) == instances(model.open(photo), BOXES)
    assert found.rles != instances(view, BOXES, focus=False).rles


def test_focus_true_looks_closer_without_settings(model: TextSAM, photo: Photo) -> None:
    assert model.focus is None
    wanted = instances(open_with(model, photo, FocusSettings()), BOXES)
    assert instances(model.open(photo), BOXES, focus=True) == wanted


@pytest.mark.parametrize(("refine", "passes"), [(False, 1), (True, 2)])
def test_a_close_look_makes_as_many_passes_as_asked(
    model: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch, refine: bool, passes: int
) -> None:
    calls = []
    real = zoom.decode_prompts

    def counted(photos, prompts, low_res):
        calls.extend(photo.size for photo in photos)
        return real(photos, prompts, low_res)

    monkeypatch.setattr(zoom, "decode_prompts", counted)
    view = open_with(model, photo, FocusSettings())
    instances(view, [(10, 10, 20, 20)], refine=refine)  # on a window
    assert len(calls) == passes and calls[0] != view.size
    calls.clear()
    instances(view, [(0, 0, 90, 50)], refine=refine)  # too large for one
    assert calls == [view.size] * passes


def test_a_view_makes_two_passes_unless_told_otherwise(model: TextSAM, photo: Photo) -> None:
    view = open_with(model, photo, FocusSettings())
    prompt = make_prompt(view.size, box=(10, 10, 30, 30))
    twice = zoom.predict(view.photo, prompt, windows=view.windows)
    np.testing.assert_array_equal(view.predict(box=(10, 10, 30, 30)).logits, twice.logits)
    once = zoom.predict(view.photo, prompt, windows=view.windows, refine=False)
    assert not np.array_equal(once.logits, twice.logits)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([(1, 2, 9, 9), (1, 2, np.nan, 9)], "box 1: .*NaN"),
        ([(1, 2, 9, 9), (5, 5, 5, 9)], "box 1: .* is empty"),
        ([(1, 2, 9, 9), (5, 9, 9, 5)], "box 1: .* is empty"),
        ([(200, 0, 220, 9)], "box 0: .* outside the image"),
        ((1, 2, 9, 9), r"shape \(4,\).*type: \[box\]"),
        (np.zeros((2, 5)), r"shape \(2, 5\)"),
        (np.zeros((1, 1, 4)), r"shape \(1, 1, 4\)"),
        ([[1, 2, 3], [1, 2, 3, 4]], "not a table of numbers"),
        ([["a", "b", "c", "d"]], "box 0: .* not numbers"),
        (_coco(BOXES) + _coco(BOXES, image_id=8), "of 2 photos"),
        ([{"image_id": 1, "bbox": [1, 2, 3]}], "row 0: got bbox"),
        ([{"image_id": 1}], "row 0: got"),
        ([{"image_id": 1, "category_id": 1, "bbox": [5, 5, 0, 4]}], "box 0: .* is empty"),
    ],
)
def test_boxes_that_cannot_be_meant(boxes, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        read_boxes(boxes, (50, 90))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"labels": ["a"]}, "1 labels; wanted .* 2 boxes"),
        ({"labels": "ab"}, "got labels ab"),
        ({"labels": [1, 2]}, "got labels"),
        ({"scores": [0.5]}, r"scores of shape \(1,\)"),
        ({"scores": [0.5, np.inf]}, "infinite score at 1"),
        ({"scores": ["a", "b"]}, "got scores"),
    ],
)
def test_columns_that_do_not_fit(more: dict, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        read_boxes(BOXES[:2], (50, 90), **more)


def test_forms_with_labels_of_their_own_take_no_others() -> None:
    with pytest.raises(PromptError, match="of their own"):
        read_boxes(_coco(BOXES), (50, 90), labels=NAMES)
    with pytest.raises(PromptError, match="of their own"):
        read_boxes(_supervision(), (50, 90), scores=SCORES)
    with pytest.raises(PromptError, match=r"category 2; wanted one of \[0, 1\]"):
        read_boxes(_coco(BOXES), (50, 90), categories={0: "a", 1: "b"})


@pytest.fixture
def collection(tmp_path: Path, photo: Photo) -> tuple[Path, list[dict]]:
    """A folder with two photos, and COCO's list of them."""
    images = []
    for number in (7, 8):
        Image.fromarray(np.roll(photo, number, 0)).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 50, "width": 90})
    return tmp_path, images


def test_a_whole_file(model: TextSAM, collection: tuple[Path, list[dict]]) -> None:
    folder, images = collection
    rows = [row for pair in zip(_coco(BOXES), _coco(BOXES, 8), strict=True) for row in pair]
    rows[0]["extra"] = "stays"
    (folder / "results.json").write_text(json.dumps(rows))
    (folder / "images.json").write_text(json.dumps({"images": images, "annotations": []}))
    told: list[tuple[int, int]] = []

    count = refine_results(
        model,
        folder / "results.json",
        photos=folder,
        images=folder / "images.json",
        out=folder / "masks.json",
        progress=lambda *n: told.append(n),
    )

    written = json.loads((folder / "masks.json").read_text())
    assert count == len(written) == len(rows) and told == [(1, 2), (2, 2)]
    assert [row["image_id"] for row in written] == [7] * len(BOXES) + [8] * len(BOXES)
    assert written[0]["extra"] == "stays"
    for number in (7, 8):
        own = [row for row in written if row["image_id"] == number]
        wanted = instances(model, _coco(BOXES, number), image=folder / f"{number}.png")
        assert [rle_from_json(row["segmentation"]) for row in own] == wanted.rles
        np.testing.assert_allclose([row["predicted_iou"] for row in own], wanted.iou)
        assert [row["bbox"] for row in own] == [row["bbox"] for row in _coco(BOXES)]
    # Rows and images may come as lists, and nothing found is a file, too.
    assert refine_results(model, rows, photos=folder, images=images, out=folder / "b.json") == 22
    assert (folder / "b.json").read_bytes() == (folder / "masks.json").read_bytes()
    assert refine_results(model, [], photos=folder, images=images, out=folder / "c.json") == 0
    assert json.loads((folder / "c.json").read_text()) == []


def test_a_file_at_fault_leaves_nothing_behind(
    model: TextSAM, collection: tuple[Path, list[dict]]
) -> None:
    folder, images = collection
    bad = [*_coco(BOXES), {"image_id": 8, "category_id": 1, "bbox": [200, 0, 9, 9], "score": 1.0}]
    taller = [images[0] | {"height": 51}, images[1]]
    (folder / "text.json").write_text("no json")
    (folder / "truth.json").write_text(json.dumps({"annotations": []}))
    known = set(folder.iterdir())
    for rows, given, error, message in (
        (bad, images, PromptError, "photo 8 .*box 0: .*outside"),
        (_coco(BOXES, 9), images, ValueError, "1 of 1 image ids.*e.g. 9"),
        (_coco(BOXES), taller, ImageError, r"photo 7 .*\(50, 90\).*\(51, 90\)"),
        (_coco(BOXES), [{"id": 7}], ValueError, "wanted COCO's list"),
        ({"a": 1}, images, PromptError, "results is a dict"),
        (folder / "text.json", images, ValueError, "is not JSON"),
        (folder / "truth.json", images, ValueError, "annotations, not results"),
        (_coco(BOXES), folder / "text.json", ValueError, "is not JSON"),
    ):
        with pytest.raises(error, match=message):
            refine_results(model, rows, photos=folder, images=given, out=folder / "out.json")
    assert set(folder.iterdir()) == known


def test_an_image_is_wanted_once(model: TextSAM, photo: Photo) -> None:
    with pytest.raises(PromptError, match="no image"):
        instances(model, BOXES)
    with pytest.raises(PromptError, match="photo alone"):
        instances(model.open(photo), BOXES, image=photo)
