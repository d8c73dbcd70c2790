"""Duplicates, label errors and clusters of vectors whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from textsam.errors import PromptError
from textsam.pictures.contact_sheet import Cell
from textsam.search.uses import neighbours
from textsam.search.uses.clusters import cluster_masks
from textsam.search.uses.neighbours import (
    find_duplicates,
    find_label_errors,
    nearest_of_other_groups,
)
from textsam.search.uses.sheets import cluster_sheet, duplicate_sheet, suspect_sheet


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def heaps(
    count: int, each: int, *, spread: float = 0.25, width: int = 16, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors in `count` heaps around random directions, and the heap of each."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(count, width)))
    of_row = np.repeat(np.arange(count), each)
    noise = rng.normal(size=(len(of_row), width)) * spread / np.sqrt(width)
    return unit(centres[of_row] + noise), of_row


def test_copies_are_found_and_told_from_near_ones() -> None:
    rows = unit(np.random.default_rng(0).normal(size=(20, 64)))
    near = unit(rows[3:4] + 0.02 * rows[4:5])
    found = find_duplicates(np.concatenate([rows, rows[[7]], near]), threshold=0.99)
    assert [(group.rows, group.exact) for group in found] == [((7, 20), True), ((3, 21), False)]
    assert found[0].min_cosine == pytest.approx(1, abs=1e-6)
    assert found[1].min_cosine == pytest.approx(float(near[0] @ rows[3]), abs=1e-6)


def test_a_chain_is_one_group() -> None:
    angles = np.array([0.0, 0.1, 0.2, 0.3, 2.0])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    [group] = find_duplicates(rows, threshold=np.cos(0.11))
    assert group.rows == (0, 1, 2, 3)
    assert group.min_cosine == pytest.approx(np.cos(0.1), abs=1e-6)  # of the pairs that join it


def test_masks_of_one_photo_are_no_duplicates() -> None:
    rows = np.ones((4, 8), np.float32)
    photos = ["a", "a", "b", "b"]
    assert [g.rows for g in find_duplicates(rows, photos=photos)] == [(0, 1, 2, 3)]
    assert find_duplicates(rows[:2], photos=photos[:2]) == []
    assert [g.rows for g in find_duplicates(rows[:2])] == [(0, 1)]


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), threshold=st.floats(0.3, 0.95))
def test_groups_are_those_of_all_pairs(seed: int, threshold: float) -> None:
    rows, _ = heaps(6, 5, spread=0.9, width=6, seed=seed)
    near = rows @ rows.T >= threshold
    reach = np.linalg.matrix_power(near.astype(float), 30) > 0
    want = {tuple(np.flatnonzero(line)) for line in reach if line.sum() > 1}
    found = find_duplicates(rows, threshold=threshold)
    assert {group.rows for group in found} == want
    assert [g.min_cosine for g in found] == sorted((g.min_cosine for g in found), reverse=True)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, of_row = heaps(5, 7, spread=0.8)
    labels = [f"label {k}" for k in of_row]
    labels[3] = "label 4"
    photos = [str(k // 2) for k in range(len(rows))]
    want = find_duplicates(rows, threshold=0.8), find_label_errors(rows, labels, photos=photos)
    monkeypatch.setattr(neighbours, "_BLOCK_BYTES", 4 * len(rows) * 3)
    assert find_duplicates(rows, threshold=0.8) == want[0]
    assert find_label_errors(rows, labels, photos=photos) == want[1]


def test_neighbours_are_those_of_a_full_sort() -> None:
    rows, _ = heaps(4, 6, spread=1.5)
    groups = np.arange(len(rows)) // 3
    nearest, cosines = nearest_of_other_groups(rows, 5, groups)
    for row in range(len(rows)):
        others = [k for k in range(len(rows)) if groups[k] != groups[row]]
        best = sorted(others, key=lambda k: -float(rows[row] @ rows[k]))[:5]
        assert nearest[row].tolist() == best
        np.testing.assert_allclose(cosines[row], rows[best] @ rows[row], atol=1e-6)


def test_too_few_neighbours_leave_gaps() -> None:
    rows, _ = heaps(1, 4)
    nearest, cosines = nearest_of_other_groups(rows, 6, np.array([0, 0, 0, 1]))
    assert nearest[0].tolist() == [3, -1, -1, -1, -1, -1]
    assert (nearest[3] >= 0).sum() == 3 and np.isnan(cosines[3, 3:]).all()
    lone, _ = nearest_of_other_groups(rows[:1], 2, np.array([0]))
    assert lone.tolist() == [[-1, -1]]


def test_swapped_labels_come_first() -> None:
    rows, of_row = heaps(4, 25, spread=0.6)
    labels = [f"label {k}" for k in of_row]
    wrong = [2, 40, 77]
    for row in wrong:
        labels[row] = f"label {(of_row[row] + 1) % 4}"
    found = find_label_errors(rows, labels)
    assert sorted(suspect.row for suspect in found[:3]) == wrong
    for suspect in found[:3]:
        assert suspect.suggestion == f"label {of_row[suspect.row]}"
        assert suspect.label == labels[suspect.row]
        assert suspect.suggestion_share - suspect.label_share >= 0.5
        assert len(suspect.neighbours) == 10 and suspect.row not in suspect.neighbours


def test_right_labels_are_no_suspects_and_alone_nobody_is() -> None:
    rows, of_row = heaps(4, 25, spread=0.3)
    labels = [f"label {k}" for k in of_row]
    assert find_label_errors(rows, labels) == []
    assert find_label_errors(rows[:1], ["one"]) == []
    # Of one photo nobody may vote.
    assert find_label_errors(rows[:3], ["a", "b", "a"], photos=["p"] * 3) == []


def test_a_rare_label_is_not_outvoted_by_being_rare() -> None:
    rng = np.random.default_rng(0)
    rows = unit(np.ones((60, 8)) + 0.01 * rng.normal(size=(60, 8)))  # all alike
    labels = ["rare"] * 12 + ["common"] * 48
    suspects = {s.row for s in find_label_errors(rows, labels, margin=0.5, neighbours=59)}
    # By bare counts it were 48 to 11 votes, a margin of .63, and all 12 would be suspects.
    assert not suspects & set(range(12))


def test_clusters_are_the_heaps_that_were_made() -> None:
    rows, of_row = heaps(5, 20)
    found = cluster_masks(rows, 5)
    assert sorted(tuple(sorted(c.rows)) for c in found) == [
        tuple(np.flatnonzero(of_row == k)) for k in range(5)
    ]
    for cluster in found:
        cosines = rows[list(cluster.rows)] @ cluster.centre
        assert (np.diff(cosines) <= 1e-6).all()  # the most typical first
        assert cluster.tightness == pytest.approx(float(cosines.mean()), abs=1e-6)
        assert np.linalg.norm(cluster.centre) == pytest.approx(1, abs=1e-5)


def test_clusters_take_every_mask_once_largest_first() -> None:
    rows, _ = heaps(3, 30, spread=3)
    found = cluster_masks(rows, 8, seed=3)
    assert sorted(row for cluster in found for row in cluster.rows) == list(range(90))
    sizes = [len(cluster.rows) for cluster in found]
    assert sizes == sorted(sizes, reverse=True) and min(sizes) > 0
    again = cluster_masks(rows, 8, seed=3)
    assert [c.rows for c in again] == [c.rows for c in found]


def test_copies_can_be_clustered() -> None:
    rows = np.repeat(unit(np.eye(2, 8)), 5, axis=0)
    found = cluster_masks(rows, 4)
    assert sorted(row for cluster in found for row in cluster.rows) == list(range(10))


def test_clusters_get_the_phrase_that_fits_them_and_not_the_others() -> None:
    rows, of_row = heaps(3, 10)
    centres = unit(np.stack([rows[of_row == k].mean(0) for k in range(3)]))
    phrases = {f"name {k}": centres[k] for k in range(3)}
    phrases["everything"] = unit(centres.sum(0, keepdims=True))[0]  # near to all
    for cluster in cluster_masks(rows, 3, phrases=phrases, suggestions=2):
        assert cluster.names[0][0] == f"name {of_row[cluster.rows[0]]}"
        assert len(cluster.names) == 2


def test_what_cannot_be_meant_is_said() -> None:
    rows, _ = heaps(2, 3)
    with pytest.raises(PromptError, match=r"wanted \(N, D\)"):
        find_duplicates(rows[0])
    with pytest.raises(PromptError, match="no direction"):
        find_duplicates(np.concatenate([rows, np.zeros((1, 16))]))
    with pytest.raises(PromptError, match="threshold"):
        find_duplicates(rows, threshold=0)
    with pytest.raises(PromptError, match="2 photos for 6"):
        find_duplicates(rows, photos=["a", "b"])
    with pytest.raises(PromptError, match="1 labels for 6"):
        find_label_errors(rows, ["a"])
    with pytest.raises(PromptError, match="neighbours=0"):
        find_label_errors(rows, ["a"] * 6, neighbours=0)
    with pytest.raises(PromptError, match="count=7 for 6"):
        cluster_masks(rows, 7)
    with pytest.raises(PromptError, match="phrases have 3"):
        cluster_masks(rows, 2, phrases={"a": np.ones(3, np.float32)})


def test_sheets_have_a_row_for_each_finding() -> None:
    rows, of_row = heaps(3, 10, spread=0.5)
    labels = [f"label {k}" for k in of_row]
    labels[4] = "label 2"
    asked: list[int] = []

    def show(row: int) -> Cell:
        asked.append(row)
        return Cell(picture=Image.new("RGB", (20, 20), (row, 0, 0)), caption=str(row))

    [suspect] = find_label_errors(rows, labels)
    one = suspect_sheet([suspect], show, max_masks=3, size=40)
    assert asked == [4, *suspect.neighbours[:3]]
    two = suspect_sheet(
        [suspect, suspect], show, max_masks=3, size=40
    )  # headings may be equal in words
    assert two.width == one.width and two.height > 1.5 * one.height
    asked.clear()
    clusters = cluster_masks(rows, 3)
    cluster_sheet(clusters, show, max_masks=2, size=40)
    assert asked == [row for cluster in clusters for row in cluster.rows[:2]]
    asked.clear()
    groups = find_duplicates(np.concatenate([rows, rows[:2]]), threshold=0.9999)
    duplicate_sheet(groups, show, size=40)
    assert sorted(asked) == [0, 1, 30, 31]
