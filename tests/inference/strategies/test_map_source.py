"""`strategy="auto"` from the maps of a CLIPSeg, on cores with and without a text pathway."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.inference.conftest import build_model
from tests.modeling.hub_cores import write_core
from tests.modeling.huggingface.hub_folders import write_clipseg
from textsam.errors import WeightsError
from textsam.inference.model import TextSAM
from textsam.inference.photo.encoded import embed_phrases, map_logits, to_original_frame
from textsam.inference.photo.prediction import prompt_batch
from textsam.modeling.huggingface.phrase_maps import ClipSegMaps, read_map_source
from textsam.results.segmentation import Segmentation
from textsam.search.data_photos import DataPhoto, ListedPhotos
from textsam.search.embed import Embedder
from textsam.search.index import MaskIndex
from textsam.search.job import EmbedSettings, embed_data_set
from textsam.values.prompts import make_prompt
from textsam.values.settings import AutomaticSettings

# Random masks are worth nothing: all are kept.
LOOSE = AutomaticSettings(
    points_per_side=3, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clipseg(tmp_path_factory.mktemp("clipseg"))


@pytest.fixture(scope="module")
def mapped(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TextSAM:
    """A bare core, which takes no phrases by itself, with a map source."""
    bare = build_model(text=False)
    saved = bare.save_pretrained(tmp_path_factory.mktemp("bare"))
    return TextSAM.from_pretrained(saved, map_source=folder, local_files_only=True)


@pytest.fixture(scope="module")
def phrase(mapped: TextSAM) -> str:
    """A phrase of which the random maps show something."""
    photo = np.random.default_rng(5).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    with mapped.open(photo) as view:
        return max("abcdefghij", key=lambda text: float(view.text_map(text).max()))


def test_maps_lie_on_the_photo(mapped: TextSAM, photo) -> None:
    """The map is stretched over the photo, whatever its aspect."""
    source = mapped.map_source
    assert source is not None
    view = mapped.open(photo)
    own = source.logits(source.encode(photo), source.embed(["wheel"]))
    torch.testing.assert_close(map_logits(view.photo, source.embed(["wheel"])), own)
    expected = torch.nn.functional.interpolate(
        own[None], photo.shape[:2], mode="bilinear", align_corners=False
    )[0, 0].sigmoid()
    np.testing.assert_allclose(view.text_map("wheel"), expected, atol=1e-5)


def test_the_photo_is_read_once(mapped: TextSAM, photo, phrase, monkeypatch) -> None:
    source, calls = mapped.map_source, []
    assert source is not None
    encode, core = source.encode, type(mapped.sam).encode_image
    monkeypatch.setattr(source, "encode", lambda image: calls.append("map") or encode(image))
    monkeypatch.setattr(
        type(mapped.sam),
        "encode_image",
        lambda sam, pixels: calls.append("core") or core(sam, pixels),
    )
    view = mapped.open(photo)
    view.segment(text=[phrase, "car"], exclude="sky", background="road")
    view.segment(text="another")
    view.text_map("third")
    assert calls == ["core", "map"]


def test_from_text_to_click_to_file(mapped: TextSAM, photo, phrase, tmp_path) -> None:
    view = mapped.open(photo)
    result = view.segment(text=phrase, threshold=0.02)
    assert len(result) > 0
    [answer] = result.answers
    assert answer.strategy == "auto"
    assert set(answer.evidence) == {"peak"}
    assert 0 <= answer.presence <= 1
    x0, y0, x1, y1 = result.boxes[0]
    corrected = view.click(float(x0 + x1) / 2, float(y0 + y1) / 2)
    assert corrected.labels in ([phrase], [])
    assert len(view.undo()) == len(result)
    explanation = view.explain(phrase)
    assert explanation.phrases == [phrase]
    assert explanation.answers[0].similarity is not None
    explanation.save(tmp_path / "why.json")
    result.save(tmp_path / "result.json")
    again = Segmentation.load(tmp_path / "result.json")
    np.testing.assert_array_equal(again.masks, result.masks)
    one = view.segment(text=phrase, box=(5, 5, 60, 40))
    assert len(one) <= 1
    assert len(view.everything()) >= 0


def test_excluded_and_background_phrases_compete(mapped: TextSAM, photo, phrase) -> None:
    view = mapped.open(photo)
    [alone] = view.segment(text=phrase, threshold=0.02).answers
    [rivaled] = view.segment(text=phrase, background=["car", "sky"], threshold=0.02).answers
    assert rivaled.presence == alone.presence
    assert rivaled.rivaled["background"] <= alone.presence
    assert rivaled.similarity.sum() < alone.similarity.sum()
    [excluded] = view.segment(text=phrase, exclude="car", threshold=0.02).answers
    assert excluded.rivaled["exclusion"] <= alone.presence


def test_label_maps_and_tiles(mapped: TextSAM, phrase) -> None:
    photo = np.random.default_rng(5).integers(0, 256, (90, 200, 3), dtype=np.uint8)
    labels = mapped.label_map(photo, [phrase, "car"], threshold=0.02)
    assert labels.labels.shape == (90, 200)
    assert labels.labels.any()
    tiled = mapped.open_tiled(photo, tile=100, overlap=20)
    assert len(tiled.windows) > 1
    assert tiled.segment(text=phrase, threshold=0.02).answers


def test_in_place_of_a_dense_head(folder: Path, photo, tmp_path) -> None:
    """A model with maps of its own takes those of the source, and saves it."""
    saved = build_model().save_pretrained(tmp_path / "model")
    own = TextSAM.from_pretrained(saved).open(photo).text_map("wheel")
    source = read_map_source(folder, name="random-clipseg")
    model = TextSAM.from_pretrained(saved, map_source=source)
    other = model.open(photo).text_map("wheel")
    assert np.abs(own - other).max() > 1e-3
    [prompted] = model.open(photo).segment(text="wheel", strategy="prompt").answers
    assert prompted.strategy == "prompt"
    model.save_pretrained(tmp_path / "again")
    again = TextSAM.from_pretrained(tmp_path / "again")
    assert again.map_source is not None
    assert again.map_source.name == "random-clipseg"
    np.testing.assert_allclose(again.open(photo).text_map("wheel"), other, atol=1e-5)
    # Saving the model without it leaves no reference behind.
    model.map_source = None
    model.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again/config.json").read_text())["map_source"] is None


def test_mask_prompts_lie_where_the_map_does(
    mapped: TextSAM, folder, photo, tmp_path, monkeypatch
) -> None:
    """On cores that pad photos and on those that stretch them."""
    # Smooth, off the centre: of noise nothing is left on a grid of a quarter.
    y, x = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 64), indexing="ij")
    blob = 6 - 60 * ((x - 0.7) ** 2 + (y - 0.3) ** 2)
    monkeypatch.setattr(ClipSegMaps, "logits", lambda *_: blob[None])
    write_core("sam2", tmp_path)
    stretching = TextSAM.from_pretrained(tmp_path, map_source=folder, local_files_only=True)
    for model in (mapped, stretching):
        view = model.open(photo)
        assert view.photo.frame.stretched == (model is stretching)
        prompt = prompt_batch(view.photo, make_prompt(view.size, text="wheel"), None)
        assert prompt.tokens is None
        assert prompt.masks is not None
        there = to_original_frame(prompt.masks[:, 0], view.photo.frame)[0].numpy()
        wanted = to_original_frame(
            map_logits(view.photo, embed_phrases(model.parts, ["wheel"])), view.photo.text_frame
        )[0].numpy()
        assert np.corrcoef(there.ravel(), wanted.ravel())[0, 1] > 0.97
        found = view.segment(text="wheel", threshold=0.02)
        assert found.size == photo.shape[:2]
        view.click(20, 20)


def test_embed_and_search(mapped: TextSAM, photo, phrase) -> None:
    stream = io.BytesIO()
    Image.fromarray(photo).save(stream, "PNG")
    embedder = Embedder(mapped, latents="photo")
    index = MaskIndex.open("memory://", model=embedder)
    report = embed_data_set(
        embedder,
        ListedPhotos([DataPhoto(dataset="noise", image="one", encoded=stream.getvalue())]),
        index,
        settings=EmbedSettings(batch=2, automatic=LOOSE),
    )
    assert report.masks == len(index) > 0
    view = mapped.open(photo)
    [mask, *_] = view.segment(text=phrase, threshold=0.02)
    assert index.search(like=mask, space="sam", k=1)[0].image == "one"


def test_like_needs_no_map(mapped: TextSAM, photo) -> None:
    """Examples are compared by the core's latents: CLIPSeg reads phrases."""
    view = mapped.open(photo)
    example = view.segment(box=(5, 5, 40, 40))
    assert view.segment(like=example).answers[0].strategy == "like"


def test_rank_still_needs_a_clip(mapped: TextSAM, photo) -> None:
    with pytest.raises(WeightsError, match="has no CLIP"):
        mapped.segment(photo, text="wheel", strategy="rank")


def test_no_such_source(tmp_path) -> None:
    saved = build_model(text=False).save_pretrained(tmp_path / "bare")
    with pytest.raises(WeightsError, match="nobody/nothing"):
        TextSAM.from_pretrained(saved, map_source="nobody/nothing", local_files_only=True)
