"""A folder of photos and one of label pictures: VOC, ADE20K, Cityscapes, most home-made sets.

A label picture is a PNG whose pixel VALUES mean something: a class, or one object each. Palette,
8-bit and 16-bit grey are read as they are; colours are never turned into classes by guessing.
"""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import ImageError, require
from textsam.values.rle import encode_mask

from .sample import ObjectMask, Sample
from .source import PackedRecords

logger = logging.getLogger(__name__)

# Pictures of one label value per pixel; anything else has colours.
_LABEL_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
_PHOTOS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class LabelMapConfig:
    """What the values of a label picture mean."""

    # Whether a value is a class or an object of its own
    values: Literal["class", "object"] = "class"
    names: Mapping[int, str] | None = None  # Name of each class, by value; needed for classes
    void: int | None = 255  # Value of pixels without a truth, None if there is none
    background: int | None = 0  # Value of what is not annotated, None if every value counts
    # Whether each connected region (8 neighbours) of a value is an object of its own
    regions: bool = False
    label: str = ""  # Name of every object when values are objects
    # Whether a named class that is not in a picture is absent from the photo
    exhaustive: bool = False

    def __post_init__(self) -> None:
        if self.values not in ("class", "object"):
            raise ValueError(f"values={self.values!r}; wanted 'class' or 'object'")
        if self.values == "class" and not self.names:
            raise ValueError(
                "values are classes and have no names. Give names (a file with a name a line, or "
                "JSON), or say values='object' when each value is one object"
            )


class LabelPngSource:
    """Photos that have a label picture of the same name: `labels/a/b.png` for `images/a/b.jpg`.

    A label picture without a photo is a broken sample; a photo without one was not annotated and is
    left out.
    """

    def __init__(
        self,
        images: Path | str,
        labels: Path | str,
        *,
        config: LabelMapConfig,
        name: str | None = None,
    ) -> None:
        self.images, self.labels, self.config = Path(images), Path(labels), config
        self.name = name or self.images.name
        for folder in (self.images, self.labels):
            if not folder.is_dir():
                raise NotADirectoryError(f"{self.name}: there is no folder {folder}")
        photos: dict[str, str] = {}
        for path in _files(self.images, _PHOTOS):
            stem = os.path.splitext(path)[0]
            if stem in photos:
                raise ValueError(
                    f"{self.images} has both {photos[stem]} and {path}: which of them does "
                    f"{stem}.png belong to? Keep one"
                )
            photos[stem] = path
        maps = _files(self.labels, (".png",))
        if not maps:
            raise ValueError(f"{self.labels} has no PNG; wanted label pictures")
        self._pairs = PackedRecords([photos.pop(os.path.splitext(m)[0], None), m] for m in maps)
        if photos:
            logger.info("%s: %d photos without a label picture left out", self.name, len(photos))

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Sample:
        photo, label = self._pairs[index]
        if photo is None:
            raise ImageError(f"{self.name}: there is no photo for {self.labels / label}")
        values = read_label_map(self.labels / label)
        objects, void = objects_of_map(values, config=self.config)
        return Sample(
            image_id=os.path.splitext(label)[0],
            source=self.name,
            encoded=self.images / photo,
            size=(values.shape[0], values.shape[1]),
            exhaustive=self.config.exhaustive,
            void=encode_mask(void) if void.any() else None,
            objects=objects,
        )


def objects_of_map(
    values: NDArray[np.int64], *, config: LabelMapConfig
) -> tuple[tuple[ObjectMask, ...], NDArray[np.bool_]]:
    """The objects of a label picture (H, W), and its void pixels (H, W) bool."""
    objects: list[ObjectMask] = []
    for value in np.unique(values).tolist():
        if value in (config.void, config.background):
            continue
        label = config.label
        if config.values == "class":
            names = config.names or {}
            if value not in names:
                raise ValueError(
                    f"a label picture holds {value}, which has no name; named are "
                    f"{min(names)}..{max(names)}. Name it, or say that it is void or background"
                )
            label = names[value]
        mask = values == value
        for region in _regions(mask) if config.regions else [mask]:
            objects.append(ObjectMask.of(region, label))
    return tuple(objects), values == config.void


def read_label_map(encoded: bytes | Path) -> NDArray[np.int64]:
    """The values of a label picture, (H, W) int64."""
    what = f"{len(encoded)} bytes" if isinstance(encoded, bytes) else str(encoded)
    try:
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
            mode = image.mode
            values = np.asarray(image) if mode in _LABEL_MODES else None
    except Exception as error:  # PIL's readers raise whatever a damaged file leads them to
        raise ImageError(f"cannot read the label picture in {what}: {error}") from error
    if values is None:
        raise ImageError(
            f"the label picture in {what} has colours (mode {mode}); wanted a palette or grey "
            "PNG, one value a pixel. Turn each colour into its number first"
        )
    return values.astype(np.int64)


def read_names(path: Path | str) -> dict[int, str]:
    """Names of classes by value: a text file with a name a line, the first for 0, or JSON.

    JSON is a list, the first for 0, or an object from value to name.
    """
    text = Path(path).read_text(encoding="utf-8")
    if Path(path).suffix.lower() != ".json":
        return {i: line.strip() for i, line in enumerate(text.splitlines()) if line.strip()}
    try:
        content = json.loads(text)
        pairs = enumerate(content) if isinstance(content, list) else content.items()
        names = {int(value): str(name) for value, name in pairs}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f'{path}: wanted a JSON list of names, or an object {{"1": "road", ...}}; {error}'
        ) from error
    return names


def _regions(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    ndimage = require("scipy.ndimage", "train")
    numbered, count = ndimage.label(mask, structure=np.ones((3, 3)))
    return [numbered == number for number in range(1, count + 1)]


def _files(folder: Path, endings: Sequence[str]) -> list[str]:
    """Paths below a folder that end so, relative to it, sorted."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in endings
    )
