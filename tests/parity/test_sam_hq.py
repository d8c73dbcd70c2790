"""Equal random weights, equal outputs: textsam against `transformers.SamHQModel`.

`SamHQMaskDecoder.forward` of transformers 5 drops the image that the two-way transformer returns,
and upscales its input with rows and columns exchanged. The released `MaskDecoderHQ` upscales the
output, as SAM does, and so do we; hooks give the oracle that image.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from textsam.inference.model import TextSAM
from textsam.modeling.sam import Sam
from textsam.weights.convert import config_to_huggingface, read_checkpoint, write_huggingface

transformers = pytest.importorskip("transformers")

PROMPTS = ["point", "points", "box", "points+box", "point+mask", "points+box+mask", "mask"]


@pytest.fixture(scope="module")
def folder(randomize, tmp_path_factory):
    """A small `SamHQModel` as the hub has it; the second block is its first global one."""
    config = transformers.SamHQConfig(
        vision_config=transformers.SamHQVisionConfig(
            hidden_size=48,
            num_hidden_layers=4,
            num_attention_heads=4,
            global_attn_indexes=[1, 3],
            image_size=64,
        ),
        prompt_encoder_config=transformers.SamHQPromptEncoderConfig(image_size=64),
        mask_decoder_config=transformers.SamHQMaskDecoderConfig(vit_dim=48),
    )
    oracle = transformers.SamHQModel(config)
    randomize(oracle)
    path = tmp_path_factory.mktemp("hub") / "sam-hq"
    oracle.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def pair(folder):
    sam = TextSAM.from_pretrained(folder).sam
    assert isinstance(sam, Sam)
    oracle = transformers.SamHQModel.from_pretrained(folder).eval()
    upscale_the_output(oracle.mask_decoder)
    return oracle, sam


def upscale_the_output(decoder) -> None:
    """Upscale what the transformer returns; changes nothing where that is done already."""
    kept = {}

    def keep(module, inputs, outputs):
        kept["image"] = outputs[1]  # (B, P, s*s, C)

    def use(module, inputs):
        image = kept.pop("image").flatten(0, 1).transpose(1, 2)
        return (image.unflatten(2, inputs[0].shape[-2:]),)

    decoder.transformer.register_forward_hook(keep)
    decoder.upscale_conv1.register_forward_pre_hook(use)


@pytest.mark.parametrize("kinds", PROMPTS)
def test_masks_and_iou(pair, kinds, make_prompts, assert_equal_masks):
    oracle, ours = pair
    pixels, prompts = torch.randn(2, 3, 64, 64), make_prompts(kinds, 64)
    with torch.no_grad():
        found = ours(pixels, prompts.batch(images=(0, 1)))
        for multiple, part in ((False, found.single()), (True, found.multiple())):
            expected = oracle(
                pixels,
                input_points=None if prompts.points is None else prompts.points[:, None],
                input_labels=None if prompts.labels is None else prompts.labels[:, None],
                input_boxes=None if prompts.boxes is None else prompts.boxes[:, None],
                input_masks=prompts.masks,
                multimask_output=multiple,
            )
            # transformers sorts the readings by their IoU, we keep them in the tokens' order.
            order = part.iou.argsort(dim=1, descending=True)
            part.logits[:] = part.logits[torch.arange(2)[:, None], order]
            part.iou[:] = part.iou.gather(1, order)
            assert_equal_masks(part, expected.pred_masks[:, 0], expected.iou_scores[:, 0])


def test_the_token_alone(pair, make_prompts):
    oracle, ours = pair
    pixels, prompts = torch.randn(1, 3, 64, 64), make_prompts("points+box", 64)
    batch = prompts.batch(images=(0, 0))
    head = ours.mask_decoder.mask_heads
    with torch.no_grad():
        # Without their heads' last layers, SAM's own masks are zero and what is added remains.
        saved = {key: value.clone() for key, value in head.state_dict().items()}
        for key, value in head.state_dict().items():
            if ".layers.2." in key:
                value.zero_()
        found = ours(pixels, batch).logits
        head.load_state_dict(saved)
        expected = oracle(
            pixels,
            input_points=prompts.points[None],
            input_labels=prompts.labels[None],
            input_boxes=prompts.boxes[None],
            multimask_output=False,
            hq_token_only=True,
        ).pred_masks[0]
    assert expected.std() > 0.1
    assert (found - expected).abs().max() <= 1e-4


def test_features_are_needed(pair, make_prompts):
    _, ours = pair
    with torch.no_grad():
        features = ours.encode_image(torch.randn(3, 3, 64, 64))
    assert features.detail is not None and features[1:].detail.shape == (2, 32, 16, 16)
    with pytest.raises(ValueError, match="encode_image"):
        ours.decode(replace(features, detail=None), make_prompts("box", 64).batch(images=(0, 1)))


def test_writes_what_transformers_reads(pair, folder, tmp_path):
    oracle, ours = pair
    config = read_checkpoint(folder)[0]
    write_huggingface(tmp_path, config, ours.state_dict())
    again, info = transformers.SamHQModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert config_to_huggingface(config)["model_type"] == "sam_hq"
    expected = oracle.state_dict()
    found = again.state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
