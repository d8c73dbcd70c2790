"""The decoder for inference equals the plain one, and keeps nothing of other weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textsam.modeling import prepared_decoder
from textsam.modeling.config import SamConfig, TimmConfig, ViTConfig
from textsam.modeling.image_encoder import ImageFeatures
from textsam.modeling.mask_decoder import ABSENT, PromptBatch
from textsam.modeling.prepared_decoder import masks_of
from textsam.modeling.sam import Sam

_SIZES = {"embed_dim": 32, "decoder_heads": 4, "decoder_mlp": 48, "iou_hidden": 24}
_VIT = ViTConfig(width=24, depth=2, heads=2, global_attention_indexes=(1,), window_size=3)
_CONFIGS = {
    "vit": SamConfig(encoder=_VIT, image_size=64, **_SIZES),
    "skips": SamConfig(encoder=TimmConfig(name="test_efficientnet"), image_size=64, **_SIZES),
    "residual": SamConfig(encoder=_VIT, image_size=64, first_layer_residual=True, **_SIZES),
    "hq": SamConfig(encoder=_VIT, image_size=64, hq=True, **_SIZES),
    "one block": SamConfig(encoder=_VIT, image_size=64, decoder_depth=1, **_SIZES),
    "three blocks": SamConfig(encoder=_VIT, image_size=64, decoder_depth=3, **_SIZES),
}


def _encoded(name: str) -> tuple[Sam, ImageFeatures]:
    torch.manual_seed(0)
    sam = Sam(_CONFIGS[name]).eval()
    with torch.no_grad():
        # At random weights attention is nearly even; larger ones make it choose.
        for weight in sam.mask_decoder.transformer.parameters():
            weight.mul_(2)
        return sam, sam.encode_image(torch.randn(1, 3, 64, 64))


def _prompts(count: int, points: int, *, masks: bool, tokens: bool, padded: bool) -> PromptBatch:
    generator = torch.Generator().manual_seed(count + 7 * points)
    labels = torch.randint(-1, 4, (count, points), generator=generator)
    if padded and count:
        labels[0, -1] = ABSENT
    some = torch.arange(count) % 2 == 0
    return PromptBatch(
        points=torch.rand(count, points, 2, generator=generator) * 64,
        labels=labels,
        image_index=torch.zeros(count, dtype=torch.int64),
        masks=torch.randn(count, 1, 16, 16, generator=generator) if masks else None,
        has_mask=some if masks and padded else None,
        tokens=torch.randn(count, 2, 32, generator=generator) if tokens else None,
        has_tokens=some if tokens and padded else None,
    )


@settings(max_examples=40)
@given(
    name=st.sampled_from(sorted(_CONFIGS)),
    count=st.integers(0, 7),
    points=st.integers(1, 20),
    masks=st.booleans(),
    tokens=st.booleans(),
    padded=st.booleans(),
    group=st.integers(1, 4),
)
def test_equals_the_plain_decoder(
    name: str, count: int, points: int, masks: bool, tokens: bool, padded: bool, group: int
) -> None:
    sam, features = _encoded(name)
    prompts = _prompts(count, points, masks=masks, tokens=tokens, padded=padded)
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("textsam.modeling.sam.group_size", lambda image: group)
        plain = sam.decode(features, prompts)
        fast = sam.decode_prepared(sam.prepare(features), prompts)
    torch.testing.assert_close(fast.logits, plain.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fast.iou, plain.iou, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["vit", "skips", "hq"])
def test_masks_that_are_not_wanted_are_not_made(name: str) -> None:
    sam, features = _encoded(name)
    prompts = _prompts(5, 2, masks=False, tokens=False, padded=False)
    with torch.no_grad():
        image = sam.prepare(features)
        whole = sam.decode(features, prompts)
        (part,) = sam.decode_in_groups(image, prompts)
        chosen = part[torch.tensor([True, False, False, True, False])]
        logits = masks_of(sam.mask_decoder, image, chosen, chosen.weights[:, 2:3])
    torch.testing.assert_close(logits, whole.logits[[0, 3], 2:3], atol=1e-5, rtol=1e-5)


def test_positions_follow_the_weights() -> None:
    sam, features = _encoded("vit")
    prompts = _prompts(3, 2, masks=False, tokens=False, padded=False)
    with torch.no_grad():
        before = sam.decode_prepared(sam.prepare(features), prompts)
        other = Sam(_CONFIGS["vit"]).eval()
        sam.load_state_dict({**sam.state_dict(), **_decoder_of(other)})
        after = sam.decode_prepared(sam.prepare(features), prompts)
        plain = sam.decode(features, prompts)
        sam.double()
        double = replace(features, embedding=features.embedding.double())
        exact = sam.decode_prepared(sam.prepare(double), prompts)
    assert (before.logits - after.logits).abs().max() > 1e-3
    torch.testing.assert_close(after.logits, plain.logits, atol=1e-5, rtol=1e-5)
    assert exact.logits.dtype == torch.float64
    torch.testing.assert_close(exact.logits.float(), plain.logits, atol=1e-5, rtol=1e-5)


def test_positions_are_projected_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sam, features = _encoded("vit")
    sam.prepare(features)
    monkeypatch.setattr(sam.prompt_encoder, "dense_positions", None)
    sam.prepare(features)


def test_one_image_at_a_time() -> None:
    sam, features = _encoded("vit")
    both = ImageFeatures.join([features, features])
    with pytest.raises(ValueError, match="one image at a time, got features of 2"):
        sam.prepare(both)


def test_groups_fit_into_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    sam, features = _encoded("vit")
    prompts = _prompts(7, 2, masks=True, tokens=False, padded=False)
    with torch.no_grad():
        image = sam.prepare(features)
        one = image.rows.numel() * image.rows.element_size()
        monkeypatch.setattr(prepared_decoder, "_CACHE_BYTES", 3 * one)
        sizes = [len(part.iou) for part in sam.decode_in_groups(image, prompts)]
    assert sizes == [3, 3, 1]


def _decoder_of(sam: Sam) -> dict[str, torch.Tensor]:
    return {key: x for key, x in sam.state_dict().items() if key.startswith("mask_decoder.")}
