"""GrabCut, Berkeley and DAVIS's 345 frames: what interactive segmentation is measured on.

As the field hands them on (the archives of f-BRS, Sofiiuk et al., CVPR 2020): a folder of photos
and one of masks with the same names. GrabCut: Rother et al., SIGGRAPH 2004, 50 photos. Berkeley:
McGuinness and O'Connor, Pattern Recognition 2010, 100 objects in 96 photos.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import ImageError
from textsam.values.rle import encode_mask

from ..sample import ObjectMask
from .layout import find_root
from .listed import Annotation, ListedSource

_PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")
_OBJECT, _UNKNOWN, _LASSO = 255, 128, 64


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
        """List both folders."""
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
        objects = tuple(
            ObjectMask(label="object", kind="salient", rle=encode_mask(mask), ignore=False)
            for mask, _ in read
        )
        return Annotation(objects=objects, void=np.any([void for _, void in read], axis=0))


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
    """A mask with a border that is left open: 0 background, 128 void, 255 object.

    Returns:
        The object and the void, (H, W) bool each.
    """
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
