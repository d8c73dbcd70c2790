"""Rows whose vectors follow from their place in a data set: partial or foreign rows show.

No test module: tests and the processes that they start load it by its path.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np

from textsam.search.records import MaskRow, MaskVectors, SpaceName, VectorSpace
from textsam.values.rle import encode_mask

CLIP = VectorSpace(name="clip", width=32, model="tests/clip", preprocessing="a1")
SAM = VectorSpace(name="sam", width=16, model="tests/sam", preprocessing="b2")
SPACES: dict[SpaceName, VectorSpace] = {"clip": CLIP, "sam": SAM}
LABELS = ("sail", "boat", "O'Brien's \"hull\"", None)


@functools.cache
def vector(key: str, space: VectorSpace) -> np.ndarray:
    """The unit vector (width,) of a key: near those of its group, the part before `#`."""
    group, _, rest = key.partition("#")
    centre = np.random.default_rng([*f"{space.name} {group}".encode()]).normal(size=space.width)
    own = np.random.default_rng([*f"{space.name} {group} {rest}".encode()]).normal(size=space.width)
    made = centre / np.linalg.norm(centre) + 0.5 * own / np.linalg.norm(own)
    return (made / np.linalg.norm(made)).astype(np.float32)


def key_of(row: MaskRow) -> str:
    """What a row's vectors follow from."""
    return f"{int(row.image) % 7}#{row.dataset}/{row.image}"


def make_rows(dataset: str, numbers: Iterable[int]) -> list[MaskRow]:
    """A row per number: box of n % 5 + 1 by n % 3 + 1 pixels, labels in turn."""
    rows = []
    for number in numbers:
        mask = np.zeros((8, 12), dtype=np.bool_)
        mask[1 : 2 + number % 3, 2 : 3 + number % 5] = True
        rows.append(
            MaskRow(
                dataset=dataset,
                image=str(number),
                rle=encode_mask(mask),
                label=LABELS[number % len(LABELS)],
                score=0.5 if number % 2 else float("nan"),
                iou=0.25,
            )
        )
    return rows


def vectors_of(rows: list[MaskRow]) -> MaskVectors:
    """Both vectors of each row."""
    return MaskVectors(
        spaces=SPACES,
        vectors={
            name: np.stack([vector(key_of(row), space) for row in rows])
            if rows
            else np.zeros((0, space.width), dtype=np.float32)
            for name, space in SPACES.items()
        },
    )


class KnownEmbedder:
    """An `Embedder` that sees only the mask's area and the photo's first pixel."""

    spaces = SPACES

    def text(self, text: str) -> np.ndarray:
        """The vector of the phrase itself."""
        return vector(text, CLIP)

    def masks(self, image: np.ndarray, masks: list) -> MaskVectors:
        """The vector of "<first pixel>#<area>"."""
        from textsam.values.rle import rle_area

        keys = [f"{image[0, 0, 0]}#{rle_area(mask)}" for mask in masks]
        made = {n: np.stack([vector(key, s) for key in keys]) for n, s in SPACES.items()}
        return MaskVectors(spaces=SPACES, vectors=made)
