"""Big photos, segmented tile by tile.

A model's input has a few hundred pixels to a side: in a photo with ten thousand it would not see a
car. A `TiledView` cuts the photo into overlapping tiles and segments all phrases in one tile before
it encodes the next; the whole photo, downscaled, is segmented as well, for objects larger than a
tile. `tiled.merge` joins the pieces of one object.

Memory: the photo (3 bytes per pixel), the encoding of one tile, and run-length codes. No mask ever
becomes an array of the photo's size.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Unpack

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.errors import PromptError
from textsam.inference.photo.encoded import encode_photo
from textsam.inference.strategies.answering import compete, to_segmentation
from textsam.inference.strategies.naming import check_names, name_maps, name_masks
from textsam.inference.strategies.query import PhraseOptions, Query, make_query, show_keywords
from textsam.inference.strategies.rank import embed_cut
from textsam.inference.tiled.merge import Piece, join_pieces, on_canvas
from textsam.inference.view import ImageView
from textsam.modeling.precision import in_float32
from textsam.results.explanation import Explanation, explain_fully
from textsam.results.segmentation import Segmentation
from textsam.values.geometry import Window
from textsam.values.images import ImageSource, resize_image
from textsam.values.judge import GATES, Candidate, PhraseAnswer, Threshold, best_first, judge
from textsam.values.photo import Photo
from textsam.values.settings import AutomaticSettings, Preset, TileSettings
from textsam.weights.parts import ModelParts

logger = logging.getLogger(__name__)

# Called with (pictures done, pictures in all).
Progress = Callable[[int, int], None]

_TILES_EXPONENT = 0.5  # of the number of tiles, in `lowered`
_MAX_DROPPED_OF_TILE = 3  # dropped masks of a phrase that are kept
_MAX_DROPPED = 50  # the same for the photo


def open_tiled(
    parts: ModelParts, image: ImageSource, *, settings: TileSettings | None = None
) -> TiledView:
    """Open a big photo; nothing is encoded yet.

    An RGB uint8 array (H, W, 3) is not copied, so a memory map of a file works as well; do not
    change it while the view is in use. Anything else that `load_image` takes is read.
    """
    is_rgb = (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
        and image.shape[0] > 4  # with fewer rows it may be channels first: `load_image` decides
    )
    photo = Photo(image) if is_rgb else Photo.open(image)  # type: ignore[arg-type]
    return TiledView(parts, photo, settings=settings or TileSettings())


class TiledView:
    """A photo that is segmented tile by tile; made by `TextSAM.open_tiled`.

    Unlike an `ImageView` it keeps no encoding, so give all phrases in one call. A photo that fits
    into one tile gives the same results as `TextSAM.open`.

    Attributes:
        parts: Networks and settings of the model.
        photo: The photo as results know it: where to read it again.
        image: (H, W, 3) uint8 RGB.
        settings: Size and overlap of the tiles.
        windows: The tiles.
    """

    def __init__(self, parts: ModelParts, photo: Photo, *, settings: TileSettings) -> None:
        self.parts = parts
        self.photo = photo
        self.image = photo.pixels()
        self.settings = settings
        self.windows: tuple[Window, ...] = tuple(tile_windows(self.size, settings))

    def __repr__(self) -> str:
        height, width = self.size
        return (
            f"TiledView({height} x {width} pixels, {len(self.windows)} tiles, {self.parts.name!r})"
        )

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the photo."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def fits(self) -> bool:
        """Whether the whole photo fits into one tile."""
        return len(self.windows) == 1

    @in_float32
    @show_keywords(PhraseOptions)
    def segment(
        self,
        text: str | Sequence[str],
        *,
        progress: Progress | None = None,
        **options: Unpack[PhraseOptions],
    ) -> Segmentation:
        """Every instance of phrases, in tiles and in the whole photo; see `ImageView.segment`.

        Args:
            text: A phrase, or several; several cost little more than one.
            progress: Called after each picture with (pictures done, pictures in all).
            **options: `exclude`, `background`, `strategy` (not "prompt"), `threshold`, `overlap`:
                see `PhraseOptions` in `textsam.inference.strategies.query`.

        Returns:
            Masks of the photo. The presence of a phrase is the highest of all pictures, with that
            of tiles lowered for their number: see `lowered`. `explain()` has the best dropped masks
            of each tile.

        Raises:
            PromptError: As `ImageView.segment`; or "prompt" with several tiles.
            WeightsError: The model cannot be asked that way.
        """
        return self._ask(make_query(text=text, **options), progress)

    def _ask(self, query: Query, progress: Progress | None = None) -> Segmentation:
        if self.fits:
            return self._only_view().ask(query)
        if query.strategy == "prompt":
            raise PromptError(
                f'strategy is "prompt", which means one object, and there are {len(self.windows)} '
                'tiles. Type strategy="auto", or ask the photo in one view: model.open(photo)'
            )
        answers = self._answers(query, progress)
        return to_segmentation(self.photo, compete(answers, query.overlap))

    @in_float32
    @show_keywords(PhraseOptions)
    def explain(self, text: str | Sequence[str], **options: Unpack[PhraseOptions]) -> Explanation:
        """Why `segment(text=...)` gives these masks, or none; see `ImageView.explain`."""
        query = make_query(text=text, **options)
        return explain_fully(
            self._ask(query).answers,
            lambda changes: self._ask(query.changed(**changes)).answers,
            image=self.photo,
        )

    @in_float32
    def everything(
        self,
        settings: AutomaticSettings | Preset | None = None,
        *,
        names: str | Sequence[str] | None = None,
        threshold: Threshold = None,
        progress: Progress | None = None,
    ) -> Segmentation:
        """Masks of everything in tiles and in the whole; see `ImageView.everything`.

        Args:
            settings: `AutomaticSettings` or a preset's name, for each tile.
            names: Phrases that compete for each mask, after pieces of one object are joined.
            threshold: Minimum probability of a name, for all or by name.
            progress: Called after each picture with (done, all).

        Returns:
            Masks with predicted IoU and stability, best IoU first; with `names` also labels and
            scores, None and NaN where no name fits.
        """
        if self.fits:
            view = self._only_view()
            return view.everything(settings, names=names, threshold=threshold)
        query = check_names(self.parts, names, threshold)
        maps: list[TileMaps] = []
        masks = self._everything(settings, progress, query, maps)
        if query is None:
            return masks
        values = np.stack([each.values for each in maps]) if maps else None
        embedded = embed_cut(self.parts, self.image, masks)
        return name_masks(self.parts, embedded, query, values)

    def _everything(
        self,
        settings: AutomaticSettings | Preset | None,
        progress: Progress | None,
        query: Query | None,
        maps: list[TileMaps],  # filled with the map of each name
    ) -> Segmentation:
        pieces: list[Piece] = []
        for window, view in self._views(progress):
            pieces += [
                Piece(
                    candidate=Candidate(rle=item.rle, iou=item.iou, stability=item.stability),
                    window=window,
                    size=self.size,
                )
                for item in view.everything(settings)
            ]
            seen = None if query is None else name_maps(view.photo, query)
            if seen is not None:
                maps += [TileMaps(self.size) for _ in seen] if not maps else []
                for whole, part in zip(maps, seen, strict=True):
                    whole.add(part, window)
        joined = join_pieces(pieces, self.windows, reach=self.settings.overlap, nested=True)
        kept = [item for item in joined if item.gate is None]
        return Segmentation(
            self.size,
            [item.rle for item in kept],
            iou=[item.iou for item in kept],
            stability=[item.stability for item in kept],
            image=self.photo,
        )

    def _only_view(self) -> ImageView:
        return ImageView(encode_photo(self.parts, self.photo))

    def _views(self, progress: Progress | None) -> Iterator[tuple[Window, ImageView]]:
        """A view of the whole photo, then one of each tile; only one exists at a time."""
        height, width = self.size
        windows = list(self.windows)
        if self.settings.whole:
            windows.insert(0, Window(0, 0, width, height))
        for number, window in enumerate(windows):
            part = self.image[window.slices]
            if window.length > self.settings.tile:
                share = self.settings.tile / window.length
                part = resize_image(
                    part, (max(1, round(height * share)), round(width * share) or 1)
                )
            yield window, ImageView(encode_photo(self.parts, np.ascontiguousarray(part)))
            logger.debug("tile %d of %d: %s", number + 1, len(windows), window)
            if progress is not None:
                progress(number + 1, len(windows))

    def _answers(self, query: Query, progress: Progress | None) -> list[PhraseAnswer]:
        joined = [_JoinedAnswer(view=self) for _ in query.phrases]
        for window, view in self._views(progress):
            answers = view.answers(query)
            for item, answer in zip(joined, answers, strict=True):
                item.add(answer, window)
        return [item.result() for item in joined]


@dataclass(kw_only=True, eq=False)
class _JoinedAnswer:
    """The answers of the tiles to one phrase, so far."""

    view: TiledView
    pieces: list[Piece] = field(default_factory=list)
    dropped: list[Candidate] = field(default_factory=list)
    best: PhraseAnswer | None = None
    maps: TileMaps | None = None

    def add(self, answer: PhraseAnswer, window: Window) -> None:
        """Add the answer of a tile, or of the whole photo."""
        size = self.view.size
        if answer.similarity is not None:
            self.maps = self.maps or TileMaps(size)
            self.maps.add(answer.similarity, window)
        # `similarity` and logits are in the frame of the tile, which is forgotten after this.
        pieces = [Piece(candidate=item, window=window, size=size) for item in answer.candidates]
        self.pieces += [piece for piece in pieces if piece.candidate.gate is None]
        dropped = [on_canvas(piece) for piece in pieces if piece.candidate.gate is not None]
        self.dropped += [_settled(item) for item in dropped[:_MAX_DROPPED_OF_TILE]]
        if window in self.view.windows:
            answer = lowered(answer, tiles=len(self.view.windows))
        answer = replace(answer, candidates=(), similarity=None)
        if self.best is None or _progress_of(answer) > _progress_of(self.best):
            self.best = answer

    def result(self) -> PhraseAnswer:
        """The answer for the photo."""
        best = self.best
        assert best is not None  # there is at least one tile
        reach = self.view.settings.overlap
        joined = join_pieces(self.pieces, self.view.windows, reach=reach)
        kept = [item for item in joined if item.gate is None]
        dropped = [item for item in joined if item.gate is not None] + self.dropped
        dropped = sorted(dropped, key=lambda item: -_known(item.score))[:_MAX_DROPPED]
        return best_first(
            judge(
                replace(
                    best,
                    # `join_pieces` has dropped duplicates already, by its own rule.
                    levels=replace(best.levels, max_covered=1.0),
                    # A rival that wins everywhere in one tile leaves the other tiles' masks.
                    rivaled={} if kept else best.rivaled,
                    candidates=(*kept, *dropped),
                    searched=best.searched or bool(kept or dropped),
                    dependent=True,
                    similarity=None if self.maps is None else self.maps.values,
                )
            )
        )


def _settled(item: Candidate) -> Candidate:
    """A mask whose verdict stays: the better masks of its tile may not be in the photo's answer."""
    if item.gate == "duplicate" and item.ruled_out is None:
        return replace(item, ruled_out=(item.gate, item.reason))
    return item


