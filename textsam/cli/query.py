"""What `textsam search` looks for, where, and the picture of what it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from textsam.cli.segment import parse_box, parse_points
from textsam.cli.sources import open_photo, short_name
from textsam.errors import ImageError, PromptError
from textsam.pictures.contact_sheet import Cell, contact_sheet, fitted_size, mask_cell
from textsam.pictures.draw import PALETTE, PICTURE_SUFFIXES
from textsam.search.embed import Embedder
from textsam.search.index import MaskIndex
from textsam.search.results import SearchResults
from textsam.values.images import load_image
from textsam.values.rle import RLE, encode_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from textsam.search.spaces import SpaceName
    from textsam.search.where import Where

__all__ = ["Asked", "Query", "check_sheet", "found_sheet", "open_index"]

_COLUMNS, _CELL = 6, 240


@dataclass(frozen=True, kw_only=True)
class Query:
    """The options that say what is looked for, as they were typed."""

    text: str | None
    mask: Path | None
    image: str | None
    like: str | None
    points: Sequence[str] | None
    box: str | None

    def check(self) -> None:
        """Refuse what is no question, before a model is loaded.

        Raises:
            PromptError: Not one thing to look for, or a part of one is missing.
        """
        given = {
            "-t": self.text is not None,
            "--image or --mask": self.image is not None or self.mask is not None,
            "--like": self.like is not None,
        }
        if sum(given.values()) != 1:
            named = ", ".join(name for name, there in given.items() if there)
            raise PromptError(
                f"got {named or 'nothing'} to look for; wanted one of -t PHRASE, --image PHOTO "
                "(with or without --mask FILE), --mask CUTOUT.png, --like PHOTO --point X,Y"
            )
        if self.text is not None and not self.text.strip():
            raise PromptError(f"-t {self.text!r}: wanted a phrase, such as 'striped sail'")
        placed = bool(self.points or self.box)
        if self.like is not None and not placed:
            raise PromptError("--like needs --point X,Y or --box X0,Y0,X1,Y1; or type --image")
        if placed and self.like is None:
            raise PromptError("--point and --box say what is meant in a photo; add --like PHOTO")

    def resolve(self, model: Any) -> Asked:
        """Read photo and mask; what was clicked at is segmented.

        Raises:
            ImageError: A file is no picture.
            PromptError: A mask that is empty or of another size than its photo.
        """
        if self.text is not None:
            return Asked(text=self.text)
        if self.like is not None:
            photo = load_image(self.like)
            points, labels = parse_points(self.points or [])
            prompt: dict[str, Any] = {"points": points, "labels": labels} if points else {}
            prompt |= {"box": parse_box(self.box)} if self.box else {}
            result = model.segment(photo, **prompt)
            if not len(result) or not result[0].area:
                raise PromptError(f"there is no mask at the point or box of {self.like}")
            return Asked(photo=photo, rle=result[0].rle)
        if self.image is None:
            assert self.mask is not None
            return _cutout(self.mask)
        photo = load_image(self.image)
        if self.mask is None:
            return Asked(photo=photo)
        return Asked(photo=photo, rle=_read_mask(self.mask, photo.shape[:2]))


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """A phrase, or a photo (H, W, 3) uint8 RGB with or without a mask in it."""

    text: str | None = None
    photo: NDArray[np.uint8] | None = None
    rle: RLE | None = None

    def search(
        self,
        index: MaskIndex,
        model: Any,
        *,
        k: int,
        where: Where,
        space: SpaceName,
        exact: bool,
    ) -> SearchResults:
        """Look for it, with the settings that the index was made with."""
        index.model = _embedder_of(index, model, space)
        return index.search(
            text=self.text,
            image=self.photo,
            mask=self.rle,
            k=k,
            where=where,
            space=space,
            exact=exact,
        )


def open_index(uri: str) -> MaskIndex:
    """Open an index that is there.

    Raises:
        FileNotFoundError: There is none.
    """
    advice = f"Type: textsam embed DATA -o {uri}"
    if "://" not in uri and not Path(uri).is_dir():
        raise FileNotFoundError(f"there is no index {uri!r}. {advice}")
    index = MaskIndex.open(uri)
    if not index.spaces:
        raise FileNotFoundError(f"{uri!r} is no index of masks, or one without rows. {advice}")
    return index


def check_sheet(path: Path | None) -> Path | None:
    """The file of the contact sheet, if it can be one.

    Raises:
        ValueError: It is no picture by its suffix.
        FileNotFoundError: Its folder is not there.
    """
    if path is None:
        return None
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise ValueError(f"-o {path}: wanted a picture, {' '.join(PICTURE_SUFFIXES)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"-o {path}: there is no folder {str(path.parent)!r}")
    return path


def found_sheet(asked: Asked, found: SearchResults, path: Path) -> list[str]:
    """Save a picture of what was looked for and what was found.

    Returns:
        The results whose photos cannot be opened (any more), and why; no picture if that is all.
    """
    cells, failed = [], []
    for number, one in enumerate(found, 1):
        row = one.row
        name = row.label or short_name(row.image)
        try:
            cell = mask_cell(
                open_photo(row.image),
                row.rle,
                caption=f"{number}. {one.score:.3f} {name} ({row.dataset})",
                size=_CELL,
            )
        except (ValueError, OSError) as error:
            failed.append(f"{number}, {row.image}: {error}")
            continue
        cells.append(cell)
    if cells:
        named = repr(asked.text)
        if asked.photo is not None:
            named, cells = "the first", [_asked_cell(asked.photo, asked.rle), *cells]
        heading = f"{len(found)} masks nearest to {named}"
        contact_sheet({heading: cells}, size=_CELL, columns=_COLUMNS).save(path)
    return failed


def _asked_cell(photo: NDArray[np.uint8], rle: RLE | None) -> Cell:
    if rle is not None:
        return mask_cell(
            photo, rle, caption="looked for", context=3.0, size=_CELL, color=PALETTE[0]
        )
    picture = Image.fromarray(photo)
    return Cell(picture=picture.resize(fitted_size(picture.size, _CELL)), caption="looked for")


def _embedder_of(index: MaskIndex, model: Any, space: SpaceName) -> Embedder | None:
    """What makes vectors of one space of an index; None if it has not the space: search says so."""
    ours = index.spaces.get(space)
    return None if ours is None else Embedder.of_spaces(model, {space: ours})


def _read_mask(path: Path, size: tuple[int, ...]) -> RLE:
    """The pixels of a picture that are not black."""
    values = np.asarray(_open(path))
    inside = (values if values.ndim == 2 else values[..., :3].max(-1)) > 0
    if inside.shape != size:
        raise PromptError(
            f"--mask {path} has size {inside.shape}, the photo {size} (height, width)"
        )
    return _some(path, inside)


def _cutout(path: Path) -> Asked:
    """A picture whose alpha is the mask, as `textsam segment --kind cutout` writes it."""
    picture = _open(path)
    if "A" not in picture.getbands():
        raise PromptError(
            f"--mask {path} has no alpha, so it is no cutout; say whose mask it is: --image PHOTO"
        )
    values = np.asarray(picture.convert("RGBA"))
    return Asked(
        photo=np.ascontiguousarray(values[..., :3]), rle=_some(path, values[..., 3] >= 128)
    )


def _some(path: Path, inside: NDArray[np.bool_]) -> RLE:
    if not inside.any():
        raise PromptError(f"--mask {path} is empty: there is nothing to look for")
    return encode_mask(inside)


def _open(path: Path) -> Image.Image:
    try:
        picture = Image.open(path)
        picture.load()
    except FileNotFoundError as error:
        raise ImageError(f"--mask {path}: there is no such file") from error
    except Exception as error:  # PIL's readers raise whatever a damaged file leads them to
        raise ImageError(f"--mask {path}: no picture that can be read ({error})") from error
    return picture
