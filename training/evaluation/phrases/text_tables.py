"""What `python -m training.evaluation.text` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..table import number, numbers, show_table

__all__ = ["show_labels", "show_parts", "show_phrases", "show_single", "show_strategies"]

# Seventeen columns; a pipe has no width of its own.
_WIDE = 172


_STRATEGY_NOTES = (
    "instances: objects of phrases that are there, masks matched one to one by score at IoU .5; "
    "prec+: masks of the drawn absent phrases count as well",
    "AP50, AP, AR: by phrase, objects from 32^2 px up, ranked by score over all photos",
    "presence: is there a mask, asked of what is there and of the drawn absent phrases; empty: "
    "share of absent phrases answered with nothing (hard: siblings); @.85: the same with the level "
    "of presence where .85 of what is there passes",
    "ECE: expected calibration error, 15 bins, of mask scores (right: more than half of its "
    "counted pixels belong to the phrase) and of presence",
)


def show_strategies(
    sets: Sequence[dict[str, Any]], *, model: str, config: Mapping[str, Any]
) -> None:
    """Print the table of strategies on exhaustive photos, a row for each set and strategy."""
    columns = ["set, strategy", "recall", "prec", "prec+", "AP50", "AP", "AR"]
    columns += ["P", "R", "F1", "empty", "hard", "@.85", "hard", "AUROC", "ECE mask", "pres"]
    rows, notes = [], list(_STRATEGY_NOTES)
    for row in sets:
        for name, figures in row["strategies"].items():
            if figures["refused"]:
                notes.append(f"{row['name']}, {name}: {figures['refused']}")
                continue
            if not figures["instances"]["objects"]:
                continue
            verdicts = figures["verdicts"]
            rows.append(
                [
                    f"{row['name']}, {name}",
                    *numbers(figures["instances"], ("recall", "precision", "precision_all")),
                    *numbers(figures["ap"], ("ap50_large", "ap_large", "ar_large")),
                    *numbers(verdicts, ("precision", "recall", "f1")),
                    *numbers(verdicts, ("absent_empty", "siblings_empty")),
                    *numbers(verdicts, ("absent_empty_at", "siblings_empty_at")),
                    number(figures["presence"]["auroc"]),
                    number(figures["masks"]["ece"]),
                    number(verdicts["ece"]),
                ]
            )
            notes.append(_counts(row["name"], name, figures))
    asked = "every label" if config["all_labels"] else "the drawn absent phrases only"
    notes.append(f"AP and AUROC ask every photo for {asked} (strategy prompt: the drawn only)")
    if config["ap_threshold"] is not None:
        notes.append(f"AP, AR: asked with threshold={config['ap_threshold']}, but for components")
    if rows:
        show_table(f"Phrase to masks, model {model}", columns, rows, notes=notes, width=_WIDE)


def _counts(name: str, strategy: str, figures: Mapping[str, Any]) -> str:
    """How many of what a row is made of, and how sure its main figures are."""
    instances, verdicts = figures["instances"], figures["verdicts"]
    spans = [
        f"{label} {low:.3f}-{high:.3f}"
        for label, key, where in (
            ("recall", "recall_interval", instances),
            ("precision", "precision_interval", instances),
            ("empty", "absent_empty_interval", verdicts),
        )
        if where[key] is not None
        for low, high in [where[key]]
    ]
    return (
        f"{name}, {strategy}: {instances['objects']} objects, {instances['masks']} masks, "
        f"{verdicts['present']} phrases present, {verdicts['absent']} absent "
        f"({verdicts['siblings']} siblings); 95% over photos: {', '.join(spans)}"
    )


def show_parts(sets: Sequence[dict[str, Any]], *, model: str) -> None:
    """Print the tables of one click, exclusions, maps and cost, each if it was measured."""
    _show_clicks(sets, model=model)
    _show_exclusions(sets, model=model)
    _show_maps(sets, model=model)
    _show_cost(sets, model=model)


def _show_clicks(sets: Sequence[dict[str, Any]], *, model: str) -> None:
    rows = [
        [
            row["name"],
            str(click["objects"]),
            number(click["good"]),
            str(click["clicked"]),
            *numbers(click, ("before", "after", "gain")),
            _span(click["gain_interval"]),
            str(click["found"]),
            number(click["gain_found"]),
        ]
        for row in sets
        for click in [row["click"]]
        if click["objects"]
    ]
    columns = ["set", "objects", "IoU >= .7", "clicked", "before", "after", "gain", "95%"]
    columns += ["had a mask", "their gain"]
    notes = [
        "single objects, asked by name; of the masks the one nearest to it counts; those below IoU "
        ".7 get one click, farthest from the border of the error, by view.click"
    ]
    if rows:
        show_table(f"One click after the text, model {model}", columns, rows, notes=notes)


def _show_exclusions(sets: Sequence[dict[str, Any]], *, model: str) -> None:
    rows = []
    for row in sets:
        figures = row["exclude"]
        if figures["phrases"]:
            shares = [
                cell
                for key in ("spilled_removed", "wrong_removed", "right_lost")
                for cell in (number(figures[key]), _span(figures[f"{key}_interval"]))
            ]
            rows.append([row["name"], str(figures["phrases"]), str(figures["spilling"]), *shares])
    columns = ["set", "phrases", "spilling", "spilled: removed", "95%", "wrong: removed", "95%"]
    columns += ["right: lost", "95%"]
    notes = [
        "shares of pixels; excluded: the label of the photo that the answer spills over most, or "
        "the nearest in CLIP's text space; spilled: on that label's truth; wrong: anywhere off the "
        "phrase's own; asked: phrases of the photo and its absent siblings, where they answer"
    ]
    if rows:
        show_table(f"Exclusion, model {model}", columns, rows, notes=notes)


def _show_maps(sets: Sequence[dict[str, Any]], *, model: str) -> None:
    rows = []
    for row in sets:
        figures = row["map"]
        if figures["photos"]:
            cells = [
                cell
                for asked in ("all", "present")
                for cell in numbers(figures[asked], ("miou", "nothing", "accuracy"))
            ]
            labels = str(len(figures["all"]["labels"]))
            rows.append([row["name"], str(figures["photos"]), labels, *cells])
    columns = ["set", "photos", "labels", "mIoU, all asked", "nothing", "accuracy"]
    columns += ["mIoU, present asked", "nothing", "accuracy"]
    notes = ["mIoU over labels, without 'nothing'; asked for every label or those that it has"]
    if rows:
        show_table(f"Semantic maps, model {model}", columns, rows, notes=notes)


def _show_cost(sets: Sequence[dict[str, Any]], *, model: str) -> None:
    rows = []
    for row in sets:
        cost = row["cost"]
        if cost is not None and cost["photos"]:
            memory = cost["memory"] or dict.fromkeys(("one", "many", "ratio"))
            rows.append(
                [
                    row["name"],
                    str(cost["phrases"]),
                    *numbers(cost, ("encode", "first", "phrase", "absent", "fresh", "share")),
                    *numbers(memory, ("one", "many"), digits=0),
                    number(memory["ratio"], digits=2),
                ]
            )
    columns = [
        "set",
        "phrases",
        "encoding s",
        "first phrase",
        "further",
        "absent",
        "encoding + first",
    ]
    columns += ["further / encoding", "MiB, 1 phrase", "20 phrases", "ratio"]
    notes = [
        "medians of seconds over the phrases that a few photos have, and (absent) some that they "
        "lack; memory: highest resident size of a fresh process, model and photo included"
    ]
    if rows:
        show_table(f"Cost of a phrase, model {model}", columns, rows, notes=notes)


def _span(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


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
