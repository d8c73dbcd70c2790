"""The core: a batch equals the loop, every part learns, prompts mean what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from textsam.errors import WeightsError
from textsam.modeling.config import SAM_CONFIGS, SamConfig, TimmConfig, TinyViTConfig, ViTConfig
from textsam.modeling.mask_decoder import ABSENT, NOT_A_POINT, PromptBatch
from textsam.modeling.sam import Sam

SIZES = {"embed_dim": 32, "decoder_heads": 4, "decoder_mlp": 48, "iou_hidden": 24}
VIT = SamConfig(
    encoder=ViTConfig(
        width=24, depth=2, heads=2, global_attention_indexes=(1,), window_size=3, drop_path=0.0
    ),
    image_size=64,
    **SIZES,
)
TIMM = SamConfig(encoder=TimmConfig(name="test_efficientnet"), image_size=64, **SIZES)
CONFIGS = pytest.mark.parametrize("config", [VIT, TIMM], ids=["vit", "timm"])


def _sam(config: SamConfig, seed: int = 0) -> Sam:
    torch.manual_seed(seed)
    return Sam(config).eval()


def _prompts(counts: list[int], points: list[int], *, masks: bool = False) -> PromptBatch:
    """One prompt row per entry of `points`, padded to the longest with absent points."""
    generator = torch.Generator().manual_seed(3)
    longest = max(points)
    xy = torch.rand(len(points), longest, 2, generator=generator) * 60
    labels = torch.randint(0, 2, (len(points), longest), generator=generator)
    for row, count in enumerate(points):
        labels[row, count:] = ABSENT
        xy[row, count:] = 0
    return PromptBatch(
        points=xy,
        labels=labels,
        image_index=torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
        masks=torch.randn(len(points), 1, 16, 16, generator=generator) if masks else None,
    )


@CONFIGS
@pytest.mark.parametrize("masks", [False, True])
def test_a_batch_of_unlike_images_and_prompts_equals_the_loop(
    config: SamConfig, masks: bool
) -> None:
    sam = _sam(config)
    sizes, counts, points = [(64, 40), (31, 64), (64, 64)], [2, 1, 3], [1, 3, 2, 4, 1, 2]
    images = [torch.rand(3, *size) * 255 for size in sizes]
    batch = _prompts(counts, points, masks=masks)
    with torch.no_grad():
        together = sam(sam.preprocess(images), batch)
        row = 0
        for number, (image, count) in enumerate(zip(images, counts, strict=True)):
            features = sam.encode_image(sam.preprocess([image]))
            for _ in range(count):
                own = slice(row, row + 1)
                alone = PromptBatch(
                    points=batch.points[own, : points[row]],
                    labels=batch.labels[own, : points[row]],
                    image_index=torch.zeros(1, dtype=torch.int64),
                    masks=None if batch.masks is None else batch.masks[own],
                )
                single = sam.decode(features, alone)
                torch.testing.assert_close(
                    together.logits[own], single.logits, atol=1e-5, rtol=1e-5
                )
                torch.testing.assert_close(together.iou[own], single.iou, atol=1e-5, rtol=1e-5)
                row += 1
            assert number < len(images)


def test_absent_points_do_nothing_but_not_a_point_is_a_token() -> None:
    sam = _sam(VIT)
    features = sam.encode_image(sam.preprocess([torch.rand(3, 64, 64) * 255]))

    def decode(labels: list[int]) -> Tensor:
        points = torch.tensor([[[20.0, 30.0], [50.0, 10.0]]])[:, : len(labels)]
        batch = PromptBatch(
            points=points,
            labels=torch.tensor([labels]),
            image_index=torch.zeros(1, dtype=torch.int64),
        )
        return sam.decode(features, batch).logits

    torch.testing.assert_close(decode([1, ABSENT]), decode([1]), atol=1e-6, rtol=1e-5)
    assert (decode([1, NOT_A_POINT]) - decode([1])).abs().max() > 1e-4


def test_order_of_points_does_not_matter() -> None:
    sam = _sam(VIT)
    features = sam.encode_image(sam.preprocess([torch.rand(3, 64, 64) * 255]))
    points, labels = torch.rand(1, 4, 2) * 60, torch.tensor([[1, 0, 1, 0]])
    index = torch.zeros(1, dtype=torch.int64)
    order = torch.tensor([2, 0, 3, 1])
    first = sam.decode(features, PromptBatch(points=points, labels=labels, image_index=index))
    other = sam.decode(
        features,
        PromptBatch(points=points[:, order], labels=labels[:, order], image_index=index),
    )
    torch.testing.assert_close(first.logits, other.logits, atol=1e-5, rtol=1e-5)


def test_tokens_and_masks_are_read_only_where_they_are_present() -> None:
    sam = _sam(VIT)
    features = sam.encode_image(sam.preprocess([torch.rand(3, 64, 64) * 255]))
    base = PromptBatch(
        points=torch.rand(2, 1, 2) * 60,
        labels=torch.ones(2, 1, dtype=torch.int64),
        image_index=torch.zeros(2, dtype=torch.int64),
    )
    given = replace(
        base,
        tokens=torch.randn(2, 2, 32),
        has_tokens=torch.tensor([True, False]),
        masks=torch.randn(2, 1, 16, 16),
        has_mask=torch.tensor([True, False]),
    )
    plain, mixed = sam.decode(features, base).logits, sam.decode(features, given).logits
    assert (plain[0] - mixed[0]).abs().max() > 1e-3
    torch.testing.assert_close(plain[1], mixed[1], atol=1e-5, rtol=1e-5)


@CONFIGS
def test_every_weight_learns(config: SamConfig) -> None:
    sam = _sam(config).train()
    batch = PromptBatch(
        points=torch.rand(2, 5, 2) * 60,
        labels=torch.tensor([[0, 1, 2, 3, -1], [1, 0, 1, -1, -1]]),
        image_index=torch.tensor([0, 1]),
        masks=torch.randn(2, 1, 16, 16),
        has_mask=torch.tensor([True, False]),
    )
    output = sam(sam.preprocess([torch.rand(3, 64, 50) * 255, torch.rand(3, 30, 64) * 255]), batch)
    (output.logits.square().mean() + output.iou.square().mean()).backward()
    idle = [
        name
        for name, p in sam.named_parameters()
        # A key's bias shifts all scores of a query alike: softmax removes it.
        if (p.grad is None or not p.grad.abs().sum() > 0) and not name.endswith("k_proj.bias")
    ]
    # features_only drops what lies behind the last map, not what lies before it.
    assert idle == []


def test_padding_is_zero_after_normalisation_and_large_images_are_refused() -> None:
    sam = _sam(VIT)
    pixels = sam.preprocess([torch.full((3, 20, 64), 255.0)])
    assert pixels.shape == (1, 3, 64, 64)
    assert (pixels[:, :, 20:] == 0).all()
    expected = (255 - VIT.pixel_mean[0]) / VIT.pixel_std[0]
    torch.testing.assert_close(pixels[0, 0, :20], torch.full((20, 64), expected))
    with pytest.raises(ValueError, match="65 x 64 pixels"):
        sam.preprocess([torch.zeros(3, 65, 64)])


def test_predictions_split_into_single_multiple_and_best() -> None:
    sam = _sam(VIT)
    features = sam.encode_image(sam.preprocess([torch.rand(3, 64, 64) * 255]))
    batch = _prompts([2], [1, 2])
    prediction = sam.decode(features, replace(batch, image_index=torch.zeros(2, dtype=torch.int64)))
    assert prediction.logits.shape == (2, 4, 16, 16)
    assert prediction.single().logits.shape == (2, 1, 16, 16)
    three = prediction.multiple()
    best = three.best()
    for row in range(2):
        top = int(three.iou[row].argmax())
        assert torch.equal(best.logits[row, 0], three.logits[row, top])
        assert best.iou[row, 0] == three.iou[row].max()


@pytest.mark.parametrize("config", [VIT, TIMM, *SAM_CONFIGS.values()])
def test_configs_survive_json(config: SamConfig) -> None:
    import json

    assert SamConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_config_fields_are_refused() -> None:
    with pytest.raises(WeightsError, match="colour"):
        SamConfig.from_dict({**VIT.to_dict(), "colour": 1})
    with pytest.raises(WeightsError, match="swin"):
        SamConfig.from_dict({**VIT.to_dict(), "encoder": {"kind": "swin"}})


def test_the_table_holds_the_papers_sizes() -> None:
    # RECIPE 1, arXiv 2304.02643 and its released code.
    h = SAM_CONFIGS["vit_h"].encoder
    assert isinstance(h, ViTConfig)
    assert (h.width, h.depth, h.heads) == (1280, 32, 16)
    assert h.global_attention_indexes == (7, 15, 23, 31)
    assert isinstance(SAM_CONFIGS["vit_t"].encoder, TinyViTConfig)
    assert SAM_CONFIGS["vit_b"].mask_size == 256


def test_a_timm_backbone_without_stride_16_or_skips_is_refused() -> None:
    config = replace(TIMM, encoder=TimmConfig(name="test_vit"))
    with pytest.raises(ValueError, match="skips=False"):
        Sam(config)


def test_context_and_neck_blocks_start_as_the_identity_and_learn() -> None:
    plain = _sam(TIMM)
    config = replace(TIMM.encoder, context_depth=2, context_width=32, neck_blocks=1)
    sam = _sam(replace(TIMM, encoder=config), seed=1)
    old = plain.state_dict()
    added = set(sam.load_state_dict(old, strict=False).missing_keys)
    assert added == sam.state_dict().keys() - old.keys() != set()
    pixels = torch.randn(2, 3, 64, 64)
    wanted, got = plain.encode_image(pixels), sam.encode_image(pixels)
    torch.testing.assert_close(got.embedding, wanted.embedding)
    torch.testing.assert_close(got.pyramid, wanted.pyramid)
    optimizer = torch.optim.SGD(sam.parameters(), lr=1e-5)
    for _ in range(2):  # behind a zero, most weights have a gradient from the second step on
        optimizer.zero_grad()
        encoded = sam.encode_image(pixels)
        (encoded.embedding * torch.randn_like(encoded.embedding)).sum().backward()
        optimizer.step()
    grads = {name: p.grad for name, p in sam.named_parameters() if name in added}
    # Softmax takes away what a bias of the keys adds, so it has a gradient of zero.
    assert all(g is not None and (g.abs().max() > 0) for n, g in grads.items() if "qkv" not in n)
    # A photo's context is its own: a batch equals the loop.
    sam.eval()
    alone = torch.cat([sam.encode_image(row[None]).embedding for row in pixels])
    torch.testing.assert_close(sam.encode_image(pixels).embedding, alone, rtol=1e-4, atol=1e-4)
