"""GrabCut, Berkeley and DAVIS: what interactive segmentation is measured on.

As the field hands them on (the archives of f-BRS, Sofiiuk et al., CVPR 2020): a folder of photos
and one of masks with the same names. GrabCut: Rother et al., SIGGRAPH 2004, 50 photos. Berkeley:
McGuinness and O'Connor, Pattern Recognition 2010, 100 objects in 96 photos.

DAVIS's frames are photos of their own: nothing here follows an object through time. 2016 (Perazzi
et al., CVPR 2016): what is not black is the one object. 2017 (Pont-Tuset et al., arXiv 1704.00675):
values of the palette number the objects. A third form has no sequences: the 345 frames that the
interactive field measures on, `img/` and `gt/`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import ImageError

from ..sample import ObjectMask
from .listed import Annotation, ListedSource, find_root, read_split, read_values, wanted_folder

_PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")
_OBJECT, _UNKNOWN, _LASSO = 255, 128, 64
_YEARS = (2016, 2017)
_DAVIS_VOID = 255  # of 2017: pixels without a truth


class MaskFolderSource(ListedSource):
    """A folder of photos and one of masks: `STEM.png`, or `STEM#K.png` for several objects.

    Objects have no class: their label is `object`. Nothing is exhaustive.
    """

    def __init__(
        self,
        images: Path,
        masks: Path,
        *,
        name: str,
        read: Callable[[Path], tuple[NDArray[np.bool_], NDArray[np.bool_]]],
    ) -> None:
        self.images, self.masks, self._read = images, masks, read
        photos = _by_stem(images)
        if not photos:
            raise ValueError(f"{name}: {images} has no picture in it; wanted photos")
        twice = [stem for stem, paths in photos.items() if len(paths) > 1]
        if twice:
            raise ValueError(
                f"{name}: {images} has two photos {twice[0]!r}: which of them is masked?"
            )
        self._files = {stem: paths[0].name for stem, paths in photos.items()}
        self._masks_of: dict[str, list[str]] = {stem: [] for stem in photos}
        for stem, paths in _by_stem(masks).items():
            owner = stem if stem in photos else stem.rpartition("#")[0]
            if owner not in photos:
                raise ValueError(
                    f"{name}: there is no photo for {paths[0]}; wanted {stem}.jpg in {images}"
                )
            self._masks_of[owner] += [path.name for path in paths]
        super().__init__(sorted(photos), name=name, labels=("object",), exhaustive=False)

    def photo(self, image_id: str) -> Path:
        """Where a photo is."""
        return self.images / self._files[image_id]

    def truth(self, image_id: str) -> Annotation:
        """Read a photo's masks; raises ImageError."""
        files = [self.masks / name for name in self._masks_of[image_id]]
        if not files:
            raise ImageError(f"{self.name}: there is no mask {self.masks / image_id}.png")
        read = [self._read(file) for file in files]
        sizes = {mask.shape for mask, _ in read}
        if len(sizes) > 1:
            raise ImageError(f"{self.name}: the masks of {image_id!r} have the sizes {sizes}")
        objects = tuple(ObjectMask.of(mask, "object", "salient") for mask, _ in read)
        return objects, np.any([void for _, void in read], axis=0)


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
            if numbers in ([0, _DAVIS_VOID], [_DAVIS_VOID]):
                raise ImageError(
                    f"{path} holds {numbers}, as DAVIS 2016 has it; wanted objects 1, 2, ... Type "
                    "year=2016"
                )
            void = values == _DAVIS_VOID
            masks = [values == number for number in numbers if number not in (0, _DAVIS_VOID)]
            kind = "thing"
        return tuple(ObjectMask.of(mask, "object", kind) for mask in masks), void


