"""Rows of a SAM core: encoder, decoder, automatic masks, growth with size, memory; with peers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.inference.automatic.generator import automatic_masks
from textsam.inference.automatic.point_grid import AutomaticReport, decode_points, point_grid
from textsam.inference.photo.encoded import encode_photo, to_original_frame
from textsam.inference.photo.prediction import stability_score
from textsam.modeling.config import SamConfig, ViTConfig
from textsam.values.rle import rle_iou
from textsam.values.settings import AutomaticSettings

from ...peak_memory import in_fresh_process, peak_bytes
from .equal_networks import (
    HUGGINGFACE,
    OFFICIAL,
    OURS,
    EqualPrompts,
    EverythingRun,
    HuggingFaceLibrary,
    OfficialLibrary,
    OurLibrary,
    random_sam,
)
from .stopwatch import Patience, Timing, Turns, take_turns

# What SamAutomaticMaskGenerator asks at once by default; peers get no more than that in one call.
_TOGETHER = 64
# Random weights make no sure masks, so the levels are shares of what the decoder gives: 40% pass
# the predicted IoU, and of those 60% the stability. Boxes span the photo, so NMS is made mild.
_PASS_IOU, _PASS_STABILITY, _NMS = 0.4, 0.6, 0.98


@dataclass(kw_only=True)
class SpeedRow:
    """Times of one piece of work."""

    group: str
    name: str
    timings: Mapping[str, Timing]  # by library or way
    each: int = 1  # prompts or photos that the times are divided by
    flops: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)  # largest difference, by peer
    scale: float | None = None  # standard deviation of what was compared
    note: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)  # of other kinds, such as MiB

    def to_dict(self, gemm: float) -> dict[str, Any]:
        """JSON-ready values; `gemm` is the rate of large products, FLOP/s."""
        ours = self.timings.get(OURS)
        return {
            "group": self.group,
            "name": self.name,
            "each": self.each,
            "seconds": {name: timing.to_dict() for name, timing in self.timings.items()},
            "times_faster": {
                name: ours.times(timing)
                for name, timing in self.timings.items()
                if ours is not None and name != OURS
            },
            "gflops": {name: flops / 1e9 for name, flops in self.flops.items()},
            "gemm_share": {
                name: flops / self.timings[name].median / gemm for name, flops in self.flops.items()
            },
            "errors": dict(self.errors),
            "scale": self.scale,
            "note": self.note,
            "figures": dict(self.figures),
        }


@dataclass(frozen=True, kw_only=True)
class CorePlan:
    """What is measured of a core."""

    config: SamConfig
    name: str  # "ViT-B"
    peers: bool
    patience: Patience
    prompts: Sequence[int]  # numbers of points in one call
    grids: Sequence[int]  # points per side of automatic masks
    photo: NDArray[np.uint8]


class CoreRows:
    """The rows of one core; its libraries share the weights' memory."""

    def __init__(self, plan: CorePlan) -> None:
        self.plan = plan
        sam = random_sam(plan.config)
        side = plan.config.image_size
        self.ours = OurLibrary(sam, np.zeros((side, side, 3), np.uint8))
        self.libraries: dict[str, Any] = {OURS: self.ours}
        if plan.peers:
            self.libraries = {
                OFFICIAL: OfficialLibrary(sam),
                HUGGINGFACE: HuggingFaceLibrary(sam),
                OURS: self.ours,
            }
        torch.manual_seed(0)
        self.pixels = torch.randn(1, 3, side, side)
        self._embedding: Tensor | None = None

    @property
    def embedding(self) -> Tensor:
        """That of `pixels`, by textsam, which every library then decodes on."""
        if self._embedding is None:
            self._embedding = self.ours.encode(self.pixels)
        return self._embedding

    def encode(self) -> Iterator[SpeedRow]:
        """One photo; preprocessing left out."""
        ways = {name: partial(one.encode, self.pixels) for name, one in self.libraries.items()}
        turns = take_turns(ways, self.plan.patience)
        self._embedding = turns.results[OURS]
        side = self.plan.config.image_size
        yield self._row("encode", f"encode {self.plan.name} at {side}", turns, turns.results)

    def decode(self) -> Iterator[SpeedRow]:
        """A point, a box, a point with a mask, and many points at once."""
        side, mask = self.plan.config.image_size, self.plan.config.mask_size
        torch.manual_seed(1)
        point, corner = torch.rand(1, 1, 2) * side, torch.rand(1, 2) * side / 2
        box = torch.cat([corner, corner + side / 3], dim=1)
        # Logits as large as a decoder's own.
        logits = torch.randn(1, 1, mask, mask) * 4
        yield self._decoded("1 point", EqualPrompts(points=point))
        yield self._first_of_a_photo(EqualPrompts(points=point))
        yield self._decoded("1 box", EqualPrompts(boxes=box))
        yield self._decoded("1 point and mask", EqualPrompts(points=point, masks=logits))
        for count in self.plan.prompts:
            prompts = EqualPrompts(points=torch.rand(count, 1, 2) * side)
            yield self._decoded(f"{count} points, per prompt", prompts)

    def _decoded(self, name: str, prompts: EqualPrompts) -> SpeedRow:
        embedding = self.embedding
        ways: dict[str, Callable[[], Any]] = {}
        for library, one in self.libraries.items():
            parts = [prompts] if library == OURS else prompts.split(_TOGETHER)
            ways[library] = partial(_decode_parts, one, embedding, parts)
        # What is prepared once for each photo is no part of the FLOPs of a further prompt.
        self.ours.decode(embedding, prompts)
        turns = take_turns(ways, self.plan.patience)
        logits = {library: result[0] for library, result in turns.results.items()}
        row = self._row("decode", f"decode {name}", turns, logits, each=len(prompts))
        iou = _errors({library: result[1] for library, result in turns.results.items()})
        errors = {library: max(error, iou[library]) for library, error in row.errors.items()}
        return replace(row, errors=errors)

    def _first_of_a_photo(self, prompts: EqualPrompts) -> SpeedRow:
        """With what textsam prepares once for each photo; peers prepare nothing."""
        way = partial(self.ours.decode_first, self.embedding, prompts)
        turns = take_turns({OURS: way}, self.plan.patience)
        return self._row("decode", "decode 1 point, the first of a photo", turns, {})

    def automatic(self) -> Iterator[SpeedRow]:
        """Masks of everything at each grid, with and without the encoder; masks compared."""
        loose = self._levels()
        names = [name for name in (OFFICIAL, OURS) if name in self.libraries]
        for side in self.plan.grids:
            settings = replace(loose, points_per_side=side)
            runs: dict[str, list[EverythingRun]] = {name: [] for name in names}

            def run(name: str, runs: Any = runs, settings: Any = settings) -> EverythingRun:
                done: EverythingRun = self.libraries[name].everything(self.plan.photo, settings)
                runs[name].append(done)
                return done

            turns = take_turns(
                {name: partial(run, name) for name in names},
                replace(self.plan.patience, rounds=2),
                warm_up=False,
            )
            found = turns.results[OURS]
            note = f"masks left: {_filters(found)}"
            if OFFICIAL in turns.results:
                note += "; " + _compare_masks(found, turns.results[OFFICIAL])
            title = f"automatic {side} x {side}, {self.plan.name}"
            yield replace(self._row("automatic", title, turns, {}), note=note)
            rest = {
                name: Timing(
                    seconds=tuple(
                        total - one.encoder_seconds
                        for total, one in zip(turns.timings[name].seconds, runs[name], strict=True)
                    )
                )
                for name in names
            }
            row = self._row("automatic", f"{title}, no encoder", Turns(timings=rest), {})
            yield replace(row, errors=_iou_error(turns.results))

    def _levels(self) -> AutomaticSettings:
        """Thresholds that a realistic share of random masks passes."""
        photo = encode_photo(self.ours.model.parts, self.plan.photo)
        parts = list(decode_points(photo, point_grid(6), batch=12))
        iou = torch.cat([part.iou for part in parts])
        level = float(iou.quantile(1 - _PASS_IOU))
        stability = torch.cat(
            [
                stability_score(to_original_frame(part[part.iou > level].logits, photo.frame))
                for part in parts
            ]
        )
        return AutomaticSettings(
            points_per_batch=_TOGETHER,
            pred_iou_thresh=level,
            stability_score_thresh=float(stability.quantile(1 - _PASS_STABILITY)),
            box_nms_thresh=_NMS,
            crop_n_layers=0,
        )

    def growth(self, sides: Sequence[int]) -> Iterator[SpeedRow]:
        """Without peers: prompts in one call, image side, points of automatic masks."""
        embedding, side = self.embedding, self.plan.config.image_size
        torch.manual_seed(2)
        for count in (1, 2, 4, 8, 16, 32, 64, 128, 256):
            if count > max(self.plan.prompts, default=1):
                break
            prompts = EqualPrompts(points=torch.rand(count, 1, 2) * side)
            way = partial(self.ours.decode, embedding, prompts)
            turns = take_turns({OURS: way}, self.plan.patience)
            name = f"prompts in one call: {count}, per prompt"
            yield self._row("growth", name, turns, {}, each=count)
        for size in sides:
            small = random_sam(replace(self.plan.config, image_size=size))
            library = OurLibrary(small, np.zeros((size, size, 3), np.uint8))
            encode = partial(library.encode, torch.randn(1, 3, size, size))
            turns = take_turns({OURS: encode}, self.plan.patience)
            yield self._row("growth", f"image side: {size}", turns, {})
        photo, loose = encode_photo(self.ours.model.parts, self.plan.photo), self._levels()
        for per_side in (grid for grid in (4, 8, 16) if grid <= max(self.plan.grids, default=0)):
            report = AutomaticReport()
            settings = replace(loose, points_per_side=per_side)

            def run(settings: Any = settings, report: Any = report) -> Any:
                report.decoded, report.after = 0, {}
                return automatic_masks(photo, settings=settings, report=report)

            turns = take_turns({OURS: run}, replace(self.plan.patience, rounds=3), warm_up=False)
            yield replace(
                self._row(
                    "growth",
                    f"automatic masks, no encoder: {per_side**2} points, per point",
                    turns,
                    {},
                    each=per_side**2,
                ),
                note=f"{report.decoded} masks, coded {report.after['edge']}",
            )

    def _row(
        self, group: str, name: str, turns: Turns, outputs: Mapping[str, Tensor], *, each: int = 1
    ) -> SpeedRow:
        errors = _errors(outputs)
        return SpeedRow(
            group=group,
            name=name,
            timings=turns.timings,
            each=each,
            flops=turns.flops,
            errors=errors,
            scale=float(outputs[OURS].std()) if errors else None,
        )


