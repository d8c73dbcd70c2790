"""The joint stage: pasted objects, absent names, and one step that trains all it should."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from textsam.clip.pathway import PathwayConfig, TextPathway
from textsam.modeling.config import SamConfig, TimmConfig
from textsam.modeling.sam import Sam
from textsam.values.rle import encode_mask
from training.data import ObjectMask, Sample, View, ViewConfig
from training.recipes.labelled_views import LabelledView, LabelledViews, paste_object
from training.recipes.steps import draw_ahead
from training.recipes.tiny import freeze_backbone, timm_encoder
from training.recipes.tiny_joint import JointConfig, JointTrainer
from training.recipes.word_draw import WordConfig, WordDraw
from training.recipes.word_loss import maps_by_photo

NAMES = ("dog", "cat", "wheel", "car")
SIDE = 64
VIEW = ViewConfig(image_size=SIDE, max_masks=80, min_area=4, max_share=1.0, focus=0.3)
SHARES = {"voc": 0.5, "named_objects": 0.3, "car_parts": 0.2}


def _sample(seed: int, labels: tuple[str, ...], *, exhaustive: bool = True) -> Sample:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    objects = []
    for number, label in enumerate(labels):
        mask = np.zeros((48, 64), bool)
        mask[4 + 18 * number : 20 + 18 * number, 8 + seed : 40 + seed] = True
        objects.append(ObjectMask(label=label, kind="thing", rle=encode_mask(mask), ignore=False))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return Sample(
        image_id=str(seed),
        source="",
        encoded=buffer.getvalue(),
        size=(48, 64),
        exhaustive=exhaustive,
        void=None,
        objects=tuple(objects),
    )


@pytest.fixture(scope="module")
def samples() -> dict[str, list[Sample]]:
    return {
        "voc": [_sample(i, ("dog", "cat")) for i in range(4)],
        "named_objects": [_sample(10 + i, ("cat",), exhaustive=False) for i in range(3)],
        "car_parts": [_sample(20 + i, ("wheel",)) for i in range(3)],
    }


@pytest.fixture(scope="module")
def bank() -> SimpleNamespace:
    generator = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(len(NAMES), 12, generator=generator), dim=-1)
    return SimpleNamespace(
        index={name: i for i, name in enumerate(NAMES)},
        text_of=lambda name: vectors[NAMES.index(name)],
        crop_of=lambda name, rng: vectors[NAMES.index(name)],
        crop_of_object=lambda key, rng: None,
    )


def _pathway() -> TextPathway:
    torch.manual_seed(1)
    return TextPathway(
        PathwayConfig(
            clip_width=12,
            prompt_width=32,
            hidden=16,
            dense_channels=(32, 48, 64),
            dense_width=16,
            dense_image_size=SIDE,
            dense_source="sam",
        )
    )


@pytest.fixture
def trainer(samples: dict[str, list[Sample]], bank: SimpleNamespace) -> JointTrainer:
    torch.manual_seed(2)
    sam = Sam(
        SamConfig(
            encoder=TimmConfig(name="test_efficientnet"),
            image_size=SIDE,
            embed_dim=32,
            decoder_heads=4,
            decoder_mlp=48,
            iou_hidden=24,
            first_layer_residual=True,
        )
    )
    config = JointConfig(photos_per_step=3, view=VIEW, min_area=8, text_share=0.6, frozen_stages=0)
    return JointTrainer(sam, _pathway(), bank, samples, config=config, shares=SHARES)  # type: ignore[arg-type]


def _views(samples: dict[str, list[Sample]], paste: float) -> LabelledViews:
    return LabelledViews(samples, shares=SHARES, seed=0, view=VIEW, paste=paste)


def test_a_batch_is_a_function_of_seed_and_step(samples: dict[str, list[Sample]]) -> None:
    a, b = (_views(samples, 0.5).batch(3, 6) for _ in range(2))
    for one, other in zip(a, b, strict=True):
        assert torch.equal(one.view.pixels, other.view.pixels)
        assert one.labels == other.labels and one.keys == other.keys
        assert len(one.labels) == len(one.keys) == len(one.view.masks)


def _flat(value: int, masks: list[tuple[int, int, int, int]], side: int) -> LabelledView:
    planes = torch.zeros(len(masks), side, side, dtype=torch.bool)
    for plane, (x0, y0, x1, y1) in zip(planes, masks, strict=True):
        plane[y0:y1, x0:x1] = True
    return LabelledView(
        file="voc",
        row=0,
        view=View(
            pixels=torch.full((3, side, side), value, dtype=torch.uint8),
            masks=planes,
            void=torch.zeros(side, side, dtype=torch.bool),
            objects=tuple(range(len(masks))),
            flipped=False,
        ),
        labels=tuple(NAMES[i] for i in range(len(masks))),
        keys=tuple((0, 0, i) for i in range(len(masks))),
    )


def test_a_pasted_object_takes_its_pixels_from_what_is_below() -> None:
    below = _flat(10, [(0, 0, 60, 30), (0, 31, 60, 60)], 64)
    donor = replace(_flat(200, [(4, 4, 28, 28)], 32), labels=("wheel",), keys=((2, 5, 1),))
    pasted = paste_object(below, donor, np.random.default_rng(0))
    new = pasted.view.masks[-1]
    assert pasted.labels[-1] == "wheel" and pasted.keys[-1] == (2, 5, 1)
    assert int(new.sum()) == 24 * 24
    assert (pasted.view.pixels[:, new] == 200).all() and (pasted.view.pixels[:, ~new] == 10).all()
    assert not (pasted.view.masks[:-1] & new).any()
    assert below.view.pixels.max() == 10  # the view below is left as it was


def test_a_mask_that_is_nearly_hidden_becomes_void() -> None:
    below = _flat(10, [(20, 20, 26, 26), (0, 0, 64, 64)], 64)
    donor = _flat(200, [(0, 0, 63, 63)], 63)
    pasted = paste_object(below, donor, np.random.default_rng(0))
    assert pasted.labels == ("dog",)  # the donor's; both below are as good as gone
    rest = below.view.masks[1] & ~pasted.view.masks[-1]
    assert torch.equal(pasted.view.void, rest)  # all that is left of the large mask
    assert not pasted.counted[rest].any()


def test_absent_names_are_never_there(
    samples: dict[str, list[Sample]], bank: SimpleNamespace
) -> None:
    words = WordDraw(bank, samples, config=WordConfig())  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    asked = set()
    for step in range(20):
        for item in _views(samples, 0.6).batch(step, 4):
            there = set(item.labels)
            there |= {o.label for o in samples[item.file][item.row].objects}
            absent = words._absent(item, rng)
            assert not there & set(absent)
            asked |= set(absent)
    assert asked >= {"dog", "wheel"}


def test_maps_by_photo_equal_the_heads_own(bank: SimpleNamespace) -> None:
    head = _pathway().dense
    assert head is not None
    features = F.normalize(torch.randn(3, 12, 5, 6), dim=1)
    photos, queries = torch.tensor([0, 0, 2, 2, 2]), torch.randn(5, 12)
    expected = head.logits(features[photos], queries)
    torch.testing.assert_close(maps_by_photo(head, features, photos, queries), expected)


def test_a_step_is_repeatable_and_reaches_every_part(trainer: JointTrainer) -> None:
    first, figures = trainer.step_loss(0)
    again, _ = trainer.step_loss(0)
    assert first.item() == again.item()
    assert {"map_iou", "words", "iou_2", "iou_3", "iou_4"} <= set(figures)
    total = sum((trainer.step_loss(step)[0] for step in range(4)), start=torch.zeros(()))
    total.backward()
    for part in trainer.rates():
        trained = [p for p in part.module.parameters() if p.requires_grad]
        assert trained
        moved = [p for p in trained if p.grad is not None and p.grad.abs().sum() > 0]
        assert len(moved) > 0.8 * len(trained)


def test_worker_processes_draw_the_batches_that_one_process_draws(trainer: JointTrainer) -> None:
    drawn = draw_ahead(trainer.draw, 3, workers=2)
    for step in (3, 4, 5):
        batch, own = next(drawn), trainer.draw(step)
        assert torch.equal(batch.pixels, own.pixels) and batch.sizes == own.sizes
        assert torch.equal(batch.words.queries, own.words.queries)
        loss, _ = trainer.batch_loss(batch)
        expected, _ = trainer.step_loss(step)
        assert loss.item() == expected.item()


def test_a_batch_moves_with_all_its_tensors_but_the_generators_state(trainer: JointTrainer) -> None:
    drawn = (trainer.draw(step) for step in range(20))
    batch = next(b for b in drawn if b.prompted is not None and b.prompted.spoken is not None)
    moved = batch.to("meta")
    assert moved.random.device.type == "cpu" and torch.equal(moved.random, batch.random)
    assert moved.prompted is not None and moved.prompted.spoken is not None
    tensors = [moved.pixels, moved.void, moved.words.targets, moved.words.present]
    tensors += [moved.prompted.masks, moved.prompted.first.points, moved.prompted.spoken.queries]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.sizes == batch.sizes


def test_depthwise_kernels_learn_only_if_told(trainer: JointTrainer) -> None:
    def learning() -> set[str]:
        backbone = timm_encoder(trainer.sam).backbone
        return {name for name, p in backbone.named_parameters() if p.requires_grad}

    backbone = timm_encoder(trainer.sam).backbone
    backbone.requires_grad_(True)
    freeze_backbone(backbone, stages=0)
    before = learning()
    backbone.requires_grad_(True)
    freeze_backbone(backbone, stages=0, depthwise=False)
    more = learning() - before
    assert more and all("conv_dw" in name for name in more)


def test_a_few_steps_lower_the_loss(trainer: JointTrainer) -> None:
    parts = [p for part in trainer.rates() for p in part.module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parts, lr=2e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss, _ = trainer.step_loss(1)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.8 * losses[0]


def test_a_head_on_the_clip_tower_is_refused(
    samples: dict[str, list[Sample]], bank: SimpleNamespace, trainer: JointTrainer
) -> None:
    pathway = _pathway()
    pathway.config = replace(pathway.config, dense_source="clip")
    with pytest.raises(ValueError, match="dense_source"):
        JointTrainer(trainer.sam, pathway, bank, samples, config=trainer.config, shares=SHARES)  # type: ignore[arg-type]
