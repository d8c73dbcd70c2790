"""Masked CLIP: the crops' geometry, and what each kind of tower may and may not see."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.timm_model import TimmModel
from torch import Tensor, nn

from textsam.clip import mask_crops, masked
from textsam.clip.mask_crops import sample_crop_options, square_crops
from textsam.clip.masked import masked_image_embedding
from textsam.errors import ImageError, PromptError, WeightsError
from textsam.values.rle import encode_mask, encode_masks

SIDE = 32
TEXT = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": SIDE, "patch_size": 8, "width": 32, "head_width": 16, "layers": 3}
VISION: dict[str, dict[str, Any]] = {
    "class token": VIT,
    "class token, custom block": VIT | {"block_type": "custom", "qk_norm": True},
    "class token, layer scale": VIT | {"ls_init_value": 0.5},
    "average": VIT | {"pool_type": "avg"},
    "average, late norm": VIT | {"pool_type": "avg", "final_ln_after_pool": True},
    "attention pool": VIT
    | {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2},
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32},
    "cnn": {"image_size": 64, "timm_model_name": "test_efficientnet", "timm_proj": "mlp"},
    "cnn, norm head": {"image_size": 64, "timm_model_name": "test_convnext", "timm_pool": ""},
    "cnn, own projection": {
        "image_size": 64,
        "timm_model_name": "test_resnet",
        "timm_proj": None,
    },
    "timm map": {
        "image_size": 160,
        "timm_model_name": "test_vit3",
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "timm token": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "token"},
    "timm average": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "avg"},
}
# All but those whose class token loses its own key.
EXACT_WHEN_FULL = [
    "average",
    "average, late norm",
    "resnet",
    "cnn",
    "cnn, norm head",
    "cnn, own projection",
    "timm average",
]


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """One small random model per kind of image tower."""
    torch.manual_seed(0)
    built = {}
    for name, vision in VISION.items():
        width = 96 if name == "timm map" else 24
        model = open_clip.CLIP(embed_dim=width, vision_cfg=dict(vision), text_cfg=dict(TEXT)).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):  # a fresh bn3.weight of 0 would hide the branch
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.running_mean, -0.2, 0.2)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
        built[name] = model
    return built


def side_of(model: Any) -> int:
    size = model.visual.image_size
    return size if isinstance(size, int) else size[0]


def random_crops(model: Any, count: int = 3) -> Tensor:
    return torch.randn(count, 3, side_of(model), side_of(model))


def random_masks(model: Any, count: int = 3) -> Tensor:
    """Rectangles of whole pixels that leave out at least a third of the crop."""
    side = side_of(model)
    masks = torch.zeros(count, side, side)
    for mask in masks:
        y, x = torch.randint(0, side // 3, (2,)).tolist()
        mask[y : y + side // 3, x : x + side // 2] = 1
    return masks


# --- crops ----------------------------------------------------------------------------------------


def disc(height: int, width: int, *, y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return (rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 <= radius**2


def photo(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_crop_of_its_own_size_is_the_window_itself() -> None:
    image, mask = photo(), np.zeros((40, 60), bool)
    mask[10:18, 20:36] = True  # 8 high, 16 wide: the window is x 20..36, y 6..22
    crops, shares = square_crops(image, mask, size=16)
    assert crops.dtype == torch.uint8
    assert shares.dtype == torch.float32
    assert np.array_equal(crops[0].numpy().transpose(1, 2, 0), image[6:22, 20:36])
    assert np.array_equal(shares[0].numpy(), mask[6:22, 20:36])


def test_expansion_scales_the_window_about_the_box() -> None:
    image, mask = photo(), np.zeros((40, 60), bool)
    mask[16:24, 26:34] = True
    crops, _ = square_crops(image, mask, size=16, expand=2.0)
    assert np.array_equal(crops[0].numpy().transpose(1, 2, 0), image[12:28, 22:38])


def test_what_leaves_the_image_is_filled_and_outside_the_mask() -> None:
    image, mask = np.full((8, 8, 3), 200, np.uint8), np.ones((8, 8), bool)
    crops, shares = square_crops(image, mask, size=16, expand=2.0, fill=(1, 2, 3))
    outside = np.ones((16, 16), bool)
    outside[4:12, 4:12] = False
    assert np.array_equal(shares[0].numpy() == 0, outside)
    pixels = crops[0].numpy().transpose(1, 2, 0)
    assert (pixels[outside] == (1, 2, 3)).all()
    assert (pixels[~outside] == 200).all()


@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    seed=st.integers(0, 10_000),
    expand=st.floats(1, 2),
)
@settings(max_examples=60, deadline=None)
def test_the_window_holds_the_whole_mask(height: int, width: int, seed: int, expand: float) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    ys, xs = sorted(rng.integers(0, height, 2)), sorted(rng.integers(0, width, 2))
    mask[ys[0] : ys[1] + 1, xs[0] : xs[1] + 1] = True
    box = np.array([xs[0], ys[0], xs[1] + 1, ys[1] + 1])
    left, top, side = mask_crops._square_window(box, expand=expand)
    assert left <= box[0]
    assert top <= box[1]
    assert left + side >= box[2]
    assert top + side >= box[3]
    assert side - expand * max(box[2] - box[0], box[3] - box[1]) <= 0.5
    # At its own size nothing is resampled, so no pixel of the mask is lost.
    _, shares = square_crops(np.zeros((height, width, 3), np.uint8), mask, size=side, expand=expand)
    assert shares.sum() == mask.sum()


@pytest.mark.parametrize("size", [7, 24, 96])
def test_zeroed_pixels_have_no_influence_on_the_crop(size: int) -> None:
    mask = disc(40, 60, y=21, x=33, radius=9)
    image = photo()
    noise = np.where(mask[..., None], image, 255 - image)
    crops, shares = square_crops(image, [mask, mask], size=size, expand=1.7, zero_outside=True)
    other, _ = square_crops(noise, [mask, mask], size=size, expand=1.7, zero_outside=True)
    assert torch.equal(crops, other)
    assert bool((crops[:, :, 0, 0] == 0).all())
    seen, _ = square_crops(noise, mask, size=size, expand=1.7)
    assert not torch.equal(crops[:1], seen)
    assert bool((shares > 0).any())


def test_options_may_differ_by_mask_and_batches_equal_loops() -> None:
    image = photo()
    masks = np.stack([disc(40, 60, y=12, x=10 + 9 * k, radius=5 + k) for k in range(4)])
    expand, zero = sample_crop_options(4, np.random.default_rng(3))
    assert ((expand >= 1) & (expand < 2)).all()
    crops, shares = square_crops(image, masks, size=24, expand=expand, zero_outside=zero)
    for k, mask in enumerate(masks):
        crop, share = square_crops(
            image, mask, size=24, expand=float(expand[k]), zero_outside=bool(zero[k])
        )
        assert torch.equal(crop[0], crops[k])
        assert torch.equal(share[0], shares[k])


def test_every_form_of_a_mask_gives_the_same_crop() -> None:
    image = photo()
    masks = np.stack([disc(40, 60, y=20, x=x, radius=7) for x in (15, 40)])
    wanted, shares = square_crops(image, masks, size=20)
    forms = (list(masks), encode_masks(masks), torch.from_numpy(masks), list(torch.tensor(masks)))
    for form in forms:
        crops, inside = square_crops(image, form, size=20)
        assert torch.equal(crops, wanted)
        assert torch.equal(inside, shares)
    for one in (masks[0], encode_mask(masks[0]), torch.from_numpy(masks[0])):
        assert torch.equal(square_crops(image, one, size=20)[0], wanted[:1])


def test_no_masks_give_no_crops() -> None:
    crops, shares = square_crops(photo(), [], size=20)
    assert crops.shape == (0, 3, 20, 20)
    assert shares.shape == (0, 20, 20)


def test_enlarged_shares_stay_inside_the_mask() -> None:
    """A share must not bleed into a neighbouring patch, or the patch would count as inside."""
    mask = np.zeros((10, 10), bool)
    mask[4:6, 4:6] = True
    _, shares = square_crops(photo(10, 10), mask, size=64, expand=2.0)
    assert set(shares.unique().tolist()) == {0.0, 1.0}
    assert shares.sum() == 32 * 32


def test_bad_masks_and_options_are_refused() -> None:
    image, mask = photo(), disc(40, 60, y=20, x=30, radius=5)
    for bad in (mask[:20], mask.astype(np.float32), mask.astype(np.uint8), mask & False):
        with pytest.raises(PromptError, match="mask 0"):
            square_crops(image, [bad], size=16)
    with pytest.raises(PromptError, match="mask 1"):
        square_crops(image, [encode_mask(mask), encode_mask(mask[:, :50])], size=16)
    for expand in (0.5, float("nan"), [1.0, 1.5]):
        with pytest.raises(PromptError, match="expand"):
            square_crops(image, [mask], size=16, expand=expand)
    with pytest.raises(PromptError, match="zero_outside"):
        square_crops(image, [mask], size=16, zero_outside=[True, False])
    for picture in (image / 255, image[..., 0], image.transpose(2, 0, 1)):
        with pytest.raises(ImageError, match="load_image"):
            square_crops(picture, [mask], size=16)


# --- towers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VISION)
def test_batch_equals_loop_and_gradients_flow(models: dict[str, Any], name: str) -> None:
    torch.manual_seed(1)
    model = models[name]
    crops, masks = random_crops(model).requires_grad_(), random_masks(model)
    batch = masked_image_embedding(model, crops, masks)
    assert batch.shape == (3, 96 if name == "timm map" else 24)
    loop = [
        masked_image_embedding(model, crop[None], mask[None])
        for crop, mask in zip(crops, masks, strict=True)
    ]
    torch.testing.assert_close(batch, torch.cat(loop), rtol=1e-5, atol=1e-5)
    batch.square().sum().backward()
    assert crops.grad is not None
    assert bool((crops.grad.abs().amax((1, 2, 3)) > 0).all())
    model.zero_grad()


@pytest.mark.parametrize("name", VISION)
def test_the_mask_matters(models: dict[str, Any], name: str) -> None:
    torch.manual_seed(1)
    model = models[name]
    crops, masks = random_crops(model), random_masks(model)
    with torch.no_grad():
        one = masked_image_embedding(model, crops, masks)
        other = masked_image_embedding(model, crops, masks.flip(1, 2))
    assert float((one - other).abs().amax()) > 1e-4


@pytest.mark.parametrize("name", EXACT_WHEN_FULL)
def test_a_full_mask_changes_nothing(models: dict[str, Any], name: str) -> None:
    torch.manual_seed(2)
    model = models[name]
    crops = random_crops(model)
    with torch.no_grad():
        got = masked_image_embedding(model, crops, torch.ones_like(crops[:, 0]))
        wanted = model.encode_image(crops)
    if isinstance(model.visual, TimmModel):
        assert torch.equal(got, wanted)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_a_full_mask_on_the_shipped_architecture_is_bit_identical() -> None:
    torch.manual_seed(0)
    visual = TimmModel("tf_efficientnet_lite0", 16, image_size=96, pool="avg", proj="mlp").eval()
    model = nn.Module()
    model.visual = visual
    crops = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        got = masked_image_embedding(model, crops, torch.ones(2, 96, 96))
        assert torch.equal(got, visual(crops))


def with_trunk(trunk: nn.Module) -> Any:
    """An open_clip-like model around a timm trunk that no registered name builds this small."""
    model: Any = nn.Module()
    model.visual = TimmModel("test_vit", 24, pool="token", image_size=SIDE)
    model.visual.trunk, model.visual.head = trunk, nn.Identity()
    return model.eval()


TRUNK: dict[str, Any] = {
    "img_size": SIDE,
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "num_classes": 0,
}


def test_a_full_mask_on_siglip_s_pool_changes_nothing() -> None:
    """The latent query attends to patches only, so there is no own key to lose."""
    torch.manual_seed(0)
    trunk = timm.models.vision_transformer.VisionTransformer(
        **TRUNK, class_token=False, global_pool="map"
    )
    model = with_trunk(trunk)
    crops, masks = torch.randn(2, 3, SIDE, SIDE), torch.zeros(2, SIDE, SIDE)
    masks[:, 8:16, 8:24] = 1
    with torch.no_grad():
        full = masked_image_embedding(model, crops, torch.ones_like(masks))
        torch.testing.assert_close(full, trunk(crops), rtol=1e-5, atol=1e-6)
        tokens = trunk.forward_features(crops)
        wanted = trunk.head(trunk.fc_norm(trunk.attn_pool(tokens[:, [5, 6]])))
        torch.testing.assert_close(masked_image_embedding(model, crops, masks), wanted)


def written_out_attention(block: Any, x: Tensor, keys: Tensor) -> Tensor:
    """Class token after a block, with plain maths; keys (n, 1 + L) bool says what it may see."""
    y = block.ln_1(x)
    q, k, v = F.linear(y, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, -1)
    heads, rows = block.attn.num_heads, []
    for n in range(len(x)):
        seen = keys[n].nonzero().flatten()
        outputs = []
        for head in range(heads):
            part = slice(head * x.shape[2] // heads, (head + 1) * x.shape[2] // heads)
            scores = k[n, seen, part] @ q[n, 0, part] / (x.shape[2] // heads) ** 0.5
            outputs.append(torch.softmax(scores, 0) @ v[n, seen, part])
        rows.append(torch.cat(outputs))
    token = x[:, 0] + block.ls_1(block.attn.out_proj(torch.stack(rows)))
    return token + block.ls_2(block.mlp(block.ln_2(token)))


@pytest.mark.parametrize("name", ["class token", "class token, layer scale"])
@pytest.mark.parametrize("full", [True, False])
def test_the_class_token_is_the_paper_s_written_out(
    models: dict[str, Any], name: str, full: bool
) -> None:
    torch.manual_seed(3)
    model = models[name]
    visual = model.visual
    crops, masks = random_crops(model), random_masks(model)
    masks = torch.ones_like(masks) if full else masks
    grid = F.max_pool2d(masks[:, None], 8).flatten(1) > 0
    nobody = torch.zeros(len(crops), 1, dtype=torch.bool)
    with torch.no_grad():
        x = visual._embeds(crops)
        for block in visual.transformer.resblocks[:-1]:
            x = block(x)
        last = visual.transformer.resblocks[-1]
        token = written_out_attention(last, x, torch.cat([nobody, grid], 1))
        wanted = visual.ln_post(token) @ visual.proj
        got = masked_image_embedding(model, crops, masks)
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
        if full:  # with its own key back, it is open_clip's own output
            token = written_out_attention(last, x, torch.cat([~nobody, grid], 1))
            own = visual.ln_post(token) @ visual.proj
            torch.testing.assert_close(own, model.encode_image(crops), rtol=1e-4, atol=1e-5)
            assert float((own - got).abs().amax()) > 1e-5


@pytest.mark.parametrize("name", ["class token", "class token, custom block"])
def test_tokens_outside_do_not_reach_the_last_layer_s_output(
    models: dict[str, Any], name: str
) -> None:
    """Exactly: of the last block's input, only the class token and the patches inside count."""
    torch.manual_seed(4)
    block = models[name].visual.transformer.resblocks[-1]
    x = torch.randn(2, 17, 32)
    inside = torch.zeros(2, 16, dtype=torch.bool)
    inside[0, 3:7] = inside[1, [0, 15]] = True
    noisy = x.clone()
    noisy[:, 1:][~inside] += 10 * torch.randn(int((~inside).sum()), 32)
    with torch.no_grad():
        token = masked._last_block_token(block, x, inside)
        torch.testing.assert_close(token, masked._last_block_token(block, noisy, inside))
    changed = x.clone()
    changed[:, 1:][inside] += torch.randn(int(inside.sum()), 32)
    with torch.no_grad():
        assert float((masked._last_block_token(block, changed, inside) - token).abs().amax()) > 1e-3
    x.requires_grad_()
    masked._last_block_token(block, x, inside).sum().backward()
    assert x.grad is not None
    touched = x.grad.abs().sum(-1) > 0
    assert torch.equal(touched, torch.cat([torch.ones(2, 1, dtype=torch.bool), inside], 1))


