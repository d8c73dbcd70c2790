"""What `textsam search` searches for, in which index, and the contact sheet of the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from textsam.cli.console import make_console, print_line
from textsam.cli.inputs.data_sources import open_photo, short_name
from textsam.cli.options import parse_boxes, parse_points
from textsam.errors import ImageError, PromptError
from textsam.pictures.contact_sheet import Cell, contact_sheet, fitted_size, mask_cell
from textsam.pictures.draw import PALETTE, PICTURE_SUFFIXES
from textsam.search.index import MaskIndex
from textsam.search.results import SearchResults
from textsam.values.images import load_image
from textsam.values.rle import RLE, encode_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from textsam import TextSAM

# Six cells of 240 pixels side by side fit on a screen of 1,500.
_SHEET_COLUMNS, _CELL_SIDE = 6, 240


@dataclass(frozen=True, kw_only=True)
class SearchInput:
    """The options that say what to search for, as typed."""

    text: str | None
    mask: Path | None
    image: str | None
    like: str | None
    points: Sequence[str] | None
    box: list[str] | None

    def check(self) -> None:
        """Check that exactly one thing is named, before a model is loaded."""
        named = {
            "-t": self.text is not None,
            "--image or --mask": self.image is not None or self.mask is not None,
            "--like": self.like is not None,
        }
        if sum(named.values()) != 1:
            options = " and ".join(option for option, is_given in named.items() if is_given)
            raise PromptError(
                f"got {options or 'nothing'} to search for; wanted one of -t PHRASE, --image PHOTO "
                "(with or without --mask FILE), --mask CUTOUT.png, --like PHOTO --point X,Y"
            )
        if self.text is not None and not self.text.strip():
            raise PromptError(f"-t {self.text!r}: wanted a phrase, such as 'striped sail'")
        has_place = bool(self.points or self.box)
        if self.like is not None and not has_place:
            raise PromptError("--like needs --point X,Y or --box X0,Y0,X1,Y1; or use --image")
        if has_place and self.like is None:
            raise PromptError("--point and --box select an object of a photo; add --like PHOTO")

    def resolve(self, load: Callable[[], TextSAM]) -> SearchTarget:
        """Read the photo and the mask; segment what was clicked on, with a model from `load`."""
        if self.text is not None:
            return SearchTarget(text=self.text)
        if self.like is not None:
            photo = load_image(self.like)
            points, labels = parse_points(self.points or [])
            query: dict[str, Any] = {"points": points, "labels": labels} if points else {}
            query |= parse_boxes(self.box or [])
            if query["boxes"]:
                raise PromptError("a search starts from one object; give one --box")
            result = load().segment(photo, **query)
            if not len(result) or not result[0].area:
                raise PromptError(f"there is no mask at the point or box of {self.like}")
            return SearchTarget(photo=photo, rle=result[0].rle)
        if self.image is None:
            assert self.mask is not None
            return _read_cutout(self.mask)
        photo = load_image(self.image)
        if self.mask is None:
            return SearchTarget(photo=photo)
        return SearchTarget(photo=photo, rle=_read_mask(self.mask, photo.shape[:2]))


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchTarget:
    """A phrase, or a photo (H, W, 3) uint8 RGB with or without a mask in it."""

    text: str | None = None
    photo: NDArray[np.uint8] | None = None
    rle: RLE | None = None


def open_index(uri: str, model: TextSAM | None) -> MaskIndex:
    """Open an index that exists and has rows; without a model it loads the one that made it."""
    advice = f"Type: textsam embed DATA -o {uri}"
    # Opening a folder that does not exist would create an index there.
    if "://" not in uri and not Path(uri).is_dir():
        raise FileNotFoundError(f"there is no index {uri!r}. {advice}")
    index = MaskIndex.open(uri, model=model)
    if not index.spaces:
        raise FileNotFoundError(f"{uri!r} is not an index of masks, or has no rows. {advice}")
    return index


def check_sheet(path: Path) -> None:
    """Check that a contact sheet can be written to a file."""
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise ValueError(f"-o {path}: wanted a picture, {' '.join(PICTURE_SUFFIXES)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"-o {path}: there is no folder {str(path.parent)!r}")


def save_sheet(target: SearchTarget, results: SearchResults, path: Path, *, quiet: bool) -> None:
    """Save a picture of the target and the results; no picture if no photo can be opened.

    Results whose photos cannot be opened any more are listed on standard error.
    """
    cells = []
    console = make_console(stderr=True)
    for number, result in enumerate(results, 1):
        caption = f"{number}. {result.cosine:.3f} {result.label or short_name(result.image)}"
        try:
            cell = mask_cell(
                open_photo(result.image),
                result.rle,
                caption=f"{caption} ({result.dataset})",
                size=_CELL_SIDE,
            )
        except (ValueError, OSError) as error:
            print_line(f"no picture of {number}, {result.image}: {error}", console=console)
            continue
        cells.append(cell)
    if not cells:
        return
    subject = repr(target.text)
    if target.photo is not None:
        subject, cells = "the first", [_target_cell(target.photo, target.rle), *cells]
    rows = {f"{len(results)} masks nearest to {subject}": cells}
    contact_sheet(rows, size=_CELL_SIDE, columns=_SHEET_COLUMNS).save(path)
    if not quiet:
        print_line(f"wrote {path}")


def _target_cell(photo: NDArray[np.uint8], rle: RLE | None) -> Cell:
    caption = "searched for"
    if rle is not None:
        return mask_cell(
            photo, rle, caption=caption, context=3.0, size=_CELL_SIDE, color=PALETTE[0]
        )
    picture = Image.fromarray(photo)
    return Cell(picture=picture.resize(fitted_size(picture.size, _CELL_SIDE)), caption=caption)


def _read_mask(path: Path, size: tuple[int, ...]) -> RLE:
    """The pixels of a picture that are not black."""
    values = np.asarray(_open_picture(path))
    inside = (values if values.ndim == 2 else values[..., :3].max(-1)) > 0
    if inside.shape != size:
        raise PromptError(
            f"--mask {path} has size {inside.shape}, the photo {size} (height, width)"
        )
    return _encode_nonempty(path, inside)


def _read_cutout(path: Path) -> SearchTarget:
    """A picture whose alpha is the mask, as `textsam segment --kind cutout` writes it."""
    picture = _open_picture(path)
    if "A" not in picture.getbands():
        raise PromptError(
            f"--mask {path} has no alpha channel, so it is not a cutout; name its photo: --image "
            "PHOTO"
        )
    values = np.asarray(picture.convert("RGBA"))
    # Half transparent pixels, at a smoothed edge, count by their larger half.
    rle = _encode_nonempty(path, values[..., 3] >= 128)
    return SearchTarget(photo=np.ascontiguousarray(values[..., :3]), rle=rle)


def _encode_nonempty(path: Path, inside: NDArray[np.bool_]) -> RLE:
    if not inside.any():
        raise PromptError(f"--mask {path} is empty: there is nothing to search for")
    return encode_mask(inside)


def _open_picture(path: Path) -> Image.Image:
    try:
        picture = Image.open(path)
        picture.load()
    except FileNotFoundError as error:
        raise ImageError(f"--mask {path}: there is no such file") from error
    # The readers of PIL raise many types for a damaged file.
    except Exception as error:
        raise ImageError(f"--mask {path} cannot be read as a picture ({error})") from error
    return picture
