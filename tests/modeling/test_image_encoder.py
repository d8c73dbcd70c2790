"""Properties of the ViT encoder and its attention; parity with the released code: tests/parity."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from textsam.modeling.config import SamConfig, TinyViTConfig, ViTConfig
from textsam.modeling.image_encoder import ImageEncoderViT
from textsam.modeling.layers import DropPath, drop_path_rates
from textsam.modeling.vit_attention import (
    RelativeAttention,
    attend_fused,
    attend_in_chunks,
    map_windows,
    pad_keys,
)


def tiny_config(*, side: int = 96, window: int = 4, **sizes) -> SamConfig:
    vit = {"width": 16, "depth": 2, "heads": 2, "global_attention_indexes": (1,), **sizes}
    return SamConfig(encoder=ViTConfig(window_size=window, **vit), image_size=side, embed_dim=8)


def build_encoder(**sizes) -> ImageEncoderViT:
    torch.manual_seed(0)
    encoder = ImageEncoderViT(tiny_config(**sizes))
    for name, parameter in encoder.named_parameters():
        if "relative" in name:
            torch.nn.init.normal_(parameter)
    return encoder.eval()


def random_terms(*, groups=3, queries=10, grid=(4, 5), width=8, dtype=torch.float32):
    torch.manual_seed(1)
    keys = grid[0] * grid[1]
    shapes = [
        (queries, width),
        (keys, width),
        (keys, width),
        (queries, grid[0]),
        (queries, grid[1]),
    ]
    return [torch.randn(groups, *shape, dtype=dtype, requires_grad=True) for shape in shapes]


def attend_naively(q, k, v, rows, columns):
    bias = rows[..., :, None] + columns[..., None, :]
    return (q @ k.transpose(1, 2) + bias.flatten(2)).softmax(-1) @ v


class LargestTensor(TorchDispatchMode):
    """Remember the size of the largest tensor that any operation returns."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.largest = max(self.largest, result.numel())
        return result


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    window=st.integers(1, 5),
    batch=st.integers(1, 2),
)
@settings(max_examples=40, deadline=None)
def test_windows_put_every_token_back(height, width, window, batch):
    grid = torch.arange(batch * height * width * 3).view(batch, height, width, 3)
    seen = []

    def attend(windows):
        seen.append(windows)
        assert max(windows.shape[1:3]) <= window
        return windows

    assert torch.equal(map_windows(grid, window, attend), grid)
    assert sum(w.numel() for w in seen) == grid.numel(), "no padding"
    for windows in seen:  # a window is a connected square: neighbours in it are neighbours outside
        assert (windows[:, :, 1:, 0] - windows[:, :, :-1, 0] == 3).all()
        assert (windows[:, 1:, :, 0] - windows[:, :-1, :, 0] == 3 * width).all()


def test_pad_keys():
    keys, padding = torch.randn(2, 3, 2, 4, 5), torch.randn(3, 5)
    padded = pad_keys(keys, padding, 4)
    assert padded.shape == (2, 3, 4, 4, 5)
    assert torch.equal(padded[:, :, :2], keys)
    assert torch.equal(padded[:, :, 2:], padding[None, :, None, None].expand(2, 3, 2, 4, 5))
    assert pad_keys(padded, padding, 4) is padded


@pytest.mark.parametrize("chunk_logits", [1, 20, 47, 200, 10**6])
def test_chunks_do_not_change_the_result(chunk_logits):
    terms = random_terms(dtype=torch.float64)
    expected = attend_naively(*terms)
    found = attend_in_chunks(*terms, chunk_logits=chunk_logits)
    assert torch.allclose(found, expected, atol=1e-12)
    weight = torch.randn_like(expected)
    gradients = torch.autograd.grad((expected * weight).sum(), terms)
    for mine, other in zip(
        torch.autograd.grad((found * weight).sum(), terms), gradients, strict=True
    ):
        assert torch.allclose(mine, other, atol=1e-12)