def lowered(answer: PhraseAnswer, *, tiles: int) -> PhraseAnswer:
    """A tile's answer with its presence lowered for a photo of this many tiles.

    The highest of many probabilities is too high: of a hundred tiles without a cat, one looks most
    like a cat. If an object were equally likely in each tile and tiles were independent, the odds
    would have to be divided by the number of tiles. Tiles of one photo are alike, so that they are
    divided by its square root.
    """
    if math.isnan(answer.presence):
        return answer
    p = min(max(answer.presence, 1e-9), 1 - 1e-9)
    odds = p / (1 - p) / tiles**_TILES_EXPONENT
    return replace(answer, presence=odds / (1 + odds))


def _progress_of(answer: PhraseAnswer) -> tuple[float, int]:
    """Sorts answers by presence, then by how late a gate dropped them."""
    place = len(GATES) if answer.gate is None else list(GATES).index(answer.gate)
    return _known(answer.presence), place


def _known(value: float) -> float:
    return -1.0 if math.isnan(value) else value


_LONG_SIDE = 512  # cells of the photo's map


def tile_windows(size: tuple[int, int], settings: TileSettings) -> list[Window]:
    """Tiles of one size that cover a photo (H, W), row by row; the photo itself where it fits."""
    rows, columns = (_starts(side, settings) for side in size)
    height, width = min(size[0], settings.tile), min(size[1], settings.tile)
    return [Window(x, y, x + width, y + height) for y in rows for x in columns]


