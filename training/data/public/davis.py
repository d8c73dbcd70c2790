"""DAVIS's frames, each as a photo of its own: nothing here follows an object through time.

2016 (Perazzi et al., CVPR 2016): what is not black is the one object. 2017 (Pont-Tuset et al.,
arXiv 1704.00675): values of the palette number the objects. A third form has no sequences: the 345
frames that the interactive field measures on, `img/` and `gt/`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from textsam.errors import ImageError
from textsam.values.rle import encode_mask

from ..sample import ObjectMask
from .click_sets import MaskFolderSource, read_binary
from .layout import find_root, read_split, wanted_folder
from .listed import Annotation, ListedSource, read_values

_YEARS = (2016, 2017)
_VOID = 255


class DavisSource(ListedSource):
    """`JPEGImages/480p/SEQUENCE/FRAME.jpg` and `Annotations/480p/SEQUENCE/FRAME.png`.

    Objects have no class: their label is `object`. Nothing is exhaustive.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        year: int = 2017,
        resolution: str = "480p",
        split: str = "val",
        name: str | None = None,
    ) -> None:
        """Read the list of sequences and list their frames."""
        if year not in _YEARS:
            raise ValueError(f"DAVIS: year={year}; wanted 2016 or 2017")
        marks = ("JPEGImages", "Annotations", "ImageSets")
        self.root = find_root(root, (".", "DAVIS"), marks=marks, what="DAVIS")
        self.year = year
        self.images = wanted_folder(self.root / "JPEGImages" / resolution, "DAVIS")
        self.truths = wanted_folder(self.root / "Annotations" / resolution, "DAVIS")
        frames: list[str] = []
        for sequence in _sequences(self.root / "ImageSets", year=year, split=split):
            folder = wanted_folder(self.images / sequence, "DAVIS")
            found = sorted(path.stem for path in folder.glob("*.jpg"))
            if not found:
                raise ValueError(f"DAVIS: {folder} has no *.jpg; wanted the sequence's frames")
            frames += [f"{sequence}/{frame}" for frame in found]
        name = name or f"davis{year}_{split}"
        super().__init__(frames, name=name, labels=("object",), exhaustive=False)

    def photo(self, image_id: str) -> Path:
        """Where a frame is."""
        return self.images / f"{image_id}.jpg"

    def truth(self, image_id: str) -> Annotation:
        """Read a frame's objects; raises ImageError."""
        path = self.truths / f"{image_id}.png"
        if self.year == 2016:
            mask, void = read_binary(path)
            masks, kind = [mask] if mask.any() else [], "salient"
        else:
            values = read_values(path)
            numbers = np.unique(values).tolist()
            # One value for all objects is DAVIS 2016's; taken for 2017's, all of it were void.
            if numbers in ([0, _VOID], [_VOID]):
                raise ImageError(
                    f"{path} holds {numbers}, as DAVIS 2016 has it; wanted objects 1, 2, ... Type "
                    "year=2016"
                )
            void = values == _VOID
            masks = [values == number for number in numbers if number not in (0, _VOID)]
            kind = "thing"
        objects = tuple(
            ObjectMask(label="object", kind=kind, rle=encode_mask(mask), ignore=False)
            for mask in masks
        )
        return Annotation(objects=objects, void=void)


def open_davis_frames(root: Path | str, *, name: str | None = None) -> MaskFolderSource | None:
    """The 345 frames of the interactive field, or None where there is no `img/` and `gt/`."""
    for folder in (Path(root), Path(root) / "DAVIS"):
        if (folder / "img").is_dir() and (folder / "gt").is_dir():
            return MaskFolderSource(
                folder / "img", folder / "gt", name=name or "davis_345", read=read_binary
            )
    return None


def _sequences(lists: Path, *, year: int, split: str) -> list[str]:
    """Names of the sequences of a split, in the list's order."""
    first = lists / "480p" / f"{split}.txt"
    newer = lists / str(year) / f"{split}.txt"
    if year == 2016 and first.is_file() and not newer.is_file():
        # A line is a frame here: /JPEGImages/480p/SEQUENCE/00000.jpg /Annotations/...
        named = [line.split()[0].split("/")[-2] for line in read_split(first, "DAVIS")]
        return list(dict.fromkeys(named))
    return read_split(newer, "DAVIS")
