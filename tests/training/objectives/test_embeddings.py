"""Embeddings from disk: the same training as without, and no silent mistakes."""

from __future__ import annotations

import copy
import io
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from textsam.errors import WeightsError
from textsam.values.rle import encode_mask
from training.data import ObjectMask, Sample, ViewConfig, make_view
from training.objectives import embeddings
from training.objectives.crops import CropConfig, min_crop_area
from training.objectives.embeddings import (
    CacheConfig,
    EmbeddingCache,
    Shard,
    fingerprint,
    shard_path,
)
from training.objectives.pathway_objective import PathwayObjective, PathwayObjectiveConfig
from training.prompting import PromptConfig

VIEW = ViewConfig(image_size=64, max_masks=2, jitter=0.0, flip=0.0, min_area=min_crop_area(64))
CROPS = CropConfig(variants=2, seed=3)
CONFIG = CacheConfig(view=VIEW, crops=CROPS, photos_per_shard=2, dtype="float32")
NAME = "drawn/photos"
SHORT = PromptConfig(points=1, silent_among=0, silent_last=0)


def _sample(seed: int, *, side: int = 30) -> Sample:
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 255, (60, 90, 3)).astype(np.uint8))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    objects = []
    for label in ("dog", "cat", "dog"):
        mask = np.zeros((60, 90), bool)
        x, y = rng.integers(0, 50), rng.integers(0, 25)
        mask[y : y + side, x : x + side] = True
        objects.append(ObjectMask(label=label, kind="thing", rle=encode_mask(mask), ignore=False))
    return Sample(
        image_id=str(seed),
        source="drawn",
        encoded=stream.getvalue(),
        size=(60, 90),
        exhaustive=False,
        void=None,
        objects=tuple(objects),
    )


class _Source:
    """Five photos: row 2 is broken, row 3 has small masks only."""

    def __init__(self) -> None:
        self.samples = [_sample(n, side=4 if n == 3 else 30) for n in range(5)]
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        self.asked.append(index)
        if index == 2:
            raise ValueError("row 2 is no image")
        return self.samples[index]


@pytest.fixture
def source() -> _Source:
    return _Source()


@pytest.fixture
def make_cache(
    tmp_path: Path, make_sam: Callable[..., Any], make_clip: Callable[..., Any]
) -> Callable[..., EmbeddingCache]:
    def make(core: str = "timm", **changes: Any) -> EmbeddingCache:
        config = replace(CONFIG, **changes)
        return EmbeddingCache(tmp_path / "cache", make_sam(core), make_clip(), config=config)

    return make


@pytest.fixture
def make_views(make_batch: Callable[..., Any], source: _Source) -> Callable[..., Any]:
    """A batch of the source's rows, as a loader without jitter gives them."""

    def make(rows: tuple[int, ...], *, config: ViewConfig = VIEW, step: int = 0) -> Any:
        views = [
            make_view(source.samples[r], np.random.default_rng((step, r)), config=config)
            for r in rows
        ]
        labels = [tuple(source.samples[0].objects[i].label for i in v.objects) for v in views]
        return replace(
            make_batch((1,) * len(rows), step=step),
            views=tuple(views),
            origin=tuple((NAME, row) for row in rows),
            labels=tuple(labels),
        )

    return make


@pytest.mark.parametrize("core", ["vit", "timm"])
def test_training_from_the_cache_is_training_without(
    core: str,
    source: _Source,
    make_sam: Callable[..., Any],
    make_clip: Callable[..., Any],
    make_pathway: Callable[[], Any],
    make_cache: Callable[..., EmbeddingCache],
    make_views: Callable[..., Any],
) -> None:
    cache = make_cache(core)
    cache.build(NAME, source)
    config = PathwayObjectiveConfig(prompts=SHORT, crops=CROPS, noise=0.3, label_share=0.3)
    losses, weights = [], []
    for stored in (None, cache):
        objective = PathwayObjective(
            make_sam(core), make_pathway(), make_clip(), config=config, cache=stored
        ).train()
        if stored is not None:  # neither tower runs
            objective.sam.image_encoder = torch.nn.Identity()
            objective.clip_model.visual.forward = None
        optimizer = torch.optim.AdamW(objective.pathway.parameters(), lr=1e-2)
        for step in range(3):
            optimizer.zero_grad()
            loss = objective(make_views((0, 4, 1), step=step)).loss
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        weights.append(objective.pathway.projection[0].weight.detach().clone())
    assert losses[:3] == pytest.approx(losses[3:], rel=1e-5)
    assert len(set(losses[:3])) == 3
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-3, atol=1e-5)


