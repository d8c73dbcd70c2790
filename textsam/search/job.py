"""A whole data set into an index, in this process.

    with MaskIndex.open("masks.lance") as index:
        report = embed_data_set(embedder, ListedPhotos(photos), index)

A run may be killed at any moment and started again: masks that the index has are passed over. The
same on many machines is `textsam.search.ray_job`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from textsam.search.commits import PhotoRows, add_tables
from textsam.search.data_photos import PhotoSource, batches
from textsam.search.embed import Embedder
from textsam.search.index import MaskIndex
from textsam.search.photo_rows import MaskChoice, RowMaker, choose_masks
from textsam.values.settings import AutomaticSettings, Preset

__all__ = ["EmbedReport", "EmbedSettings", "Progress", "embed_data_set"]

# Called once for each photo, when its masks are in the index.
Progress = Callable[[PhotoRows], None]


@dataclass(frozen=True, kw_only=True)
class EmbedSettings:
    """How a data set is gone through.

    Attributes:
        masks: "given", those that come with the photos; "everything", automatic ones; None for the
            given ones where there are any.
        automatic: Settings of the automatic ones, as `TextSAM.everything` takes them.
        limit: Photos at most; None for all.
        batch: Photos that are decoded and embedded together.
        commit_rows: Rows that are put into the index at once, about: Lance makes a file of each
            commit, and a killed run loses what is not in yet.
        commit_seconds: Rows are put in after so long, however few they are.
        compact: Fold files together and build search structures at the end.

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
    """What became of a run.

    Attributes:
        photos: Photos that were gone through, failed ones too.
        masks: Masks that are new in the index.
        kept: Masks that it had already.
        failed: The photos that were passed over, with the reason.
    """

    photos: int = 0
    masks: int = 0
    kept: int = 0
    failed: list[PhotoRows] = field(default_factory=list)

    def add(self, photo: PhotoRows) -> None:
        """Count a photo in."""
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
    """Embed the masks of all photos of a data set that the index does not have yet.

    A photo that cannot be read is reported and stops nothing.

    Raises:
        ValueError: The index holds vectors of another model, or there are no masks of the kind
            that is wanted.
        OSError: The index cannot be written.
    """
    settings = settings or EmbedSettings()
    choose_masks(source, settings.masks)
    index.check_spaces(embedder.spaces)
    maker = RowMaker(embedder, source, index, masks=settings.masks, automatic=settings.automatic)
    report = EmbedReport()
    writer = _Writer(index, settings, report, progress)
    try:
        for rows in batches(itertools.islice(source.rows(), settings.limit), settings.batch):
            writer.add(maker.make(rows))
    finally:  # what is finished is kept, also when somebody stops the run
        writer.flush()
    if settings.compact:
        index.compact()
    return report


class _Writer:
    """Gathers rows of whole photos, and commits them when they are many or old."""

    def __init__(
        self,
        index: MaskIndex,
        settings: EmbedSettings,
        report: EmbedReport,
        progress: Progress | None,
    ) -> None:
        self.index, self.settings = index, settings
        self.report, self.progress = report, progress
        self.waiting: list[PhotoRows] = []
        self.since = time.monotonic()

    def add(self, photos: Sequence[PhotoRows]) -> None:
        self.waiting += photos
        rows = sum(photo.masks for photo in self.waiting)
        old = time.monotonic() - self.since >= self.settings.commit_seconds
        if old or rows >= self.settings.commit_rows:
            self.flush()

    def flush(self) -> None:
        done, self.waiting = self.waiting, []
        add_tables(self.index, [photo.table for photo in done])
        self.since = time.monotonic()
        for photo in done:
            self.report.add(photo)
            if self.progress is not None:
                self.progress(photo)