def open_davis_frames(root: Path | str, *, name: str | None = None) -> MaskFolderSource | None:
    """The 345 frames of the interactive field, or None where there is no `img/` and `gt/`."""
    for folder in (Path(root), Path(root) / "DAVIS"):
        if (folder / "img").is_dir() and (folder / "gt").is_dir():
            return MaskFolderSource(
                folder / "img", folder / "gt", name=name or "davis_345", read=read_binary
            )
    return None


def open_grabcut(root: Path | str, *, name: str | None = None) -> MaskFolderSource:
    """GrabCut: `data_GT/` (or `images/`) and `boundary_GT/` (or `masks/`)."""
    pairs = (("data_GT", "boundary_GT"), ("images", "masks"))
    images, masks = _find_pair(root, (".", "GrabCut"), pairs, what="GrabCut")
    return MaskFolderSource(images, masks, name=name or "grabcut", read=read_trimap)


def open_berkeley(root: Path | str, *, name: str | None = None) -> MaskFolderSource:
    """Berkeley: `images/` and `masks/`."""
    images, masks = _find_pair(root, (".", "Berkeley"), (("images", "masks"),), what="Berkeley")
    return MaskFolderSource(images, masks, name=name or "berkeley", read=read_trimap)


def read_trimap(path: Path) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Object (255) and void (128, a border left open), (H, W) bool each; 0 is background."""
    grey = _colours(path)
    if (grey != grey[..., :1]).any():
        raise ImageError(f"{path} has colours; wanted a grey picture of 0, 128 and 255")
    values = np.unique(grey[..., 0]).tolist()
    if _LASSO in values:
        raise ImageError(
            f"{path} holds {_LASSO}: it is of GrabCut's lasso masks, which are input and no truth. "
            "Wanted the masks of boundary_GT"
        )
    if not set(values) <= {0, _UNKNOWN, _OBJECT}:
        raise ImageError(f"{path} holds {values[:9]}; wanted 0, {_UNKNOWN} (void) and {_OBJECT}")
    return grey[..., 0] == _OBJECT, grey[..., 0] == _UNKNOWN


def read_binary(path: Path) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """A mask that is whatever is not black, and no void; (H, W) bool each."""
    mask = np.asarray(_colours(path).any(axis=-1))
    return mask, np.zeros_like(mask)


def _colours(path: Path) -> NDArray[np.uint8]:
    """A picture as it looks, (H, W, 3) uint8: of a palette the colours count, not the numbers."""
    if not path.is_file():
        raise ImageError(f"there is no annotation {path}")
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except Exception as error:  # PIL's readers raise whatever a damaged file leads them to
        raise ImageError(f"cannot read the mask {path}: {error}") from error


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _PICTURES:
            found.setdefault(path.stem, []).append(path)
    return found


def _find_pair(
    root: Path | str, places: Sequence[str], pairs: Sequence[tuple[str, str]], *, what: str
) -> tuple[Path, Path]:
    for pair in pairs[:-1]:
        try:
            found = find_root(root, places, marks=pair, what=what)
        except FileNotFoundError:
            continue
        return found / pair[0], found / pair[1]
    try:
        found = find_root(root, places, marks=pairs[-1], what=what)
    except FileNotFoundError as error:
        either = " or ".join(f"{images}/ and {masks}/" for images, masks in pairs)
        raise FileNotFoundError(f"{error} ({either})") from error
    return found / pairs[-1][0], found / pairs[-1][1]


def _sequences(lists: Path, *, year: int, split: str) -> list[str]:
    """Names of the sequences of a split, in the list's order."""
    first = lists / "480p" / f"{split}.txt"
    newer = lists / str(year) / f"{split}.txt"
    if year == 2016 and first.is_file() and not newer.is_file():
        # A line is a frame here: /JPEGImages/480p/SEQUENCE/00000.jpg /Annotations/...
        named = [line.split()[0].split("/")[-2] for line in read_split(first, "DAVIS")]
        return list(dict.fromkeys(named))
    return read_split(newer, "DAVIS")
