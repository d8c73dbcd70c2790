"""Equal random weights and equal prompts for two implementations of Segment Anything."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from textsam.modeling.mask_decoder import (
    BOX_END,
    BOX_START,
    NOT_A_POINT,
    MaskPrediction,
    PromptBatch,
)

TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Two prompts in model pixels: points (2, N, 2), labels (2, N), boxes (2, 4), masks."""

    points: Tensor | None = None
    labels: Tensor | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None

    def batch(self, *, images: tuple[int, int]) -> PromptBatch:
        """Ours, as the released code orders the tokens: points, then corners or one padding."""
        points, labels = torch.zeros(2, 0, 2), torch.zeros(2, 0, dtype=torch.int64)
        if self.points is not None and self.labels is not None:
            points, labels = self.points, self.labels
        if self.boxes is not None:
            points = torch.cat([points, self.boxes.view(2, 2, 2)], dim=1)
            corners = torch.tensor([[BOX_START, BOX_END]]).expand(2, -1)
            labels = torch.cat([labels, corners], dim=1)
        elif self.points is not None:
            points = torch.cat([points, torch.zeros(2, 1, 2)], dim=1)
            labels = torch.cat([labels, torch.full((2, 1), NOT_A_POINT)], dim=1)
        index = torch.tensor(images)
        return PromptBatch(points=points, labels=labels, masks=self.masks, image_index=index)


@pytest.fixture(scope="session")
def make_prompts() -> Callable[[str, int], Prompts]:
    """Build prompts from what they consist of, e.g. `"points+box"`, for an image size."""

    def build(kinds: str, side: int) -> Prompts:
        torch.manual_seed(7)
        values: dict[str, Tensor] = {}
        if "point" in kinds:
            count = 3 if "points" in kinds else 1
            values["points"] = torch.rand(2, count, 2) * side
            values["labels"] = torch.tensor([[1, 0, 1], [0, 1, 1]])[:, :count]
        if "box" in kinds:
            start = torch.rand(2, 2) * side / 2
            values["boxes"] = torch.cat([start, start + side / 3], dim=1)
        if "mask" in kinds:
            values["masks"] = torch.randn(2, 1, side // 4, side // 4) * 4
        return Prompts(**values)

    return build


@pytest.fixture(scope="session")
def randomize() -> Callable[[nn.Module], None]:
    """Give every weight a value that matters, also those that start as zeros or ones."""

    def fill(network: nn.Module) -> None:
        torch.manual_seed(3)
        for name, tensor in itertools.chain(network.named_parameters(), network.named_buffers()):
            leaf = name.rpartition(".")[2]
            if not tensor.is_floating_point() or leaf in ("pixel_mean", "pixel_std"):
                continue
            with torch.no_grad():
                if leaf == "running_var":
                    tensor.uniform_(0.5, 1.5)
                elif tensor.ndim <= 1:
                    tensor.normal_(1.0 if leaf == "weight" else 0.0, 0.2)
                elif leaf in ("rel_pos_h", "rel_pos_w", "attention_biases"):
                    tensor.normal_(0.0, 0.3)
                elif "embed" in name.replace("patch_embed", "") or "token" in name.split(".")[1]:
                    tensor.normal_(0.0, 0.7)
                else:
                    tensor.normal_(0.0, tensor[0].numel() ** -0.5)

    return fill


@pytest.fixture(scope="session")
def assert_equal_masks() -> Callable[[MaskPrediction, Tensor, Tensor], None]:
    """Compare a prediction of ours with logits (P, K, m, m) and IoU (P, K) of an oracle."""

    def check(ours: MaskPrediction, logits: Tensor, iou: Tensor) -> None:
        assert ours.logits.shape == logits.shape
        assert logits.std() > 0.1, "the comparison would say nothing"
        assert (ours.logits - logits).abs().max() <= TOLERANCE
        assert (ours.iou - iou).abs().max() <= TOLERANCE

    return check
