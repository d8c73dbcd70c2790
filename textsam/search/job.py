"""Embed the masks of a whole data set into an index, in this process.

    with MaskIndex.open("masks.lance") as index:
        report = embed_data_set(embedder, ListedPhotos(photos), index)

A run can be stopped at any moment and started again: masks that the index has are skipped.
`textsam.search.ray_job` does the same on many machines.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from textsam.errors import ImageError, one_line
from textsam.search.data_photos import DataPhoto, PhotoRows, PhotoSource, batches
from textsam.search.index import MaskIndex
from textsam.search.records import MaskRow, make_table
from textsam.search.where import Where
from textsam.values.images import load_image

if TYPE_CHECKING:  # so that processes that embed nothing need not import the networks
    from textsam.inference.photo.encoded import EncodedPhoto
    from textsam.search.embed import Embedder
    from textsam.values.settings import AutomaticSettings, Preset

# Called once for each photo, after its masks have been committed.
Progress = Callable[[PhotoRows], None]
MaskChoice = Literal["given", "everything"]

# What a broken photo or annotation raises. Other errors are faults of the program and end the run.
_PHOTO_ERRORS = (ValueError, OSError)
_READ_BATCH = 8_192  # rows that are read at once from the index


@dataclass(frozen=True, kw_only=True)
class EmbedSettings:
    """How a data set is embedded.

    Attributes:
        masks: "given" for the masks that come with the photos, "everything" for automatic ones;
            None for the given ones if there are any.
        automatic: Settings of automatic masks, as for `TextSAM.everything`.
        limit: Maximum number of photos; None for all.
        batch: Photos that are decoded and embedded together.
        commit_rows: Rows are committed as soon as there are this many. Each commit is a file, and a
            killed run loses the rows that are not committed yet.
        commit_seconds: Rows are committed after this time even if there are fewer.
        compact: Merge files and build search structures at the end.

    Raises:
        ValueError: A number below 1.
    """

    masks: MaskChoice | None = None
    automatic: AutomaticSettings | Preset = "fast"
    limit: int | None = None
    batch: int = 8
    commit_rows: int = 4_096
    commit_seconds: float = 60.0
    compact: bool = True

    def __post_init__(self) -> None:
        """Refuse numbers below 1."""
        for name in ("limit", "batch", "commit_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}; wanted at least 1")


@dataclass(kw_only=True)
class EmbedReport:
    """The result of a run."""

    photos: int = 0  # including failed ones
    masks: int = 0  # new in the index
    kept: int = 0  # in the index already
    failed: list[PhotoRows] = field(default_factory=list)

    def add(self, photo: PhotoRows) -> None:
        """Count one photo."""
        self.photos += 1
        self.masks += photo.masks
        self.kept += photo.kept
        if photo.error is not None:
            self.failed.append(photo)


def embed_data_set(
    embedder: Embedder,
    source: PhotoSource,
    index: MaskIndex,
    *,
    settings: EmbedSettings | None = None,
    progress: Progress | None = None,
) -> EmbedReport:
    """Embed all masks of a data set that the index does not have yet.

    A photo that cannot be read is reported and skipped.

    Raises:
        ValueError: The index holds vectors of another model, or the photos have no masks of the
            chosen kind.
        OSError: The index cannot be written.
    """
    settings = settings or EmbedSettings()
    photo_embedder = PhotoEmbedder(embedder, source, index, settings)
    index.check_spaces(embedder.spaces)
    report = EmbedReport()
    commits = _PendingCommit(index=index, settings=settings, report=report, progress=progress)
    try:
        for rows in batches(itertools.islice(source.rows(), settings.limit), settings.batch):
            commits.add(photo_embedder.embed(rows))
    finally:  # also after Ctrl-C: finished photos are kept
        commits.flush()
    if settings.compact:
        index.compact()
    return report


@dataclass(kw_only=True)
class _PendingCommit:
    """Collects rows of whole photos, and commits them when they are many or old."""

    index: MaskIndex
    settings: EmbedSettings
    report: EmbedReport
    progress: Progress | None
    photos: list[PhotoRows] = field(default_factory=list)
    last_commit: float = field(default_factory=time.monotonic)

    def add(self, photos: Sequence[PhotoRows]) -> None:
        self.photos += photos
        rows = sum(photo.masks for photo in self.photos)
        is_old = time.monotonic() - self.last_commit >= self.settings.commit_seconds
        if is_old or rows >= self.settings.commit_rows:
            self.flush()

    def flush(self) -> None:
        # Emptied first, so that a failing commit is not repeated by the `finally` of the run.
        photos, self.photos = self.photos, []
        self.index.add_tables(photo.table for photo in photos)
        self.last_commit = time.monotonic()
        for photo in photos:
            self.report.add(photo)
            if self.progress is not None:
                self.progress(photo)


def choose_masks(source: PhotoSource, masks: MaskChoice | None) -> MaskChoice:
    """Which masks of a data set are embedded; by default those that come with it, if any."""
    if masks not in (None, *get_args(MaskChoice)):
        raise ValueError(f"masks={masks!r}; wanted one of {list(get_args(MaskChoice))}")
    if masks == "given" and not source.has_masks:
        raise ValueError('these photos come without masks. Type: masks="everything"')
    return masks or ("given" if source.has_masks else "everything")


class PhotoEmbedder:
    """Embeds those masks of photos that an index does not have.

    A given mask is recognised by the id of its row. The ids of automatic masks are not known before
    the masks are computed, so a photo counts as done if the index has any automatic mask of it:
    this is why all masks of a photo must be added in one commit.
    """

    def __init__(
        self, embedder: Embedder, source: PhotoSource, index: MaskIndex, settings: EmbedSettings
    ) -> None:
        """See `choose_masks` for errors."""
        self.embedder, self.source, self.index = embedder, source, index
        self.masks = choose_masks(source, settings.masks)
        self.automatic = settings.automatic

    def embed(self, rows: Sequence[Any]) -> list[PhotoRows]:
        """Embed the photos of some rows of the source in common batches; skip broken ones."""
        # By place, since broken photos are skipped and results keep the order of the rows.
        results = [PhotoRows(image="")] * len(rows)
        photos: dict[int, DataPhoto] = {}
        for place, row in enumerate(rows):
            try:
                photos[place] = self.source.photo(row)
            except _PHOTO_ERRORS as error:
                results[place] = PhotoRows(image=self.source.name(row), error=one_line(error))
        known = self._known_rows(list(photos.values()))  # one query for the whole batch
        new: dict[int, tuple[EncodedPhoto | NDArray[np.uint8], list[MaskRow]]] = {}
        for place, photo in photos.items():
            try:
                image, masks, kept = self._new_masks(
                    photo, known.get((photo.dataset, photo.image), {})
                )
            except _PHOTO_ERRORS as error:
                results[place] = PhotoRows(image=photo.image, error=one_line(error))
                continue
            results[place] = PhotoRows(image=photo.image, masks=len(masks), kept=kept)
            if image is not None and masks:
                new[place] = (image, masks)
        pairs = [(image, [row.rle for row in masks]) for image, masks in new.values()]
        vectors = self.embedder.photos(pairs) if pairs else []
        for (place, (_, masks)), own in zip(new.items(), vectors, strict=True):
            results[place] = replace(results[place], table=make_table(masks, own))
        return results

    def _known_rows(self, photos: Sequence[DataPhoto]) -> dict[tuple[str, str], dict[str, bool]]:
        """For each photo, the ids of its rows in the index, and whether their masks are automatic.

        Only automatic masks have a predicted IoU.
        """
        known: dict[tuple[str, str], dict[str, bool]] = {}
        if not photos:
            return known
        where = Where(
            datasets=sorted({photo.dataset for photo in photos}),
            images=sorted({photo.image for photo in photos}),
        )
        columns = ["dataset", "image", "id", "iou"]
        for batch in self.index.engine.read(columns, where=where, batch=_READ_BATCH):
            for row in batch.to_pylist():
                ids = known.setdefault((row["dataset"], row["image"]), {})
                ids[row["id"]] = row["iou"] is not None
        return known

    def _new_masks(
        self, photo: DataPhoto, known: dict[str, bool]
    ) -> tuple[EncodedPhoto | NDArray[np.uint8] | None, list[MaskRow], int]:
        """The photo, decoded only if it has new masks, those masks, and the number of old ones."""
        if self.masks == "given":
            masks = [mask for mask in photo.masks if not mask.rle.is_empty]
            rows = _distinct_rows(photo, [{"rle": m.rle, "label": m.label} for m in masks])
            new = [row for row in rows if row.id not in known]
            if not new:
                return None, [], len(rows)
            image = load_image(photo.encoded)
            for row in new:
                if row.rle.size != image.shape[:2]:
                    raise ImageError(
                        f"a mask has size {row.rle.size}, the photo {image.shape[:2]} "
                        "(height, width)"
                    )
            return image, new, len(rows) - len(new)
        if automatic := sum(known.values()):
            return None, [], automatic
        view = self.embedder.model.open(load_image(photo.encoded))
        results = [mask for mask in view.everything(self.automatic) if mask.area]
        rows = _distinct_rows(photo, [{"rle": mask.rle, "iou": mask.iou} for mask in results])
        # The view is encoded already, so latents of the photo cost nothing more.
        return view.photo, rows, 0


def _distinct_rows(photo: DataPhoto, masks: Sequence[dict[str, Any]]) -> list[MaskRow]:
    """A row for each mask, without rows that repeat an id."""
    rows = [MaskRow(dataset=photo.dataset, image=photo.image, **mask) for mask in masks]
    return list({row.id: row for row in rows}.values())
