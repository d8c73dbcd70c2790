"""What `python -m training.evaluation.text` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .table import number, numbers, show_table

__all__ = ["show_labels", "show_phrases", "show_single"]


def show_phrases(sets: Sequence[dict[str, Any]], *, model: str) -> None:
    """Print the table of phrases of exhaustive photos, a row for each set."""
    keys = ("union", "union_wrong", "whole", "present_answered", "absent_empty")
    rows = []
    notes = [
        "mean IoU over (photo, phrase); wrong: a phrase that is not there, against the right one's "
        "truth;",
        "whole: the whole image as the answer; answered, empty: whether a pixel was painted",
        "AUROC: presence of a phrase that is there against all labels that are not; by phrase: the "
        "mean of each phrase's own",
    ]
    for row in sets:
        nameless = row["skipped"]["objects without a name"] and not row["items"]
        rows.append(
            [
                row["name"] + (" (no names)" if nameless else ""),
                str(row["photos"]),
                str(row["means"]["phrases"]),
                *numbers(row["means"], keys),
                *numbers(row["presence"], ("auroc", "auroc_phrase")),
                number(row["seconds_per_photo"], digits=2),
            ]
        )
        left_out = [f"{count} {why}" for why, count in row["skipped"].items() if count]
        if left_out:
            notes.append(f"{row['name']}: left out {', '.join(left_out)}")
    columns = ["set", "photos", "phrases", "union", "wrong", "whole"]
    columns += ["present: answered", "absent: empty", "AUROC", "by phrase", "s/photo"]
    title = f"Phrases of exhaustive photos: union of strategy 'auto', model {model}"
    show_table(title, columns, rows, notes=notes)


def show_single(sets: Sequence[dict[str, Any]], *, model: str) -> None:
    """Print the table of single objects, if there are any."""
    keys = ("top", "best", "top_wrong", "union", "union_wrong", "whole", "present_answered")
    rows = [
        [row["name"], origin, str(means["objects"]), *numbers(means, keys)]
        for row in sets
        for origin, means in row["single"].items()
        if means["objects"]
    ]
    columns = ["set", "photos are", "objects", "top", "best of 3", "top, wrong"]
    columns += ["auto", "auto, wrong", "whole", "answered"]
    title = f"Single objects: strategy 'prompt', model {model}"
    notes = ["one object of the name; in photos that are not exhaustive more may be unlabelled"]
    if rows:
        show_table(title, columns, rows, notes=notes)


def show_labels(sets: Sequence[dict[str, Any]]) -> None:
    """Print a table for each set with a row for each label."""
    columns = ["label", "phrases", "union", "wrong", "answered", "AUROC"]
    columns += ["single", "top", "best of 3", "top, wrong", "auto"]
    for row in sets:
        rows = [
            [
                label,
                str(means["phrases"]),
                *numbers(means, ("union", "union_wrong", "present_answered")),
                number(row["presence"]["labels"].get(label)),
                str(means["single"]["objects"]),
                *numbers(means["single"], ("top", "best", "top_wrong", "union")),
            ]
            for label, means in row["labels"].items()
        ]
        if rows:
            show_table(f"{row['name']}, by label", columns, rows)
