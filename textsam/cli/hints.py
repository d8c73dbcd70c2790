"""Commands whose --help has groups, and answers to command lines known from other tools.

`yolo`, Segment Anything's `amg.py` and LangSAM have their own names for options and commands. Such
a name fails with a line that says what to type here. Numbers after `--box` and `--point` may also
be separated by spaces, as those tools have them.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperGroup

# What other tools call a command or an option here.
_COMMANDS = {
    "segment": "predict detect track run seg infer find cutout remove rembg i p",
    "everything": "auto amg automatic generate",
    "demo": "gui ui web app serve",
    "embed": "index embeddings",
    "info": "models list summary",
    "doctor": "check checks settings version",
}
_OPTIONS = {
    "--text": "prompt prompts text-prompt phrase query classes class names",
    "--threshold": "conf confidence box-threshold text-threshold score-threshold",
    "--point": "points point-coords click clicks",
    "--box": "boxes bbox bboxes",
    "--out": "output output-dir save save-dir project",
    "--model": "weights checkpoint ckpt sam-type",
    "--exclude": "negative-prompt not",
    "--device cuda": "gpu",
    "--point X,Y,0": "point-labels",
    "--format json": "convert-to-rle save-json",
    "--format txt": "save-txt",
    "--kind cutout": "save-crop remove-background transparent only-mask",
    "--overwrite": "exist-ok force",
    "--page": "frame",
    "--bands": "channels rgb",
    # Short names, which these commands do not have.
    "--format": "f",
    "--threshold 0.3": "c",
    "--device": "d",
}
# Options of other tools that are not needed here, and what to do instead.
_UNNEEDED = {
    "Type: textsam {command} PHOTO": "source input image images img i s",
    "The weights say it; leave it out": "model-type config",
    "Each model has one input size; leave it out": "imgsz image-size",
    "Leave it out and open the file that is written": "show",
}

# The groups of options in --help, by the names of the parameters; the others stay in "Options".
_PANELS = {
    "What to find": "text names exclude background point box strategy threshold overlap mask image "
    "like space k exact preset points_per_side pred_iou_thresh stability_score_thresh "
    "crop_n_layers min_mask_region_area refine",
    "Which masks count": "data_set label min_area max_area min_aspect max_aspect",
    "Results": "out format kind polygons tolerance place explain as_json overwrite save_dataset",
    "Model": "model clip detector calibration device dtype backend",
    "Reading photos": "bands white page alpha",
}

_SHORT = re.compile(r"-[a-zA-Z]")
_NUMBER = re.compile(r"-?\d+(\.\d*)?")
# Ultralytics writes source=bus.jpg.
_ASSIGNMENT = re.compile(r"(\w+)=.+")


def _by_name(table: dict[str, str]) -> dict[str, str]:
    return {name: ours for ours, names in table.items() for name in names.split()}


_COMMAND_OF, _OPTION_OF, _REASON_OF = map(_by_name, (_COMMANDS, _OPTIONS, _UNNEEDED))
_PANEL_OF = _by_name(_PANELS)


class HintingGroup(TyperGroup):
    """The command `textsam`: says which subcommand was probably meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As click does, after a hint for names of other tools and for a forgotten command."""
        name = args[0]
        # Options such as --version are left to click.
        if name not in self.commands and not name.startswith("-"):
            if name == "help":
                ctx.fail("Type: textsam --help, or textsam segment --help")
            if name in _COMMAND_OF:
                ctx.fail(f"there is no command {name!r}. Type: textsam {_COMMAND_OF[name]} ...")
            if Path(name).exists():
                ctx.fail(f"{name!r} is not a command. Type: textsam segment {name} -t PHRASE")
        return super().resolve_command(ctx, args)


class HintingCommand(TyperCommand):
    """A subcommand: says which of its options was probably meant."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for parameter in self.params:
            if panel := _PANEL_OF.get(parameter.name or ""):
                parameter.rich_help_panel = panel  # type: ignore[attr-defined]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As click does, after a hint for names of other tools."""
        own = {
            name
            for parameter in self.params
            for name in (*parameter.opts, *parameter.secondary_opts)  # --box and --no-box
        }
        if args == ["help"] and not Path("help").exists():
            ctx.fail(f"Type: textsam {ctx.info_name} --help")
        for before, word in zip(["", *args], args, strict=False):
            if before == "--threshold":  # of a phrase: wheel=0.3
                continue
            assignment = _ASSIGNMENT.fullmatch(word)
            # A photo may be called a=b.jpg.
            if assignment is not None and not Path(word).exists():
                self._check_option(ctx, f"--{assignment[1]}", own, typed=word)
            elif word.startswith("--") or _SHORT.fullmatch(word):
                option = word.partition("=")[0]
                if option not in {*own, "--", "--help", "-h"}:
                    self._check_option(ctx, option, own, typed=option)
        return super().parse_args(ctx, _join_numbers(args, own))

    @staticmethod
    def _check_option(ctx: Any, option: str, own: set[str], *, typed: str) -> None:
        name = option.lstrip("-").replace("_", "-")
        ours = f"--{name}" if f"--{name}" in own else _OPTION_OF.get(name)
        if ours is not None and ours.split()[0] in own:
            ctx.fail(f"{typed} is not an option. Type: {ours}")
        if name in _REASON_OF:
            reason = _REASON_OF[name].format(command=ctx.info_name)
            ctx.fail(f"{typed} is not an option. {reason}")
        # The first letters count, and where they differ, how alike the words are.
        near = [each for each in sorted(own) if name and each.startswith(f"--{name[:2]}")]
        alike = get_close_matches(option, near or own, n=1, cutoff=0.5)
        if alike and option.startswith("--"):
            ctx.fail(f"{typed} is not an option. Type: {alike[0]}")


def _join_numbers(args: list[str], own: set[str]) -> list[str]:
    """`--box 1 2 3 4` to `--box 1,2,3,4`, and `--point 1 2` likewise."""
    # The short names too: `-b 1 2 3 4`.
    counts = {"--box": 4, "-b": 4, "--point": 2, "-p": 2, "--bands": 3}
    joined: list[str] = []
    words = iter(range(len(args)))
    for index in words:
        joined.append(args[index])
        count = counts.get(args[index], 0) if args[index] in own else 0
        numbers = args[index + 1 : index + 1 + count]
        # refine has a --box without a value: no numbers follow it.
        if count and len(numbers) == count and all(map(_NUMBER.fullmatch, numbers)):
            joined.append(",".join(numbers))
            # These words are in `joined` already.
            for _ in numbers:
                next(words)
    return joined
