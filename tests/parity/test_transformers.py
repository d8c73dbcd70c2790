"""Equal random weights, equal outputs: textsam against `transformers.SamModel`."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from textsam.modeling.sam import Sam
from textsam.weights.convert import (
    config_from_huggingface,
    config_to_huggingface,
    read_checkpoint,
    write_huggingface,
)
from textsam.weights.released_names import from_huggingface, to_huggingface

transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4
PROMPTS = [
    "point",
    "points",
    "box",
    "points+box",
    "point+mask",
    "box+mask",
    "points+box+mask",
    "mask",
]
TIED = "prompt_encoder.shared_embedding.positional_embedding"


def build_huggingface(side: int, **vision):
    """A small `SamModel`: the second block is global, the others have windows of 14."""
    sizes = {
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "global_attn_indexes": [1],
        "image_size": side,
        **vision,
    }
    config = transformers.SamConfig(
        vision_config=transformers.SamVisionConfig(**sizes),
        prompt_encoder_config=transformers.SamPromptEncoderConfig(image_size=side),
    )
    return transformers.SamModel(config).eval()


def load_ours(oracle) -> Sam:
    """Our network with the oracle's weights and sizes."""
    config = config_from_huggingface(oracle.config.to_dict())
    ours = Sam(config).eval()
    ours.load_state_dict(from_huggingface(oracle.state_dict(), config))
    return ours


@pytest.fixture(
    scope="module", params=[64, 240], ids=["one partial window", "borders on both sides"]
)
def pair(request, randomize):
    oracle = build_huggingface(request.param)
    randomize(oracle)
    return oracle, load_ours(oracle)


def ask(oracle, embedding, prompts, *, multiple: bool):
    """Logits (2, K, m, m) and IoU (2, K) of two images with one prompt each."""
    output = oracle(
        image_embeddings=embedding,
        input_points=None if prompts.points is None else prompts.points[:, None],
        input_labels=None if prompts.labels is None else prompts.labels[:, None],
        input_boxes=None if prompts.boxes is None else prompts.boxes[:, None],
        input_masks=prompts.masks,
        multimask_output=multiple,
    )
    return output.pred_masks[:, 0], output.iou_scores[:, 0]


def test_image_embedding(pair):
    oracle, ours = pair
    pixels = torch.randn(2, 3, ours.config.image_size, ours.config.image_size)
    with torch.no_grad():
        expected, found = oracle.get_image_embeddings(pixels), ours.encode_image(pixels).embedding
    assert expected.std() > 0.1
    assert (found - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize("kinds", PROMPTS)
def test_masks_and_iou(pair, kinds, make_prompts, assert_equal_masks):
    oracle, ours = pair
    side = ours.config.image_size
    pixels, prompts = torch.randn(2, 3, side, side), make_prompts(kinds, side)
    with torch.no_grad():
        features = ours.encode_image(pixels)
        found = ours.decode(features, prompts.batch(images=(0, 1)))
        for multiple, part in ((False, found.single()), (True, found.multiple())):
            expected = ask(oracle, features.embedding, prompts, multiple=multiple)
            assert_equal_masks(part, *expected)


def test_many_prompts_on_one_image(pair, make_prompts, assert_equal_masks):
    oracle, ours = pair
    side = ours.config.image_size
    pixels, prompts = torch.randn(1, 3, side, side), make_prompts("points+box", side)
    with torch.no_grad():
        found = ours(pixels, prompts.batch(images=(0, 0)))
        expected = oracle(
            pixel_values=pixels,
            input_points=prompts.points[None],
            input_labels=prompts.labels[None],
            input_boxes=prompts.boxes[None],
        )
    assert_equal_masks(found.multiple(), expected.pred_masks[0], expected.iou_scores[0])


@pytest.mark.slow
def test_geometry_of_vit_b_at_1024(randomize, make_prompts, assert_equal_masks):
    """ViT-B in all but its depth: one block of windows, one global."""
    oracle = build_huggingface(1024, hidden_size=768, num_attention_heads=12, num_hidden_layers=2)
    randomize(oracle)
    ours = load_ours(oracle)
    pixels, prompts = torch.randn(1, 3, 1024, 1024), make_prompts("points+box", 1024)
    with torch.no_grad():
        features = ours.encode_image(pixels)
        embedding = oracle.get_image_embeddings(pixels)
        assert (features.embedding - embedding).abs().max() <= TOLERANCE
        found = ours.decode(features, prompts.batch(images=(0, 0)))
        expected = oracle(
            image_embeddings=embedding,
            input_points=prompts.points[None],
            input_labels=prompts.labels[None],
            input_boxes=prompts.boxes[None],
        )
    assert_equal_masks(found.multiple(), expected.pred_masks[0], expected.iou_scores[0])


def test_reads_what_transformers_saves(pair, tmp_path):
    oracle, ours = pair
    oracle.save_pretrained(tmp_path)
    config, weights = read_checkpoint(tmp_path)
    assert config == ours.config
    expected = ours.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], expected[key]) for key in expected)


def test_reads_shards(pair, tmp_path):
    oracle, ours = pair
    oracle.save_pretrained(tmp_path, max_shard_size="2MB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    weights = read_checkpoint(tmp_path)[1]
    assert all(torch.equal(weights[key], tensor) for key, tensor in ours.state_dict().items())


def test_transformers_reads_what_we_write(pair, tmp_path):
    oracle, ours = pair
    write_huggingface(tmp_path, ours.config, ours.state_dict())
    loaded, report = transformers.SamModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    expected = oracle.state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in loaded.state_dict().items())


def test_key_map_covers_exactly_their_names(pair):
    oracle, ours = pair
    back, expected = to_huggingface(ours.state_dict()), oracle.state_dict()
    assert back.keys() | {TIED} == expected.keys()
    assert all(torch.equal(back[key], expected[key]) for key in back)


def test_config_round_trip(pair):
    config = dataclasses.replace(pair[1].config, iou_depth=4, multimasks=2, decoder_mlp=96)
    assert config_from_huggingface(config_to_huggingface(config)) == config