def _starts(length: int, settings: TileSettings) -> list[int]:
    """First pixels of the tiles along one side, the last of which ends with the photo."""
    room = length - settings.tile
    if room <= 0:
        return [0]
    step = settings.tile - settings.overlap
    steps = -(-room // step)
    return [room * i // steps for i in range(steps + 1)]


class TileMaps:
    """The map of a phrase over a photo; where tiles overlap, the higher probability counts."""

    def __init__(self, size: tuple[int, int]) -> None:
        """Start a map of a photo of size (H, W)."""
        self._cell = max(1.0, max(size) / _LONG_SIDE)
        shape = tuple(max(1, round(side / self._cell)) for side in size)
        self.values: NDArray[np.float32] = np.zeros(shape, dtype=np.float32)

    def add(self, similarity: NDArray[np.float32], window: Window) -> None:
        """Add the map (h, w) float32 of a window of the photo."""
        height, width = self.values.shape
        y0, y1 = self._cells(window.y0, window.y1, height)
        x0, x1 = self._cells(window.x0, window.x1, width)
        resized = Image.fromarray(similarity).resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR)
        cells = self.values[y0:y1, x0:x1]
        np.maximum(cells, np.asarray(resized), out=cells)

    def _cells(self, start: int, end: int, count: int) -> tuple[int, int]:
        """First and last + 1 of the cells of a range of pixels, at least one."""
        first = min(int(start / self._cell), count - 1)
        return first, min(count, max(first + 1, round(end / self._cell)))
