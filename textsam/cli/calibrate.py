"""What `textsam calibrate` does once its options are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textsam.errors import require
from textsam.values.calibration import CALIBRATION_FILE, Calibration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["calibrate_model", "choose_file"]


def calibrate_model(
    load: Callable[[], Any],
    data: Sequence[str],
    out: Path,
    *,
    strategies: Sequence[str] | None,
    settings: dict[str, Any],
    console: Console,
    progress_console: Console,
) -> Calibration:
    """Fit a model's curves on labelled photos, write them, and show what they are worth.

    Args:
        load: Gives the model; called once the photos and the file are known to be there.
        data: Sources as the trainer names them, e.g. "voc.parquet" or "coco:INSTANCES.json@IMAGES".
        out: File or folder to write.
        strategies: What is fitted; None for what people get by default.
        settings: Keywords of `training.calibration.CalibrationConfig`.
        console: For results.
        progress_console: For the progress bar.

    Raises:
        ValueError: The photos are of no use, or the file is another model's.
        OSError: A file is not there.
        MissingExtraError: What reads photos for training is not installed.
    """
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    calibration = _open_training()
    config = calibration.CalibrationConfig(**settings)
    chosen = None if strategies is None else calibration.check_strategies(strategies)
    target = choose_file(out)
    sets = calibration.open_sets(data, photos=config.photos, seed=config.seed)
    model = load()
    kept = _kept_from(target, model)
    columns = (BarColumn(), MofNCompleteColumn(), Remaining(), TextColumn("{task.description}"))
    with Progress(*columns, console=progress_console, transient=True) as progress:
        task = progress.add_task("photos", total=None)
        fitted: Calibration = calibration.calibrate(
            model,
            sets,
            strategies=chosen,
            config=config,
            kept=kept,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    fitted.save(target)
    for strategy in chosen or calibration.default_strategies(model):
        curves, told = fitted.strategies[strategy], fitted.fitted_on[strategy]
        console.print(_presence_table(strategy, told["figures"]))
        console.print(_mask_table(strategy, told["figures"]))
        console.print(
            f"{strategy}: a phrase is answered from presence {curves.min_presence:.3f} on, a "
            f"mask kept from score {curves.min_score:.3f} on",
            soft_wrap=True,
        )
    console.print(
        f"wrote {escape(str(target))}; use it by TextSAM.from_pretrained("
        f'"{escape(str(model.name))}", calibration="{escape(str(target))}")',
        soft_wrap=True,
    )
    return fitted


def choose_file(out: Path) -> Path:
    """The file that `-o` means: itself, or in a folder the one that a model brings along.

    Raises:
        FileNotFoundError: Its folder is not there.
        ValueError: It is no `.json`.
    """
    target = out / CALIBRATION_FILE if out.is_dir() else out
    if target.suffix.lower() != ".json":
        raise ValueError(f"-o {out}: wanted a folder, or a file that ends in .json")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"-o {out}: there is no folder {str(target.parent)!r}. Type: mkdir -p {target.parent}"
        )
    return target


def _kept_from(target: Path, model: Any) -> Calibration | None:
    """Curves of other strategies that the file already has; None if there is no file."""
    if not target.exists():
        return None
    earlier = Calibration.load(target)
    others = {str(told["model"]) for told in earlier.fitted_on.values()} - {str(model.name)}
    if others:
        raise ValueError(
            f"{target} has curves of {', '.join(sorted(others))}, and this is {model.name}; give "
            "another -o"
        )
    return earlier


def _open_training() -> Any:
    """`training.calibration`: inside the wheel, or beside `textsam` in a checkout."""
    if find_spec("textsam.training") is None:
        return require("training.calibration", "train")
    return require("textsam.training.calibration", "train")


def _presence_table(strategy: str, figures: dict[str, dict[str, Any]]) -> Table:
    return _table(
        f"{strategy}: is it there?",
        figures,
        {
            "photos": "photos",
            "there": "present",
            "not": "absent",
            "ECE": "presence_ece",
            "AUROC": "auroc",
            "found": "recall",
            "absent empty": "absent_empty",
            "siblings empty": "siblings_empty",
        },
        "on photos left out of the fit; siblings: the absent names most like those that are there",
    )


def _mask_table(strategy: str, figures: dict[str, dict[str, Any]]) -> Table:
    return _table(
        f"{strategy}: its masks",
        figures,
        {
            "masks": "masks",
            "right": "right",
            "ECE": "score_ece",
            "recall": "instance_recall",
            "precision": "instance_precision",
        },
        "right: more than half of it is the phrase's; recall, precision: of instances at IoU .5",
    )


def _table(
    title: str, figures: dict[str, dict[str, Any]], columns: dict[str, str], caption: str
) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("set", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right")
    for source, values in figures.items():
        table.add_row(escape(source), *(_cell(values[key]) for key in columns.values()))
    return table


def _cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"
