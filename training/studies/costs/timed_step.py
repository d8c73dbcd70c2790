"""One real training step, timed, so that the FLOP model is held against a clock.

On a CPU the clock is the processor time of all threads, which other programs on the machine do not
lengthen; the rate of large products is taken by the same clock, so their ratio means something on a
busy machine, too. On a GPU it is the time that passes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from textsam.modeling.config import SamConfig
from textsam.modeling.image_encoder import ImageFeatures
from textsam.modeling.sam import Sam

from .flops import core_cost, prompts_of


@dataclass(frozen=True, kw_only=True)
class StepMeasurement:
    """One training step on this machine."""

    seconds: float  # forward, backward and AdamW, by `_now`'s clock
    encoder_seconds: float  # the encoder's forward pass alone
    decoder_seconds: float  # all rounds' forward passes
    model_flops: int  # what `core_cost` says: three forward passes
    counted_flops: int  # what was counted while the step ran
    matmul_rate: float  # FLOP/s of a large product on this machine, as many threads

    @property
    def utilisation(self) -> float:
        """Share of the rate of large products that the model's FLOPs reach."""
        return self.model_flops / self.seconds / self.matmul_rate


def matmul_rate(
    *, side: int = 2048, repeats: int = 3, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> float:
    """FLOP/s of the fastest of some (side x side) products."""
    a = torch.randn(side, side, device=device, dtype=dtype)
    seconds = []
    for _ in range(repeats + 1):  # the first warms up and may be the slowest
        started = _now(device)
        a @ a
        seconds.append(_now(device) - started)
    return 2 * side**3 / min(seconds)


def measure_step(
    config: SamConfig,
    *,
    images: int = 1,
    masks: int = 2,
    rounds: int = 2,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    warm_up: int = 0,
) -> StepMeasurement:
    """Time one step on random numbers: the same work as on photos, but for prompts and loading.

    The loss is the plain cross entropy with random masks: losses hold no product, so they are not
    what is modelled, and take little time.
    """
    torch.manual_seed(0)
    sam = Sam(config).to(device).train()
    optimizer = torch.optim.AdamW(sam.parameters(), lr=1e-4)
    pixels = torch.randn(images, 3, config.image_size, config.image_size, device=device)

    def step() -> tuple[float, float, float]:
        """Seconds of the encoder, of all rounds, and of the whole step."""
        started = _now(device)
        with torch.autocast(pixels.device.type, dtype=dtype, enabled=dtype != torch.float32):
            features = sam.encode_image(pixels)
            encoded = _now(device)
            loss = _rounds(sam, features, masks=masks, rounds=rounds)
            decoded = _now(device)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return encoded - started, decoded - encoded, _now(device) - started

    for _ in range(warm_up):
        step()
    # The step that is timed is the one whose FLOPs are counted.
    with FlopCounterMode(display=False) as counter:
        encoder, decoder, whole = step()
    cost = core_cost(config)
    return StepMeasurement(
        seconds=whole,
        encoder_seconds=encoder,
        decoder_seconds=decoder,
        model_flops=images * (cost.encoder_flops + masks * rounds * cost.decoder_flops) * 3,
        counted_flops=int(counter.get_total_flops()),
        matmul_rate=matmul_rate(device=device, dtype=dtype),
    )


def _rounds(sam: Sam, features: ImageFeatures, *, masks: int, rounds: int) -> Tensor:
    device = features.embedding.device
    count = masks * len(features)
    prompts = prompts_of(sam.config, count)
    assert prompts.masks is not None
    prompts = replace(
        prompts,
        points=torch.rand(prompts.points.shape, device=device) * sam.config.image_size,
        labels=prompts.labels.to(device),
        image_index=torch.arange(len(features), device=device).repeat_interleave(masks),
        masks=prompts.masks.to(device),
    )
    side = sam.config.mask_size
    target = (torch.rand(count, 4, side, side, device=device) > 0.5).float()
    total = torch.zeros((), device=device)
    for _ in range(rounds):
        prediction = sam.decode(features, prompts)
        logits = prediction.logits.float()
        loss = F.binary_cross_entropy_with_logits(logits, target)
        total = total + loss + prediction.iou.float().square().mean()
        prompts = replace(prompts, masks=logits[:, :1].detach())
    return total / rounds


def _now(device: str) -> float:
    """Seconds of the clock, after everything asked of a GPU is done."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()
