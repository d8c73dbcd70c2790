"""Print what the paper's runs cost.

python -m training.studies.costs --utilisation 0.3 --a100-price 2 --h100-price 3
python -m training.studies.costs --measure        # and one real step of ViT-B at 1024 px, here
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal, get_args

import torch

from textsam.modeling.config import SAM_CONFIGS

from ...evaluation.command import Options, run_command
from ...evaluation.data_sets import BadInputError
from ...evaluation.figures.result_table import Column, show_figures, show_table
from .flops import (
    GPUS,
    PAPER_GPU_HOURS,
    PLANS,
    clip_image_flops,
    core_cost,
    gpu_hours,
    memory_bytes,
    step_flops,
)
from .timed_step import measure_step

_IMAGES = (1, 2, 3, 4)
_CLIP = "ViT-L-14-336"

Core = Literal["vit_b", "vit_l", "vit_h"]


@dataclass(frozen=True, kw_only=True)
class CostOptions(Options):
    """FLOPs, memory, GPU-hours and dollars of the paper's runs.

    From FLOPs counted on the networks and the paper's numbers of steps.
    """

    minimum: ClassVar[Mapping[str, int]] = {"masks": 1, "rounds": 1}

    utilisation: float = 0.3  # Share of the GPU's bf16 peak that a run reaches
    a100_price: float = 2.0  # Dollars per hour
    h100_price: float = 3.0  # Dollars per hour
    measure: bool = False  # Also time one real training step on this machine
    core: Core = "vit_b"  # What --measure trains; vit_b takes some 8 GB
    device: str = "cpu"  # Where --measure runs
    masks: int = 2  # Masks of the step that is measured
    rounds: int = 2  # Rounds of the step that is measured

    def check(self) -> None:
        """Also refuse a utilisation that is no share."""
        super().check()
        if not 0 < self.utilisation <= 1:
            raise BadInputError(
                f"--utilisation {self.utilisation}: wanted a share, above 0 and at most 1"
            )


def _show_networks() -> None:
    columns = [
        Column("core", "name"),
        Column("encoder, M", "cost/encoder_parameters", 1, 1e6),
        Column("decoder, M", "cost/decoder_parameters", 2, 1e6),
        Column("encoder, TFLOPs", "cost/encoder_flops", 3, 1e12),
        Column("prompt, GFLOPs", "cost/decoder_flops", 2, 1e9),
        Column("encoder keeps, GiB", "cost/encoder_bytes", 2, 2**30),
        Column("prompt keeps, MiB", "cost/decoder_bytes", 1, 2**20),
    ]
    rows = [{"name": name, "cost": core_cost(SAM_CONFIGS[name])} for name in get_args(Core)]
    notes = [
        "forward pass of one 1024 px image, of one prompt of one round; a multiply-add is 2 FLOPs;",
        "keeps: activations for the backward pass in bf16, a prompt's losses in fp32; CLIP's "
        f"{_CLIP} takes {clip_image_flops(_CLIP) / 1e9:.0f} GFLOPs a crop",
    ]
    show_figures("Networks", columns, rows, notes=notes)


def _show_runs(options: CostOptions) -> None:
    prices = {"A100": options.a100_price, "H100": options.h100_price}
    paper = _paper_utilisation()
    columns = ["run", "steps", "images", "encoder", "decoder", "CLIP", "EFLOPs"]
    columns += [f"{name}-{what}" for name in GPUS for what in ("hours", "$")]
    columns += ["A100-hours at the paper's pace"]
    rows = []
    for plan in PLANS:
        parts = step_flops(plan)
        total = plan.steps * sum(parts.values())
        money = []
        for name, peak in GPUS.items():
            hours = gpu_hours(total, peak, utilisation=options.utilisation)
            money += [f"{hours:,.0f}", f"{hours * prices[name]:,.0f}"]
        shares = [f"{part / sum(parts.values()):.0%}" for part in parts.values()]
        slow = gpu_hours(total, GPUS["A100"], utilisation=paper)
        cells = [plan.name, f"{plan.steps:,}", str(plan.images), *shares, f"{total / 1e18:,.0f}"]
        rows.append([*cells, *money, f"{slow:,.0f}"])
    notes = [
        f"64 masks an image, 11 rounds; {options.utilisation:.0%} of the peak of bf16 (312 and 989 "
        f"TFLOP/s); ${options.a100_price:g} and ${options.h100_price:g} an hour: assumptions, all "
        "of them arguments",
        f"the paper's pace: it took {PAPER_GPU_HOURS:,} A100-hours (256 GPUs, 68 hours) for "
        f"sam_vit_h, which is {paper:.1%} of the peak of bf16",
    ]
    show_table("Runs", columns, rows, notes=notes)


def _paper_utilisation() -> float:
    """Share of an A100's peak at which the paper's ViT-H run takes the hours that it took.

    Without recomputing rounds, of which the paper says nothing: model FLOPs.
    """
    plan = replace(PLANS[0], recompute=False)
    total = plan.steps * sum(step_flops(plan).values())
    return gpu_hours(total, GPUS["A100"], utilisation=1.0) / PAPER_GPU_HOURS


def _show_memory() -> None:
    columns = ["run", *(f"{n} image{'s' if n > 1 else ''}" for n in _IMAGES), "1, rounds kept"]
    rows = []
    for plan in PLANS:
        sizes = [memory_bytes(plan, images=n) for n in _IMAGES]
        sizes.append(memory_bytes(replace(plan, recompute=False), images=1))
        rows.append([plan.name, *(f"{size / 1e9:.1f}" for size in sizes)])
    notes = [
        "GB on each GPU (DDP), 64 masks an image, each round computed again in the backward pass; "
        "last: all 11 rounds kept. A lower bound:",
        "workspace, gradients of activations and fragmentation come on top",
    ]
    show_table("Memory", columns, rows, notes=notes)


def _show_measured(options: CostOptions) -> None:
    on_cpu = options.device == "cpu"
    dtype = torch.float32 if on_cpu else torch.bfloat16
    measured = measure_step(
        SAM_CONFIGS[options.core],
        masks=options.masks,
        rounds=options.rounds,
        device=options.device,
        dtype=dtype,
        warm_up=0 if on_cpu else 2,
    )
    where = "cpu" if on_cpu else torch.cuda.get_device_name(options.device)
    clock = "CPU seconds" if on_cpu else "seconds"
    model, expected = measured.model_flops, measured.model_flops / measured.matmul_rate
    rows = {
        "where": f"{where}, {torch.get_num_threads()} threads, {str(dtype).removeprefix('torch.')}",
        "model, TFLOPs": f"{model / 1e12:.3f}",
        "counted while it ran, TFLOPs": f"{measured.counted_flops / 1e12:.3f}",
        "counted / model": f"{measured.counted_flops / model:.3f}",
        f"{clock}: encoder forward": f"{measured.encoder_seconds:.2f}",
        f"{clock}: decoder forward": f"{measured.decoder_seconds:.2f}",
        f"{clock}: step": f"{measured.seconds:.2f}",
        "reached, GFLOP/s of the model": f"{model / measured.seconds / 1e9:.1f}",
        "a large product here, GFLOP/s": f"{measured.matmul_rate / 1e9:.1f}",
        f"{clock}, if all were such products": f"{expected:.2f}",
        "measured / modelled": f"{measured.seconds / expected:.2f}",
        "utilisation": f"{measured.utilisation:.1%}",
    }
    title = (
        f"One training step of {options.core} at 1024 px: 1 image, {options.masks} masks, "
        f"{options.rounds} rounds"
    )
    show_table(title, ["", "measured"], list(rows.items()))


def _run(options: CostOptions) -> None:
    _show_networks()
    _show_runs(options)
    _show_memory()
    if options.measure:
        _show_measured(options)


main = partial(run_command, CostOptions, _run)

if __name__ == "__main__":
    sys.exit(main())
