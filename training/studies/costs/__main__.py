"""Print what the paper's runs cost.

python -m training.studies.costs --utilisation 0.3 --a100-price 2 --h100-price 3
python -m training.studies.costs --measure        # and one real step of ViT-B at 1024 px, here
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

import torch

from textsam.modeling.config import SAM_CONFIGS

from ...evaluation.table import at_least, show_table
from .flops import clip_image_flops, core_cost
from .measure import measure_step
from .plans import GPUS, PAPER_GPU_HOURS, PLANS, gpu_hours, memory_bytes, step_flops

__all__ = ["main"]

_IMAGES = (1, 2, 3, 4)


def _show_networks() -> None:
    columns = ["core", "encoder, M", "decoder, M", "encoder, TFLOPs", "prompt, GFLOPs"]
    columns += ["encoder keeps, GiB", "prompt keeps, MiB"]
    rows = []
    for name in ("vit_b", "vit_l", "vit_h"):
        cost = core_cost(SAM_CONFIGS[name])
        rows.append(
            [
                name,
                f"{cost.encoder_parameters / 1e6:.1f}",
                f"{cost.decoder_parameters / 1e6:.2f}",
                f"{cost.encoder_flops / 1e12:.3f}",
                f"{cost.decoder_flops / 1e9:.2f}",
                f"{cost.encoder_bytes / 2**30:.2f}",
                f"{cost.decoder_bytes / 2**20:.1f}",
            ]
        )
    notes = [
        "forward pass of one 1024 px image, of one prompt of one round; a multiply-add is 2 FLOPs;",
        "keeps: activations for the backward pass in bf16, a prompt's losses in fp32; CLIP's "
        f"ViT-L-14-336 takes {clip_image_flops('ViT-L-14-336') / 1e9:.0f} GFLOPs a crop",
    ]
    show_table("Networks", columns, rows, notes=notes)


def _show_runs(options: argparse.Namespace) -> None:
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
        for name, gpu in GPUS.items():
            hours = gpu_hours(total, gpu, utilisation=options.utilisation)
            money += [f"{hours:,.0f}", f"{hours * prices[name]:,.0f}"]
        shares = [f"{part / sum(parts.values()):.0%}" for part in parts.values()]
        slow = gpu_hours(total, GPUS["A100"], utilisation=paper)
        rows.append(
            [
                plan.name,
                f"{plan.steps:,}",
                str(plan.images),
                *shares,
                f"{total / 1e18:,.0f}",
                *money,
                f"{slow:,.0f}",
            ]
        )
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


def _show_measured(options: argparse.Namespace) -> None:
    dtype = torch.float32 if options.device == "cpu" else torch.bfloat16
    measured = measure_step(
        SAM_CONFIGS[options.core],
        masks=options.masks,
        rounds=options.rounds,
        device=options.device,
        dtype=dtype,
        warm_up=0 if options.device == "cpu" else 2,
    )
    clock = "CPU seconds" if options.device == "cpu" else "seconds"
    expected = measured.model_flops / measured.matmul_rate
    rows = [
        ["where", f"{measured.device}, {measured.threads} threads, {measured.dtype}"],
        ["model, TFLOPs", f"{measured.model_flops / 1e12:.3f}"],
        ["counted while it ran, TFLOPs", f"{measured.counted_flops / 1e12:.3f}"],
        ["counted / model", f"{measured.counted_flops / measured.model_flops:.3f}"],
        [f"{clock}: encoder forward", f"{measured.encoder_seconds:.2f}"],
        [f"{clock}: decoder forward", f"{measured.decoder_seconds:.2f}"],
        [f"{clock}: step", f"{measured.seconds:.2f}"],
        ["reached, GFLOP/s of the model", f"{measured.rate / 1e9:.1f}"],
        ["a large product here, GFLOP/s", f"{measured.matmul_rate / 1e9:.1f}"],
        [f"{clock}, if all were such products", f"{expected:.2f}"],
        ["measured / modelled", f"{measured.seconds / expected:.2f}"],
        ["utilisation", f"{measured.utilisation:.1%}"],
    ]
    title = (
        f"One training step of {options.core} at 1024 px: 1 image, {options.masks} masks, "
        f"{options.rounds} rounds"
    )
    show_table(title, ["", "measured"], rows)


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"got {text}; wanted a share, above 0 and at most 1")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}",
        description="FLOPs, memory, GPU-hours and dollars of the paper's runs, from FLOPs counted "
        "on the networks and the recipe's steps.",
    )
    parser.add_argument(
        "--utilisation",
        type=_share,
        default=0.3,
        metavar="U",
        help="share of the GPU's bf16 peak that a run reaches (default: 0.3)",
    )
    parser.add_argument("--a100-price", type=float, default=2.0, metavar="$", help="an hour: 2")
    parser.add_argument("--h100-price", type=float, default=3.0, metavar="$", help="an hour: 3")
    parser.add_argument(
        "--measure", action="store_true", help="time one real training step on this machine, too"
    )
    parser.add_argument(
        "--core",
        choices=("vit_b", "vit_l", "vit_h"),
        default="vit_b",
        help="what --measure trains (default: vit_b, some 8 GB)",
    )
    parser.add_argument("--device", default="cpu", help="where --measure runs (default: cpu)")
    parser.add_argument("--masks", type=at_least(1), default=2, metavar="N", help="default: 2")
    parser.add_argument("--rounds", type=at_least(1), default=2, metavar="N", help="default: 2")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    _show_networks()
    _show_runs(options)
    _show_memory()
    if options.measure:
        _show_measured(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