def test_what_is_stored_is_what_the_towers_say(
    source: _Source, make_cache: Callable[..., EmbeddingCache], make_views: Callable[..., Any]
) -> None:
    cache = make_cache()
    report = cache.build(NAME, source, photos=1)
    assert (report.written, report.kept) == (3, 0)
    assert report.skipped == {2: "row 2 is no image", 3: "no mask of a useful size"}
    batch = make_views((1, 4))
    sam = cache._sam.eval()
    with torch.no_grad():
        wanted = sam.encode_image(sam.preprocess(batch.pixels))
    got = cache.features(batch, device="cpu")
    torch.testing.assert_close(got.embedding, wanted.embedding)
    assert len(got.skips) == len(wanted.skips) == 2
    for a, b in zip(got.skips, wanted.skips, strict=True):
        torch.testing.assert_close(a, b)


def test_half_precision_is_close_and_half_as_large(
    source: _Source,
    make_cache: Callable[..., EmbeddingCache],
    make_views: Callable[..., Any],
) -> None:
    full, half = make_cache(), make_cache(dtype="float16")
    assert full.folder != half.folder
    maps = []
    for cache in (full, half):
        cache.build(NAME, source)
        maps.append(cache.features(make_views((0,)), device="cpu").embedding)
    assert maps[1].dtype == torch.float32
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-3, atol=1e-3)
    assert not torch.equal(maps[0], maps[1])


def test_a_stopped_build_goes_on_and_processes_share_it(
    source: _Source, make_cache: Callable[..., EmbeddingCache]
) -> None:
    cache = make_cache()
    assert cache.build(NAME, source, rank=1, world=2).written == 1
    assert source.asked == [2, 3]
    source.asked.clear()
    (cache.folder / ".half.textsam-part").write_bytes(b"what a killed run left")
    report = make_cache().build(NAME, source)
    assert (report.written, report.kept) == (2, 1)
    assert len(list(cache.folder.iterdir())) == 3
    assert source.asked == [0, 1, 4]
    assert set(report.skipped) == {2, 3}  # also those of shards that were there
    source.asked.clear()
    assert make_cache().build(NAME, source).kept == 3
    assert source.asked == []


def test_a_source_that_grew_is_embedded_to_its_end(
    source: _Source, make_cache: Callable[..., EmbeddingCache], make_views: Callable[..., Any]
) -> None:
    make_cache().build(NAME, source)
    source.samples.append(_sample(5))
    report = make_cache().build(NAME, source)
    assert (report.written, report.kept) == (1, 2)
    assert len(make_cache().features(make_views((5,)), device="cpu")) == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "header"])