def _decode_parts(
    library: Any, embedding: Tensor, parts: Sequence[EqualPrompts]
) -> tuple[Tensor, Tensor]:
    outputs = [library.decode(embedding, part) for part in parts]
    logits, iou = zip(*outputs, strict=True)
    return (torch.cat(logits), torch.cat(iou)) if len(parts) > 1 else outputs[0]


def _errors(outputs: Mapping[str, Tensor]) -> dict[str, float]:
    """Largest difference of each peer from textsam."""
    return {
        name: float((output - outputs[OURS]).abs().max())
        for name, output in outputs.items()
        if name != OURS
    }


def compare_outputs(outputs: Mapping[str, Tensor]) -> tuple[dict[str, float], float]:
    """Largest difference of each way from textsam's own, and the standard deviation of that."""
    return _errors(outputs), float(outputs[OURS].std())


def _iou_error(runs: Mapping[str, EverythingRun]) -> dict[str, float]:
    """Largest difference of predicted IoU, where there are as many masks."""
    if OFFICIAL not in runs or len(runs[OFFICIAL].iou) != len(runs[OURS].iou):
        return {}
    return {OFFICIAL: float(np.abs(runs[OFFICIAL].iou - runs[OURS].iou).max(initial=0))}


def _compare_masks(ours: EverythingRun, theirs: EverythingRun) -> str:
    """How many masks both have, and the worst overlap of a mask with the other's nearest."""
    if not ours.rles or not theirs.rles:
        return f"segment-anything has {len(theirs.rles)} masks, textsam {len(ours.rles)}"
    # As sets: masks of the same predicted IoU come in either order.
    counts = [Counter(rle.counts for rle in run.rles) for run in (ours, theirs)]
    same = (counts[0] & counts[1]).total()
    overlap = rle_iou(ours.rles, theirs.rles)
    worst = min(overlap.max(0).min(), overlap.max(1).min())
    return (
        f"{same} of {len(ours.rles)} masks equal those of segment-anything ({len(theirs.rles)}) "
        f"to the pixel, lowest IoU {worst:.6f}"
    )


