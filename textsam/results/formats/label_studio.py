"""Label Studio: `tasks.json` beside `images/`, to be imported with local file serving."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textsam.results.formats.set_photo import SetOptions, SetPhoto, annotation_id
from textsam.results.mask_result import MaskResult
from textsam.results.polygons import fill_polygons, mask_to_polygons
from textsam.results.segmentation import Segmentation
from textsam.results.storage import dump_json
from textsam.values.files import open_atomically

# Bits of a run's length, by the two bits before it (@thi.ng/rle-pack, which Label Studio uses).
_LENGTHS = (3, 4, 8, 16)
_SERVED = "/data/local-files/?d="


def write_label_studio(folder: Path, photos: Sequence[SetPhoto], options: SetOptions) -> None:
    """Write predictions as brush masks, or as polygons in percent, one for each part.

    The parts of a mask follow each other and have the first one as their `parentID`.
    """
    with open_atomically(options.new_file(folder / "tasks.json")) as file:
        between = b"[\n"
        for photo in photos:
            place = options.place(photo, folder / "images")
            result = photo.load()
            height, width = result.size
            regions: list[dict[str, Any]] = []
            for index, item in enumerate(result):
                common = {
                    "from_name": "label",
                    "to_name": "image",
                    "original_width": width,
                    "original_height": height,
                    "image_rotation": 0,
                }
                if not math.isnan(item.score):
                    common["score"] = round(item.score, 6)
                for region in _regions(item, str(annotation_id(photo, index)), options):
                    regions.append({**common, **region})
            inside = f"images/{photo.name}" if options.photos != "none" else place.as_posix()
            size = {"height": height, "width": width}
            task = {
                "id": photo.id,
                "data": {"image": _SERVED + inside},
                "meta": size,
                "predictions": [{"model_version": "textsam", "result": regions}],
            }
            file.write(between + dump_json(task).rstrip(b"\n"))
            between = b",\n"
        file.write(b"\n]\n" if photos else b"[]\n")


def _regions(item: MaskResult, name: str, options: SetOptions) -> Iterator[dict[str, Any]]:
    label = options.names[options.number(item.label)]
    if not options.polygons:
        value: dict[str, Any] = {
            "format": "rle",
            "rle": pack_mask(item.mask),
            "brushlabels": [label],
        }
        yield {"id": name, "type": "brushlabels", "value": value}
        return
    height, width = item.rle.size
    polygons = mask_to_polygons(item.mask, tolerance=options.tolerance)
    for index, ring in enumerate(polygons):
        points = ring.astype(np.float64) * 100 / [width, height]
        value = {"points": points.tolist(), "closed": True, "polygonlabels": [label]}
        family = {"parentID": name} if index else {}
        number = f"{name}-{index}" if index else name
        yield {"id": number, "type": "polygonlabels", "value": value, **family}


def pack_mask(mask: NDArray[np.bool_]) -> list[int]:
    """A mask (H, W) as Label Studio's brush: bytes of an RGBA picture, run-length coded."""
    flat = np.repeat(mask.ravel(), 4)
    ends = [*np.flatnonzero(flat[1:] != flat[:-1]).tolist(), len(flat) - 1]
    bits = [f"{len(flat):032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in _LENGTHS)]
    start = 0
    for end in ends:
        value = f"{255 * bool(flat[end]):08b}"
        while start <= end:
            run = min(end - start + 1, 1 << _LENGTHS[-1])
            kind = next(i for i, size in enumerate(_LENGTHS) if run <= 1 << size)
            bits.append(f"1{kind:02b}{run - 1:0{_LENGTHS[kind]}b}{value}")
            start += run
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8))


def unpack_mask(code: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Read what Label Studio or `pack_mask` wrote; a pixel is set if its alpha is."""
    bits = "".join(f"{byte:08b}" for byte in code)
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, word = read(32), read(5) + 1
    lengths = [read(4) + 1 for _ in range(4)]
    if total != size[0] * size[1] * 4:
        raise ValueError(
            f"got a brush of {total} bytes; a photo of {size} has {size[0]}x{size[1]}x4"
        )
    out = np.zeros(total, dtype=np.uint8)
    start = 0
    while start < total:
        is_run = read(1)
        end = start + read(lengths[read(2)]) + 1
        out[start:end] = read(word) if is_run else [read(word) for _ in range(end - start)]
        start = end
    return np.asarray(out.reshape(*size, 4)[..., 3] > 0)


def read_label_studio(folder: Path) -> Iterator[tuple[Path, Segmentation]]:
    """Read tasks: their annotations, or where there are none, their predictions."""
    path = folder if folder.is_file() else folder / "tasks.json"
    for task in json.loads(path.read_bytes()):
        answers = task.get("annotations") or task.get("predictions") or []
        regions = [region for answer in answers[:1] for region in answer["result"]]
        sizes = [(region["original_height"], region["original_width"]) for region in regions]
        sizes += [(task["meta"]["height"], task["meta"]["width"])] if not sizes else []
        masks: dict[str, NDArray[np.bool_]] = {}
        labels: dict[str, str | None] = {}
        scores: dict[str, float] = {}
        for region in regions:
            found = _mask_of(region, sizes[0])
            if found is None:
                continue
            name = region.get("parentID") or region["id"]
            masks[name] = masks[name] | found if name in masks else found
            labels.setdefault(name, _label_of(region["value"]))
            scores.setdefault(name, float(region.get("score", math.nan)))
        result = Segmentation.from_masks(
            np.asarray(list(masks.values()), dtype=np.bool_).reshape(-1, *sizes[0]),
            labels=list(labels.values()),
            scores=list(scores.values()),
        )
        where = str(next(iter(task["data"].values()))).rpartition("?d=")[2]
        yield path.parent / where, result


def _mask_of(region: dict[str, Any], size: tuple[int, int]) -> NDArray[np.bool_] | None:
    value = region["value"]
    if "rle" in value:
        return unpack_mask(value["rle"], size)
    if "points" in value:
        corners = np.asarray(value["points"], dtype=np.float64) * [size[1], size[0]] / 100
        return fill_polygons([corners], size)
    return None


def _label_of(value: dict[str, Any]) -> str | None:
    return next((values[0] for key, values in value.items() if key.endswith("labels")), None)