def test_with_one_layer_pixels_outside_the_patches_do_not_count() -> None:
    """One layer is its own last layer, so nothing has mixed the patches before."""
    torch.manual_seed(5)
    model = open_clip.CLIP(embed_dim=24, vision_cfg=VIT | {"layers": 1}, text_cfg=TEXT).eval()
    crops, masks = torch.randn(1, 3, SIDE, SIDE), torch.zeros(1, SIDE, SIDE)
    masks[0, 9:15, 8:23] = 1  # patches (1, 1) and (1, 2)
    noisy = crops + torch.randn_like(crops)
    noisy[..., 8:16, 8:24] = crops[..., 8:16, 8:24]
    with torch.no_grad():
        one, other = (masked_image_embedding(model, pixels, masks) for pixels in (crops, noisy))
    assert torch.equal(one, other)


def test_earlier_layers_do_see_the_whole_crop(models: dict[str, Any]) -> None:
    model = models["class token"]
    crops, masks = torch.randn(1, 3, SIDE, SIDE), torch.zeros(1, SIDE, SIDE)
    masks[0, :8, :8] = 1
    noisy = crops.clone()
    noisy[..., 16:, 16:] += 1
    with torch.no_grad():
        one, other = (masked_image_embedding(model, pixels, masks) for pixels in (crops, noisy))
    assert float((one - other).abs().amax()) > 1e-5


