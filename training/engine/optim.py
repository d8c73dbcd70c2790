"""AdamW: learning rate and weight decay of every parameter, layer by layer and step by step.

Blocks of an encoder are found by structure (composite members of a Sequential or ModuleList), which
works for `ImageEncoderViT`, `TinyViT` and timm backbones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .engine_config import EngineConfig

# Sequences of layers that come before or after the blocks, or between two stages of them.
_NO_BLOCKS = ("stem", "patch_embed", "conv_stem", "downsample", "neck", "head", "laterals", "skips")
# A member of a sequence that has one of these is a stage, which holds blocks, and none itself.
_INNER = ("blocks", "layers", "stages")


@dataclass(frozen=True, kw_only=True)
class RatedPart:
    """A part of an objective and its share of the peak rate."""

    module: nn.Module  # its parameters that require a gradient are trained
    share: float = 1.0  # of `EngineConfig.peak_rate`
    # For an image encoder: every layer further from the output has the rate of the next one times
    # this. The paper has 0.8 for ViT-H and ViT-L, 0.6 for ViT-B (Appendix A).
    layer_decay: float | None = None


def rated_parts(objective: nn.Module) -> Sequence[RatedPart]:
    """Its `rates()`, or all of it at the peak rate if it has none."""
    rates = getattr(objective, "rates", None)
    return [RatedPart(module=objective)] if rates is None else list(rates())


def build_optimizer(objective: nn.Module, *, config: EngineConfig) -> torch.optim.AdamW:
    """AdamW over the rated parts of an objective (arXiv 2304.02643, Appendix A)."""
    groups = optimizer_groups(
        rated_parts(objective), peak_rate=config.peak_rate, weight_decay=config.weight_decay
    )
    seen = {id(p) for group in groups for p in group["params"]}
    trained = {n: p for n, p in objective.named_parameters() if p.requires_grad}
    forgotten = [name for name, parameter in trained.items() if id(parameter) not in seen]
    if forgotten:
        raise ValueError(
            f"{type(objective).__name__}.rates() leaves out {len(forgotten)} parameters that "
            f"require a gradient, {forgotten[:3]}; add a part, or requires_grad_(False)"
        )
    if not groups:
        raise ValueError(f"{type(objective).__name__} has no parameter that requires a gradient")
    return torch.optim.AdamW(groups, lr=config.peak_rate, betas=config.betas)


def optimizer_groups(
    parts: Iterable[RatedPart], *, peak_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """One group for each rate and weight decay, in the order of the parts.

    Returns:
        Groups with `base_lr`, the rate that `set_rates` scales. No decay on vectors, nor on the
        grid of absolute positions (ViTDet's configuration, arXiv 2203.16527).
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    seen: dict[int, str] = {}
    for part in parts:
        decay = part.layer_decay
        depths, top = ({}, 0) if decay is None else layer_depths(part.module)
        for name, parameter in part.module.named_parameters():
            if not parameter.requires_grad:
                continue
            if id(parameter) in seen:
                raise ValueError(
                    f"{name} of {type(part.module).__name__} is in two rated parts, also as "
                    f"{seen[id(parameter)]}; wanted one rate for each parameter"
                )
            seen[id(parameter)] = name
            rate = peak_rate * part.share
            if decay is not None:
                rate *= decay ** (top - depths[name])
            decayed = weight_decay if _is_decayed(name, parameter) else 0.0
            group = {"params": [], "lr": rate, "base_lr": rate, "weight_decay": decayed}
            # One group for each (rate, decay): thousands of small groups would slow AdamW down.
            groups.setdefault((rate, decayed), group)["params"].append(parameter)
    return list(groups.values())


def rate_factor(step: int, *, config: EngineConfig) -> float:
    """Share of the full rate at a step, counted from 0.

    The paper (arXiv 2304.02643, Appendix A): linear warm-up over 250 steps, a tenth of the peak
    from step 60,000 of 90,000, a hundredth from 86,666.
    """
    rise = min(1.0, (step + 1) / max(1, config.warmup))
    if config.schedule == "steps":
        return rise * 0.1 ** sum(step >= start for start in milestone_steps(config))
    left = min(1.0, max(0.0, (config.steps - step) / (config.tail * config.steps)))
    if config.schedule == "linear":
        return min(rise, left)
    return min(rise, 0.5 - 0.5 * math.cos(math.pi * left))


def milestone_steps(config: EngineConfig) -> tuple[int, ...]:
    """First step at each of the lower rates."""
    return tuple(round(share * config.steps) for share in config.milestones)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give every group its `base_lr` times the schedule's factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def _is_decayed(name: str, parameter: Tensor) -> bool:
    # The (1, C) weight of a single embedding counts as a vector.
    is_vector = parameter.numel() == max(parameter.shape, default=1)
    return not is_vector and not name.endswith(("position_embedding", "pos_embed"))


def encoder_blocks(module: nn.Module) -> list[nn.Module]:
    """Blocks of a network in the order of its layers."""
    return list(_walk(module, in_sequence=isinstance(module, nn.Sequential | nn.ModuleList)))


def _walk(module: nn.Module, *, in_sequence: bool) -> Iterator[nn.Module]:
    for name, child in module.named_children():
        if name.startswith(_NO_BLOCKS):
            continue
        inner = [inner_name for inner_name, _ in child.named_children()]
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from _walk(child, in_sequence=True)
        elif in_sequence and inner and not set(inner) & set(_INNER):
            yield child
        else:
            yield from _walk(child, in_sequence=False)


def layer_depths(encoder: nn.Module) -> tuple[dict[str, int], int]:
    """Depth of each parameter of an image encoder.

    As ViTDet counts (arXiv 2203.16527, `get_vit_lr_decay_rate`): 0 for what comes before the first
    block, i + 1 for block i and for what follows it up to the next one (a CNN's downsampling), and
    the number of blocks + 1 for what comes after the last one, e.g. the neck.

    Returns:
        Parameter name -> depth, and the greatest depth.
    """
    blocks = encoder_blocks(encoder)
    if not blocks:
        raise ValueError(
            f"layer-wise rates need blocks, and {type(encoder).__name__} has none in a Sequential "
            "or ModuleList; wanted an image encoder, or type layer_decay=None"
        )
    index = {id(p): i for i, block in enumerate(blocks) for p in block.parameters()}
    depths: dict[str, int] = {}
    depth = 0
    for name, parameter in encoder.named_parameters():
        depth = max(depth, index.get(id(parameter), -1) + 1)
        depths[name] = depth
    inside = {n for n, p in encoder.named_parameters() if id(p) in index}
    last = max(place for place, name in enumerate(depths) if name in inside)
    for name in list(depths)[last + 1 :]:
        depths[name] = len(blocks) + 1
    return depths, len(blocks) + 1
