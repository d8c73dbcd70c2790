"""The tables of `python -m training.evaluation.text`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..figures.result_table import Column, cell, columns_of, left_out_notes, show_figures

Sets = Sequence[dict[str, Any]]

# Eighteen columns; a pipe has no width of its own.
_WIDE = 180

_STRATEGY_COLUMNS = (
    Column("set, strategy", "title"),
    *columns_of("instances", {"recall": "recall", "touch": "touching_recall"}),
    *columns_of("instances", {"prec": "precision", "prec+": "precision_all"}),
    *columns_of("ap", {"AP50": "ap50_large", "AP": "ap_large", "AR": "ar_large"}),
    *columns_of("verdicts", {"P": "precision", "R": "recall", "F1": "f1"}),
    *columns_of("verdicts", {"empty": "absent_empty", "hard": "siblings_empty"}),
    *columns_of("verdicts", {"@.85": "absent_empty_at", "hard": "siblings_empty_at"}),
    Column("AUROC", "presence/auroc"),
    Column("ECE mask", "masks/ece"),
    Column("pres", "verdicts/ece"),
)
_STRATEGY_NOTES = (
    "instances: objects of phrases that are there, masks matched one to one by score at IoU .5; "
    "touch: recall of those with another one of the phrase at most 4 px away; "
    "prec+: masks of the drawn absent phrases count as well",
    "AP50, AP, AR: by phrase, objects from 32^2 px up, ranked by score over all photos",
    "presence: is there a mask, asked of what is there and of the drawn absent phrases; empty: "
    "share of absent phrases answered with nothing (hard: siblings); @.85: the same with the level "
    "of presence where .85 of what is there passes",
    "ECE: expected calibration error, 15 bins, of mask scores (right: more than half of its "
    "counted pixels belong to the phrase) and of presence",
)


def show_strategies(sets: Sets, *, model: str, config: Any) -> None:
    """Print the table of strategies on exhaustive photos, a row for each set and strategy."""
    rows, notes = [], list(_STRATEGY_NOTES)
    for row in sets:
        for strategy, figures in row["strategies"].items():
            title = f"{row['name']}, {strategy}"
            if figures["refused"]:
                notes.append(f"{title}: {figures['refused']}")
            elif figures["instances"]["objects"]:
                rows.append({"title": title, **figures})
                notes.append(_counts(title, figures))
    notes.append("AP and AUROC ask every photo for every label (strategy prompt: the drawn only)")
    if config.ap_threshold is not None:
        notes.append(f"AP, AR: asked with threshold={config.ap_threshold}, but for components")
    title = f"Phrase to masks, model {model}"
    show_figures(title, _STRATEGY_COLUMNS, rows, notes=notes, width=_WIDE)


def _counts(title: str, figures: Mapping[str, Any]) -> str:
    """How many objects and phrases a row is about, and the intervals of its main figures."""
    instances, verdicts = figures["instances"], figures["verdicts"]
    intervals = {
        "recall": instances["recall_interval"],
        "precision": instances["precision_interval"],
        "empty": verdicts["absent_empty_interval"],
    }
    spans = [f"{label} {cell(span)}" for label, span in intervals.items() if span is not None]
    return (
        f"{title}: {instances['objects']} objects ({instances['touching']} touching), "
        f"{instances['masks']} masks, "
        f"{verdicts['present']} phrases present, {verdicts['absent']} absent "
        f"({verdicts['siblings']} siblings); 95% over photos: {', '.join(spans)}"
    )


# Tables of the parts: title, key of the part, what it must have measured, columns and a note.
_PARTS: tuple[tuple[str, str, str, Sequence[Column], str], ...] = (
    (
        "One click after the text",
        "click",
        "objects",
        (
            *columns_of("click", {"objects": "objects", "IoU >= .7": "good"}),
            *columns_of("click", ("clicked", "before", "after", "gain")),
            Column("95%", "click/gain_interval"),
            *columns_of("click", {"had a mask": "found", "their gain": "gain_found"}),
        ),
        "single objects, asked by name; of the masks the one nearest to it counts; those below "
        "IoU .7 get one click, farthest from the border of the error, by view.click",
    ),
    (
        "Exclusion",
        "exclude",
        "phrases",
        (
            *columns_of("exclude", ("phrases", "spilling")),
            *columns_of("exclude", {"spilled: removed": "spilled_removed"}),
            *columns_of("exclude", {"95%": "spilled_removed_interval"}),
            *columns_of("exclude", {"wrong: removed": "wrong_removed"}),
            *columns_of("exclude", {"95%": "wrong_removed_interval"}),
            *columns_of("exclude", {"right: lost": "right_lost", "95%": "right_lost_interval"}),
        ),
        "shares of pixels; excluded: the label of the photo that the answer spills over most, or "
        "the nearest in CLIP's text space; spilled: on that label's truth; wrong: anywhere off the "
        "phrase's own; asked: phrases of the photo and its absent siblings, where they answer",
    ),
    (
        "Semantic maps",
        "map",
        "photos",
        (
            Column("photos", "map/photos"),
            Column("labels", lambda row: len(row["map"]["all"]["labels"])),
            Column("mIoU, all asked", "map/all/miou"),
            *columns_of("map/all", ("nothing", "accuracy")),
            Column("mIoU, present asked", "map/present/miou"),
            *columns_of("map/present", ("nothing", "accuracy")),
        ),
        "mIoU over labels, without 'nothing'; asked for every label or those that it has",
    ),
    (
        "Cost of a phrase",
        "cost",
        "photos",
        (
            *columns_of("cost", {"phrases": "phrases", "encoding s": "encode"}),
            *columns_of("cost", {"first phrase": "first", "further": "phrase", "absent": "absent"}),
            *columns_of("cost", {"encoding + first": "fresh", "further / encoding": "share"}),
            *columns_of("cost/memory", {"MiB, 1 phrase": "one", "20 phrases": "many"}, digits=0),
            Column("ratio", "cost/memory/ratio", 2),
        ),
        "medians of seconds over the phrases that a few photos have, and (absent) some that they "
        "lack; memory: highest resident size of a fresh process, model and photo included",
    ),
)


def show_parts(sets: Sets, *, model: str) -> None:
    """Print the tables of one click, exclusions, maps and cost, each if it was measured."""
    for title, part, measured, columns, note in _PARTS:
        rows = [row for row in sets if row[part] and row[part][measured]]
        columns = (Column("set", "name"), *columns)
        show_figures(f"{title}, model {model}", columns, rows, notes=[note])


def show_phrases(sets: Sets, *, model: str) -> None:
    """Print the table of phrases of exhaustive photos, a row for each set."""
    notes = [
        "mean IoU over (photo, phrase); wrong: a phrase that is not there, against the right one's "
        "truth;",
        "whole: the whole image as the answer; answered, empty: whether a pixel was painted",
        "AUROC: presence of a phrase that is there against all labels that are not; by phrase: the "
        "mean of each phrase's own",
    ]
    notes += left_out_notes(sets)
    columns = [
        Column("set", _name),
        Column("photos", "photos"),
        *columns_of("means", {"phrases": "phrases", "union": "union", "wrong": "union_wrong"}),
        *columns_of("means", {"whole": "whole", "present: answered": "present_answered"}),
        Column("absent: empty", "means/absent_empty"),
        *columns_of("presence", {"AUROC": "auroc", "by phrase": "auroc_phrase"}),
        Column("s/photo", "seconds_per_photo", 2),
    ]
    title = f"Phrases of exhaustive photos: union of strategy 'auto', model {model}"
    show_figures(title, columns, sets, notes=notes)


def _name(row: Mapping[str, Any]) -> str:
    """The set's name, and whether its objects have none."""
    nameless = row["skipped"]["objects without a name"] and not row["items"]
    return f"{row['name']} (no names)" if nameless else str(row["name"])


def show_single(sets: Sets, *, model: str) -> None:
    """Print the table of single objects, if there are any."""
    rows = [
        {"name": row["name"], "origin": origin, **means}
        for row in sets
        for origin, means in row["single"].items()
        if means["objects"]
    ]
    columns = [
        *columns_of("", {"set": "name", "photos are": "origin", "objects": "objects"}),
        *columns_of("", {"top": "top", "best of 3": "best", "top, wrong": "top_wrong"}),
        *columns_of("", {"auto": "union", "auto, wrong": "union_wrong", "whole": "whole"}),
        Column("answered", "present_answered"),
    ]
    title = f"Single objects: strategy 'prompt', model {model}"
    notes = ["one object of the name; in photos that are not exhaustive more may be unlabelled"]
    show_figures(title, columns, rows, notes=notes)
