"""A classifier's opinion beside the image head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from textsam.clip.encoder import ClipEncoder
from textsam.clip.prior import PRIOR_FILE, ClassPrior, HeadWithPrior, attach_prior, read_prior
from textsam.errors import WeightsError

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {
        "timm_model_name": "test_efficientnet",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "mlp",
        "image_size": 32,
    },
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    "custom_text": True,
}


def _encoder() -> ClipEncoder:
    torch.manual_seed(0)
    values = {key: value for key, value in CONFIG.items() if key != "custom_text"}
    return ClipEncoder.from_model(
        open_clip.CustomTextCLIP(**values),
        tokenizer=open_clip.SimpleTokenizer(context_length=12),
        name="random",
        config=CONFIG,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


def _prior(features: int, *, share: float = 0.5) -> ClassPrior:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(5, features, generator=generator)
    names = F.normalize(torch.randn(5, 16, generator=generator), dim=-1)
    return ClassPrior(weight, torch.zeros(5), names, share=share, max_classes=3)


def test_a_certain_classifier_gives_its_class_name() -> None:
    weight = 50 * torch.eye(4)
    names = F.normalize(torch.randn(4, 6), dim=-1)
    prior = ClassPrior(weight, torch.zeros(4), names, share=0.5)
    torch.testing.assert_close(prior(torch.eye(4)), 0.5 * names)


def test_an_unsure_classifier_counts_for_little() -> None:
    names = F.normalize(torch.randn(4, 6), dim=-1)
    prior = ClassPrior(torch.zeros(4, 3), torch.zeros(4), names, share=0.5, max_classes=4)
    opinion = prior(torch.randn(2, 3))
    torch.testing.assert_close(opinion.norm(dim=1), torch.full((2,), 0.5 / 4))


def test_mixture_by_hand() -> None:
    names = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    logits = torch.tensor([2.0, 1.0, -3.0])
    prior = ClassPrior(logits[:, None], torch.zeros(3), names, share=1.0, max_classes=2)
    p = logits.softmax(-1)
    mixed = torch.stack([p[0], p[1]])
    torch.testing.assert_close(prior(torch.ones(1, 1))[0], p[0] * mixed / mixed.norm())


def test_saved_and_loaded_it_embeds_the_same(tmp_path: Path) -> None:
    encoder = _encoder()
    crops = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    )
    masks = torch.ones(3, 32, 32)
    plain = encoder.encode_crops(crops, masks)
    attach_prior(encoder.model, _prior(encoder.model.visual.trunk.num_features))
    mixed = encoder.encode_crops(crops, masks)
    assert (plain - mixed).abs().max() > 0.01
    again = ClipEncoder.from_pretrained(encoder.save(tmp_path / "clip"))
    assert isinstance(again.model.visual.head, HeadWithPrior)
    torch.testing.assert_close(again.encode_crops(crops, masks), mixed)


def test_open_clip_loads_the_rest_without_it(tmp_path: Path) -> None:
    encoder = _encoder()
    attach_prior(encoder.model, _prior(encoder.model.visual.trunk.num_features))
    folder = encoder.save(tmp_path / "clip")
    values = {key: value for key, value in CONFIG.items() if key != "custom_text"}
    stock = open_clip.CustomTextCLIP(**values)
    open_clip.load_checkpoint(stock, str(folder / "open_clip_model.safetensors"), strict=True)
    head = encoder.model.visual.head.head
    for key, value in stock.visual.head.state_dict().items():
        torch.testing.assert_close(value, head.state_dict()[key])


def test_a_second_prior_takes_the_place_of_the_first() -> None:
    encoder = _encoder()
    features = encoder.model.visual.trunk.num_features
    attach_prior(encoder.model, _prior(features))
    attach_prior(encoder.model, _prior(features, share=0.1))
    assert not isinstance(encoder.model.visual.head.head, HeadWithPrior)
    assert encoder.model.visual.head.prior.share == 0.1


def test_a_prior_of_another_tower_and_a_damaged_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="7 features"):
        attach_prior(_encoder().model, _prior(7))
    with pytest.raises(ValueError, match="wanted"):
        ClassPrior(torch.zeros(3, 2), torch.zeros(4), torch.zeros(3, 5))
    path = tmp_path / PRIOR_FILE
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match="is damaged"):
        read_prior(path)
