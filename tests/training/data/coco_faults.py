"""What tools write into COCO files: a file with one sound row and one that is unusual or broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from textsam.values.rle import encode_mask, rle_to_json

HEIGHT, WIDTH = 40, 80
SQUARE = [10.0, 5.0, 30.0, 5.0, 30.0, 15.0, 10.0, 15.0]
BOX = [10, 5, 20, 10]

# What becomes of the row: its mask is taken, its box stands in and is ignored, or it is left out.
Fate = Literal["mask", "box", "out"]


@dataclass(frozen=True)
class CocoFault:
    """A change of a sound file, the fate of its row, and a word of the log if one is due."""

    name: str
    change: Callable[[dict[str, Any], Path], None]
    fate: Fate = "mask"
    told: str = ""


def square_mask() -> np.ndarray:
    """The mask of `SQUARE`."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:15, 10:30] = True
    return mask


def write_coco(folder: Path, change: Callable[[dict[str, Any], Path], None]) -> Path:
    """A photo, and a COCO file with a sound row and another, which `change` gets to see."""
    (folder / "images").mkdir(exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "images" / "a.png")
    row = {"image_id": 7, "category_id": 3, "segmentation": [SQUARE], "bbox": BOX, "iscrowd": 0}
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [{"id": 0, **row}, {"id": 1, **row, "category_id": 9}],
    }
    change(content, folder / "images")
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


def _image(**values: Any) -> Callable[[dict[str, Any], Path], None]:
    def change(content: dict[str, Any], folder: Path) -> None:
        for key, value in values.items():
            if value is ...:
                del content["images"][0][key]
            else:
                content["images"][0][key] = value

    return change


def _row(**values: Any) -> Callable[[dict[str, Any], Path], None]:
    def change(content: dict[str, Any], folder: Path) -> None:
        for key, value in values.items():
            if value is ...:
                del content["annotations"][1][key]
            else:
                content["annotations"][1][key] = value

    return change


def _runs() -> list[int]:
    flat = square_mask().T.ravel().astype(int)
    return [int(n) for n in np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), len(flat)])]


def _lying(content: dict[str, Any], folder: Path) -> None:
    """The photo is stored upside down on its side, and masks were drawn on what is stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "a.jpg", exif=exif)
    content["images"][0]["file_name"] = "a.jpg"


def _nan_text(content: dict[str, Any], folder: Path) -> None:
    content["annotations"][1]["segmentation"] = [[float("nan"), *SQUARE[1:]]]


def _all_ids_text(content: dict[str, Any], folder: Path) -> None:
    for key in ("images", "annotations", "categories"):
        for row in content[key]:
            row |= {k: str(v) for k, v in row.items() if k == "id" or k.endswith("_id")}


def _rle(**values: Any) -> Callable[[dict[str, Any], Path], None]:
    code = {**rle_to_json(encode_mask(square_mask())), **values}
    return _row(segmentation=code)


_CODE = encode_mask(square_mask()).counts
FAULTS = (
    CocoFault("sound", _row()),
    CocoFault("back-slashes", _image(file_name="images\\a.png")),
    CocoFault("Windows path", _image(file_name="C:\\Users\\me\\set\\images\\a.png")),
    CocoFault("absolute path of another machine", _image(file_name="/home/me/set/a.png")),
    CocoFault("images/ in front", _image(file_name="images/a.png")),
    CocoFault("URL", _image(file_name="https://host/train/a.png?size=1")),
    CocoFault("no height and width", _image(height=..., width=...)),
    CocoFault("height and width null", _image(height=None, width=None)),
    CocoFault("height and width as text", _image(height="40", width="80.0")),
    CocoFault("ids as text", _all_ids_text),
    CocoFault("image_id as text", _row(image_id="7")),
    CocoFault("category_id as text", _row(category_id="9")),
    CocoFault("no iscrowd", _row(iscrowd=...)),
    CocoFault("iscrowd null", _row(iscrowd=None)),
    CocoFault("flat polygon", _row(segmentation=SQUARE)),
    CocoFault("pairs", _row(segmentation=np.reshape(SQUARE, (-1, 2)).tolist())),
    CocoFault("nested pairs", _row(segmentation=[np.reshape(SQUARE, (-1, 2)).tolist()])),
    CocoFault("coordinates as text", _row(segmentation=[[str(v) for v in SQUARE]])),
    CocoFault("a ring of two points more", _row(segmentation=[SQUARE, [1, 2, 3, 4]])),
    CocoFault("compressed code", _rle()),
    CocoFault("uncompressed code", _rle(counts=_runs())),
    CocoFault("uncompressed code of floats", _rle(counts=[float(n) for n in _runs()])),
    CocoFault("str() of bytes", _rle(counts=str(_CODE))),
    CocoFault("size as floats", _rle(size=[40.0, 80.0])),
    CocoFault(
        "code in a list",
        lambda c, f: _row(segmentation=[rle_to_json(encode_mask(square_mask()))])(c, f),
    ),
    CocoFault("segmentation null", _row(segmentation=None), "box"),
    CocoFault("segmentation []", _row(segmentation=[]), "box"),
    CocoFault("segmentation [[]]", _row(segmentation=[[]]), "box"),
    CocoFault("bbox alone", _row(segmentation=...), "box"),
    CocoFault("two points", _row(segmentation=[[1.0, 2.0, 3.0, 4.0]]), "box"),
    CocoFault("odd count", _row(segmentation=[SQUARE[:7]]), "box"),
    CocoFault("NaN", _nan_text, "box"),
    CocoFault("a number as mask", _row(segmentation=5), "box", "no mask"),
    CocoFault("damaged code", _rle(counts=[5]), "box", "damaged run-length"),
    CocoFault("code of another size", _rle(size=[40, 81], counts=[3240]), "box", "another size"),
    CocoFault("far outside", _row(segmentation=[[1e9, 0, 2e9, 0, 2e9, 9]]), "box", "far outside"),
    CocoFault(
        "outside, no bbox",
        _row(segmentation=[[200.0, 5, 220, 5, 220, 15]], bbox=...),
        "out",
        "outside of its photo",
    ),
    CocoFault("neither mask nor bbox", _row(segmentation=None, bbox=...), "out", "neither"),
    CocoFault("bbox of NaN", _row(segmentation=None, bbox=[float("nan")] * 4), "out", "bbox"),
    CocoFault("orphan", _row(image_id=8), "out", "photo that is not among"),
    CocoFault("no image_id", _row(image_id=...), "out", "photo that is not among"),
    CocoFault("image_id a list", _row(image_id=[7]), "out", "photo that is not among"),
    CocoFault(
        "annotation null",
        lambda c, f: c["annotations"].__setitem__(1, None),
        "out",
        "no annotation",
    ),
    CocoFault("category not listed", _row(category_id=99), told="category that has no name"),
    CocoFault("category null", _row(category_id=None)),
    CocoFault(
        "category without a name", lambda c, f: c["categories"][1].pop("name"), told="or a name"
    ),
    CocoFault("names twice", lambda c, f: c["categories"][1].update(name="cat")),
    CocoFault(
        "a photo without an id", lambda c, f: c["images"].append({"file_name": "b"}), told="an id"
    ),
    CocoFault(
        "a photo that comes twice", lambda c, f: c["images"].append(c["images"][0]), told="taken"
    ),
    CocoFault("EXIF, drawn on what is stored", _lying),
    CocoFault(
        "EXIF, no size, code",
        lambda c, f: (_lying(c, f), _image(height=..., width=...)(c, f), _rle()(c, f))[0],
    ),
)
