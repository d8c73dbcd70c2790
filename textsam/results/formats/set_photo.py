"""What the writers of data sets share: a photo with its masks, its ids, and the options."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from PIL import Image

from textsam.results.segmentation import Segmentation
from textsam.values.images import load_image

PhotoPlace = Literal["copy", "link", "none"]

# The class of masks without a label, e.g. from a box.
UNLABELLED = "object"

# Annotation ids are the photo's, times this, and a count: they fit the 53 bits that JSON readers
# keep exactly.
_MASKS_PER_PHOTO = 2**13
_PHOTO_IDS = 2**40


@dataclass(frozen=True, kw_only=True)
class SetPhoto:
    """One photo of a data set.

    Attributes:
        path: The photo itself.
        name: Its path below the folder of photos, with "/", different for every photo.
        id: Its number, which depends on the name alone.
        load: Reads its masks, when they are written.
    """

    path: Path
    name: str
    id: int
    load: Callable[[], Segmentation]

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.name).with_suffix("").as_posix()


@dataclass(kw_only=True)
class SetOptions:
    """How a data set is written.

    Attributes:
        names: Class names in order; labels that are not among them are added at the end.
        polygons: Polygons, or exact masks where the format has them; None for its usual way.
        tolerance: Of polygons, pixels; see `mask_to_polygons`.
        photos: Copy the photos into the set, link them, or leave them where they are.
        written: Every file of the set.
    """

    names: list[str] = field(default_factory=list)
    polygons: bool | None = None
    tolerance: float = 0.5
    photos: PhotoPlace = "copy"
    written: list[Path] = field(default_factory=list)

    def number(self, label: str | None) -> int:
        """The number of a label's class, from 0."""
        name = label or UNLABELLED
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)

    def new_file(self, path: Path) -> Path:
        """A file of the set, with its folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.written.append(path)
        return path

    def place(self, photo: SetPhoto, folder: Path) -> Path:
        """Bring a photo into a folder of the set; returns where it is, or where it stays."""
        if self.photos == "none":
            return photo.path.resolve()
        target = self.new_file(folder / photo.name)
        state = photo.path.stat()
        if self.photos == "copy":
            same = target.is_file() and not target.is_symlink()
            if same and (target.stat().st_size, target.stat().st_mtime) == (
                *(state.st_size, state.st_mtime),
            ):
                return target
            target.unlink(missing_ok=True)
            part = target.with_name(f".{target.name}.textsam-part")
            shutil.copy2(photo.path, part)
            os.replace(part, target)
        else:
            target.unlink(missing_ok=True)
            target.symlink_to(photo.path.resolve())
        return target


def make_photos(
    items: Sequence[tuple[Path, str, Callable[[], Segmentation]]],
) -> list[SetPhoto]:
    """Number photos given as path, name and masks; names that differ in their suffix only change.

    The number of `000000397133.jpg` is 397133, as in COCO; of other names it is a hash. So a photo
    keeps it when others come or go.
    """
    photos: list[SetPhoto] = []
    ids, stems = set(), set()
    for path, name, load in items:
        pure = PurePosixPath(name)
        # Labels of a.jpg and a.png would be one file.
        count = 1
        while pure.with_suffix("").as_posix().casefold() in stems:
            count += 1
            pure = pure.with_name(f"{PurePosixPath(name).stem}_{count}{pure.suffix}")
        stems.add(pure.with_suffix("").as_posix().casefold())
        number = int(pure.stem) if pure.stem.isascii() and pure.stem.isdecimal() else _PHOTO_IDS
        count = 0
        while number >= _PHOTO_IDS or number in ids:
            number = int.from_bytes(hashlib.sha256(f"{pure}{count or ''}".encode()).digest()[:5])
            count += 1
        ids.add(number)
        photos.append(SetPhoto(path=path, name=pure.as_posix(), id=number, load=load))
    return photos


def named(result: Segmentation) -> Segmentation:
    """The result with a label for each mask."""
    return Segmentation(
        result.size,
        result.rles,
        labels=[label or UNLABELLED for label in result.labels],
        scores=result.scores,
    )


def annotation_id(photo: SetPhoto, index: int) -> int:
    """The number of a photo's mask, from 1."""
    if index >= _MASKS_PER_PHOTO - 1:
        raise ValueError(
            f"{photo.name} has more than {_MASKS_PER_PHOTO - 1} masks; write fewer, e.g. "
            "result.top(1000)"
        )
    return photo.id * _MASKS_PER_PHOTO + index + 1


def photo_size(path: Path) -> tuple[int, int]:
    """(H, W) of a photo as it is shown, mostly without decoding it."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(274, 1) >= 5  # EXIF's orientation: lying on its side
            return (image.width, image.height) if turned else (image.height, image.width)
    except OSError:
        height, width = load_image(path).shape[:2]
        return height, width


def find_photo(folder: Path, stem: str) -> Path:
    """The photo of a label file: that name with any suffix."""
    place = folder / stem
    found = sorted(place.parent.glob(f"{_escaped(place.name)}.*"))
    found = [path for path in found if path.stem == place.name and path.suffix != ".json"]
    if not found:
        raise ValueError(
            f"there is no photo {str(place)!r}.*, which says how large the masks are; put the "
            "photos there"
        )
    return found[0]


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
