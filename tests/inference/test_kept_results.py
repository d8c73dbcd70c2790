"""What a kept result and a kept dialogue hold in memory: no pixels, no decoded masks, no logits."""

from __future__ import annotations

import copy
import gc
import pickle
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from textsam.errors import ImageError
from textsam.inference.model import TextSAM
from textsam.results.segmentation import Segmentation
from textsam.values import photo as photo_module

H, W = 300, 400
PIXELS = H * W * 3


def held_bytes(*owners: Any) -> int:
    """Bytes of all arrays and byte strings that are reachable from some objects."""
    seen: set[int] = set()
    total, todo = 0, list(owners)
    while todo:
        item = todo.pop()
        if id(item) in seen or isinstance(item, type | types.ModuleType | types.FunctionType):
            continue
        seen.add(id(item))
        if isinstance(item, np.ndarray):
            total += item.nbytes if item.base is None else 0
            todo.append(item.base)
        elif isinstance(item, bytes):
            total += len(item)
        else:
            todo += gc.get_referents(item)
    return total


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setattr(photo_module, "_LATEST_BYTES", 1)  # only the very last array stays
    paths = [tmp_path / f"{seed}.png" for seed in range(4)]
    for seed, path in enumerate(paths):
        noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((W, H), Image.Resampling.BICUBIC).save(path)
    return paths


def options(**changes: Any) -> dict[str, Any]:
    return {"text": ["a", "b"], "threshold": 0.01, **changes}


def test_results_of_paths_hold_no_pixels(model: TextSAM, photos: list[Path]) -> None:
    results = [
        *model.segment(photos, **options()),
        *(model.segment(path, **options()) for path in photos),
        *(model.segment(path.read_bytes(), **options()) for path in photos),
        *(model.open(path).segment(points=[(30, 40)]) for path in photos),
        model.everything(photos[0]),
    ]
    model.segment(photos[0], **options())  # the latest photo, which stays
    encoded = sum(path.stat().st_size for path in photos)  # what came as bytes is kept so
    assert held_bytes(results) - encoded < len(results) * PIXELS / 10
    assert len(pickle.dumps(results)) < len(results) * PIXELS / 10
    for result in results:  # and yet they are drawn, with their own photo
        assert result.plot().size == (W, H)
        assert result.image.shape == (H, W, 3)


def test_looking_at_masks_pins_none(model: TextSAM, photos: list[Path]) -> None:
    results = model.segment(photos * 2, **options(threshold=0.001))
    for result in results:
        assert result.masks.shape == (len(result), H, W)
        assert result.mask.shape == (H, W)
        assert all(item.mask.shape == (H, W) for item in result)
    assert any(len(result) for result in results)
    model.segment(photos[0], **options())
    assert held_bytes(results) < len(results) * H * W / 3
    result = max(results, key=len)
    assert result.masks is result.masks  # not decoded twice in a row
    held = result.masks
    model.segment(photos[0], **options())
    assert result.masks is held  # nor while somebody has them


def test_results_of_arrays_can_be_drawn_until_their_photo_is_dropped(
    model: TextSAM, photos: list[Path]
) -> None:
    frames = [np.asarray(Image.open(path)) for path in photos]
    results = [model.segment(np.array(frame), **options()) for frame in frames]
    for result, frame in zip(results, frames, strict=True):
        np.testing.assert_array_equal(result.image, frame)  # the array is gone, its pixels are not
    bare = [result.without_image() for result in results]
    del results
    model.segment(photos[0], **options())
    assert held_bytes(bare) < len(bare) * PIXELS / 10
    assert bare[0].image is None and bare[0][:0].image is None
    with pytest.raises(ImageError, match="does not know its photo"):
        bare[0].plot()
    np.testing.assert_array_equal(bare[0].with_image(frames[0]).image, frames[0])
    with pytest.raises(ValueError, match="not the photo"):
        bare[0].with_image(frames[0][:-1])


def test_a_pickle_holds_pixels_only_when_asked(model: TextSAM, photos: list[Path]) -> None:
    result = model.segment(photos[0], **options())
    again = pickle.loads(pickle.dumps(result))
    assert again == result and str(again.explain()) == str(result.explain())
    np.testing.assert_array_equal(again.image, result.image)
    of_array = model.segment(np.asarray(Image.open(photos[0])), **options())
    assert pickle.loads(pickle.dumps(of_array)).image is None
    pinned = pickle.dumps(of_array.with_image())
    assert len(pinned) > PIXELS
    np.testing.assert_array_equal(pickle.loads(pinned).image, of_array.image)


def test_a_photo_that_changed_is_not_drawn_on(model: TextSAM, photos: list[Path]) -> None:
    result = pickle.loads(pickle.dumps(model.segment(photos[0], **options())))
    Image.open(photos[1]).save(photos[0])
    with pytest.raises(ImageError, match="another picture"):
        result.plot()
    result.plot(photos[1])  # whoever gives a photo is believed
    photos[0].unlink()
    with pytest.raises(ImageError, match="cannot read the photo of this result again"):
        result.save(photos[0].with_suffix(".jpg"))
    assert result._repr_html_().startswith("<img")  # a notebook shows it on black
    assert str(result.explain())


def test_an_example_is_found_by_its_file(model: TextSAM, photos: list[Path]) -> None:
    view = model.open(photos[0])
    [wheel] = view.segment(box=(100, 100, 250, 220))
    inside = view.segment(like=wheel)
    again = model.open(photos[0]).segment(like=pickle.loads(pickle.dumps(wheel)))
    assert inside == again


def test_clicks_hold_low_resolution_logits_only(model: TextSAM, photos: list[Path]) -> None:
    view = model.open(photos[0])
    view.segment(text="a", threshold=0.001)
    base = held_bytes(view.dialogue.steps)
    rng = np.random.default_rng(0)
    for _ in range(20):
        view.click(float(rng.uniform(1, W - 1)), float(rng.uniform(1, H - 1)))
        _ = view.dialogue.result.masks
    view.everything()
    model.segment(photos[1], **options())
    grown = held_bytes(view.dialogue.steps) - base
    cells = 4 * model.sam.config.mask_size**2
    pinned = PIXELS  # by the view itself
    assert grown - pinned < 20 * (4 * cells + H * W / 20)


def test_predictions_hold_low_resolution_logits_only(model: TextSAM, photos: list[Path]) -> None:
    view = model.open(photos[0])
    kept = [view.predict(points=[(30 + 9 * number, 40)]) for number in range(6)]
    for prediction in kept:
        assert prediction.logits.shape == (4, H, W)
        assert prediction.logits is prediction.logits
    assert held_bytes(kept[:-1]) < len(kept) * 4 * H * W / 2
    again = pickle.loads(pickle.dumps(kept[0]))
    assert len(pickle.dumps(kept[0])) < 4 * H * W
    np.testing.assert_array_equal(again.logits, kept[0].logits)
    np.testing.assert_array_equal(copy.deepcopy(kept[0]).iou, kept[0].iou)


def test_answers_of_a_result_hold_no_logits(model: TextSAM, photos: list[Path]) -> None:
    view = model.open(photos[0])
    result = view.segment(text="a", strategy="prompt")
    assert any(answer.candidates for answer in result.answers)
    assert all(c.low_res is None for answer in result.answers for c in answer.candidates)
    assert any(item.low_res is not None for item in view.dialogue.steps[0].instances)


def test_columns_are_kept(model: TextSAM, photos: list[Path]) -> None:
    result = model.segment(photos[0], **options())
    assert result.boxes is result.boxes and result.areas is result.areas
    assert Segmentation((H, W), []).masks.shape == (0, H, W)
