"""COCO's rows as tools write them: what is meant where that is plain, else what is wrong with one.

`interop.from_coco`, the tasks and `training.data.coco` read COCO by these functions. Ids are
numbers or text, names of files have back-slashes, masks are polygons of any nesting or run-length
codes of any kind. A row that cannot be understood is a `BadRowError`, which costs that row alone.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard
from urllib.parse import unquote, urlsplit

from pycocotools import mask as coco_mask

from textsam.errors import ImageError
from textsam.values.files import can_be_name
from textsam.values.rle import RLE, merge_rles, rle_area, rle_from_json

__all__ = [
    "BadRowError",
    "RowProblems",
    "annotation_mask",
    "box_as_mask",
    "category_names",
    "declared_size",
    "find_photo",
    "plain_id",
    "read_coco_file",
]

# Coordinates this many times the photo's side are no polygon of it, and pycocotools, which walks
# along every edge, would take all memory for them.
_FAR = 10


class BadRowError(ValueError):
    """A row of a file cannot be understood.

    Attributes:
        kind: What is wrong, in words that fit every such row.
    """

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind


class RowProblems:
    """Rows that were left out or taken in part: how many, why, and the first of each kind."""

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self._found: dict[str, tuple[int, str]] = {}
        self._rows: set[tuple[str, str]] = set()  # a row that is read again counts once

    def add(self, kind: str, row: str) -> bool:
        """Count a row, or raise a ValueError if strict; True for the first of its kind."""
        if self.strict:
            raise ValueError(f"{row}: {kind}")
        if (kind, row) in self._rows:
            return False
        self._rows.add((kind, row))
        count, first = self._found.get(kind, (0, row))
        self._found[kind] = (count + 1, first)
        return not count

    def __len__(self) -> int:
        return sum(count for count, _ in self._found.values())

    def __str__(self) -> str:
        """One line: `3 rows without a mask (the first: annotation 5), 1 row ...`."""
        return "; ".join(
            f"{count} {'row' if count == 1 else 'rows'} with {kind} (the first: {first})"
            for kind, (count, first) in self._found.items()
        )


def plain_id(value: Any) -> int | str | None:
    """An id as tools write it, `7`, `7.0`, `"7"` or `"a"`, as a number or text; None if none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return int(float(value)) if float(value).is_integer() else None
    text = str(value).strip() if isinstance(value, str) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else text or None


def category_names(rows: Iterable[Any] | None, problems: RowProblems) -> dict[int | str, str]:
    """The name of each category id; those without an id or a name are left out and counted."""
    names: dict[int | str, str] = {}
    for index, row in enumerate(rows or ()):
        number = plain_id(row.get("id")) if isinstance(row, Mapping) else None
        name = row.get("name") if isinstance(row, Mapping) else None
        if number is None or name is None or not str(name).strip():
            problems.add("a category without an id or a name", f"category {index}")
        else:
            names[number] = str(name)
    return names


