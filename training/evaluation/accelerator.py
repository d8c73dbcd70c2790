"""Does a GPU compute what the CPU computes, and how fast: one run of under five minutes.

python -m training.evaluation.accelerator --json gpu.json             # on CUDA
python -m training.evaluation.accelerator --device mps
python -m training.evaluation.accelerator --device cpu --quick        # a rehearsal

First `tiny` and a ViT-B of random weights are compared with themselves on the CPU in float32:
encoder, decoder, automatic masks and phrases, in each type. Then the encoders and the decoder are
timed in each type, compiled and not, at several sizes of a batch. The command exits with 1 if
float32 is not what the CPU computes.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from textsam import TextSAM
from textsam.errors import WeightsError
from textsam.modeling.config import SAM_CONFIGS
from textsam.modeling.mask_decoder import FOREGROUND, NOT_A_POINT, PromptBatch
from textsam.modeling.precision import choose_device
from textsam.results.segmentation import Segmentation
from textsam.values.rle import rle_iou
from textsam.values.settings import AutomaticSettings

from .command import Options, run_command, write_report
from .figures.result_table import show_table
from .speed.core_rows import debug_config
from .speed.equal_networks import random_sam

_PHOTO = Path(__file__).parents[2] / "examples" / "bus.jpg"
_TYPES = (torch.float32, torch.bfloat16, torch.float16)
_LIMIT = 1e-3  # of float32: the largest difference, in parts of the largest value
_BUDGET = 270.0  # seconds, after which rows are left out and named


@dataclass(frozen=True, kw_only=True)
class AcceleratorOptions(Options):
    """Compare a device with the CPU, and time it in each type, compiled and not."""

    minimum: ClassVar[Mapping[str, int]] = {"rounds": 1}

    device: str = "cuda"
    rounds: int = 10  # of each time; the first, which warms up, is not counted
    quick: bool = False  # A core of a moment in place of ViT-B, and the smallest batches
    json: Path | None = None  # Also write all figures to this file


@dataclass(frozen=True, kw_only=True)
class ParityRow:
    """How far a device is from float32 on the CPU."""

    model: str
    part: str
    dtype: str
    error: float  # parts of the largest value; of masks, 1 - mean IoU
    passed: bool | None  # None for half precision, which has no limit


@dataclass(frozen=True, kw_only=True)
class TimeRow:
    """Median time of one call."""

    model: str
    part: str
    dtype: str
    compiled: bool
    batch: int
    seconds: float


def run(options: AcceleratorOptions) -> int:
    """Measure, print and write; 1 if float32 differs from the CPU."""
    device, started = choose_device(options.device), time.perf_counter()
    # By default convolutions on CUDA round their factors to 10 bits, which is no parity.
    torch.backends.cudnn.allow_tf32 = False
    models = load_models(options)
    parity: list[ParityRow] = []
    times: list[TimeRow] = []
    left_out: list[str] = []
    for name, model in models.items():
        parity += _compare(name, model, device)
        _report(options, device, parity, times, left_out)
    # Compiling takes longest, so it comes last.
    for compiled in (False, True):
        for name, model in models.items():
            if time.perf_counter() - started > _BUDGET / (1 if compiled else 2):
                left_out.append(f"{name}, {'compiled' if compiled else 'eager'}")
                continue
            try:
                times += _time(name, model, device, compiled=compiled, options=options)
            except WeightsError as error:  # nothing that compiles here
                left_out.append(str(error))
            _report(options, device, parity, times, left_out)
    _show(device, parity, times, left_out, time.perf_counter() - started)
    return int(any(row.passed is False for row in parity))


def load_models(options: AcceleratorOptions) -> dict[str, TextSAM]:
    """The models that are compared and timed, on the CPU."""
    tiny = TextSAM.from_pretrained("tiny")
    if options.quick:
        return {"tiny": tiny, "core": TextSAM(random_sam(debug_config()), name="random")}
    return {"tiny": tiny, "ViT-B": TextSAM(random_sam(SAM_CONFIGS["vit_b"]), name="random")}


def _types(device: torch.device) -> tuple[torch.dtype, ...]:
    """Float16 takes a CPU minutes, which has no instructions for it."""
    return _TYPES[:2] if device.type == "cpu" else _TYPES


def _moved(model: TextSAM, device: torch.device, dtype: torch.dtype) -> TextSAM:
    """A copy of a model on the device."""
    parts = copy.deepcopy({**vars(model.parts)})
    other = TextSAM(**parts).to(device)
    return other if dtype == torch.float32 else other.to(dtype)


def _compare(name: str, model: TextSAM, device: torch.device) -> Iterator[ParityRow]:
    """All parts of a model on the device, in each type, against the CPU in float32."""
    wanted = _answers(model)
    for dtype in _types(device):
        for part, answer in _answers(_moved(model, device, dtype)).items():
            error = _difference(answer, wanted[part])
            passed = None if dtype != torch.float32 else error <= _LIMIT
            yield ParityRow(model=name, part=part, dtype=_short(dtype), error=error, passed=passed)


@torch.no_grad()
def _answers(model: TextSAM) -> dict[str, Tensor | Segmentation]:
    view = model.open(_PHOTO)
    features = view.photo.features
    size = model.sam.config.image_size
    decoded = model.sam.decode(features, _points(32, size, model.device))
    grid = AutomaticSettings(points_per_side=8, pred_iou_thresh=0.0, stability_score_thresh=0.0)
    answers: dict[str, Tensor | Segmentation] = {
        "encoder": features.embedding.cpu(),
        "decoder": decoded.logits.cpu(),
        "automatic masks": view.everything(grid),
    }
    if model.clip is not None:
        answers |= {
            "phrase": view.segment(text="wheel"),
            "map": torch.from_numpy(view.text_map("bus")),
        }
    return answers


def _points(count: int, size: int, device: torch.device) -> PromptBatch:
    """Clicks on one photo, the same for every device."""
    torch.manual_seed(count)
    places = torch.rand(count, 1, 2) * size
    return PromptBatch(
        points=torch.cat([places, torch.zeros_like(places)], dim=1).to(device),
        labels=torch.tensor([FOREGROUND, NOT_A_POINT]).expand(count, 2).to(device),
        image_index=torch.zeros(count, dtype=torch.int64, device=device),
    )


def _difference(answer: Any, wanted: Any) -> float:
    if isinstance(wanted, Tensor):
        return float((answer - wanted).abs().max() / wanted.abs().max())
    # Of random weights many masks are empty, and the IoU of two empty ones is 0.
    theirs, ours = (
        [rle for rle, pixels in zip(each.rles, each.areas, strict=True) if pixels]
        for each in (wanted, answer)
    )
    if not theirs or not ours:
        return float(len(theirs) != len(ours))
    # Masks at the edge of a level may come or go: each one counts with the one most like it.
    overlaps = rle_iou(ours, theirs)
    return 1 - min(float(overlaps.max(0).mean()), float(overlaps.max(1).mean()))


def _time(
    name: str, model: TextSAM, device: torch.device, *, compiled: bool, options: AcceleratorOptions
) -> Iterator[TimeRow]:
    """Encoder and decoder in each type; the decoder is float32 in all of them."""
    size = model.sam.config.image_size
    batches = (1, 2) if options.quick else (1, 8)
    for dtype in _types(device):
        there = _moved(model, device, dtype)
        if compiled:
            there.compile()
        prepared, sam = there.open(_PHOTO).photo.prepared, there.parts.require_sam()
        assert prepared is not None
        ways: dict[tuple[str, int], Callable[[], Any]] = {}
        for batch in batches:
            pixels = torch.randn(batch, 3, size, size, device=device)
            ways["encode", batch] = partial(there.sam.encode_image, pixels)
        for count in (1, 64) if dtype == torch.float32 else ():
            prompts = _points(count, size, device)
            ways["decode", count] = partial(sam.decode_prepared, prepared, prompts)
        for (part, batch), way in ways.items():
            yield TimeRow(
                model=name,
                part=part,
                dtype=_short(dtype),
                compiled=compiled,
                batch=batch,
                seconds=_median(way, device, options.rounds),
            )


@torch.no_grad()
def _median(way: Callable[[], Any], device: torch.device, rounds: int) -> float:
    seconds = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        way()
        if device.type != "cpu":  # a GPU works on after the call has returned
            torch.get_device_module(device).synchronize()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _report(
    options: AcceleratorOptions,
    device: torch.device,
    parity: list[ParityRow],
    times: list[TimeRow],
    left_out: list[str],
) -> None:
    """Write what there is, so that a run that is cut off leaves it."""
    sets = [{"parity": parity, "times": times, "left_out": left_out}]
    write_report(options, sets, device_name=_name_of(device))


def _name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _show(
    device: torch.device,
    parity: list[ParityRow],
    times: list[TimeRow],
    left_out: list[str],
    took: float,
) -> None:
    verdicts = {None: "", True: "ok", False: "DIFFERS"}
    show_table(
        f"{_name_of(device)} against float32 on the CPU",
        ["model", "part", "type", "error", ""],
        [(r.model, r.part, r.dtype, f"{r.error:.1e}", verdicts[r.passed]) for r in parity],
        notes=["error: largest difference / largest value; of masks, 1 - mean IoU"],
    )
    show_table(
        "Time of one call",
        ["model", "part", "type", "compiled", "batch", "ms", "ms each"],
        [
            (
                *(row.model, row.part, row.dtype, "yes" if row.compiled else "no", str(row.batch)),
                f"{1e3 * row.seconds:.2f}",
                f"{1e3 * row.seconds / row.batch:.2f}",
            )
            for row in times
        ],
        notes=[f"{took:.0f} s in all", *(f"left out: {what}" for what in left_out)],
    )


def main() -> int:
    """Run the command."""
    return run_command(AcceleratorOptions, run)


if __name__ == "__main__":
    sys.exit(main())
