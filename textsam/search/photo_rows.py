"""From photos of a data set to rows of an index, those that are there already left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from textsam.errors import ImageError, one_line
from textsam.inference.photo.encoded import EncodedPhoto
from textsam.search.commits import PhotoRows
from textsam.search.data_photos import DataPhoto, PhotoSource
from textsam.search.embed import Embedder
from textsam.search.index import MaskIndex
from textsam.search.records import MaskRow, make_table
from textsam.search.where import Where
from textsam.values.images import load_image
from textsam.values.rle import RLE
from textsam.values.settings import AutomaticSettings, Preset

__all__ = ["MaskChoice", "RowMaker", "choose_masks"]

MaskChoice = Literal["given", "everything"]
# What a broken photo or annotation raises; anything else is no photo's fault.
_BROKEN = (ValueError, OSError)
_NOT_READ = np.zeros((0, 0, 3), np.uint8)
_READ = 8_192  # rows at once when the index is asked what it has


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ready:
    """Masks of a photo that are to be embedded; the photo is read only if there are any."""

    rows: list[MaskRow]
    kept: int
    image: EncodedPhoto | NDArray[np.uint8]


def choose_masks(source: PhotoSource, wanted: MaskChoice | None) -> MaskChoice:
    """Which masks of a data set are embedded; those that come with it by default, if any do.

    Raises:
        ValueError: Given ones of photos without any, or another word.
    """
    if wanted not in (None, *get_args(MaskChoice)):
        raise ValueError(f"masks={wanted!r}; wanted one of {list(get_args(MaskChoice))}")
    if wanted == "given" and not source.has_masks:
        raise ValueError('these photos come without masks. Type: masks="everything"')
    return wanted or ("given" if source.has_masks else "everything")


class RowMaker:
    """Embeds photos of a data set for an index.

    Given masks are known by their rows' ids. Automatic ones are not known before they are made:
    a photo counts as done when the index has automatic masks of it, which is why all masks of a
    photo must go into the index in one commit.
    """

    def __init__(
        self,
        embedder: Embedder,
        source: PhotoSource,
        index: MaskIndex,
        *,
        masks: MaskChoice | None = None,
        automatic: AutomaticSettings | Preset | None = None,
    ) -> None:
        """See `choose_masks` for `masks`; `automatic` is what `TextSAM.everything` takes."""
        self.embedder, self.source, self.index = embedder, source, index
        self.masks = choose_masks(source, masks)
        self.automatic = automatic

    def make(self, rows: Sequence[Any]) -> list[PhotoRows]:
        """Embed the photos of some rows of the source, together; a broken one stops nothing."""
        found = [PhotoRows(image="")] * len(rows)
        opened: dict[int, DataPhoto] = {}
        for place, row in enumerate(rows):
            try:
                opened[place] = self.source.photo(row)
            except _BROKEN as error:
                found[place] = PhotoRows(image=self.source.name(row), error=one_line(error))
        known = self._known(list(opened.values()))
        ready: dict[int, _Ready] = {}
        for place, photo in opened.items():
            try:
                one = self._prepare(photo, known.get((photo.dataset, photo.image), {}))
            except _BROKEN as error:
                found[place] = PhotoRows(image=photo.image, error=one_line(error))
                continue
            found[place] = PhotoRows(image=photo.image, masks=len(one.rows), kept=one.kept)
            if one.rows:
                ready[place] = one
        given = [(one.image, [row.rle for row in one.rows]) for one in ready.values()]
        vectors = self.embedder.photos(given) if given else []
        for (place, one), theirs in zip(ready.items(), vectors, strict=True):
            found[place] = replace(found[place], table=make_table(one.rows, theirs))
        return found

    def _known(self, photos: Sequence[DataPhoto]) -> dict[tuple[str, str], dict[str, bool]]:
        """By photo, the ids of its rows in the index, and whether the mask was an automatic one."""
        found: dict[tuple[str, str], dict[str, bool]] = {}
        if not photos:
            return found
        where = Where(
            datasets=sorted({photo.dataset for photo in photos}),
            images=sorted({photo.image for photo in photos}),
        )
        columns = ["dataset", "image", "id", "iou"]
        for batch in self.index.engine.read(columns, where=where, batch=_READ):
            for row in batch.select(columns).to_pylist():
                ids = found.setdefault((row["dataset"], row["image"]), {})
                ids[row["id"]] = row["iou"] is not None
        return found

    def _prepare(self, photo: DataPhoto, known: dict[str, bool]) -> _Ready:
        if self.masks == "given":
            masks = [mask for mask in photo.masks if not mask.rle.is_empty]
            rows = _distinct([_row(photo, mask.rle, label=mask.label) for mask in masks])
            new = [row for row in rows if row.id not in known]
            image = load_image(photo.encoded) if new else _NOT_READ
            for row in new:
                if row.rle.size != image.shape[:2]:
                    raise ImageError(
                        f"a mask has size {row.rle.size}, the photo {image.shape[:2]} "
                        "(height, width)"
                    )
            return _Ready(rows=new, kept=len(rows) - len(new), image=image)
        if there := sum(known.values()):
            return _Ready(rows=[], kept=there, image=_NOT_READ)
        view = self.embedder.model.open(load_image(photo.encoded))
        made = view.everything(self.automatic)
        rows = _distinct([_row(photo, item.rle, iou=item.iou) for item in made if item.area])
        return _Ready(rows=rows, kept=0, image=view)


def _row(photo: DataPhoto, rle: RLE, **told: Any) -> MaskRow:
    return MaskRow(dataset=photo.dataset, image=photo.image, rle=rle, **told)


def _distinct(rows: Sequence[MaskRow]) -> list[MaskRow]:
    """Rows without those whose id came before."""
    return list({row.id: row for row in rows}.values())