@pytest.mark.parametrize(("grid", "width"), [((4, 5), 8), ((3, 3), 5)])
def test_fused_attention_equals_chunks(grid, width):
    terms = random_terms(grid=grid, width=width, dtype=torch.float64)
    expected, found = attend_in_chunks(*terms), attend_fused(*terms)
    assert torch.allclose(found, expected, atol=1e-12)
    weight = torch.randn_like(expected)
    gradients = torch.autograd.grad((expected * weight).sum(), terms)
    for mine, other in zip(
        torch.autograd.grad((found * weight).sum(), terms), gradients, strict=True
    ):
        assert torch.allclose(mine, other, atol=1e-12)


def test_gradcheck_with_recomputation():
    terms = random_terms(groups=1, queries=3, grid=(2, 2), width=2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *t: attend_in_chunks(*t, chunk_logits=8), terms)


def test_padding_tokens_are_keys():
    """A grid of 3 x 3 in a window of 4 equals the explicitly padded 4 x 4 grid."""
    torch.manual_seed(2)
    attention = RelativeAttention(8, 2, size=4)
    torch.nn.init.normal_(attention.relative_rows)
    torch.nn.init.normal_(attention.relative_columns)
    x = torch.randn(1, 3, 3, 8)
    padded = attention(F.pad(x, (0, 0, 0, 1, 0, 1)))[:, :3, :3]
    assert torch.allclose(attention(x), padded, atol=1e-6)


def test_global_attention_is_never_held_in_whole():
    encoder = build_encoder(side=1024, width=8, depth=1, heads=1, global_attention_indexes=(0,))
    pixels = torch.randn(1, 3, 1024, 1024)
    logits = (64 * 64) ** 2
    with LargestTensor() as seen, torch.no_grad():
        encoder(pixels)
    assert seen.largest <= logits / 4
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t.numel()) or t, lambda t: t
    ):
        encoder(pixels)
    assert max(saved) <= logits / 4, "and training does not keep it"


def test_shapes_and_batch_equals_loop():
    encoder, pixels = build_encoder(), torch.randn(3, 3, 96, 96)
    with torch.no_grad():
        features = encoder(pixels)
        loop = torch.cat([encoder(image[None]).embedding for image in pixels])
    assert features.embedding.shape == (3, 8, 6, 6)
    assert features.skips == ()
    assert torch.allclose(features.embedding, loop, atol=1e-5)


def test_every_weight_is_trained():
    encoder = build_encoder()
    (encoder(torch.randn(1, 3, 96, 96)).embedding * torch.randn(1, 8, 6, 6)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_autocast(dtype):
    encoder, pixels = build_encoder(), torch.randn(1, 3, 96, 96)
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        found = encoder(pixels).embedding
    with torch.no_grad():
        expected = encoder(pixels).embedding
    assert (found.float() - expected).abs().max() < 0.1


def test_wrong_sizes_are_refused():
    encoder = build_encoder()
    with pytest.raises(ValueError, match=r"\(1, 3, 64, 96\).*\(B, 3, 96, 96\)"):
        encoder(torch.zeros(1, 3, 64, 96))
    with pytest.raises(ValueError, match="multiple of 16"):
        ImageEncoderViT(tiny_config(side=100))
    with pytest.raises(ValueError, match="needs a ViTConfig, got TinyViTConfig"):
        ImageEncoderViT(SamConfig(encoder=TinyViTConfig()))
    with pytest.raises(ValueError, match="not a multiple of 3 heads"):
        ImageEncoderViT(tiny_config(heads=3))


def test_drop_path():
    assert drop_path_rates(0.4, 5) == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert drop_path_rates(0.4, 1) == [0.0]
    torch.manual_seed(0)
    layer, x = DropPath(0.25), torch.ones(4000, 2, 3)
    dropped = layer(x)
    assert dropped.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert (dropped.amax((1, 2)) == dropped.amin((1, 2))).all(), "whole rows"
    assert dropped.mean() == pytest.approx(1.0, abs=0.05)
    assert layer.eval()(x) is x
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        DropPath(1.0)
    encoder = ImageEncoderViT(tiny_config(drop_path=0.5))
    assert [block.drop_path.rate for block in encoder.blocks] == [0.0, 0.5]
