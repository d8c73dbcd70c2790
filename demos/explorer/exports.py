"""The visible objects as a file: pictures, and the formats of other tools.

Photos that were scaled down for the page are exported at their own size: the masks are enlarged,
and pictures are made from the original file.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Literal, get_args

from textsam.errors import PromptError
from textsam.pictures import draw
from textsam.results.interop import to_coco
from textsam.results.segmentation import Segmentation
from textsam.values.images import load_image
from textsam.values.rle_ops import enlarge_rle

from .photo_cache import UserPhoto

ExportFormat = Literal["overlay", "cutouts", "coco", "yolo", "rle"]

# Labels on the page.
FORMATS: dict[str, ExportFormat] = {
    "Overlay (PNG)": "overlay",
    "Cut-outs (PNGs in a ZIP)": "cutouts",
    "COCO (JSON)": "coco",
    "YOLO segmentation (ZIP)": "yolo",
    "Masks as RLE (JSON)": "rle",
}


def export(
    result: Segmentation,
    photo: UserPhoto,
    format: ExportFormat,
    folder: Path,
    *,
    opacity: float = 0.45,
    outline: bool = True,
) -> Path:
    """Write the masks of `photo.image`, each with a label, to a file in an existing folder.

    Opacity and outline are those of the overlay.
    """
    # Requests can be forged, so the annotation guarantees nothing.
    if format not in get_args(ExportFormat):
        raise PromptError(f"got format {format!r}; wanted one of {list(get_args(ExportFormat))}")
    if not len(result):
        raise PromptError("There is nothing to export: no object is visible")
    full = _at_file_size(result, photo)
    if format == "overlay":
        path = folder / f"{photo.name}_overlay.png"
        path.write_bytes(draw.encode_picture(full.plot(alpha=opacity, outline=outline), ".png"))
        return path
    if format == "cutouts":
        return _write_cutouts(full, photo, folder)
    if format == "coco":
        path = folder / f"{photo.name}_coco.json"
        (height, width), names = full.size, _names(full)
        categories = {name: number for number, name in enumerate(names, start=1)}
        image = {"id": 1, "width": width, "height": height, "file_name": photo.file_name}
        data_set = {
            "images": [image],
            "categories": [{"id": number, "name": name} for name, number in categories.items()],
            "annotations": to_coco(full, image_id=1, categories=categories),
        }
        path.write_text(json.dumps(data_set, ensure_ascii=False), "utf-8")
        return path
    if format == "yolo":
        return _write_yolo(full, photo, folder)
    return full.save(folder / f"{photo.name}_masks.json")


def _at_file_size(result: Segmentation, photo: UserPhoto) -> Segmentation:
    """Masks at the size of the file, with the file's picture."""
    if photo.size == photo.original_size:
        return result
    return Segmentation(
        photo.original_size,
        [enlarge_rle(rle, photo.original_size) for rle in result.rles],
        scores=result.scores,
        iou=result.iou,
        stability=result.stability,
        labels=result.labels,
        presence=result.presence,
        image=load_image(photo.path),
    )


def _names(result: Segmentation) -> list[str]:
    """The names of the masks without repetitions; phrases that found nothing are no category."""
    return list(dict.fromkeys(label for label in result.labels if label is not None))


def _write_cutouts(result: Segmentation, photo: UserPhoto, folder: Path) -> Path:
    path = folder / f"{photo.name}_cutouts.zip"
    image = result.image
    assert image is not None
    with zipfile.ZipFile(path, "w") as archive:
        for number, item in enumerate(result, start=1):
            picture = draw.cutout(image, [item.rle], crop=True)
            # Users choose the names, so they may hold slashes or "..".
            safe = "".join(letter if letter.isalnum() else "_" for letter in item.label or "")[:40]
            archive.writestr(f"{number:03d}_{safe}.png", draw.encode_picture(picture, ".png"))
    return path


def _write_yolo(result: Segmentation, photo: UserPhoto, folder: Path) -> Path:
    names = _names(result)
    labels = result.save(folder / f"{photo.name}.txt", names=names)
    path = folder / f"{photo.name}_yolo.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(labels, f"labels/{photo.name}.txt")
        # The numbers in the label files are lines of this one.
        archive.writestr("classes.txt", "".join(f"{name}\n" for name in names))
    labels.unlink()
    return path
