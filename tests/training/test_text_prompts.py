"""Phrases among the core's prompts, and the thresholds chosen for them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from textsam.clip.pathway import PathwayConfig, TextPathway
from textsam.modeling.prompt_encoder import ABSENT, FOREGROUND, NOT_A_POINT
from textsam.values.rle import RLE, encode_mask
from training.data import ObjectMask, Sample, View
from training.prompting import PromptConfig, first_prompts
from training.recipes import text_prompts
from training.recipes.text_prompts import TextPrompts


def _sample(labels: list[str], masks: list[np.ndarray]) -> Sample:
    rles: list[RLE] = [encode_mask(m) for m in masks]
    objects = tuple(
        ObjectMask(label=n, kind="thing", rle=r, ignore=False)
        for n, r in zip(labels, rles, strict=True)
    )
    return Sample(
        image_id="x",
        source="",
        encoded=b"",
        size=masks[0].shape,
        exhaustive=True,
        void=None,
        objects=objects,
    )


def _half(left: bool) -> np.ndarray:
    mask = np.zeros((32, 32), bool)
    mask[8:24, :16] = left
    mask[8:24, 16:] = not left
    return mask


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> TextPrompts:
    torch.manual_seed(0)
    pathway = TextPathway(
        PathwayConfig(clip_width=6, prompt_width=16, hidden=8, dense_channels=(4,), dense_width=6)
    )
    monkeypatch.setattr(
        text_prompts, "trunk_maps", lambda visual, views, side: [torch.randn(len(views), 4, 4, 4)]
    )
    embedding = F.normalize(torch.randn(2, 6), dim=-1)
    bank = SimpleNamespace(
        index={"dog": 0, "cat": 1},
        text_of=lambda name: embedding[("dog", "cat").index(name)],
        crop_of_object=lambda key, rng: None,
    )
    samples = {"made": [_sample(["dog", "thing"], [_half(True), _half(False)])]}
    model = SimpleNamespace(visual=torch.nn.Identity())
    return TextPrompts(model, pathway, bank, samples)  # type: ignore[arg-type]


def _view() -> View:
    masks = torch.from_numpy(np.stack([_half(True), _half(False)]))
    return View(
        pixels=torch.zeros(3, 32, 32, dtype=torch.uint8),
        masks=masks,
        void=torch.zeros(32, 32, dtype=torch.bool),
        objects=(0, 1),
        flipped=False,
    )


@pytest.mark.parametrize("with_point", [0.0, 1.0])
def test_named_masks_get_a_token_and_a_map_and_unnamed_keep_their_prompt(
    prompts: TextPrompts, with_point: float
) -> None:
    prompts.with_point = with_point
    views = [("made", 0, _view()), ("made", 0, _view())]
    masks = torch.cat([view.masks for _, _, view in views])
    generator = torch.Generator().manual_seed(0)
    index = torch.tensor([0, 0, 1, 1])
    before = first_prompts(masks, index, generator, config=PromptConfig())
    after = prompts.mix_in(before, views, generator, share=1.0, mask_size=8)
    assert after.tokens is not None and after.masks is not None
    assert after.has_tokens is not None and after.has_mask is not None
    assert after.has_tokens.tolist() == after.has_mask.tolist() == [True, False, True, False]
    unnamed = torch.tensor([1, 3])
    assert torch.equal(after.labels[unnamed], before.labels[unnamed])
    assert torch.equal(after.points[unnamed], before.points[unnamed])
    expected = [FOREGROUND, NOT_A_POINT] if with_point else [NOT_A_POINT, ABSENT]
    assert after.labels[0].tolist() == after.labels[2].tolist() == expected
    if with_point:
        for row in (0, 2):
            x, y = after.points[row, 0].long().tolist()
            assert masks[row, y, x]
    assert after.masks.shape == (4, 1, 8, 8)
    assert after.masks[0].abs().sum() > 0 and after.masks[1].abs().sum() == 0
    after.tokens.sum().backward()
    assert prompts.pathway.token_type.grad is not None


def test_without_a_share_nothing_changes(prompts: TextPrompts) -> None:
    view = _view()
    generator = torch.Generator().manual_seed(0)
    before = first_prompts(
        view.masks, torch.zeros(2, dtype=torch.int64), generator, config=PromptConfig()
    )
    after = prompts.mix_in(before, [("made", 0, view)], generator, share=0.0, mask_size=8)
    assert after is before
