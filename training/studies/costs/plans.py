"""From FLOPs to GPU-hours, memory and dollars for the paper's runs.

Steps, batches, masks and rounds are the paper's (arXiv 2304.02643, Appendix A for the core, D.5 for
the text pathway). Rates of GPUs are their makers' peaks for dense bf16. What share of the peak a
run reaches, and what an hour costs, are assumptions that the command takes as arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from textsam.modeling.config import SAM_CONFIGS

from .flops import CoreCost, clip_image_flops, core_cost

# "SAM was trained on 256 A100 GPUs for 68 hours" (the model card in the paper's appendix).
PAPER_GPU_HOURS = 256 * 68


# Peak of dense bf16 products, FLOP/s, by NVIDIA's data sheets (SXM).
GPUS = {"A100": 312e12, "H100": 989e12}


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """One run."""

    name: str  # the recipe
    core: str  # A key of `SAM_CONFIGS`
    steps: int  # optimisation steps
    images: int  # in the global batch
    masks: int = 64  # of each image; the paper takes up to 64 on a GPU that has one image
    rounds: int = 11  # decoder calls per mask (Appendix A: 1 + 8 + 2)
    # "trained"; "frozen" runs forward only; "cached" is read from disk.
    encoder: Literal["trained", "frozen", "cached"] = "trained"
    # The image tower of open_clip that embeds a crop of every mask; None without text, or when its
    # embeddings are read from disk.
    clip: str | None = None
    # Whether each round runs forward a second time instead of being kept
    # (`training.objectives.rounds`).
    recompute: bool = True

    @property
    def cost(self) -> CoreCost:
        """What the core costs."""
        return core_cost(SAM_CONFIGS[self.core])


_TEXT = RunPlan(
    name="text_pathway, all trained",
    core="vit_h",
    steps=120_000,
    images=128,
    clip="ViT-L-14-336",
)
PLANS: tuple[RunPlan, ...] = (
    RunPlan(name="sam_vit_h", core="vit_h", steps=90_000, images=256),
    RunPlan(name="sam_vit_l", core="vit_l", steps=180_000, images=128),
    RunPlan(name="sam_vit_b", core="vit_b", steps=180_000, images=128),
    _TEXT,
    replace(_TEXT, name="text_pathway, frozen encoder", encoder="frozen"),
    replace(_TEXT, name="text_pathway, embeddings on disk", encoder="cached", clip=None),
)


def step_flops(plan: RunPlan) -> dict[str, float]:
    """FLOPs of one step of the global batch, by part.

    A backward pass costs two forward passes, one product for the gradient of each factor.

    Returns:
        `encoder`, `decoder` and `clip`.
    """
    encoder_passes = {"trained": 3, "frozen": 1, "cached": 0}[plan.encoder]
    prompts = plan.images * plan.masks
    clip = 0.0 if plan.clip is None else float(prompts * clip_image_flops(plan.clip))
    return {
        "encoder": float(plan.images * encoder_passes * plan.cost.encoder_flops),
        "decoder": float(prompts * plan.rounds * (3 + plan.recompute) * plan.cost.decoder_flops),
        "clip": clip,
    }


def gpu_hours(flops: float, peak: float, *, utilisation: float) -> float:
    """Hours of one GPU for a number of FLOPs."""
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation is {utilisation}; wanted a share, above 0 and at most 1")
    return flops / (peak * utilisation) / 3600


def memory_bytes(plan: RunPlan, *, images: int) -> float:
    """Memory of one GPU that holds the whole model (DDP) and some images of a step.

    Counted: what is trained at 16 bytes a parameter (fp32 weight, gradient and AdamW's two means)
    and 2 more for autocast's bf16 copy; what is frozen at 2; what the encoder keeps; what the
    decoder and the losses keep of one round, or of all without `recompute`; and for each mask its
    truth, twice a byte a pixel, and the logits that every round feeds back, fp32. Not counted:
    workspace of kernels, gradients of activations, fragmentation.
    """
    cost, config = plan.cost, SAM_CONFIGS[plan.core]
    trained, frozen = cost.decoder_parameters, 0
    if plan.encoder == "trained":
        trained += cost.encoder_parameters
    elif plan.encoder == "frozen":
        frozen += cost.encoder_parameters
    kept_rounds = 1 if plan.recompute else plan.rounds
    per_mask = (
        cost.decoder_bytes * kept_rounds
        + 2 * config.image_size**2
        + 4 * config.mask_size**2 * plan.rounds
    )
    encoder = cost.encoder_bytes if plan.encoder == "trained" else 0
    return float(18 * trained + 2 * frozen + images * (encoder + plan.masks * per_mask))
