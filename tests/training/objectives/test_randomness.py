"""A photo's numbers are its own."""

from __future__ import annotations

import pytest
import torch

from training.objectives.randomness import PhotoRandom


def test_a_batch_draws_what_its_photos_draw() -> None:
    seeds, counts = (5, 2**63 - 1, 0), (2, 0, 3)
    batch = PhotoRandom(seeds, counts, stream="prompts")
    alone = [PhotoRandom([s], [c], stream="prompts") for s, c in zip(seeds, counts, strict=True)]
    assert len(batch) == 5
    for _ in range(3):
        for draw in ("uniform", "normal"):
            for shape in ((), (4,), (2, 2)):
                whole = getattr(batch, draw)(*shape)
                assert whole.shape == (5, *shape) and whole.dtype == torch.float32
                assert torch.equal(whole, torch.cat([getattr(r, draw)(*shape) for r in alone]))


def test_streams_and_seeds_give_other_numbers() -> None:
    draws = [
        PhotoRandom([seed], [4], stream=stream).uniform().tolist()
        for seed in (0, 1, 2**32, 2**62)
        for stream in ("prompts", "crops")
    ]
    assert len({tuple(draw) for draw in draws}) == len(draws)


def test_numbers_have_their_distribution() -> None:
    random = PhotoRandom(range(50), [400] * 50, stream="prompts")
    uniform, normal = random.uniform(), random.normal()
    assert uniform.min() >= 0 and uniform.max() < 1
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.01)
    assert uniform.std().item() == pytest.approx(12**-0.5, abs=0.01)
    assert normal.mean().item() == pytest.approx(0, abs=0.03)
    assert normal.std().item() == pytest.approx(1, abs=0.02)


def test_every_photo_needs_a_seed() -> None:
    with pytest.raises(ValueError, match="1 seeds for 2 photos"):
        PhotoRandom([1], [1, 1], stream="prompts")
    assert PhotoRandom([], [], stream="prompts").uniform(3).shape == (0, 3)
