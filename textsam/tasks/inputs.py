"""What the tasks take: a photo with its model, and files in COCO's layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from textsam.errors import ImageError, PromptError
from textsam.inference.model import TextSAM
from textsam.inference.view import ImageView
from textsam.results.coco_rows import declared_size, find_photo, plain_id
from textsam.results.segmentation import MaskResult, Segmentation
from textsam.values.images import ImageSource

Row = Mapping[str, Any]
RowT = TypeVar("RowT", bound=Row)


def open_photo(model: TextSAM | ImageView, image: ImageSource | None) -> ImageView:
    """Open an image with a model, or return a photo that is open already."""
    if isinstance(model, ImageView):
        if image is not None:
            raise PromptError(
                "got an open photo and an image; wanted the open photo alone, or a model and an "
                "image"
            )
        return model
    if not isinstance(model, TextSAM):
        raise PromptError(
            f"got {type(model).__name__}; wanted a TextSAM and an image, or the photo that "
            "model.open(image) returns (not a tiled one)"
        )
    if image is None:
        raise PromptError("got a model and no image; type image=... too")
    return model.open(image)


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    try:
        return json.loads(Path(path).read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def read_images(images: Any, *, where: str = "images") -> dict[Hashable, Row]:
    """COCO's images by id, from a list of them or from a file that contains one."""
    if isinstance(images, str | Path):
        payload, where = read_json(images), str(images)
        images = payload.get("images") if isinstance(payload, dict) else payload
    check_objects(images, ("id", "file_name"), where=where)
    return {plain_id(row["id"]): row for row in images}


def check_objects(rows: Any, keys: Sequence[str], *, where: str) -> None:
    """Raise a ValueError unless rows are a list of JSON objects that have these keys."""
    if not isinstance(rows, list | tuple) or any(
        not isinstance(row, dict) or any(key not in row for key in keys) for row in rows
    ):
        wanted = ", ".join(f'"{key}"' for key in keys)
        raise ValueError(f"{where}: wanted COCO's list of objects with {wanted}")


def read_results(results: str | Path | Sequence[Row]) -> list[Row]:
    """Check COCO detection results, from a file or as its rows."""
    where, rows = "results", results
    if isinstance(results, str | Path):
        where, rows = str(results), read_json(results)
        if isinstance(rows, dict) and "annotations" in rows:
            raise ValueError(
                f"{where} contains annotations, not results; wanted a list of detections. "
                'For the annotated boxes type: json.load(...)["annotations"]'
            )
    check_results(rows, where=where)
    return list(rows)  # type: ignore[arg-type]


def check_results(rows: Any, *, where: str) -> None:
    """Check that rows are COCO detections."""
    if not isinstance(rows, list | tuple):
        raise PromptError(f"{where} is a {type(rows).__name__}; wanted a list of COCO detections")
    wanted = 'wanted {"image_id", "category_id", "bbox": [x, y, width, height], "score"}'
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping) or "image_id" not in row or "bbox" not in row:
            raise PromptError(f"{where}, row {index}: got {str(row)[:80]}; {wanted}")
        box = row["bbox"]
        numeric = isinstance(box, list | tuple) and all(isinstance(x, int | float) for x in box)
        if not numeric or len(box) != 4:
            raise PromptError(f"{where}, row {index}: got bbox {str(box)[:60]}; {wanted}")


def group_by_photo(rows: Iterable[RowT]) -> dict[Hashable, list[RowT]]:
    """Group COCO rows by `image_id`, photos in the order of their first row."""
    groups: dict[Hashable, list[RowT]] = {}
    for row in rows:
        groups.setdefault(plain_id(row["image_id"]), []).append(row)
    return groups


def segment_photos(
    model: TextSAM,
    rows: Iterable[RowT],
    segment: Callable[[ImageView, list[RowT]], Segmentation],
    *,
    images: Mapping[Hashable, Row],
    photos: str | Path,
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[RowT, MaskResult]]:
    """Segment photos of COCO rows in turn; yield each row with its mask, grouped by photo.

    `segment` returns one mask for each row of an open photo.
    """
    groups = group_by_photo(rows)
    unknown = [number for number in groups if number not in images]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(groups)} image ids are not among the {len(images)} images, "
            f"e.g. {unknown[0]!r}; give the images of the same set"
        )
    for done, (number, group) in enumerate(groups.items(), start=1):
        path = find_photo(Path(photos), images[number])
        try:
            with model.open(path) as view:
                _check_size(view.size, images[number])
                masks = segment(view, group)
        except ValueError as error:
            kind = type(error) if isinstance(error, ImageError | PromptError) else ValueError
            raise kind(f"photo {number!r} ({path}): {error}") from error
        yield from zip(group, masks, strict=True)
        if progress is not None:
            progress(done, len(groups))


def _check_size(size: tuple[int, int], image: Row) -> None:
    wanted = declared_size(image) or size
    if wanted != size:
        # A common cause is EXIF orientation: photos are turned upright, the boxes were not.
        raise ImageError(
            f"it is {size} (height, width) upright; the list of images says {wanted}, and boxes "
            "and masks are for that size"
        )
