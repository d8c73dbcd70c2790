"""The pathway and the dense head on small numbers."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from textsam.clip.pathway import DenseTextHead, PathwayConfig, TextPathway, tower_maps
from textsam.errors import WeightsError


def test_centring_removes_each_modality_s_own_mean() -> None:
    pathway = TextPathway(PathwayConfig(clip_width=8, prompt_width=16))
    embeddings = F.normalize(torch.randn(5, 8), dim=-1)
    torch.testing.assert_close(pathway.centre(embeddings, "image"), embeddings)
    pathway.text_mean.copy_(torch.randn(8) * 0.3)
    centred = pathway.centre(embeddings, "text")
    torch.testing.assert_close(centred, F.normalize(embeddings - pathway.text_mean, dim=-1))
    torch.testing.assert_close(centred.norm(dim=-1), torch.ones(5))
    torch.testing.assert_close(pathway.centre(embeddings, "image"), embeddings)


@pytest.mark.parametrize("tokens", [1, 3])
def test_tokens_have_the_prompt_s_width_and_differ_by_phrase(tokens: int) -> None:
    pathway = TextPathway(PathwayConfig(clip_width=8, prompt_width=16, tokens=tokens))
    out = pathway(F.normalize(torch.randn(4, 8), dim=-1))
    assert out.shape == (4, tokens, 16)
    assert (out[0] - out[1]).abs().max() > 1e-2
    batch = F.normalize(torch.randn(3, 8), dim=-1)
    loop = torch.cat([pathway(row[None]) for row in batch])
    torch.testing.assert_close(pathway(batch), loop)


def test_config_survives_json_and_refuses_unknown_fields() -> None:
    config = PathwayConfig(clip_width=8, dense_channels=(4, 8), dense_strides=(8, 16))
    assert PathwayConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(WeightsError, match="colour"):
        PathwayConfig.from_dict({"clip_width": 8, "colour": 1})


def test_dense_features_are_unit_and_logits_are_scaled_cosines() -> None:
    head = DenseTextHead((4, 6), 8, 10)
    maps = [torch.randn(2, 4, 8, 8), torch.randn(2, 6, 4, 4)]
    features = head.features(maps)
    assert features.shape == (2, 10, 8, 8)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2, 8, 8))
    phrase = features[:, :, 3, 5]
    logits = head.logits(features, phrase)
    expected = head.log_scale.exp() + head.bias
    torch.testing.assert_close(logits[:, 3, 5], expected.expand(2))
    assert (logits <= expected + 1e-4).all()


def test_blocks_of_the_dense_head_start_as_the_identity() -> None:
    plain, head = DenseTextHead((4, 6), 8, 10), DenseTextHead((4, 6), 8, 10, blocks=2)
    head.load_state_dict(plain.state_dict(), strict=False)
    for side in (8, 9):  # frames of odd sizes as well
        maps = [torch.randn(2, 4, side, side), torch.randn(2, 6, 4, 4)]
        torch.testing.assert_close(head.features(maps), plain.features(maps))
    head.blocks[0].gamma.data.fill_(1)
    assert not torch.allclose(head.features(maps), plain.features(maps), atol=1e-3)


def test_tower_maps_need_a_timm_cnn() -> None:
    from open_clip.timm_model import TimmModel

    tower = TimmModel("test_efficientnet", 16, image_size=32, proj="linear").eval()
    with torch.no_grad():
        maps = tower_maps(tower, torch.randn(1, 3, 64, 64), strides=(8, 16, 32))
    assert [m.shape[-1] for m in maps] == [8, 4, 2]
    with pytest.raises(WeightsError, match="strides"):
        tower_maps(tower, torch.randn(1, 3, 64, 64), strides=(7,))
    with pytest.raises(WeightsError, match="timm CNN"):
        tower_maps(torch.nn.Linear(1, 1), torch.randn(1, 3, 64, 64), strides=(8,))
