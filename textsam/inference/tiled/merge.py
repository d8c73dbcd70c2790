"""Joining masks of tiles and of the downscaled photo to one mask per object.

Where tiles overlap, both show the same pixels. Two masks that agree there are one object and become
their union: an object across a seam, or one inside the overlap that both tiles have. A fragment
that its tile cut off is dropped if a neighbour shows more of it and has no such mask. An object too
large for any tile is taken from the whole photo, together with its fragments in the tiles.

Masks stay run-length coded: see `textsam.values.rle_ops`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from textsam.values.geometry import Window
from textsam.values.judge import Candidate, Gate
from textsam.values.rle import RLE, intersect_rles, merge_rles, rle_area, rle_box, rle_iou
from textsam.values.rle_ops import crop_rle, enlarge_rle, paste_rle

# IoU from which two masks are one object; between tiles, on the pixels that both show. With half, a
# mask can agree with one other mask only.
_SAME = 0.5
_INSIDE = 0.7  # share of a fragment inside an object from which it belongs to the object
_GOES_ON = 0.5  # share of a cut edge that other tiles' masks must continue for a complete mask
_COVERED = 0.5  # a mask is a duplicate if better ones cover a larger share of it
_NESTED_SAME = 0.7  # ioU above which masks of everything are duplicates, as in Appendix B
# A mask that ends this near its tile's border, as a share of the tile's side, was cut off by it
# (the decoder's masks have 128 or 256 cells to a side).
_EDGE = 0.01


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """A mask as predicted on one tile or on the downscaled photo."""

    candidate: Candidate  # its mask is in pixels of the picture that the model was given
    window: Window  # the part of the photo that this picture shows
    size: tuple[int, int]  # (H, W) of the photo

    @property
    def is_whole(self) -> bool:
        """Whether the picture shows the whole photo."""
        return self.window == Window(0, 0, self.size[1], self.size[0])

    @cached_property
    def box(self) -> Window:
        """Half-open box in the photo, of a mask of a tile."""
        x0, y0, x1, y1 = (int(side) for side in rle_box(self.candidate.rle))
        x, y = self.window.x0, self.window.y0
        return Window(x0 + x, y0 + y, x1 + x, y1 + y)

    @cached_property
    def area(self) -> int:
        """Pixels of the mask, in its picture."""
        return rle_area(self.candidate.rle)

    @cached_property
    def cut(self) -> tuple[bool, bool, bool, bool]:
        """Whether the tile cut it off at the left, top, right and bottom."""
        return _cut_by(self.box, self.window, self.size)

    def inside(self, area: Window) -> RLE:
        """The mask in a part of its tile."""
        x, y = self.window.x0, self.window.y0
        return crop_rle(self.candidate.rle, (area.x0 - x, area.y0 - y, area.x1 - x, area.y1 - y))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Object:
    """Pieces that are one object."""

    candidate: Candidate  # its numbers, and its mask in the photo
    box: Window  # half-open box of the mask
    pieces: tuple[Piece, ...]  # the pieces

    @cached_property
    def area(self) -> int:
        """Pixels of the mask."""
        return rle_area(self.candidate.rle)

    @cached_property
    def is_open(self) -> bool:
        """Whether a tile cut it off where no other piece continues it."""
        if any(piece.is_whole for piece in self.pieces):
            return False
        return any(self._is_open(piece) for piece in self.pieces)

    def _is_open(self, piece: Piece) -> bool:
        for side, is_cut in enumerate(piece.cut):
            if not is_cut:
                continue
            band = _border(piece.window, side)
            ours = max(1, rle_area(piece.inside(band)))
            beyond = [
                other
                for other in self.pieces
                if other is not piece and _goes_beyond(other.window, piece.window, side)
            ]
            if sum(_agreement(piece, other, band) for other in beyond) < _GOES_ON * ours:
                return True
        return False

    def shared(self, other: _Object) -> int:
        """Pixels in common."""
        if self.box.shared(other.box) is None:
            return 0
        return rle_area(intersect_rles([self.candidate.rle, other.candidate.rle]))

    def iou(self, other: _Object) -> float:
        """Intersection over union."""
        shared = self.shared(other)
        return shared / (self.area + other.area - shared) if shared else 0.0


def on_canvas(piece: Piece) -> Candidate:
    """A single piece as a mask of the photo, without logits, which are in the tile's frame."""
    item, window = piece.candidate, piece.window
    point = item.point
    if piece.is_whole:
        h, w = item.rle.size
        rle = enlarge_rle(item.rle, piece.size)
        if point is not None:
            point = (point[0] * piece.size[1] / w, point[1] * piece.size[0] / h)
    else:
        rle = paste_rle(item.rle, window.x0, window.y0, size=piece.size)
        if point is not None:
            point = (point[0] + window.x0, point[1] + window.y0)
    return replace(item, rle=rle, point=point, low_res=None)


