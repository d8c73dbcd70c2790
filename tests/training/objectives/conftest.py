"""Tiny random cores and a tiny random CLIP, and batches of drawn photos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

from textsam.clip.encoder import ClipEncoder
from textsam.clip.pathway import PathwayConfig, TextPathway
from textsam.modeling.config import SamConfig, TimmConfig, TinyViTConfig, ViTConfig
from textsam.modeling.sam import Sam
from training.data import View
from training.data.batch import ViewBatch

SIDE = 64
SIZES: dict[str, Any] = {
    "image_size": SIDE,
    "embed_dim": 32,
    "decoder_heads": 4,
    "decoder_mlp": 48,
    "iou_hidden": 24,
    "first_layer_residual": True,
}
ENCODERS = {
    "vit": ViTConfig(width=32, depth=2, heads=2, global_attention_indexes=(1,), window_size=2),
    "tiny_vit": TinyViTConfig(widths=(16, 16, 32, 32), depths=(1, 1, 1, 1), heads=(2, 2, 2, 2)),
    "timm": TimmConfig(name="test_efficientnet"),
}
LETTERS = "abcdefghijklmnopqrstuvwxyz "


def _tokenize(texts: list[str]) -> torch.Tensor:
    """Letters -> numbers; the last token is the largest, as CLIP's pooling wants it."""
    tokens = torch.zeros(len(texts), 8, dtype=torch.int64)
    for row, text in zip(tokens, texts, strict=True):
        numbers = [1 + LETTERS.index(letter) for letter in text[:6]]
        row[: len(numbers)] = torch.tensor(numbers)
        row[len(numbers)] = 63
    return tokens


@pytest.fixture
def make_sam() -> Callable[..., Sam]:
    """Build a random core by kind of encoder."""

    def make(kind: str = "vit", *, seed: int = 0, **changes: Any) -> Sam:
        torch.manual_seed(seed)
        return Sam(SamConfig(encoder=ENCODERS[kind], **{**SIZES, **changes}))

    return make


@pytest.fixture
def make_clip() -> Callable[..., ClipEncoder]:
    """Build a random CLIP: a ViT with a class token, or a timm CNN."""

    def make(kind: str = "vit", *, seed: int = 0, name: str = "random-clip") -> ClipEncoder:
        torch.manual_seed(seed)
        vit = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2}
        cnn = {"image_size": 32, "timm_model_name": "test_efficientnet", "timm_proj": "mlp"}
        text = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
        model = open_clip.CLIP(
            embed_dim=24, vision_cfg=vit if kind == "vit" else cnn, text_cfg=text
        )
        half = (0.5, 0.5, 0.5)
        return ClipEncoder.from_model(model, tokenizer=_tokenize, name=name, mean=half, std=half)

    return make


@pytest.fixture
def make_pathway() -> Callable[[], TextPathway]:
    """Build a random pathway between the two."""

    def make() -> TextPathway:
        torch.manual_seed(5)
        return TextPathway(PathwayConfig(clip_width=24, prompt_width=32, hidden=16))

    return make


def _view(seed: int, count: int) -> View:
    """Bright rectangles on a dark ground, 64 wide and 48 high; the frame's rest is padding."""
    rng = np.random.default_rng(seed)
    pixels = torch.from_numpy(rng.integers(20, 60, (3, 48, SIDE)).astype(np.uint8))
    masks = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    for mask in masks:
        x, y = int(rng.integers(0, 40)), int(rng.integers(0, 28))
        mask[y : y + 18, x : x + 22] = True
        pixels[:, mask[:48]] = torch.tensor(rng.integers(120, 250, (3, 1)).astype(np.uint8))
    return View(
        pixels=pixels,
        masks=masks,
        void=torch.zeros(SIDE, SIDE, dtype=torch.bool),
        objects=tuple(range(count)),
        flipped=False,
    )


@pytest.fixture
def make_batch() -> Callable[..., ViewBatch]:
    """Build a batch of photos with the given numbers of masks; photo n is always the same."""

    def make(
        counts: Sequence[int] = (2, 1, 3), *, first: int = 0, step: int = 0, names: str = "dog cat"
    ) -> ViewBatch:
        known = names.split() or [""]
        numbers = range(first, first + len(counts))
        return ViewBatch(
            step=step,
            views=tuple(_view(n, c) for n, c in zip(numbers, counts, strict=True)),
            origin=tuple(("drawn", n) for n in numbers),
            labels=tuple(
                tuple(known[(n + i) % len(known)] for i in range(c))
                for n, c in zip(numbers, counts, strict=True)
            ),
            seeds=tuple(1000 * step + 17 * n + 3 for n in numbers),
            exhaustive=(False,) * len(counts),
        )

    return make
