"""Masks of tiles, and of the shrunk whole photo, made into masks of the photo: one for each thing.

Where tiles overlap, both saw the same pixels. Two masks that agree there are one thing, and become
their union: a thing on a seam, or one that lies in the overlap and was found twice. A fragment that
was cut off by its tile, and that a neighbour saw more of without finding it, is dropped. A thing
that no tile can show is taken from the whole photo, with the fragments of it in the tiles.

Nothing here depends on how the masks were made, and none is decoded: see `textsam.values.rle_ops`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from textsam.values.candidates import Candidate, Gate
from textsam.values.geometry import Window
from textsam.values.rle import RLE, intersect_rles, merge_rles, rle_area, rle_box, rle_iou
from textsam.values.rle_ops import crop_rle, enlarge_rle, paste_rle

__all__ = ["Piece", "join_pieces", "on_canvas"]

# Two masks are of one thing from this IoU; between tiles, of what both saw. (Half, as everywhere in
# detection: a mask can agree like that with one other only.)
_SAME = 0.5
_INSIDE = 0.7  # share of a fragment that belongs to the thing around it
_GOES_ON = 0.5  # share of where a tile cut a mask that others must have, for it to be complete
_COVERED = 0.5  # share of a mask that better ones may cover; more, and it is a duplicate
_NESTED_SAME = 0.7  # IoU from which masks of everything are duplicates (box NMS of Appendix B)
# A mask that ends this near its tile's border, in sides of the tile, was cut by it: the decoder's
# masks have 4 cells for each of the encoder's, of which there are 32 or 64 to a side.
_EDGE = 0.01


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """A mask as one tile, or the whole photo, has it.

    Attributes:
        candidate: With its mask in the pixels of the picture that the model was shown.
        window: Where that picture lies in the photo.
        size: (H, W) of the photo.
    """

    candidate: Candidate
    window: Window
    size: tuple[int, int]

    @property
    def is_whole(self) -> bool:
        """Whether the model was shown the whole photo."""
        return self.window == Window(0, 0, self.size[1], self.size[0])

    @cached_property
    def box(self) -> Window:
        """Half-open box in the photo, of a mask of a tile."""
        x0, y0, x1, y1 = (int(side) for side in rle_box(self.candidate.rle))
        x, y = self.window.x0, self.window.y0
        return Window(x0 + x, y0 + y, x1 + x, y1 + y)

    @cached_property
    def area(self) -> int:
        """Pixels of the mask, of the picture that was shown."""
        return rle_area(self.candidate.rle)

    @cached_property
    def cut(self) -> tuple[bool, bool, bool, bool]:
        """Whether the tile cut it at the left, the top, the right, the bottom."""
        return _cut_by(self.box, self.window, self.size)

    def inside(self, area: Window) -> RLE:
        """The mask in a part of its tile."""
        x, y = self.window.x0, self.window.y0
        return crop_rle(self.candidate.rle, (area.x0 - x, area.y0 - y, area.x1 - x, area.y1 - y))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Thing:
    """What is taken to be one thing.

    Attributes:
        candidate: Its numbers, and its mask in the photo.
        box: Half-open box of the mask.
        pieces: What it was made of.
    """

    candidate: Candidate
    box: Window
    pieces: tuple[Piece, ...]

    @cached_property
    def area(self) -> int:
        """Pixels of the mask."""
        return rle_area(self.candidate.rle)

    @cached_property
    def is_open(self) -> bool:
        """Whether a tile cut it where no other piece goes on, nor the whole photo shows it."""
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

    def shared(self, other: _Thing) -> int:
        """Pixels in common."""
        if self.box.shared(other.box) is None:
            return 0
        return rle_area(intersect_rles([self.candidate.rle, other.candidate.rle]))

    def iou(self, other: _Thing) -> float:
        """Intersection over union."""
        shared = self.shared(other)
        return shared / (self.area + other.area - shared) if shared else 0.0


def on_canvas(piece: Piece) -> Candidate:
    """The piece alone, as a mask of the photo.

    Its logits are left out: they are in the frame of a view that is gone.
    """
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
    """Make masks of the photo of masks of its tiles.

    Args:
        pieces: Masks of one phrase, or of everything, from all tiles and from the whole photo.
        windows: All tiles, also those in which nothing was found.
        reach: Length up to which a thing is whole in some tile, pixels: the tiles' overlap.
        nested: Whether one thing may lie in another, as of everything in the photo a wheel lies in
            its car; of one phrase it may not.

    Returns:
        Masks of the photo, best score first, then those that were dropped, with the gate. A thing
        that was seen in several pieces has the numbers of the largest.
    """
    tiles = [piece for piece in pieces if not piece.is_whole and piece.area]
    things = [_united(group) for group in _linked(tiles)]
    things, dropped = _without_fragments(things, windows)
    wholes = [_united([piece]) for piece in pieces if piece.is_whole and piece.area]
    things, lost = _with_wholes(things, wholes, reach=reach, nested=nested)
    dropped += lost
    things, lost = _without_duplicates(things, nested=nested)
    dropped += lost
    kept = sorted((thing.candidate for thing in things), key=_rank)
    return (*kept, *sorted(dropped, key=_rank))


def _linked(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Groups of pieces that agree in the overlap of their tiles, the best agreement first.

    A group never gets two pieces of one tile: that tile saw two things.
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


def _united(pieces: Sequence[Piece]) -> _Thing:
    """The union of pieces, with the numbers of the largest."""
    placed = [on_canvas(piece) for piece in pieces]
    largest = max(range(len(pieces)), key=lambda i: pieces[i].area)
    return _thing(placed[largest], [item.rle for item in placed], pieces)


def _thing(leading: Candidate, rles: Sequence[RLE], pieces: Iterable[Piece]) -> _Thing:
    rle = rles[0] if len(rles) == 1 else merge_rles(rles, rles[0].size)
    x0, y0, x1, y1 = (int(side) for side in rle_box(rle))
    return _Thing(
        candidate=replace(leading, rle=rle), box=Window(x0, y0, x1, y1), pieces=tuple(pieces)
    )


def _without_fragments(
    things: Sequence[_Thing], windows: Sequence[Window]
) -> tuple[list[_Thing], list[Candidate]]:
    """Drop what a tile cut off, if another tile saw all of it and more, and found no such thing."""
    kept, dropped = [], []
    for thing in things:
        first = thing.pieces[0]
        lone = len(thing.pieces) == 1 and any(first.cut)
        if lone and any(_sees_more(window, first) for window in windows):
            reason = "cut off by its tile; another tile shows more of it and has no such mask"
            dropped.append(_refused(thing, "quality", reason))
        else:
            kept.append(thing)
    return kept, dropped


def _sees_more(window: Window, piece: Piece) -> bool:
    """Whether a tile shows a piece, and what is beyond each border that cut it."""
    box, own = piece.box, piece.window
    shared = window.shared(box)
    return window != own and shared == box and not any(_cut_by(box, window, piece.size))


def _with_wholes(
    things: Sequence[_Thing], wholes: Sequence[_Thing], *, reach: int, nested: bool
) -> tuple[list[_Thing], list[Candidate]]:
    """Bring together what the tiles show and what the whole photo shows."""
    left = list(things)
    added: list[_Thing] = []
    dropped: list[Candidate] = []
    for whole in sorted(wholes, key=lambda thing: _rank(thing.candidate)):
        shared = {thing: thing.shared(whole) for thing in left}
        near = [thing for thing in left if shared[thing]]
        same = [thing for thing in near if thing.iou(whole) >= _SAME]
        if any(not thing.is_open for thing in same):
            continue  # the tiles have it, with finer outlines
        parts = [thing for thing in near if shared[thing] >= _INSIDE * thing.area]
        closed = [thing for thing in parts if not thing.is_open]
        if not nested and closed and not same:
            rles = [thing.candidate.rle for thing in closed]
            covered = intersect_rles([merge_rles(rles, rles[0].size), whole.candidate.rle])
            if rle_area(covered) > _COVERED * whole.area:
                reason = f"from near it is {len(closed)} things"
                dropped.append(_refused(whole, "duplicate", reason))
                continue
        too_large = whole.box.length > reach
        fragments = same + [
            thing
            for thing in parts
            if thing not in same and (thing.is_open or (too_large and not nested))
        ]
        left = [thing for thing in left if thing not in fragments]
        rles = [whole.candidate.rle, *(thing.candidate.rle for thing in fragments)]
        pieces = [*whole.pieces, *(piece for thing in fragments for piece in thing.pieces)]
        added.append(_thing(whole.candidate, rles, pieces))
    return left + added, dropped


def _without_duplicates(
    things: Sequence[_Thing], *, nested: bool
) -> tuple[list[_Thing], list[Candidate]]:
    """Drop what better ones cover; what no tile cut is better than what one did."""
    kept: list[_Thing] = []
    dropped: list[Candidate] = []
    for thing in sorted(things, key=lambda item: (item.is_open, _rank(item.candidate))):
        near = [other for other in kept if other.box.shared(thing.box)]
        covered = 0.0
        if near and nested:
            covered = max(thing.iou(other) for other in near)
        elif near:
            rles = [other.candidate.rle for other in near]
            taken = intersect_rles([merge_rles(rles, rles[0].size), thing.candidate.rle])
            covered = rle_area(taken) / thing.area
        if covered > (_NESTED_SAME if nested else _COVERED):
            what = "its IoU with a better mask is" if nested else "covered by better masks:"
            dropped.append(_refused(thing, "duplicate", f"{what} {covered:.2f}"))
        else:
            kept.append(thing)
    return kept, dropped


def _refused(thing: _Thing, gate: Gate, reason: str) -> Candidate:
    return replace(thing.candidate, gate=gate, reason=reason, ruled_out=(gate, reason))


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
    """The band along the left, top, right or bottom of a tile in which a mask counts as cut."""
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
    """Pixels of a band that both pieces have."""
    both = band.shared(b.window)
    return 0 if both is None else rle_area(intersect_rles([a.inside(both), b.inside(both)]))


def _near(window: Window) -> int:
    return max(1, round(_EDGE * window.length))


def _rank(item: Candidate) -> tuple[float, float]:
    """Best score first; of unknown scores, best predicted IoU."""
    numbers: NDArray[np.float64] = np.nan_to_num([item.score, item.iou], nan=-math.inf)
    return -float(numbers[0]), -float(numbers[1])