def declared_size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """(H, W) of a row of `images`, None if it does not say."""
    try:
        height, width = int(float(image["height"])), int(float(image["width"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def find_photo(folder: Path, image: Mapping[str, Any]) -> Path:
    """Where the photo of a row of `images` is; an `ImageError` if nowhere.

    Its `file_name` may have back-slashes, be a path of another machine, a URL, or begin with the
    folder's name: the longest end of it that is a file in the folder counts. LVIS has `coco_url`.
    """
    name = image.get("file_name") or image.get("coco_url") or image.get("path")
    if not isinstance(name, str):
        raise ImageError(f"photo {image.get('id')!r} has no file_name")
    text = unquote(urlsplit(name).path) if "://" in name else name
    # A NUL or half of a character in a name is an error of the file system otherwise.
    if not can_be_name(text):
        raise ImageError(f"photo {image.get('id')!r} has a file_name that is no text: {name!a}")
    places = [folder / text]  # as it stands: a back-slash may be part of a name
    parts = PurePosixPath(text.replace("\\", "/")).parts
    places += [folder.joinpath(*parts[n:]) for n in range(len(parts)) if parts[n] != "/"]
    for place in places:
        if place.is_file():
            return place
    ends = (places[0], places[-1])
    raise ImageError(f"there is no photo {', nor '.join(map(str, dict.fromkeys(ends)))}")


def annotation_mask(annotation: Mapping[str, Any], size: tuple[int, int]) -> RLE | None:
    """The mask of an annotation or result, None if it has none (null, empty, too few points).

    Args:
        annotation: With `segmentation` as polygons, one flat polygon, pairs of coordinates, or
            run-length codes, compressed or not.
        size: (H, W) of the pixels that it was drawn on.

    Raises:
        BadRowError: The mask is damaged, of another size, or lies outside of the photo.
    """
    shape = annotation.get("segmentation")
    codes: list[Any] = list(shape) if _is_list(shape) else [shape]
    if codes and all(isinstance(code, Mapping) for code in codes):
        return merge_rles([_run_length(code, size) for code in codes], size)
    if shape is None:
        return None
    if not _is_list(shape):
        raise BadRowError("a segmentation that is no mask", f"{str(shape)[:60]!a}")
    rings = _rings(shape)
    if not rings:
        return None
    if max(abs(place) for ring in rings for place in ring) > _FAR * max(size):
        raise BadRowError("a polygon far outside of its photo")
    # Several rings are the parts of one object, as of a car behind a pole.
    codes = coco_mask.frPyObjects(rings, *size)
    rle = merge_rles([RLE(size, code["counts"]) for code in codes], size)
    if not rle_area(rle) and not _touches(rings, size):
        raise BadRowError("a polygon outside of its photo")
    return rle


def box_as_mask(annotation: Mapping[str, Any], size: tuple[int, int]) -> RLE:
    """The filled `bbox` of an annotation; a `BadRowError` if it has none."""
    try:
        x, y, width, height = map(float, annotation["bbox"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadRowError("neither a mask nor a bbox") from error
    ring = [x, y, x + width, y, x + width, y + height, x, y + height]
    far = not all(map(math.isfinite, ring)) or max(map(abs, ring)) > _FAR * max(size)
    if far or not (width > 0 and height > 0) or not _touches([ring], size):
        raise BadRowError("no mask and a bbox outside of the photo or empty")
    return RLE(size, coco_mask.frPyObjects([ring], *size)[0]["counts"])


def read_coco_file(path: Path) -> dict[str, Any]:
    """Read a COCO file; a ValueError if it is no JSON or another kind of it."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {path}") from error
    except (ValueError, RecursionError) as error:
        if not path.stat().st_size:
            raise ValueError(f"{path} is empty; wanted a COCO file") from error
        raise ValueError(f"{path} is not JSON: {error}") from error
    wanted = "wanted the lists images, annotations, categories, as COCO has"
    if not isinstance(content, dict):
        # Results of a detector are such a list.
        raise ValueError(f"{path} holds a {type(content).__name__}; {wanted}")
    for key in ("images", "annotations", "categories"):
        rows = content.get(key)
        if rows is None and key != "images":
            content[key] = []
        elif not isinstance(rows, list):
            raise ValueError(f"{path} holds {sorted(content)}; {wanted}")
    return content


def _run_length(code: Mapping[str, Any], size: tuple[int, int]) -> RLE:
    counts: Any = code.get("counts")
    if isinstance(counts, str) and counts.startswith(("b'", 'b"')):
        # str() of bytes: quotes are in no run-length code.
        counts = ast.literal_eval(counts) if counts.endswith(("'", '"')) else counts
    try:
        if _is_list(counts):
            counts = [int(count) if float(count).is_integer() else count for count in counts]
        sides = [int(float(side)) for side in code.get("size") or size]
        rle = rle_from_json({"size": sides, "counts": counts})
    except (ValueError, TypeError, OverflowError) as error:
        raise BadRowError("a damaged run-length code", str(error)) from error
    if rle.size != tuple(size):
        raise BadRowError(
            "a mask of another size than its photo",
            f"its mask has size {rle.size}; wanted {tuple(size)} (height, width)",
        )
    return rle


def _rings(shape: Sequence[Any]) -> list[list[float]]:
    """Polygons of at least three points, from whatever nesting; others are left out."""
    if shape and not any(map(_is_list, shape)):  # one flat polygon, not in a list
        shape = [shape]
    elif len(shape) > 2 and all(_is_list(p) and len(p) == 2 for p in shape):  # pairs
        shape = [[place for pair in shape for place in pair]]
    rings = []
    for ring in shape:
        if not _is_list(ring):
            continue
        if ring and _is_list(ring[0]):
            ring = [place for pair in ring if _is_list(pair) for place in pair]
        try:
            places = [float(place) for place in ring]
        except (TypeError, ValueError, OverflowError):
            continue
        if len(places) >= 6 and len(places) % 2 == 0 and all(map(math.isfinite, places)):
            rings.append(places)
    return rings


def _touches(rings: Iterable[Sequence[float]], size: tuple[int, int]) -> bool:
    """Whether the box around polygons meets the photo."""
    xs = [x for ring in rings for x in ring[0::2]]
    ys = [y for ring in rings for y in ring[1::2]]
    return min(xs) < size[1] and max(xs) > 0 and min(ys) < size[0] and max(ys) > 0


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    """Whether a value is a list, a tuple or an array."""
    return (isinstance(value, Sequence) and not isinstance(value, str | bytes)) or hasattr(
        value, "tolist"
    )
