"""SA-1B as Meta gives it out, unpacked: `sa_N.jpg` beside `sa_N.json`, masks without names."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from textsam.results.coco_rows import RowProblems, annotation_mask

from .sample import ObjectMask, Sample, readable_objects
from .source import PackedRecords


class Sa1bSource:
    """The photos of a folder, and of the folders in it, that have a JSON beside them.

    Only names are read at first, 11 million of them in some 300 MB. Labels are the empty string and
    nothing is exhaustive.
    """

    def __init__(self, folder: Path | str, *, name: str | None = None) -> None:
        self.folder = Path(folder)
        self.name = name or self.folder.name
        if not self.folder.is_dir():
            raise NotADirectoryError(f"{self.name}: there is no folder {self.folder}")
        self.problems = RowProblems()
        self._names = PackedRecords(sorted(_json_files(str(self.folder), "")))
        if not self._names:
            raise ValueError(f"{self.folder} has no sa_*.json; wanted SA-1B's folder, unpacked")

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        path = self.folder / self._names[index]
        try:
            content = json.loads(path.read_bytes())
            image = content["image"]
            size = (int(image["height"]), int(image["width"]))
            rows = list(content["annotations"])
            file_name = str(image.get("file_name") or f"{path.stem}.jpg")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path} is not an annotation of SA-1B: {error!r}") from error
        photo = path.with_name(file_name)
        if not photo.is_file():
            raise FileNotFoundError(f"{self.name}: there is no photo {photo}")
        read = partial(_object, size=size)
        objects, _ = readable_objects(rows, read, self.problems, photo=path.stem)
        return Sample(
            image_id=path.stem,
            source=self.name,
            encoded=photo,
            size=size,
            exhaustive=False,
            void=None,
            objects=objects,
        )


def _object(annotation: Mapping[str, Any], *, size: tuple[int, int]) -> ObjectMask:
    rle = annotation_mask(annotation, size)
    if rle is None:
        raise ValueError("it has no segmentation")
    return ObjectMask(label="", kind="unknown", rle=rle)


def _json_files(folder: str, inside: str) -> list[str]:
    """Paths of the annotations, relative to the top folder."""
    found: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            path = f"{inside}{entry.name}"
            if entry.is_dir():
                found += _json_files(entry.path, f"{path}/")
            elif entry.name.startswith("sa_") and entry.name.endswith(".json"):
                found.append(path)
    return found
