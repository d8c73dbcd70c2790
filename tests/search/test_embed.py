"""`Embedder` on random models: what vectors depend on, and what they do not."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from textsam.clip.mask_crops import square_crops
from textsam.errors import PromptError, WeightsError
from textsam.inference.model import TextSAM
from textsam.inference.photo.sam_embedding import latents_of_crops
from textsam.results.segmentation import Segmentation
from textsam.search.embed import Embedder
from textsam.search.index import MaskIndex
from textsam.search.records import MaskRow
from textsam.values.rle import encode_mask, encode_masks

Photo = NDArray[np.uint8]
BOXES = [(5, 5, 30, 40), (40, 10, 85, 30), (60, 35, 64, 39)]


def masks_for(size: tuple[int, int], boxes: Any = BOXES) -> NDArray[np.bool_]:
    masks = np.zeros((len(boxes), *size), dtype=bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return masks


@pytest.fixture(params=["crops", "photo"])
def embedder(request: pytest.FixtureRequest, model: TextSAM) -> Embedder:
    return Embedder(model, latents=request.param)


def test_vectors_have_their_spaces_width_and_length_one(embedder: Embedder, photo: Photo) -> None:
    found = embedder.masks(photo, masks_for((50, 90)))
    assert len(found) == 3
    assert set(found.vectors) == set(found.spaces) == {"clip", "sam"}
    for name, rows in found.vectors.items():
        assert rows.shape == (3, found.spaces[name].width) and rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    assert (found.spaces["clip"].width, found.spaces["sam"].width) == (16, 32)


def test_batches_change_nothing(model: TextSAM, photo: Photo) -> None:
    """Three masks at once, one by one, and in batches that go across two photos."""
    other = photo[::-1, :60].copy()
    one, two = masks_for((50, 90)), masks_for((50, 60), [(0, 0, 20, 20), (30, 10, 60, 50)])
    apart = Embedder(model, sam_batch=1, clip_batch=1)
    across = Embedder(model, sam_batch=4, clip_batch=2).photos([(photo, one), (other, two)])
    for image, masks, together in ((photo, one, across[0]), (other, two, across[1])):
        single = [apart.masks(image, mask) for mask in masks]
        for name in ("clip", "sam"):
            want = np.concatenate([each.vectors[name] for each in single])
            np.testing.assert_allclose(together.vectors[name], want, atol=1e-5)


def test_every_form_of_masks_is_the_same(embedder: Embedder, photo: Photo) -> None:
    masks = masks_for((50, 90))
    rles = encode_masks(masks)
    result = Segmentation((50, 90), rles, image=photo)
    want = embedder.masks(photo, masks)
    for given in (rles, result, list(masks), [result[0], rles[1], masks[2]]):
        found = embedder.masks(photo, given)
        for name in want.vectors:
            np.testing.assert_array_equal(found.vectors[name], want.vectors[name])
    first = embedder.masks(photo, result[0])
    np.testing.assert_allclose(first.vectors["clip"], want.vectors["clip"][:1], atol=1e-6)


def test_an_open_photo_is_not_encoded_again(
    model: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = model.open(photo)
    want = Embedder(model, latents="photo").masks(photo, masks_for((50, 90)))

    def refuse(*_: object) -> None:
        raise AssertionError("encoded")

    monkeypatch.setattr(model.sam, "encode_image", refuse)
    found = Embedder(model, latents="photo").masks(view, masks_for((50, 90)))
    np.testing.assert_array_equal(found.vectors["sam"], want.vectors["sam"])


def test_crop_latents_do_not_know_left_from_right(model: TextSAM, photo: Photo) -> None:
    """Appendix D.6: a crop and its mirror image; so a mirrored photo has the same latents."""
    masks = masks_for((50, 90), [(20, 10, 40, 30)])
    embedder = Embedder(model, spaces=["sam"])
    here = embedder.masks(photo, masks).vectors["sam"]
    there = embedder.masks(photo[:, ::-1].copy(), masks[:, :, ::-1].copy()).vectors["sam"]
    np.testing.assert_allclose(here, there, atol=1e-5)
    lone = Embedder(model, spaces=["sam"], latents="photo")
    once = lone.masks(photo, masks).vectors["sam"]
    mirrored = lone.masks(photo[:, ::-1].copy(), masks[:, :, ::-1].copy()).vectors["sam"]
    assert np.abs(once - mirrored).max() > 1e-3  # which one encoding does


def test_a_crop_latent_is_the_masked_mean_over_both_encodings(model: TextSAM, photo: Photo) -> None:
    [mask] = masks_for((50, 90), [(20, 10, 40, 30)])
    crops, shares = square_crops(photo, mask, size=64, expand=1.5)
    total = torch.zeros(32)
    with torch.no_grad():
        for flip in (False, True):
            crop = crops[0].flip(-1) if flip else crops[0]
            share = shares[0].flip(-1) if flip else shares[0]
            features = model.sam.encode_image(model.sam.preprocess([crop])).embedding[0]
            side = features.shape[-1]
            step = 64 // side
            weight = share.reshape(side, step, side, step).mean((1, 3))
            total += (features * weight).sum((1, 2)) / weight.sum()
    want = (total / 2) / (total / 2).norm()
    got = latents_of_crops(model.sam, crops, shares)[0]
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


def test_pixels_far_from_a_mask_change_no_crop(model: TextSAM, photo: Photo) -> None:
    masks = masks_for((50, 90), [(5, 5, 15, 15)])
    changed = photo.copy()
    changed[:, 60:] = 0
    crops, whole = Embedder(model), Embedder(model, spaces=["sam"], latents="photo")
    for name in ("clip", "sam"):
        before, after = (crops.masks(p, masks).vectors[name] for p in (photo, changed))
        np.testing.assert_array_equal(before, after)
    before, after = (whole.masks(p, masks).vectors["sam"] for p in (photo, changed))
    assert np.abs(before - after).max() > 0  # one encoding sees the whole photo


def test_a_phrase_is_clips_own_embedding(model: TextSAM) -> None:
    vector = Embedder(model).text("wheel")
    assert model.clip is not None
    np.testing.assert_array_equal(vector, model.clip.encode_text("wheel")[0].numpy())
    assert vector.dtype == np.float32


def test_no_masks_give_no_vectors(embedder: Embedder, photo: Photo) -> None:
    for none in ([], Segmentation((50, 90), []), np.zeros((0, 50, 90), bool)):
        found = embedder.masks(photo, none)
        assert found.vectors["clip"].shape == (0, 16) and found.vectors["sam"].shape == (0, 32)
    mixed = embedder.photos([(photo, []), (photo, masks_for((50, 90))), (photo, [])])
    assert [len(each) for each in mixed] == [0, 3, 0]


def test_a_space_tells_settings_and_weights_apart(model: TextSAM) -> None:
    first = Embedder(model).spaces
    assert Embedder(model, sam_batch=2).spaces == first  # speed is no setting
    wider = Embedder(model, expand=2.0).spaces
    assert wider["clip"] != first["clip"] and wider["sam"] != first["sam"]
    cheap = Embedder(model, latents="photo").spaces
    assert cheap["clip"] == first["clip"] and cheap["sam"] != first["sam"]
    assert Embedder(model, latents="photo", expand=2.0).spaces["sam"] == cheap["sam"]


def test_one_changed_weight_is_another_space(model: TextSAM) -> None:
    before = Embedder(model).spaces
    sam, clip = copy.deepcopy(model.sam), copy.deepcopy(model.clip)
    other = TextSAM(sam, clip=clip, name=model.name)
    assert Embedder(other).spaces == before
    with torch.no_grad():
        next(sam.image_encoder.parameters())[0, 0, 0, 0] += 1e-3
    assert Embedder(other).spaces["clip"] == before["clip"]
    assert Embedder(other).spaces["sam"] != before["sam"]
    assert clip is not None
    with torch.no_grad():
        list(clip.model.parameters())[-1].view(-1)[0] += 1e-3
    assert Embedder(other).spaces["clip"] != before["clip"]


def test_the_decoders_weights_do_not_count(model: TextSAM) -> None:
    sam = copy.deepcopy(model.sam)
    with torch.no_grad():
        next(sam.mask_decoder.parameters()).view(-1)[0] += 1
    other = TextSAM(sam, name=model.name)
    assert Embedder(other).spaces["sam"] == Embedder(model).spaces["sam"]


def test_a_bare_sam_has_one_space(handless_model: TextSAM, photo: Photo) -> None:
    embedder = Embedder(handless_model)
    assert set(embedder.masks(photo, masks_for((50, 90))).vectors) == {"sam"}
    with pytest.raises(WeightsError, match="no CLIP"):
        embedder.text("wheel")
    with pytest.raises(WeightsError, match="no CLIP"):
        Embedder(handless_model, spaces=["clip"])


def test_what_cannot_be_meant_is_said(model: TextSAM, photo: Photo) -> None:
    embedder = Embedder(model)
    empty = np.zeros((50, 90), bool)
    for masks, message in (
        (empty, "mask 0 is empty"),
        ([encode_mask(~empty), encode_mask(~empty[:9])], r"mask 1 has size \(9, 90\)"),
        (np.ones((50, 90), np.float32), "mask > 0"),
        (["mask"], "mask 0 is"),
    ):
        with pytest.raises(PromptError, match=message):
            embedder.masks(photo, masks)  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="spaces=None"):
        Embedder(model, spaces=["sam"]).text("wheel")
    options: dict[str, Any]
    for options in ({"latents": "both"}, {"spaces": ["text"]}, {"expand": 0.5}, {"sam_batch": 0}):
        with pytest.raises(PromptError, match="wanted"):
            Embedder(model, **options)


def test_an_index_is_asked_with_the_model_alone(embedder: Embedder, photo: Photo) -> None:
    """Whatever kind of latents its rows were embedded with."""
    rles = encode_masks(masks_for((50, 90)))
    rows = [MaskRow(dataset="one", image="a", rle=rle) for rle in rles]
    assert embedder.model.clip is not None
    with MaskIndex.open("memory://") as index:
        index.add(rows, embedder.masks(photo, rles))
        index = MaskIndex(index.engine, model=embedder.model)
        assert isinstance(index.embedder, Embedder)
        assert index.embedder.latents == embedder.latents
        for space in ("clip", "sam"):
            best = index.search(image=photo, mask=rles[1], k=1, space=space)[0]  # type: ignore[arg-type]
            assert best.id == rows[1].id and best.cosine == pytest.approx(1, abs=1e-5)
        assert index.embedder.model is embedder.model
