from __future__ import annotations

import json

import numpy as np

from demos.explorer.explorer import Explorer
from demos.explorer.photo_cache import PhotoCache
from demos.explorer.scene import empty_scene, scene_of
from textsam.values.rle import RLE, decode_rle


def test_masks_come_back_from_the_code_in_their_box(explorer: Explorer) -> None:
    explorer.find("wheel, door", strategy="prompt")
    explorer.start_new()
    explorer.click(20, 20)
    scene = json.loads(json.dumps(scene_of(explorer, photo_url="a.jpg"), allow_nan=False))
    assert len(scene["objects"]) == len(explorer.board.objects) > 1
    for entry, item in zip(scene["objects"], explorer.board.objects, strict=True):
        x0, y0, x1, y1 = entry["box"]
        again = np.zeros(item.result.rle.size, bool)
        again[y0:y1, x0:x1] = decode_rle(RLE((y1 - y0, x1 - x0), entry["counts"].encode()))
        assert np.array_equal(again, item.result.mask)
        assert entry["color"] == list(item.rgb)
    assert scene["objects"][-1]["points"] == [[20, 20, 1]]
    assert scene["active"] == explorer.board.active


def test_every_scene_has_a_number_of_its_own(explorer: Explorer) -> None:
    first, second = (scene_of(explorer, photo_url="a.jpg") for _ in range(2))
    assert first["serial"] != second["serial"]


def test_without_a_photo_the_scene_is_empty(photos: PhotoCache) -> None:
    scene = scene_of(Explorer(photos), photo_url=None, message="bad file", error=True)
    assert scene.keys() == empty_scene().keys()
    assert scene["photo"] is None and scene["message"] == "bad file" and scene["error"]
