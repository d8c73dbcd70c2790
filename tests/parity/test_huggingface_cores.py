"""Cores around networks of `transformers` give what those give, in one run for all masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from textsam.errors import PromptError
from textsam.inference.model import TextSAM
from textsam.inference.photo.encoded import encode_photo, to_original_frame
from textsam.modeling.huggingface.cores import HuggingFaceCore
from textsam.modeling.mask_decoder import ABSENT, PromptBatch

from ..modeling.hub_cores import KINDS, SIDE, write_core

PROMPTS = ["point", "points", "box", "points+box", "point+mask", "box+mask", "mask"]


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    oracle = write_core(request.param, folder)
    core = TextSAM.from_pretrained(folder).sam
    assert isinstance(core, HuggingFaceCore) and core.config.kind == request.param
    return oracle, core


@torch.no_grad()
def ask(oracle, pixels, prompts, *, multiple: bool):
    """Logits (2, K, m, m) and IoU (2, K) of two images with one prompt each."""
    output = oracle(
        pixels,
        input_points=None if prompts.points is None else prompts.points[:, None],
        input_labels=None if prompts.labels is None else prompts.labels[:, None],
        input_boxes=None if prompts.boxes is None else prompts.boxes[:, None],
        input_masks=prompts.masks,
        multimask_output=multiple,
    )
    return output.pred_masks[:, 0], output.iou_scores[:, 0]


@pytest.mark.parametrize("kinds", PROMPTS)
def test_masks_and_iou(pair, kinds, make_prompts, assert_equal_masks):
    oracle, core = pair
    pixels, prompts = torch.randn(2, 3, SIDE, SIDE), make_prompts(kinds, SIDE)
    with torch.no_grad():
        found = core.decode(core.encode_image(pixels), prompts.batch(images=(0, 1)))
    assert found.logits.shape == (2, 4, SIDE // 4, SIDE // 4)
    for multiple, part in ((False, found.single()), (True, found.multiple())):
        assert_equal_masks(part, *ask(oracle, pixels, prompts, multiple=multiple))


@pytest.mark.parametrize("threshold", [0.0, 2.0])
def test_mask_0_falls_back_to_the_best_reading(pair, threshold, make_prompts, assert_equal_masks):
    oracle, core = pair
    pixels, prompts = torch.randn(2, 3, SIDE, SIDE), make_prompts("points", SIDE)
    decoders = oracle.mask_decoder, core.network.mask_decoder
    before = decoders[0].dynamic_multimask_stability_thresh
    try:
        for decoder in decoders:  # every first mask is stable, or none
            decoder.dynamic_multimask_stability_thresh = threshold
        with torch.no_grad():
            found = core.decode(core.encode_image(pixels), prompts.batch(images=(0, 1)))
        assert_equal_masks(found.single(), *ask(oracle, pixels, prompts, multiple=False))
        assert torch.equal(found.single().iou, found.multiple().best().iou) == (threshold > 1)
    finally:
        for decoder in decoders:
            decoder.dynamic_multimask_stability_thresh = before


def test_many_prompts_on_one_image_are_one_run(pair, make_prompts, assert_equal_masks):
    oracle, core = pair
    pixels, prompts = torch.randn(1, 3, SIDE, SIDE), make_prompts("points+box", SIDE)
    runs = []
    hook = core.network.mask_decoder.transformer.register_forward_hook(lambda *_: runs.append(1))
    with torch.no_grad():
        found = core.decode(core.encode_image(pixels), prompts.batch(images=(0, 0)))
        expected = oracle(
            pixels,
            input_points=prompts.points[None],
            input_labels=prompts.labels[None],
            input_boxes=prompts.boxes[None],
        )
    hook.remove()
    assert len(runs) == 1
    assert_equal_masks(found.multiple(), expected.pred_masks[0], expected.iou_scores[0])


@torch.no_grad()
def test_a_batch_equals_its_prompts(pair):
    """Other images, other numbers of points with padding in any place, some with masks."""
    _, core = pair
    torch.manual_seed(1)
    features = core.encode_image(torch.randn(3, 3, SIDE, SIDE))
    labels = [[1, 0, 1, -1], [1, ABSENT, ABSENT, -1], [2, 3, ABSENT, ABSENT], [ABSENT, 1, 0, 1]]
    batch = PromptBatch(
        points=torch.rand(4, 4, 2) * SIDE,
        labels=torch.tensor(labels),
        image_index=torch.tensor([2, 0, 1, 2]),
        masks=torch.randn(4, 1, SIDE // 4, SIDE // 4),
        has_mask=torch.tensor([True, False, True, False]),
    )
    found = core.decode(features, batch)
    for row in range(4):
        real = batch.labels[row] >= 0
        one = PromptBatch(
            points=batch.points[row, real][None],
            labels=batch.labels[row, real][None],
            image_index=torch.zeros(1, dtype=torch.int64),
            masks=batch.masks[row, None] if batch.has_mask[row] else None,
        )
        alone = core.decode(features[int(batch.image_index[row])], one)
        assert (found.logits[row] - alone.logits[0]).abs().max() <= 1e-4
        assert (found.iou[row] - alone.iou[0]).abs().max() <= 1e-4


def test_no_prompts_and_prompts_that_it_cannot_take(pair, make_prompts):
    _, core = pair
    features = core.encode_image(torch.randn(1, 3, SIDE, SIDE))
    batch = make_prompts("point", SIDE).batch(images=(0, 0))
    none = PromptBatch(
        points=batch.points[:0], labels=batch.labels[:0], image_index=batch.image_index[:0]
    )
    assert core.decode(features, none).logits.shape == (0, 4, SIDE // 4, SIDE // 4)
    with pytest.raises(PromptError, match="no tokens of a phrase"):
        core.decode(features, replace(batch, tokens=torch.zeros(2, 1, 32)))
    with pytest.raises(ValueError, match="pixels have shape"):
        core.encode_image(torch.randn(1, 3, SIDE, SIDE // 2))


def test_a_photo_is_resized_and_its_masks_come_back_as_theirs(pair):
    oracle, core = pair
    from transformers import Sam2ImageProcessor, Sam2Processor

    size = {"height": SIDE, "width": SIDE}
    processor = Sam2Processor(Sam2ImageProcessor(size=size))
    photo = np.random.default_rng(1).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    inputs = processor(images=photo, input_boxes=[[[9, 5, 60, 40]]], return_tensors="pt")
    encoded = encode_photo(TextSAM(core).parts, photo)
    with torch.no_grad():
        output = oracle(**inputs, multimask_output=False)
        # Resizing rounds to whole values, in another order.
        theirs = core.encode_image(inputs.pixel_values).embedding
    distance = (encoded.features.embedding - theirs).abs().mean()
    assert distance < 0.02 * theirs.abs().mean()
    expected = processor.post_process_masks(
        output.pred_masks, inputs["original_sizes"], binarize=False
    )[0][0]
    found = to_original_frame(output.pred_masks[0, 0], encoded.frame)
    assert (found - expected).abs().max() <= 1e-4
    boxes = encoded.frame.boxes_to_model(np.array([[9, 5, 60, 40]], np.float32))
    np.testing.assert_allclose(boxes, inputs.input_boxes[0].numpy(), atol=1e-4)
