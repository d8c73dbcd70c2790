"""Properties of the TinyViT encoder; parity with MobileSAM: tests/parity/test_mobile_sam.py."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from textsam.modeling.config import SAM_CONFIGS, SamConfig, TinyViTConfig
from textsam.modeling.tiny_vit import BiasedAttention, TinyViT

SMALL = TinyViTConfig(widths=(8, 8, 16, 16), depths=(1, 1, 2, 1), heads=(1, 1, 2, 2))


def build_encoder(*, side: int = 80, **sizes) -> TinyViT:
    torch.manual_seed(0)
    tiny = dataclasses.replace(SMALL, **sizes)
    encoder = TinyViT(SamConfig(encoder=tiny, image_size=side, embed_dim=8))
    for name, parameter in encoder.named_parameters():
        if name.endswith("biases") or name.endswith("project.norm.weight"):
            torch.nn.init.normal_(parameter)
    return encoder.eval()


def test_published_size():
    with torch.device("meta"):
        encoder = TinyViT(SAM_CONFIGS["vit_t"])
        features = encoder(torch.empty(1, 3, 1024, 1024))
    assert features.embedding.shape == (1, 256, 64, 64)
    # 5.4M of TinyViT-5M less its classifier (0.3M), and 0.7M of the neck (MobileSAM, Table 3).
    assert 5.5e6 < sum(p.numel() for p in encoder.parameters()) < 6.1e6


def test_early_features_of_light_sam_hq():
    config = SamConfig(encoder=SMALL, image_size=80, embed_dim=8, hq=True)
    with torch.no_grad():
        [early] = TinyViT(config).eval()(torch.randn(2, 3, 80, 80)).pyramid
    assert early.shape == (2, config.early_width, 5, 5)


def test_shapes_and_batch_equals_loop():
    encoder, pixels = build_encoder(), torch.randn(3, 3, 80, 80)
    with torch.no_grad():
        features = encoder(pixels)
        loop = torch.cat([encoder(image[None]).embedding for image in pixels])
    assert features.embedding.shape == (3, 8, 5, 5)
    assert features.skips == ()
    assert torch.allclose(features.embedding, loop, atol=1e-5)


def test_padding_tokens_are_keys_after_the_norm():
    """A grid of 3 x 5 in windows of 4 equals the grid padded with zeros before the norm."""
    torch.manual_seed(1)
    attention = BiasedAttention(8, 2, window=4)
    for parameter in (attention.biases, attention.norm.bias, attention.qkv.bias):
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 3, 5, 8)
    padded = attention(F.pad(x, (0, 0, 0, 3, 0, 1)))[:, :3, :5]
    assert torch.allclose(attention(x), padded, atol=1e-6)


def test_bias_depends_on_the_distance_only():
    attention = BiasedAttention(8, 2, window=3)
    distances = attention.distances
    assert distances.max() == 8
    assert distances[0, 0, 2, 1] == distances[2, 1, 0, 0] == distances[2, 0, 0, 1] == 2 * 3 + 1
    assert (distances.flatten(2).flatten(0, 1).diagonal() == 0).all()


def test_every_weight_is_trained():
    encoder = build_encoder().train()
    (encoder(torch.randn(2, 3, 80, 80)).embedding * torch.randn(2, 8, 5, 5)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_drop_path_rises_with_depth():
    encoder = build_encoder(drop_path=0.4)
    rates = [block.drop_path.rate for stage in encoder.stages for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 3, 64, 96\).*\(B, 3, 80, 80\)"):
        build_encoder()(torch.zeros(1, 3, 64, 96))
    with pytest.raises(ValueError, match="multiple of 16"):
        build_encoder(side=100)
    with pytest.raises(ValueError, match="four stages"):
        build_encoder(depths=(1, 1, 1))
    with pytest.raises(ValueError, match="not a multiple of 3 heads"):
        build_encoder(heads=(1, 3, 2, 2))
    with pytest.raises(ValueError, match="needs a TinyViTConfig, got ViTConfig"):
        TinyViT(SAM_CONFIGS["vit_b"])