def _filters(run: EverythingRun) -> str:
    return ", ".join(f"{name} {count}" for name, count in run.left.items())


def memory_rows(config: SamConfig, *, name: str, peers: bool, prompts: int) -> Iterator[SpeedRow]:
    """Peak memory of encoding a photo and decoding prompts, each library in a fresh process."""
    libraries = (OFFICIAL, HUGGINGFACE, OURS) if peers else (OURS,)
    threads = torch.get_num_threads()
    peaks = {
        library: in_fresh_process(_peak, library, config, prompts, threads) for library in libraries
    }
    figures = {f"{library}, MiB": peak / 2**20 for library, (peak, _) in peaks.items()}
    figures |= {f"{library} before, MiB": start / 2**20 for library, (_, start) in peaks.items()}
    yield SpeedRow(
        group="memory",
        name=f"peak of a process: encode {name}, decode {prompts} points",
        timings={},
        figures=figures,
    )


def _peak(library: str, config: SamConfig, count: int, threads: int) -> tuple[int, int]:
    """Bytes that the process has held at its peak, and with the weights alone."""
    torch.set_num_threads(threads)
    side = config.image_size
    sam = random_sam(config)
    one: Any = OurLibrary(sam, np.zeros((side, side, 3), np.uint8)) if library == OURS else None
    if library == OFFICIAL:
        one = OfficialLibrary(sam)
    if library == HUGGINGFACE:
        one = HuggingFaceLibrary(sam)
    del sam
    start = peak_bytes()
    embedding = one.encode(torch.randn(1, 3, side, side))
    one.decode(embedding, EqualPrompts(points=torch.rand(count, 1, 2) * side))
    return peak_bytes(), start


def debug_config() -> SamConfig:
    """A core of a moment, for tests of the command itself."""
    encoder = ViTConfig(width=48, depth=2, heads=4, global_attention_indexes=(1,))
    return SamConfig(encoder=encoder, image_size=128)