@pytest.mark.parametrize("name", ["cnn", "cnn, norm head", "cnn, own projection", "resnet"])
def test_features_outside_do_not_reach_a_cnn_s_output(
    models: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(6)
    model = models[name]
    crops, masks = random_crops(model, 1), torch.zeros(1, 64, 64)
    masks[:, :32, :32] = 1  # the first of 2 x 2 positions
    with torch.no_grad():
        wanted = masked_image_embedding(model, crops, masks)
        resnet = name == "resnet"
        owner = model.visual.layer4 if resnet else model.visual.trunk
        attribute = "forward" if resnet else "forward_features"
        original = getattr(owner, attribute)

        def noisy(x: Tensor) -> Tensor:
            features = original(x).clone()
            features[..., 1:, :] += 5
            features[..., :, 1:] += 5
            return features

        monkeypatch.setattr(owner, attribute, noisy)
        torch.testing.assert_close(masked_image_embedding(model, crops, masks), wanted)


def test_a_cnn_s_mean_is_weighted_by_the_share(models: dict[str, Any]) -> None:
    torch.manual_seed(7)
    model = models["cnn"]
    crops, masks = random_crops(model, 1), torch.zeros(1, 64, 64)
    masks[:, :32, :48] = 1  # position (0, 0) wholly, (0, 1) by half
    with torch.no_grad():
        trunk, head = model.visual.trunk, model.visual.head
        features = trunk.forward_features(crops)
        assert features.shape[2:] == (2, 2)
        mean = (features[..., 0, 0] + 0.5 * features[..., 0, 1]) / 1.5
        torch.testing.assert_close(masked_image_embedding(model, crops, masks), head(mean))


def test_any_pixel_counts_unless_a_share_is_asked_for(models: dict[str, Any]) -> None:
    model = models["class token"]
    crops = random_crops(model, 1)
    many, one = torch.zeros(2, 1, SIDE, SIDE)
    many[0, :8, :8] = one[0, :8, :8] = 1
    many[0, 20, 20] = 1
    with torch.no_grad():
        any_pixel = masked_image_embedding(model, crops, many)
        most = masked_image_embedding(model, crops, many, min_coverage=0.5)
        alone = masked_image_embedding(model, crops, one)
    assert torch.equal(most, alone)
    assert not torch.equal(any_pixel, alone)


@pytest.mark.parametrize("name", VISION)
def test_where_no_position_counts_the_fullest_does(models: dict[str, Any], name: str) -> None:
    model = models[name]
    side = side_of(model)
    crops, masks = random_crops(model, 1), torch.zeros(1, side, side)
    masks[:, side // 2, side // 2] = 1
    with torch.no_grad():
        wanted = masked_image_embedding(model, crops, masks)
        got = masked_image_embedding(model, crops, masks, min_coverage=0.9)
    assert bool(got.isfinite().all())
    assert torch.equal(got, wanted)


def test_a_mask_in_the_strip_that_no_patch_sees() -> None:
    """36 pixels in patches of 8 leave 4 unseen, as 384 in patches of 14 leave 6."""
    torch.manual_seed(0)
    model = open_clip.CLIP(embed_dim=24, vision_cfg=VIT | {"image_size": 36}, text_cfg=TEXT).eval()
    crops = torch.randn(1, 3, 36, 36)
    strip, near = torch.zeros(2, 1, 36, 36)
    strip[:, 4, 34] = near[:, 4, 30] = 1
    with torch.no_grad():
        assert torch.equal(
            masked_image_embedding(model, crops, strip), masked_image_embedding(model, crops, near)
        )


def test_checkpointing_changes_nothing(models: dict[str, Any]) -> None:
    model = copy.deepcopy(models["class token"])
    crops, masks = random_crops(model), random_masks(model)
    wanted = masked_image_embedding(model, crops, masks)
    model.set_grad_checkpointing(True)
    got = masked_image_embedding(model, crops, masks)
    torch.testing.assert_close(got, wanted)
    got.sum().backward()
    assert model.visual.conv1.weight.grad is not None


def test_timm_class_token_is_masked_in_the_last_block_only(models: dict[str, Any]) -> None:
    """Against a hook that hands the bias to the last block's attention."""
    torch.manual_seed(8)
    model = models["timm token"]
    trunk = model.visual.trunk
    crops, masks = random_crops(model), random_masks(model)
    inside = F.max_pool2d(masks[:, None], 16).flatten(1) > 0
    bias = torch.full((3, 1, 101, 101), 0.0)
    bias[:, 0, 0, 1:][~inside] = -torch.inf
    bias[:, 0, 0, 0] = -torch.inf
    hook = trunk.blocks[-1].attn.register_forward_pre_hook(
        lambda module, args, kwargs: (args, kwargs | {"attn_mask": bias}), with_kwargs=True
    )
    with torch.no_grad():
        wanted = model.encode_image(crops)
        hook.remove()
        got = masked_image_embedding(model, crops, masks)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_eva_with_rotary_positions_works() -> None:
    torch.manual_seed(9)
    trunk = timm.models.eva.Eva(**TRUNK, use_rot_pos_emb=True, global_pool="token")
    model = with_trunk(trunk)
    crops, masks = torch.randn(2, 3, SIDE, SIDE), torch.zeros(2, SIDE, SIDE)
    masks[:, 8:16, 8:24] = 1
    with torch.no_grad():
        got = masked_image_embedding(model, crops, masks)
        others = torch.stack([trunk(crops), masked_image_embedding(model, crops, 1 - masks)])
    assert got.shape == (2, 32)
    assert bool(((others - got).abs().amax(-1) > 1e-5).all())


@pytest.mark.parametrize(
    "vision",
    [
        {"image_size": 64, "timm_model_name": "test_resnet", "timm_pool": "max"},
        {"image_size": 64, "timm_model_name": "test_efficientnet", "timm_pool": "rot_attn"},
        VIT | {"pool_type": "none"},
        VIT | {"attentional_pool": "parallel", "attn_pooler_heads": 2},
    ],
)
def test_towers_that_cannot_be_masked_are_refused(vision: dict[str, Any]) -> None:
    model = open_clip.CLIP(embed_dim=32, vision_cfg=dict(vision), text_cfg=dict(TEXT)).eval()
    crops = random_crops(model, 1)
    with pytest.raises(WeightsError, match="cannot mask"):
        masked_image_embedding(model, crops, torch.ones_like(crops[:, 0]))


def test_patch_dropout_is_refused_where_it_is_active() -> None:
    vision = VIT | {"patch_dropout": 0.5}
    model = open_clip.CLIP(embed_dim=24, vision_cfg=vision, text_cfg=TEXT)
    crops, masks = torch.randn(1, 3, SIDE, SIDE), torch.ones(1, SIDE, SIDE)
    with pytest.raises(WeightsError, match="patch dropout"):
        masked_image_embedding(model.train(), crops, masks)
    assert masked_image_embedding(model.eval(), crops, masks).shape == (1, 24)


def test_masks_that_do_not_fit_are_refused(models: dict[str, Any]) -> None:
    model = models["class token"]
    crops, masks = random_crops(model, 2), torch.ones(2, SIDE, SIDE)
    for bad in (masks[:1], masks[:, :16], masks[:, None], masks > 0):
        with pytest.raises(PromptError, match="masks are"):
            masked_image_embedding(model, crops, bad)
    masks[1] = 0
    with pytest.raises(PromptError, match=r"masks \[1\] are empty"):
        masked_image_embedding(model, crops, masks)
    with pytest.raises(ImageError, match="crops have shape"):
        masked_image_embedding(model, crops[0], masks)
