"""What a network and the paper's runs cost, from FLOPs and activations counted on the network.

Convention: one multiplication and one addition are TWO FLOPs, and matrix products, convolutions and
attention count, nothing else (`torch.utils.flop_counter`). Papers that say "2973 G" for SAM's ViT-H
mean multiply-adds: the released encoder has 5.96 TFLOPs here. Ours has 5.41 for the same result,
because it does not project the padding of windows (`textsam.modeling.vit_attention`).

Encoders are counted on the meta device, which holds no numbers. Activations are what autograd keeps
for the backward pass, each storage once, weights left out. They are counted on the path that runs
on a CPU: a window's attention matrix is among them, which a GPU's fused kernel never writes, and
what checkpointed global attention keeps (queries and position terms) is not.

From FLOPs to GPU-hours, memory and dollars: steps, batches, masks and rounds are the paper's (arXiv
2304.02643, Appendix A for the core, D.5 for the text pathway); rates of GPUs are their makers'
peaks for dense bf16. What share of the peak a run reaches, and what an hour costs, are assumptions
that the command takes as arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from textsam.modeling.config import SAM_CONFIGS, SamConfig, ViTConfig
from textsam.modeling.mask_decoder import BOX_END, BOX_START, FOREGROUND, PromptBatch
from textsam.modeling.sam import Sam

from ...losses import LossConfig, mask_losses

# A box and the eight corrective points of Appendix A: the longest prompt of the recipe.
_POINTS = 8


class CoreCost:
    """What one SAM core costs; each figure is counted when it is first used, which takes seconds.

    The weights lie on the meta device, so that a ViT-H needs no memory for them.
    """

    def __init__(self, config: SamConfig) -> None:
        self.config = config
        with torch.device("meta"):
            self._sam = Sam(config)
            self._pixels = torch.empty(1, 3, config.image_size, config.image_size)
        decoder = (self._sam.prompt_encoder, self._sam.mask_decoder)
        self.encoder_parameters = _size(self._sam.image_encoder)
        self.decoder_parameters = sum(_size(part) for part in decoder)

    @cached_property
    def encoder_flops(self) -> int:
        """Forward pass of one image."""
        with torch.no_grad():
            return count_flops(lambda: self._sam.encode_image(self._pixels))

    @cached_property
    def encoder_bytes(self) -> int:
        """Kept for the backward pass of one image, bf16."""
        # A copy: the FLOPs are counted on the encoder as it is.
        half = deepcopy(self._sam.image_encoder).to(torch.bfloat16).train()
        weights = [*half.parameters(), *half.buffers()]
        return kept_bytes(lambda: half(self._pixels.to(torch.bfloat16)), weights=weights)

    @cached_property
    def decoder_flops(self) -> int:
        """Forward pass of one prompt of one round, prompt encoder included."""
        sam = _bare_core(self.config).eval()
        with torch.no_grad():
            return count_flops(lambda: _decode(sam, self.config, 1, torch.float32))

    @cached_property
    def decoder_bytes(self) -> int:
        """Kept for the backward pass of one prompt of one round, bf16, and its losses, fp32."""
        # What is kept for the image is in both, so the difference is that of one prompt.
        return _decoder_bytes(self.config, 2) - _decoder_bytes(self.config, 1)


def count_flops(run: Callable[[], Any]) -> int:
    """FLOPs of whatever `run` does, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def kept_bytes(run: Callable[[], Any], *, weights: Iterable[Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass of `run`, each storage once."""
    known = {weight.untyped_storage()._cdata for weight in weights}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        # The tensor itself is held, or its storage's address could be used again.
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    total = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in known)
    del result
    return int(total)


@cache
def core_cost(config: SamConfig) -> CoreCost:
    """The cost of a core; the same object for the same config, so that nothing is counted twice."""
    return CoreCost(config)


@cache
def clip_image_flops(name: str) -> int:
    """FLOPs of open_clip's image tower `name` for one crop, forward."""
    import open_clip

    settings = open_clip.get_model_config(name)
    if settings is None:
        known = ", ".join(open_clip.list_models()[:5])
        raise ValueError(f"open_clip knows no model {name!r}; it knows {known}, ...")
    with torch.device("meta"):
        model = open_clip.CLIP(**settings)
        side = settings["vision_cfg"]["image_size"]
        crop = torch.empty(1, 3, side, side)
    # In training mode, since the fused attention of evaluation is an operator nobody counts.
    model.train()
    with torch.no_grad():
        return count_flops(lambda: model.encode_image(crop))


def prompts_of(config: SamConfig, count: int, *, dtype: torch.dtype = torch.float32) -> PromptBatch:
    """`count` prompts of one image: a box, eight points and a mask prompt each."""
    labels = torch.tensor([BOX_START, BOX_END, *[FOREGROUND] * _POINTS])
    side = config.mask_size
    return PromptBatch(
        points=torch.full((count, len(labels), 2), config.image_size / 2),
        labels=labels.expand(count, -1),
        image_index=torch.zeros(count, dtype=torch.int64),
        masks=torch.zeros(count, 1, side, side, dtype=dtype),
    )


def _bare_core(config: SamConfig) -> Sam:
    """The core with an encoder of next to nothing: prompts are never counted on the meta device.

    Which prompts are padding is looked up in their numbers, and the meta device has none.
    """
    encoder = ViTConfig(width=16, depth=1, heads=1, global_attention_indexes=())
    return Sam(replace(config, encoder=encoder))


def _decode(sam: Sam, config: SamConfig, count: int, dtype: torch.dtype) -> Any:
    prompts = prompts_of(config, count, dtype=dtype)
    dim, side = config.embed_dim, config.embedding_size
    shapes = [(1, dim, side, side)]
    if getattr(config.encoder, "skips", False):
        shapes += [(1, dim // 4, 2 * side, 2 * side), (1, dim // 8, 4 * side, 4 * side)]
    maps = [torch.zeros(shape, dtype=dtype, requires_grad=True) for shape in shapes]
    embedding, *skips = (part[prompts.image_index] for part in maps)
    positions = sam.prompt_encoder.dense_positions()
    return sam.mask_decoder(embedding, sam.prompt_encoder(prompts), positions, tuple(skips))


def _decoder_bytes(config: SamConfig, count: int) -> int:
    sam = _bare_core(config).to(torch.bfloat16).train()
    side = config.mask_size
    target = torch.zeros(count, 1, side, side)
    everything = torch.ones(count, dtype=torch.bool)

    def run() -> Any:
        prediction = _decode(sam, config, count, torch.bfloat16)
        return mask_losses(
            prediction.logits.float(),
            prediction.iou.float(),
            target,
            torch.ones_like(target),
            config=LossConfig(),
            single=everything,
            multiple=everything,
        )

    return kept_bytes(run, weights=[*sam.parameters(), *sam.buffers(), target])


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


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
    name="text_pathway, all trained", core="vit_h", steps=120_000, images=128, clip="ViT-L-14-336"
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
