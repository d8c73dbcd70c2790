"""Masks and names together: what learns, what is asked, and that parts of a batch add up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from textsam.clip.encoder import ClipEncoder
from textsam.clip.pathway import PathwayConfig, TextPathway
from textsam.modeling.mask_decoder import ABSENT, FOREGROUND, NOT_A_POINT
from textsam.modeling.sam import Sam
from training.data import LoaderConfig, Sample, ViewConfig, ViewLoader
from training.data.drawn_shapes import draw_samples
from training.data.phrases.concepts import ConceptBank
from training.data.phrases.names import NameConfig
from training.data.phrases.phrase_batch import PhraseBatch, PhraseConfig, PhraseDraw
from training.engine import EngineConfig, RatedPart, build_optimizer
from training.objectives import joint
from training.objectives.joint import JointObjective, JointObjectiveConfig
from training.objectives.name_maps import (
    NameLossConfig,
    NameMapObjective,
    NameMapObjectiveConfig,
    maps_by_photo,
)
from training.objectives.sam_objective import BackboneConfig, freeze_backbone, timm_encoder
from training.prompting import PromptConfig

SIDE = 64
CONFIG = JointObjectiveConfig(
    prompts=PromptConfig(max_new_points=(1, 2), central=0.5),
    backbone=BackboneConfig(rate=0.2, frozen_stages=0, train_depthwise=False),
    names=NameLossConfig(peak_cells=4),
    pathway_rate=2.0,
)


@pytest.fixture(scope="module")
def sources() -> dict[str, list[Sample]]:
    return {"voc": draw_samples(8, side=SIDE)}


@pytest.fixture(scope="module")
def bank(sources: dict[str, list[Sample]]) -> ConceptBank:
    objects = [(s, i) for s in sources["voc"] for i in range(len(s.objects))]
    generator = torch.Generator().manual_seed(0)
    labels = [sample.objects[i].label for sample, i in objects]
    text, image = (
        F.normalize(torch.randn(count, 24, generator=generator), dim=-1)
        for count in (len(set(labels)), len(labels))
    )
    keys = [("voc", sample.image_id, i) for sample, i in objects]
    return ConceptBank(text, image, labels=labels, keys=keys)


@pytest.fixture
def make_batches(
    sources: dict[str, list[Sample]], bank: ConceptBank
) -> Callable[..., Iterator[PhraseBatch]]:
    def make(*, rank: int = 0, world: int = 1, **changes: Any) -> Iterator[PhraseBatch]:
        view = ViewConfig(image_size=SIDE, max_masks=80, min_area=4, max_share=1.0)
        fields: dict[str, Any] = {
            "min_area": 8,
            "phrase_share": 0.6,
            "names": NameConfig(max_present=2, max_absent=3),
            **changes,
        }
        finish = PhraseDraw(bank, sources, config=PhraseConfig(**fields), image_size=SIDE)
        loader = LoaderConfig(photos_per_step=4, view=view)
        return ViewLoader(sources, config=loader, rank=rank, world=world, finish=finish).batches(0)

    return make


def _pathway(channels: tuple[int, ...], *, source: Any = "sam") -> TextPathway:
    torch.manual_seed(1)
    return TextPathway(
        PathwayConfig(
            clip_width=24,
            prompt_width=32,
            hidden=16,
            dense_channels=channels,
            dense_width=16,
            dense_image_size=SIDE,
            dense_source=source,
        )
    )


@pytest.fixture
def objective(make_sam: Callable[..., Sam]) -> JointObjective:
    return JointObjective(make_sam("timm"), _pathway((32, 48, 64)), config=CONFIG).train()


def _total(objective: JointObjective, batch: PhraseBatch) -> torch.Tensor:
    return torch.stack(list(objective(batch).loss.values())).sum()


def test_a_step_is_repeatable_and_reaches_every_part(
    objective: JointObjective, make_batches: Callable[..., Iterator[PhraseBatch]]
) -> None:
    batches = make_batches()
    first = next(batches)
    output = objective(first)
    assert output.loss.keys() == first.weight.keys() == {"masks", "names", "present"}
    assert {"map_iou", "iou_text", "iou_text_point", "iou_box", "iou_2", "iou_3"} <= set(
        output.figures
    )
    assert _total(objective, first).item() == _total(objective, first).item()
    total = torch.stack([_total(objective, batch) for batch in islice(batches, 4)]).sum()
    total.backward()
    for part in objective.rates():
        trained = [p for p in part.module.parameters() if p.requires_grad]
        reached = [p for p in trained if p.grad is not None and p.grad.abs().sum() > 0]
        assert trained and len(reached) > 0.8 * len(trained)


def test_losses_of_a_batch_are_the_means_of_its_parts(
    objective: JointObjective, make_batches: Callable[..., Iterator[PhraseBatch]]
) -> None:
    """What lets two processes train as one: each kind weighted by its own number of items."""
    whole = next(make_batches())
    parts = [next(make_batches(rank=rank, world=2)) for rank in range(2)]
    expected = objective(whole).loss
    for kind, loss in expected.items():
        mean = sum(objective(p).loss[kind] * p.weight[kind] for p in parts) / whole.weight[kind]
        torch.testing.assert_close(mean, loss, rtol=1e-4, atol=1e-5)


def test_photos_without_masks_train_names_and_the_other_way_round(
    objective: JointObjective, make_batches: Callable[..., Iterator[PhraseBatch]]
) -> None:
    none = next(make_batches(max_masks=0))
    assert none.weight["masks"] == 0
    output = objective(none)
    assert output.loss["masks"].item() == 0 and output.loss["names"].item() > 0
    torch.stack(list(output.loss.values())).sum().backward()
    # DDP waits for the gradient of every parameter, also of those that the batch does not need.
    assert all(p.grad is not None for p in objective.sam.mask_decoder.parameters())
    assert objective(next(make_batches(names=None))).loss.keys() == {"masks"}


def test_a_phrase_brings_its_token_and_its_map_and_perhaps_a_point(
    objective: JointObjective,
    make_batches: Callable[..., Iterator[PhraseBatch]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    original = joint.decode_rounds

    def recorded(*arguments: Any, **options: Any) -> Any:
        asked.append((arguments[2], options))
        return original(*arguments, **options)

    monkeypatch.setattr(joint, "decode_rounds", recorded)
    batch = next(b for b in make_batches() if 0 < b.clicked.sum() < b.spoken.sum() < len(b.spoken))
    objective(batch)
    [(prompts, options)] = asked
    assert torch.equal(prompts.has_tokens, batch.spoken)
    assert torch.equal(prompts.has_mask, batch.spoken)
    assert torch.equal(prompts.masks.flatten(1).abs().sum(1) > 0, batch.spoken)
    for row, (spoken, clicked) in enumerate(zip(batch.spoken, batch.clicked, strict=True)):
        if spoken:
            expected = [FOREGROUND, NOT_A_POINT] if clicked else [NOT_A_POINT, ABSENT]
            assert prompts.labels[row].tolist() == expected
        if clicked:
            x, y = prompts.points[row, 0].long().tolist()
            assert batch.views.masks[row, y, x]
    # A phrase with a point means one object: mask 0 learns it and answers it.
    assert options["single"][batch.clicked].all() and options["follow_single"][batch.clicked].all()
    assert options["multiple"].all()


def test_parts_have_their_rates_and_norms_stay(objective: JointObjective) -> None:
    optimizer = build_optimizer(objective, config=EngineConfig(steps=1, peak_rate=1e-3))
    rates = {id(p): g["base_lr"] for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            share = 0.2 if ".backbone." in name else 2.0 if name.startswith("pathway") else 1.0
            assert rates[id(parameter)] == pytest.approx(1e-3 * share), name
    norms = [m for m in objective.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert norms and not any(norm.training for norm in norms)


def test_depthwise_kernels_learn_only_if_told(make_sam: Callable[..., Sam]) -> None:
    def learning(**changes: Any) -> set[str]:
        sam = make_sam("timm")
        freeze_backbone(sam, config=BackboneConfig(frozen_stages=0, **changes))
        backbone = timm_encoder(sam).backbone
        return {name for name, p in backbone.named_parameters() if p.requires_grad}

    before, after = learning(train_depthwise=False), learning()
    assert before < after and all("conv_dw" in name for name in after - before)
    assert not any("bn" in name or name.startswith("conv_stem") for name in after)


def test_a_few_steps_lower_the_loss(
    objective: JointObjective, make_batches: Callable[..., Iterator[PhraseBatch]]
) -> None:
    batch = next(make_batches())
    optimizer = build_optimizer(objective, config=EngineConfig(steps=1, peak_rate=2e-3))
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = _total(objective, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.8 * losses[0]


def test_maps_by_photo_equal_the_heads_own() -> None:
    head = _pathway((32, 48, 64)).dense
    assert head is not None
    features = F.normalize(torch.randn(3, 24, 5, 6), dim=1)
    photos, queries = torch.tensor([0, 0, 2, 2, 2]), torch.randn(5, 24)
    expected = head.logits(features[photos], queries)
    torch.testing.assert_close(maps_by_photo(head, features, photos, queries), expected)


@pytest.fixture
def clip_channels(make_clip: Callable[..., ClipEncoder]) -> tuple[ClipEncoder, tuple[int, ...]]:
    clip = make_clip("timm")
    known = {i["reduction"]: i["num_chs"] for i in clip.model.visual.trunk.feature_info}
    return clip, tuple(known[stride] for stride in (8, 16, 32))


def test_a_head_on_clips_maps_is_trained_first_and_then_kept(
    clip_channels: tuple[ClipEncoder, tuple[int, ...]],
    make_sam: Callable[..., Sam],
    make_batches: Callable[..., Iterator[PhraseBatch]],
) -> None:
    clip, channels = clip_channels
    pathway = _pathway(channels, source="clip")
    first = NameMapObjective(pathway, clip, config=NameMapObjectiveConfig(loss=CONFIG.names))
    output = first(next(make_batches(max_masks=0)))
    assert output.loss.keys() == {"names", "present"}
    torch.stack(list(output.loss.values())).sum().backward()
    assert {n.split(".")[0] for n, p in pathway.named_parameters() if p.grad is not None} == {
        "dense"
    }
    assert {name.split(".")[0] for name in first.state_dict()} == {"pathway"}  # CLIP stays a file

    frozen = replace(CONFIG, train_dense=False)
    second = JointObjective(
        make_sam("timm"), pathway.requires_grad_(True), config=frozen, clip=clip
    )
    second(next(make_batches(names=None))).loss["masks"].backward()
    assert all(not p.requires_grad for p in second._head.parameters())
    assert pathway.token_type.grad is not None
    assert {name.split(".")[0] for name in second.state_dict()} == {"sam", "pathway"}
    assert isinstance(second.rates()[0], RatedPart)
    with pytest.raises(ValueError, match="dense_source"):
        JointObjective(make_sam("timm"), pathway, config=CONFIG, clip=clip)
