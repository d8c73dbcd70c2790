"""A plain ViT becomes the image encoder's start, entirely or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from textsam.errors import WeightsError
from textsam.modeling.config import SamConfig, ViTConfig
from textsam.modeling.image_encoder import ImageEncoderViT
from training.pretrained import initialise_encoder

SIZES = ViTConfig(width=32, depth=2, heads=2, global_attention_indexes=(1,), window_size=2)
CONFIG = SamConfig(encoder=SIZES, image_size=64, embed_dim=16)


def plain_vit(*, patch: int = 16, depth: int = 2) -> torch.nn.Module:
    torch.manual_seed(1)
    return timm.models.VisionTransformer(
        img_size=4 * patch, patch_size=patch, embed_dim=32, depth=depth, num_heads=2, num_classes=0
    )


def encoder() -> ImageEncoderViT:
    torch.manual_seed(0)
    return ImageEncoderViT(CONFIG)


def mae_state(vit: torch.nn.Module) -> dict[str, Tensor]:
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_embed.weight": torch.zeros(8, 32)}
    return {**vit.state_dict(), **decoder}


def test_the_encoder_computes_what_the_vit_computes(tmp_path: Path) -> None:
    """Relative positions start at zero, so a block without windows equals the ViT's."""
    vit, ours = plain_vit().eval(), encoder().eval()
    torch.save({"model": mae_state(vit)}, tmp_path / "mae.pth")
    done = initialise_encoder(ours, tmp_path / "mae.pth")
    tokens = torch.randn(1, 16, 32)
    expected = vit.blocks[1](tokens)
    found = ours.blocks[1](tokens.unflatten(1, (4, 4))).flatten(1, 2)
    torch.testing.assert_close(found, expected)
    pixels = torch.randn(1, 3, 64, 64)
    patches = ours.patch_embed(pixels).permute(0, 2, 3, 1) + ours.position_embedding
    embedded = vit.patch_embed(pixels) + vit.pos_embed[:, 1:]
    torch.testing.assert_close(patches.flatten(1, 2), embedded)
    assert {name.split(".")[0] for name in done.fresh} == {"blocks", "neck"}
    assert all("relative" in name for name in done.fresh if name.startswith("blocks"))
    assert {"cls_token", "mask_token", "decoder_embed.weight"} <= set(done.left_out)


def test_patches_of_14_and_another_grid_are_stretched(tmp_path: Path) -> None:
    ours = encoder()
    save_file(plain_vit(patch=14).state_dict(), tmp_path / "vit.safetensors")
    initialise_encoder(ours, tmp_path / "vit.safetensors")
    whole = ImageEncoderViT(SamConfig(encoder=SIZES, image_size=128, embed_dim=16))
    initialise_encoder(whole, tmp_path / "vit.safetensors")
    grid = plain_vit(patch=14).pos_embed[:, 1:].unflatten(1, (4, 4))
    torch.testing.assert_close(ours.position_embedding, grid)
    assert whole.position_embedding.shape == (1, 8, 8, 32)
    halved = F.avg_pool2d(whole.position_embedding.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    inner, expected = halved[:, 1:3, 1:3].detach(), grid[:, 1:3, 1:3].detach()
    assert torch.corrcoef(torch.stack([inner.flatten(), expected.flatten()]))[0, 1] > 0.9


def test_another_size_or_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vit.pth"
    cases = {
        "lacks keys": plain_vit(depth=1).state_dict(),
        "has unknown keys": plain_vit(depth=3).state_dict(),
        "another size": {**plain_vit().state_dict(), "blocks.0.mlp.fc1.bias": torch.zeros(7)},
        "lacks": {"image_encoder.patch_embed.weight": torch.zeros(1)},
    }
    for message, state in cases.items():
        ours = encoder()
        before = {name: value.clone() for name, value in ours.state_dict().items()}
        torch.save(state, path)
        with pytest.raises(WeightsError, match=message):
            initialise_encoder(ours, path)
        assert all(torch.equal(v, before[k]) for k, v in ours.state_dict().items())
    path.write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="cannot read"):
        initialise_encoder(encoder(), path)
    with pytest.raises(WeightsError, match="there is no file"):
        initialise_encoder(encoder(), tmp_path / "gone.pth")