def test_a_damaged_shard_is_named_and_built_again(
    damage: str,
    source: _Source,
    make_cache: Callable[..., EmbeddingCache],
    make_views: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = make_cache()
    cache.build(NAME, source)
    wanted = cache.features(make_views((0,)), device="cpu").embedding.clone()
    path = shard_path(cache.folder, NAME, 0)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    else:
        content[12 if damage == "header" else len(content) - 40] ^= 0xFF
    path.unlink()  # other files may be mapped to the old one
    path.write_bytes(bytes(content))
    with pytest.raises(WeightsError, match=r"damaged.*Type: cache\.build"):
        make_cache().features(make_views((0,)), device="cpu")
    with caplog.at_level(logging.WARNING):
        report = make_cache().build(NAME, source)
    assert (report.written, report.kept) == (1, 2)
    assert "damaged" in caplog.text
    assert torch.equal(make_cache().features(make_views((0,)), device="cpu").embedding, wanted)


def test_no_altered_byte_passes(
    source: _Source, make_cache: Callable[..., EmbeddingCache], tmp_path: Path
) -> None:
    """Either the shard is refused, or what it says is what was written."""
    cache = make_cache()
    cache.build(NAME, source)
    path = shard_path(cache.folder, NAME, 0)
    whole, content = Shard(path, fingerprint=cache.fingerprint), path.read_bytes()
    header = int.from_bytes(content[:8], "little")
    rng, refused = np.random.default_rng(0), 0
    places = [*rng.integers(0, 8 + header, 150), *rng.integers(8 + header, len(content), 50)]
    for place in places:
        altered = bytearray(content)
        altered[place] ^= int(rng.integers(1, 256))
        other = tmp_path / f"{place}.safetensors"
        other.write_bytes(bytes(altered))
        try:
            shard = Shard(other, fingerprint=cache.fingerprint)
        except WeightsError:
            refused += 1
            continue
        assert place < 8 + header  # a byte of a tensor is never missed
        for name in whole._file.keys():  # noqa: SIM118
            assert torch.equal(shard._file.get_tensor(name), whole._file.get_tensor(name))
    assert refused > 150


def test_other_pixels_and_other_masks_are_refused(
    source: _Source, make_cache: Callable[..., EmbeddingCache], make_views: Callable[..., Any]
) -> None:
    cache = make_cache()
    cache.build(NAME, source)
    with pytest.raises(WeightsError, match=r"other pixels.*jitter=0\.0, flip=0\.0"):
        cache.features(make_views((0,), config=replace(VIEW, flip=1.0)), device="cpu")
    batch = make_views((0,))
    every = torch.ones(2, dtype=torch.bool)
    options = embeddings.CropOptions(
        expand=np.ones(2), zero_outside=np.zeros(2, bool), variant=np.zeros(2, np.int64)
    )
    assert cache.embeddings(batch, options, every).shape == (2, 24)
    assert cache.embeddings(batch, options, ~every).shape == (0, 24)
    masks = batch.views[0].masks.clone()
    masks[1, 0, 0] ^= True
    changed = replace(batch, views=(replace(batch.views[0], masks=masks),))
    with pytest.raises(WeightsError, match="was stored with"):
        cache.embeddings(changed, options, every)
    for origin, what in ((("drawn/photos", 3), "no mask of"), (("other", 0), "no embeddings")):
        with pytest.raises(WeightsError, match=what):
            cache.features(replace(batch, origin=(origin,)), device="cpu")


def test_the_fingerprint_is_of_weights_and_settings(
    make_sam: Callable[..., Any], make_clip: Callable[..., Any]
) -> None:
    first = fingerprint(make_sam(), make_clip(), config=CONFIG)
    assert first == fingerprint(make_sam(), make_clip(), config=CONFIG)
    assert len(first) == 32
    decoder = make_sam()
    decoder.mask_decoder.iou_token.weight.data.add_(1)  # no embedding depends on it
    assert fingerprint(decoder, make_clip(), config=CONFIG) == first
    more = replace(CONFIG, view=replace(VIEW, max_masks=9))
    assert fingerprint(make_sam(), make_clip(), config=more) == first
    sam = make_sam()
    next(sam.image_encoder.parameters()).data.view(-1)[0] += 1e-3
    others = [
        fingerprint(sam, make_clip(), config=CONFIG),
        fingerprint(make_sam(seed=1), make_clip(), config=CONFIG),
        fingerprint(make_sam("timm"), make_clip(), config=CONFIG),
        fingerprint(make_sam(), make_clip(seed=1), config=CONFIG),
        fingerprint(make_sam(), make_clip("cnn"), config=CONFIG),
        fingerprint(make_sam(), make_clip(), config=replace(CONFIG, dtype="float16")),
        fingerprint(make_sam(), make_clip(), config=replace(CONFIG, crops=CropConfig(variants=2))),
    ]
    assert len({first, *others}) == len(others) + 1


def test_a_shard_of_other_towers_is_refused(
    source: _Source, make_cache: Callable[..., EmbeddingCache]
) -> None:
    cache = make_cache()
    cache.build(NAME, source)
    path = shard_path(cache.folder, NAME, 0)
    assert path.name == "drawn%2Fphotos-000000.safetensors"
    with pytest.raises(WeightsError, match="other towers"):
        Shard(path, fingerprint="0" * 32)


def test_few_shards_stay_open(
    source: _Source,
    make_cache: Callable[..., EmbeddingCache],
    make_views: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = make_cache()
    cache.build(NAME, source)
    monkeypatch.setattr(embeddings, "_MOST_OPEN", 1)
    a = cache.features(make_views((0, 4)), device="cpu").embedding
    assert len(cache._open) == 1
    b = cache.features(make_views((4, 0)), device="cpu").embedding
    assert torch.equal(a, b.flip(0))
    assert copy.deepcopy(cache) is cache


def test_settings_that_cannot_be_are_refused(
    make_cache: Callable[..., EmbeddingCache],
    make_sam: Callable[..., Any],
    make_clip: Callable[..., Any],
    make_pathway: Callable[[], Any],
    tmp_path: Path,
) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"view": replace(VIEW, jitter=0.5)}, "jitter=0.0"),
        ({"view": replace(VIEW, flip=0.5)}, "flip=0.0"),
        ({"view": replace(VIEW, min_area=5)}, r"min_crop_area\(64\)"),
        ({"crops": CropConfig()}, "variants=4"),
        ({"photos_per_shard": 0}, "photos_per_shard"),
    ]
    for changes, what in cases:
        with pytest.raises(ValueError, match=what):
            replace(CONFIG, **changes)
    with pytest.raises(ValueError, match="image_size=128"):
        EmbeddingCache(tmp_path, make_sam(image_size=128), make_clip(), config=CONFIG)
    towers = make_sam(), make_pathway(), make_clip()
    learning = PathwayObjectiveConfig(frozen=("image_encoder",), crops=CROPS)
    with pytest.raises(ValueError, match="cannot be trained"):
        PathwayObjective(*towers, config=learning, cache=make_cache())
    with pytest.raises(ValueError, match="wanted equal"):
        PathwayObjective(*towers, config=PathwayObjectiveConfig(), cache=make_cache())
