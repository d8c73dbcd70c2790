"""CLIPSeg as a map source: its own logits, the photo encoded once, folders that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.modeling.huggingface.hub_folders import write_clipseg
from textsam.errors import WeightsError
from textsam.modeling.huggingface.phrase_maps import ClipSegMaps, read_map_source

PHRASES = ["wheel", "a red car", "sky"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clipseg(tmp_path_factory.mktemp("clipseg"))


@pytest.fixture(scope="module")
def source(folder: Path) -> ClipSegMaps:
    read = read_map_source(folder, name="random-clipseg")
    assert isinstance(read, ClipSegMaps)
    return read


@pytest.mark.parametrize("size", [(40, 90), (64, 64), (200, 130)])
def test_maps_are_the_models_own_logits(source: ClipSegMaps, folder: Path, size) -> None:
    from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor

    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    processor = CLIPSegProcessor.from_pretrained(folder)
    model = CLIPSegForImageSegmentation.from_pretrained(folder).eval()
    inputs = processor(
        text=PHRASES, images=[image] * len(PHRASES), padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected = model(**inputs).logits
    maps = source.logits(source.encode(image), source.embed(PHRASES))
    assert maps.shape == (3, 64, 64)
    torch.testing.assert_close(maps, expected, atol=1e-4, rtol=1e-4)
    # They depend on the phrase and on the place, or equality would show little.
    assert maps.std(dim=(1, 2)).min() > 0.1
    assert (maps[0] - maps[1]).abs().max() > 1e-3


def test_a_batch_of_phrases_is_a_loop(source: ClipSegMaps) -> None:
    image = np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    features = source.encode(image)
    together = source.logits(features, source.embed(PHRASES))
    alone = torch.cat([source.logits(features, source.embed([phrase])) for phrase in PHRASES])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_saved_and_read_again(source: ClipSegMaps, tmp_path: Path) -> None:
    source.save(tmp_path)
    again = read_map_source(tmp_path, name="again")
    image = np.random.default_rng(2).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    maps, read = (each.logits(each.encode(image), each.embed(["car"])) for each in (source, again))
    torch.testing.assert_close(maps, read)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "sam"}, r"is a 'sam', which gives no maps .* map_source="),
        (None, r"no readable config\.json"),
    ],
)
def test_other_folders_say_what_is_wanted(tmp_path: Path, config, message) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=message):
        read_map_source(tmp_path, name="other")


def test_a_folder_without_weights(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(WeightsError, match="cannot be loaded as CLIPSegForImage"):
        read_map_source(tmp_path, name="half")
