"""Parameter groups of AdamW: learning rate and weight decay of every parameter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .engine_config import EngineConfig
from .layer_depths import layer_depths


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


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give every group its `base_lr` times the schedule's factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def _is_decayed(name: str, parameter: Tensor) -> bool:
    # The (1, C) weight of a single embedding counts as a vector.
    is_vector = parameter.numel() == max(parameter.shape, default=1)
    return not is_vector and not name.endswith(("position_embedding", "pos_embed"))
