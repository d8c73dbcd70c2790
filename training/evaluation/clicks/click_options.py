"""Options of the commands that click objects."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from ..table import at_least
from .clicking import ClickConfig

__all__ = ["add_click_options", "click_config", "shown_interval"]


def add_click_options(parser: argparse.ArgumentParser, *, clicks: int = 20) -> None:
    """Add `--clicks`, `--min-area`, `--per-photo` and `--sampling`."""
    defaults = ClickConfig()
    parser.add_argument(
        "--clicks",
        type=at_least(1),
        default=clicks,
        metavar="N",
        help="most clicks per object; an object stops early once IoU 0.90 and the last column are "
        "reached (default: %(default)s; the interactive field gives 20; 9 fills every mIoU column)",
    )
    parser.add_argument(
        "--min-area",
        type=at_least(1),
        default=defaults.min_area,
        metavar="PX",
        help="leave out masks of fewer pixels (default: 32, about one cell of the logits of a "
        "384-px model on a 512-px photo)",
    )
    parser.add_argument(
        "--per-photo",
        type=at_least(1),
        metavar="N",
        help="measure at most N objects of a photo, drawn with the seed (default: all)",
    )
    parser.add_argument(
        "--sampling",
        choices=("centre", "random"),
        default=defaults.sampling,
        help="where to click: farthest from the border (the paper's main protocol), or anywhere in "
        "the mask or the error region (default: centre)",
    )


def click_config(options: argparse.Namespace, **changes: Any) -> ClickConfig:
    """The protocol that was asked for.

    Args:
        options: What `add_click_options` and `add_common_options` parsed.
        **changes: Further fields of `ClickConfig`.
    """
    return ClickConfig(
        clicks=options.clicks,
        min_area=options.min_area,
        per_photo=options.per_photo,
        seed=options.seed,
        sampling=options.sampling,
        **changes,
    )


def shown_interval(intervals: Mapping[str, Any] | None, name: str, *, digits: int = 3) -> str:
    """The interval of a figure for a table cell; a dash if there is none."""
    if not intervals:
        return "-"
    return f"{intervals[name][1]:.{digits}f}-{intervals[name][2]:.{digits}f}"
