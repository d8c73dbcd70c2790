"""Equal random weights, equal outputs: textsam against MobileSAM (PyPI mobilesam-mirror)."""

from __future__ import annotations

import warnings

import pytest
import torch

from textsam.modeling.config import SAM_CONFIGS, SamConfig, TinyViTConfig
from textsam.modeling.sam import Sam
from textsam.modeling.tiny_vit import TinyViT
from textsam.weights.convert import read_checkpoint
from textsam.weights.released_names import from_mobile_sam, to_mobile_sam
from textsam.weights.strict import infer_config

TOLERANCE = 1e-4
CLASSIFIER = {f"image_encoder.{name}" for name in ("norm_head.weight", "norm_head.bias")} | {
    f"image_encoder.{name}" for name in ("head.weight", "head.bias")
}


@pytest.fixture(scope="module")
def mobile_sam():
    """The package, kept from overwriting timm's own TinyViT in timm's registry."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as monkeypatch:
        warnings.simplefilter("ignore")
        registry = pytest.importorskip("timm.models.registry")
        monkeypatch.setattr(registry, "register_model", lambda function: function)
        return pytest.importorskip("mobile_sam")


@pytest.fixture(scope="module")
def oracle(mobile_sam, randomize):
    network = mobile_sam.sam_model_registry["vit_t"]()
    randomize(network)
    return network.train().eval()  # its attention caches the biases on the way to eval()


@pytest.mark.slow
def test_published_size_at_1024(oracle, make_prompts, assert_equal_masks):
    ours = Sam(SAM_CONFIGS["vit_t"]).eval()
    ours.load_state_dict(from_mobile_sam(oracle.state_dict()))
    pixels, prompts = torch.randn(1, 3, 1024, 1024), make_prompts("points", 1024)
    with torch.no_grad():
        features = ours.encode_image(pixels)
        embedding = oracle.image_encoder(pixels)
        assert embedding.std() > 0.1
        assert (features.embedding - embedding).abs().max() <= TOLERANCE
        sparse, dense = oracle.prompt_encoder(
            points=(prompts.points, prompts.labels), boxes=None, masks=None
        )
        logits, iou = oracle.mask_decoder(
            image_embeddings=embedding,
            image_pe=oracle.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        found = ours.decode(features, prompts.batch(images=(0, 0)))
    assert_equal_masks(found.multiple(), logits, iou)


def encode(theirs, pixels):
    """Their forward pass without the 64 x 64 that is written into it."""
    x = theirs.patch_embed(pixels)
    for layer in theirs.layers:
        x = layer(x)
    side = pixels.shape[-1] // 16
    return theirs.neck(x.transpose(1, 2).unflatten(2, (side, side)))


@pytest.mark.parametrize("side", [64, 240])
def test_encoder_at_other_sizes(mobile_sam, randomize, side):
    """Their forward pass is bound to 1024 pixels, its parts are not."""
    sizes = TinyViTConfig(widths=(16, 32, 48, 320), depths=(1, 1, 2, 1), heads=(1, 2, 3, 5))
    theirs = mobile_sam.modeling.TinyViT(
        img_size=side,
        embed_dims=list(sizes.widths),
        depths=list(sizes.depths),
        num_heads=list(sizes.heads),
        window_sizes=list(sizes.window_sizes),
        drop_path_rate=0.0,
    )
    whole = torch.nn.Module()
    whole.image_encoder = theirs
    randomize(whole)
    theirs.train().eval()
    config = SamConfig(encoder=sizes, image_size=side)
    decoder = {
        key: tensor
        for key, tensor in to_mobile_sam(Sam(config).state_dict(), config).items()
        if not key.startswith("image_encoder.")
    }
    weights = from_mobile_sam({**whole.state_dict(), **decoder}, config)
    ours = TinyViT(config).eval()
    prefix = "image_encoder."
    ours.load_state_dict(
        {k.removeprefix(prefix): t for k, t in weights.items() if k.startswith(prefix)}
    )
    pixels = torch.randn(2, 3, side, side)
    for training in (False, True):
        theirs.train(training)
        ours.train(training)
        expected, found = encode(theirs, pixels), ours(pixels).embedding
        assert expected.std() > 0.1
        assert (found - expected).abs().max() <= TOLERANCE
    weight = torch.randn_like(expected)
    (expected * weight).mean().backward()
    (found * weight).mean().backward()
    for name in ("biases", "qkv.bias", "norm.bias"):
        mine = ours.get_parameter(f"stages.2.blocks.0.attention.{name}").grad
        other = theirs.get_parameter(
            f"layers.2.blocks.0.attn.{name.replace('biases', 'attention_biases')}"
        ).grad
        assert (mine - other).abs().max() <= 1e-3 * other.abs().max(), name


def test_round_trip_and_file(oracle, tmp_path):
    path = tmp_path / "mobile_sam.pt"
    torch.save(oracle.state_dict(), path)
    config, weights = read_checkpoint(path)
    assert config == SAM_CONFIGS["vit_t"] == infer_config(weights)
    back, expected = to_mobile_sam(weights), oracle.state_dict()
    assert back.keys() == expected.keys()
    assert all(torch.equal(back[key], expected[key]) for key in expected.keys() - CLASSIFIER)
    oracle.load_state_dict(back, strict=True)