def join_pieces(
    pieces: Sequence[Piece], windows: Sequence[Window], *, reach: int, nested: bool = False
) -> tuple[Candidate, ...]:
    """Join masks of tiles to masks of the photo.

    Args:
        pieces: Masks of one phrase, or of everything, from all tiles and from the whole photo.
        windows: All tiles, also those without masks.
        reach: Length up to which an object is complete in some tile, pixels: the tiles' overlap.
        nested: Whether objects may lie inside each other, as a wheel in a car among the masks of
            everything; those of one phrase may not.

    Returns:
        Masks of the photo, best score first, then the dropped ones with their gate. An object of
        several pieces has the numbers of the largest piece.
    """
    tiles = [piece for piece in pieces if not piece.is_whole and piece.area]
    objects = [_united(group) for group in _linked(tiles)]
    objects, dropped = _without_fragments(objects, windows)
    wholes = [_united([piece]) for piece in pieces if piece.is_whole and piece.area]
    objects, lost = _with_wholes(objects, wholes, reach=reach, nested=nested)
    dropped += lost
    objects, lost = _without_duplicates(objects, nested=nested)
    dropped += lost
    kept = sorted((item.candidate for item in objects), key=_rank)
    return (*kept, *sorted(dropped, key=_rank))


def _linked(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Groups of pieces that agree where their tiles overlap, joined from the best agreement on.

    A group never gets two pieces of one tile, which has two objects there.
    """
    by_tile: dict[Window, list[int]] = {}
    for index, piece in enumerate(pieces):
        by_tile.setdefault(piece.window, []).append(index)
    windows = list(by_tile)
    links = []
    for number, first in enumerate(windows):
        for second in windows[number + 1 :]:
            strip = first.shared(second)
            if strip is not None:
                ours = [i for i in by_tile[first] if pieces[i].box.shared(strip)]
                theirs = [i for i in by_tile[second] if pieces[i].box.shared(strip)]
                iou = rle_iou(
                    [pieces[i].inside(strip) for i in ours],
                    [pieces[i].inside(strip) for i in theirs],
                )
                links += [
                    (float(iou[a, b]), ours[a], theirs[b])
                    for a, b in zip(*np.nonzero(iou >= _SAME), strict=True)
                ]
    group = list(range(len(pieces)))
    members = {index: [index] for index in group}
    for _, a, b in sorted(links, key=lambda link: -link[0]):
        first_group, second_group = members[group[a]], members[group[b]]
        seen = {pieces[i].window for i in first_group}
        if group[a] != group[b] and not any(pieces[i].window in seen for i in second_group):
            del members[group[b]]
            for index in second_group:
                group[index] = group[a]
            first_group += second_group
    return [[pieces[i] for i in indices] for indices in members.values()]


def _united(pieces: Sequence[Piece]) -> _Object:
    """The union of pieces, with the numbers of the largest piece."""
    placed = [on_canvas(piece) for piece in pieces]
    largest = max(range(len(pieces)), key=lambda i: pieces[i].area)
    return _make_object(placed[largest], [item.rle for item in placed], pieces)


def _make_object(leading: Candidate, rles: Sequence[RLE], pieces: Iterable[Piece]) -> _Object:
    rle = rles[0] if len(rles) == 1 else merge_rles(rles, rles[0].size)
    x0, y0, x1, y1 = (int(side) for side in rle_box(rle))
    return _Object(
        candidate=replace(leading, rle=rle), box=Window(x0, y0, x1, y1), pieces=tuple(pieces)
    )


def _without_fragments(
    objects: Sequence[_Object], windows: Sequence[Window]
) -> tuple[list[_Object], list[Candidate]]:
    """Drop pieces that a tile cut off if another tile shows more and has no such mask."""
    kept, dropped = [], []
    for item in objects:
        first = item.pieces[0]
        lone = len(item.pieces) == 1 and any(first.cut)
        if lone and any(_sees_more(window, first) for window in windows):
            reason = "cut off by its tile; another tile shows more of it and has no such mask"
            dropped.append(_refused(item, "quality", reason))
        else:
            kept.append(item)
    return kept, dropped


def _sees_more(window: Window, piece: Piece) -> bool:
    """Whether a tile shows a piece and what lies beyond each border that cut it off."""
    box, own = piece.box, piece.window
    shared = window.shared(box)
    return window != own and shared == box and not any(_cut_by(box, window, piece.size))


def _with_wholes(
    objects: Sequence[_Object], wholes: Sequence[_Object], *, reach: int, nested: bool
) -> tuple[list[_Object], list[Candidate]]:
    """Join the objects of the tiles with those of the whole photo."""
    left = list(objects)
    added: list[_Object] = []
    dropped: list[Candidate] = []
    for whole in sorted(wholes, key=lambda item: _rank(item.candidate)):
        shared = {item: item.shared(whole) for item in left}
        near = [item for item in left if shared[item]]
        same = [item for item in near if item.iou(whole) >= _SAME]
        if any(not item.is_open for item in same):
            continue  # the tiles have the same object with a finer outline
        parts = [item for item in near if shared[item] >= _INSIDE * item.area]
        closed = [item for item in parts if not item.is_open]
        if not nested and closed and not same:
            rles = [item.candidate.rle for item in closed]
            covered = intersect_rles([merge_rles(rles, rles[0].size), whole.candidate.rle])
            if rle_area(covered) > _COVERED * whole.area:
                reason = f"from near it is {len(closed)} things"
                dropped.append(_refused(whole, "duplicate", reason))
                continue
        too_large = whole.box.length > reach
        fragments = same + [
            item
            for item in parts
            if item not in same and (item.is_open or (too_large and not nested))
        ]
        left = [item for item in left if item not in fragments]
        rles = [whole.candidate.rle, *(item.candidate.rle for item in fragments)]
        pieces = [*whole.pieces, *(piece for item in fragments for piece in item.pieces)]
        added.append(_make_object(whole.candidate, rles, pieces))
    return left + added, dropped


def _without_duplicates(
    objects: Sequence[_Object], *, nested: bool
) -> tuple[list[_Object], list[Candidate]]:
    """Drop objects that better ones cover; complete ones are better than cut ones."""
    kept: list[_Object] = []
    dropped: list[Candidate] = []
    for item in sorted(objects, key=lambda item: (item.is_open, _rank(item.candidate))):
        near = [other for other in kept if other.box.shared(item.box)]
        covered = 0.0
        if near and nested:
            covered = max(item.iou(other) for other in near)
        elif near:
            rles = [other.candidate.rle for other in near]
            taken = intersect_rles([merge_rles(rles, rles[0].size), item.candidate.rle])
            covered = rle_area(taken) / item.area
        if covered > (_NESTED_SAME if nested else _COVERED):
            what = "its IoU with a better mask is" if nested else "covered by better masks:"
            dropped.append(_refused(item, "duplicate", f"{what} {covered:.2f}"))
        else:
            kept.append(item)
    return kept, dropped


def _refused(item: _Object, gate: Gate, reason: str) -> Candidate:
    return replace(item.candidate, gate=gate, reason=reason, ruled_out=(gate, reason))


def _cut_by(box: Window, window: Window, size: tuple[int, int]) -> tuple[bool, bool, bool, bool]:
    """Whether a box ends at the left, top, right, bottom of a window, and the photo goes on."""
    near = _near(window)
    height, width = size
    return (
        window.x0 > 0 and box.x0 < window.x0 + near,
        window.y0 > 0 and box.y0 < window.y0 + near,
        window.x1 < width and box.x1 > window.x1 - near,
        window.y1 < height and box.y1 > window.y1 - near,
    )


def _border(window: Window, side: int) -> Window:
    """The band along the left, top, right or bottom of a tile where masks count as cut off."""
    near = _near(window)
    x0, y0, x1, y1 = window
    return Window(
        x1 - near if side == 2 else x0,
        y1 - near if side == 3 else y0,
        x0 + near if side == 0 else x1,
        y0 + near if side == 1 else y1,
    )


def _goes_beyond(window: Window, other: Window, side: int) -> bool:
    """Whether a window reaches farther than another at the left, top, right or bottom."""
    return window[side] < other[side] if side < 2 else window[side] > other[side]


def _agreement(a: Piece, b: Piece, band: Window) -> int:
    """Pixels of a band that both pieces cover."""
    both = band.shared(b.window)
    return 0 if both is None else rle_area(intersect_rles([a.inside(both), b.inside(both)]))


def _near(window: Window) -> int:
    return max(1, round(_EDGE * window.length))


def _rank(item: Candidate) -> tuple[float, float]:
    """Sorts by the best score first; without scores, by the best predicted IoU."""
    numbers: NDArray[np.float64] = np.nan_to_num([item.score, item.iou], nan=-math.inf)
    return -float(numbers[0]), -float(numbers[1])
