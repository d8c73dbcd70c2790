"""What is on the photo, as a file: pictures and other people's formats, by the library's calls.

A photo that was worked on at a smaller size is exported at its own: masks are enlarged, and the
picture is made of the file as it was opened.
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

from .photos import Photo

__all__ = ["FORMATS", "ExportFormat", "export"]

ExportFormat = Literal["overlay", "cutouts", "coco", "yolo", "rle"]

# What the page calls them.
FORMATS: dict[str, ExportFormat] = {
    "Overlay (PNG)": "overlay",
    "Cut-outs (PNGs in a ZIP)": "cutouts",
    "COCO (JSON)": "coco",
    "YOLO segmentation (ZIP)": "yolo",
    "Masks as RLE (JSON)": "rle",
}


def export(
    result: Segmentation,
    photo: Photo,
    format: ExportFormat,
    folder: Path,
    *,
    opacity: float = 0.45,
    outline: bool = True,
) -> Path:
    """Write what was found to a file.

    Args:
        result: Masks of `photo.image`, each with a label.
        photo: The photo.
        format: Which file.
        folder: Where; it exists.
        opacity: Of the overlay's tint.
        outline: Whether the overlay has outlines.

    Raises:
        PromptError: There is nothing to export, or no such format.
        ImageError: The photo's file is gone.
    """
    if format not in get_args(ExportFormat):
        raise PromptError(f"got format {format!r}; wanted one of {list(get_args(ExportFormat))}")
    if not len(result):
        raise PromptError(
            "There is nothing to export; find something first, or show what is hidden"
        )
    full = in_original_size(result, photo)
    if format == "overlay":
        path = folder / f"{photo.name}_overlay.png"
        data = draw.encode_picture(full.plot(alpha=opacity, outline=outline), ".png")
        path.write_bytes(data)
        return path
    if format == "cutouts":
        return _cutouts(full, photo, folder)
    if format == "coco":
        path = folder / f"{photo.name}_coco.json"
        path.write_text(json.dumps(to_coco_file(full, photo), ensure_ascii=False), "utf-8")
        return path
    if format == "yolo":
        return _yolo(full, photo, folder)
    return full.save(folder / f"{photo.name}_masks.json")


def in_original_size(result: Segmentation, photo: Photo) -> Segmentation:
    """Masks in the pixels of the file, with the file's picture."""
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


def to_coco_file(result: Segmentation, photo: Photo) -> dict[str, object]:
    """A whole COCO file of one photo."""
    height, width = result.size
    numbers = {name: number for number, name in enumerate(_names(result), start=1)}
    return {
        "images": [{"id": 1, "width": width, "height": height, "file_name": photo.file_name}],
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
        "annotations": to_coco(result, image_id=1, categories=numbers),
    }


def _names(result: Segmentation) -> list[str]:
    """Names that a mask has, each once; not those that found nothing."""
    return list(dict.fromkeys(label for label in result.labels if label is not None))


def _cutouts(result: Segmentation, photo: Photo, folder: Path) -> Path:
    path = folder / f"{photo.name}_cutouts.zip"
    image = result.image
    assert image is not None
    with zipfile.ZipFile(path, "w") as archive:
        for number, item in enumerate(result, start=1):
            picture = draw.cutout(image, [item.rle], crop=True)
            safe = "".join(letter if letter.isalnum() else "_" for letter in item.label or "")[:40]
            archive.writestr(f"{number:03d}_{safe}.png", draw.encode_picture(picture, ".png"))
    return path


def _yolo(result: Segmentation, photo: Photo, folder: Path) -> Path:
    names = _names(result)
    labels = result.save(folder / f"{photo.name}.txt", names=names)
    path = folder / f"{photo.name}_yolo.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(labels, f"labels/{photo.name}.txt")
        archive.writestr("classes.txt", "".join(f"{name}\n" for name in names))
    labels.unlink()
    return path
