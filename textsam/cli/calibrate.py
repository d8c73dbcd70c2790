"""`textsam calibrate`: fit a model's probabilities and thresholds on labelled photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from textsam.cli import options
from textsam.cli.console import TerminalProgress, make_console, one_line_errors, print_line

if TYPE_CHECKING:
    from textsam import TextSAM
    from textsam.values.calibration import Calibration


def calibrate(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...",
            help="Labelled photos: FILE.parquet, coco:FILE.json@FOLDER, or another source that "
            "training reads.",
        ),
    ],
    model: options.ModelOption = "tiny",
    clip: options.ClipOption = None,
    detector: options.DetectorOption = None,
    device: options.DeviceOption = None,
    dtype: options.DtypeOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write, or a folder.")] = Path(
        "calibration.json"
    ),
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            "-s",
            help="auto, detect, concept, rank, everything or like (default: the model's own).",
        ),
    ] = None,
    photos: Annotated[int, typer.Option(help="Photos of each source.")] = 60,
    absent: Annotated[int, typer.Option(help="Phrases per photo that are not in it.")] = 10,
    recall: Annotated[
        float, typer.Option(help="Share of present phrases that the default threshold keeps.")
    ] = 0.9,
    per_phrase: Annotated[
        bool,
        typer.Option(
            "--per-phrase",
            help="Also learn levels of single phrases, from at least 3 photos with and 3 without.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the choice of photos and phrases.")] = 0,
) -> None:
    """Fit a model's probabilities and default thresholds on your own labelled photos."""
    with one_line_errors():
        calibration: Any = options.import_guest("training.calibration", "train")
        config = calibration.CalibrationConfig(
            photos=photos, absent=absent, recall=recall, per_phrase=per_phrase, seed=seed
        )
        # Before the model, which is slow to load.
        strategies = None if strategy is None else calibration.check_strategies(strategy)
        target = _choose_file(out)
        sets = calibration.open_sets(data, photos=photos, seed=seed)
        loaded = options.load_model(model, clip=clip, detector=detector, device=device, dtype=dtype)
        kept = _load_other_curves(target, loaded)
        with TerminalProgress("photos") as bar:
            fitted: Calibration = calibration.calibrate(
                loaded, sets, strategies=strategies, config=config, kept=kept, progress=bar.show
            )
        fitted.save(target)
        for name in strategies or calibration.default_strategies(loaded):
            _print_fit(name, fitted)
        use = f'from_pretrained("{loaded.name}", calibration="{target}")'
        print_line(f"wrote {target}; use it by TextSAM.{use}")


def _choose_file(out: Path) -> Path:
    """The file that `-o` names; in a folder, the one that `from_pretrained` reads."""
    from textsam.values.calibration import CALIBRATION_FILE

    target = out / CALIBRATION_FILE if out.is_dir() else out
    if target.suffix.lower() != ".json":
        raise ValueError(f"-o {out}: wanted a folder, or a file that ends in .json")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"-o {out}: there is no folder {str(target.parent)!r}. Type: mkdir -p {target.parent}"
        )
    return target


def _load_other_curves(target: Path, model: TextSAM) -> Calibration | None:
    """The calibration that the file holds: a second run keeps the curves of other strategies."""
    from textsam.values.calibration import Calibration

    if not target.exists():
        return None
    calibration = Calibration.load(target)
    # Curves are about one model's evidence and mean nothing for another.
    others = {str(facts["model"]) for facts in calibration.fitted_on.values()} - {str(model.name)}
    if others:
        raise ValueError(
            f"{target} has curves of {', '.join(sorted(others))}, and this is {model.name}; give "
            "another -o"
        )
    return calibration


# Title, headings with the figures below them, and caption of each table.
_TABLES = (
    (
        "is the phrase in the photo?",
        {
            "photos": "photos",
            "present": "present",
            "absent": "absent",
            "ECE": "presence_ece",
            "AUROC": "auroc",
            "recall": "recall",
            "absent empty": "absent_empty",
            "siblings empty": "siblings_empty",
        },
        "on photos left out of the fit; siblings: the absent names most similar to present ones",
    ),
    (
        "masks",
        {
            "masks": "masks",
            "right": "right",
            "ECE": "score_ece",
            "recall": "instance_recall",
            "precision": "instance_precision",
        },
        "right: more than half of the mask belongs to the phrase; recall and precision: of "
        "instances at IoU 0.5",
    ),
)


def _print_fit(strategy: str, fitted: Calibration) -> None:
    """Show the quality of one strategy's curves, and the thresholds."""
    from textsam.cli.tables import make_table

    curves, figures = fitted.strategies[strategy], fitted.fitted_on[strategy]["figures"]
    for title, columns, caption in _TABLES:
        rows = [
            (source, *(_format_figure(values[key]) for key in columns.values()))
            for source, values in figures.items()
        ]
        title = f"{strategy}: {title}"
        table = make_table(
            "set", *columns, rows=rows, right=[*columns], title=title, caption=caption
        )
        make_console().print(table)
    print_line(
        f"{strategy}: phrases with a presence of at least {curves.min_presence:.3f} get masks, "
        f"masks with a score of at least {curves.min_score:.3f} are kept"
    )
    if "f1_own" in fitted.fitted_on[strategy]:
        _print_phrases(strategy, fitted)


def _print_phrases(strategy: str, fitted: Calibration) -> None:
    """Show the levels of single phrases, and which phrases have none of their own."""
    from textsam.cli.tables import make_table

    curves, facts = fitted.strategies[strategy], fitted.fitted_on[strategy]
    rows = [
        (phrase, f"{own.min_presence:.3f}", f"{own.min_score:.3f}")
        for phrase, own in curves.phrases.items()
    ]
    if rows:
        title = f"{strategy}: levels by phrase"
        columns = ("presence", "score")
        make_console().print(
            make_table("phrase", *columns, rows=rows, right=[*columns], title=title)
        )
    if left_out := facts["left_out"]:
        few = "; ".join(f"{phrase} ({why})" for phrase, why in left_out.items())
        print_line(f"{strategy}: the common levels stay for {few}")
    print_line(
        f"{strategy}: F1 of instances on photos left out of the fit: {facts['f1_common']:.3f} with "
        f"the common levels, {facts['f1_own']:.3f} with levels by phrase"
    )


def _format_figure(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"
