"""Equal random weights, equal outputs: textsam against PyPI's segment-anything."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from textsam.modeling.config import SamConfig
from textsam.modeling.sam import Sam
from textsam.weights.released_names import from_official, to_official
from textsam.weights.strict import infer_config

official = pytest.importorskip("segment_anything.modeling")

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


def build_official(side: int, *, width: int = 48, depth: int = 3, heads: int = 4) -> nn.Module:
    """A small SAM of the released code: the second block is global, the others have windows."""
    return official.Sam(
        image_encoder=official.ImageEncoderViT(
            img_size=side,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=14,
            global_attn_indexes=(1,),
        ),
        prompt_encoder=official.PromptEncoder(
            embed_dim=256,
            image_embedding_size=(side // 16, side // 16),
            input_image_size=(side, side),
            mask_in_chans=16,
        ),
        mask_decoder=official.MaskDecoder(
            num_multimask_outputs=3,
            transformer=official.TwoWayTransformer(
                depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8
            ),
            transformer_dim=256,
        ),
    ).eval()


@pytest.fixture(
    scope="module", params=[64, 320], ids=["one partial window", "borders on both sides"]
)
def pair(request, randomize):
    """The oracle and our network with the same weights."""
    oracle = build_official(request.param)
    randomize(oracle)
    weights = from_official(oracle.state_dict())
    ours = Sam(infer_config(weights)).eval()
    ours.load_state_dict(weights)
    return oracle, ours


def test_image_embedding(pair):
    oracle, ours = pair
    pixels = torch.randn(2, 3, ours.config.image_size, ours.config.image_size)
    with torch.no_grad():
        expected, found = oracle.image_encoder(pixels), ours.encode_image(pixels).embedding
    assert expected.std() > 0.1
    assert (found - expected).abs().max() <= TOLERANCE


def test_gradients_of_the_image_encoder(pair):
    oracle, ours = pair
    pixels = torch.randn(1, 3, ours.config.image_size, ours.config.image_size)
    expected = oracle.image_encoder(pixels)
    weight = torch.randn_like(expected)
    (expected * weight).mean().backward()
    (ours.encode_image(pixels).embedding * weight).mean().backward()
    # Gradients have the names and shapes of weights, so the key map translates them, too.
    gradients = {name: tensor.detach() for name, tensor in oracle.state_dict().items()}
    gradients |= {name: p.grad for name, p in oracle.named_parameters() if p.grad is not None}
    expected_gradients = from_official(gradients, ours.config)
    for name, parameter in ours.image_encoder.named_parameters():
        expected = expected_gradients[f"image_encoder.{name}"]
        difference = (parameter.grad - expected).abs().max()
        assert difference <= 1e-3 * expected.abs().max() + 1e-9, name
    oracle.zero_grad()
    ours.zero_grad()


@pytest.mark.parametrize("kinds", PROMPTS)
def test_masks_and_iou(pair, kinds, make_prompts, assert_equal_masks):
    oracle, ours = pair
    side = ours.config.image_size
    pixels, prompts = torch.randn(1, 3, side, side), make_prompts(kinds, side)
    points = None if prompts.points is None else (prompts.points, prompts.labels)
    with torch.no_grad():
        found = ours(pixels, prompts.batch(images=(0, 0)))
        sparse, dense = oracle.prompt_encoder(
            points=points, boxes=prompts.boxes, masks=prompts.masks
        )
        # With a mask alone the released code loses the number of prompts.
        sparse = sparse.expand(2, -1, -1)
        embedding = oracle.image_encoder(pixels)
        for multiple, ours_part in ((False, found.single()), (True, found.multiple())):
            logits, iou = oracle.mask_decoder(
                image_embeddings=embedding,
                image_pe=oracle.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=multiple,
            )
            assert_equal_masks(ours_part, logits, iou)


def test_preprocessing_and_positions(pair):
    oracle, ours = pair
    side = ours.config.image_size
    image = torch.randint(0, 256, (3, side // 2, side)).float()
    assert torch.allclose(ours.preprocess([image])[0], oracle.preprocess(image), atol=1e-6)
    expected, found = oracle.prompt_encoder.get_dense_pe(), ours.prompt_encoder.dense_positions()
    assert (found - expected).abs().max() <= TOLERANCE


def test_key_map_covers_exactly_the_released_names(pair):
    oracle, ours = pair
    back = to_official(ours.state_dict())
    expected = oracle.state_dict()
    assert back.keys() == expected.keys()
    assert all(torch.equal(back[key], expected[key]) for key in expected)
    oracle.load_state_dict(back, strict=True)


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_published_sizes(name):
    from segment_anything import sam_model_registry

    from textsam.modeling.config import SAM_CONFIGS

    with torch.device("meta"):
        state = sam_model_registry[name]().state_dict()
    config: SamConfig = infer_config(from_official(state))
    assert config == SAM_CONFIGS[name]
