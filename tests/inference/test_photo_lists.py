"""Lists of photos: one by one and together are the same; what fails is named, or skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import textsam
from textsam.errors import ImageError, PromptError, UnknownKeywordError, WeightsError
from textsam.inference import photo_lists
from textsam.inference.model import TextSAM
from textsam.inference.photo import encoded
from textsam.inference.photo.encoded import encode_photo, encode_photos
from textsam.modeling.precision import in_float32
from textsam.search.embed import Embedder
from textsam.weights import publish as publishing

SIZES = [(50, 90), (64, 64), (30, 20), (90, 50), (64, 64)]


@pytest.fixture
def photos() -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


@pytest.fixture
def files(photos: list[NDArray[np.uint8]], tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{index}.png" for index in range(len(photos))]
    for path, photo in zip(paths, photos, strict=True):
        Image.fromarray(photo).save(path)
    return paths


@pytest.fixture(params=[1, 2, 8])
def batches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """As many photos at once as a GPU takes, on this CPU."""
    monkeypatch.setattr(encoded, "batch_size", lambda parts: request.param)
    monkeypatch.setattr(photo_lists, "batch_size", lambda parts: request.param)
    return int(request.param)


def test_a_batch_encodes_as_one_by_one(model: TextSAM, photos: list[Any], batches: int) -> None:
    runs: list[int] = []
    real = model.sam.encode_image
    model.sam.encode_image = lambda x: runs.append(len(x)) or real(x)  # type: ignore
    together = encode_photos(model.parts, photos)
    assert runs == {1: [1] * 5, 2: [2, 2, 1], 8: [5]}[batches]
    for photo, alone in zip(together, [encode_photo(model.parts, p) for p in photos], strict=True):
        got, wanted = photo.features.embedding, alone.features.embedding
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)
        assert photo.frame == alone.frame


def test_lists_and_tuples_equal_the_loop(
    model: TextSAM, photos: list[Any], files: list[Path], batches: int
) -> None:
    for options in ({"text": "dog"}, {"boxes": [[1, 2, 15, 19], [3, 3, 9, 9]]}):
        loop = [model.segment(photo, **options) for photo in photos]
        for typed in (photos, tuple(photos), files, [str(path) for path in files]):
            found = model.segment(typed, **options)
            assert isinstance(found, list) and len(found) == len(loop)
            for one, other in zip(found, loop, strict=True):
                assert one.labels == other.labels
                np.testing.assert_allclose(one.iou, other.iou, atol=1e-4)
    loop = [model.everything(photo) for photo in photos]
    done: list[tuple[int, int]] = []
    found = model.everything(files, progress=lambda *each: done.append(each))
    assert [len(each) for each in found] == [len(each) for each in loop]
    assert done[-1] == (5, 5)
    assert model.segment([], text="dog") == [] == model.segment((), text="dog")


def test_a_broken_photo_is_named_or_skipped(
    model: TextSAM, files: list[Path], batches: int
) -> None:
    files[2].write_text("no image")
    with pytest.raises(ImageError, match=rf"image 2 \('{files[2]}'\): .*on_error=.skip"):
        model.segment(files, text="dog")
    with pytest.warns(UserWarning, match="skipped image 2"):
        found = model.segment(files, text="dog", on_error="skip")
    assert [each is None for each in found] == [False, False, True, False, False]
    assert found[3] == model.segment(files[3], text="dog")
    Image.new("RGB", (20, 30)).save(files[2])
    with pytest.warns(UserWarning, match=r"skipped image 2 .*outside the image"):
        found = model.segment(files, points=[(45, 25)], on_error="skip")
    assert found[2] is None and found[4] is not None
    with pytest.raises(PromptError, match='wanted "raise" or "skip"'):
        model.segment(files, text="dog", on_error="ignore")  # type: ignore[call-overload]


def test_what_is_seen_without_decoding_is_seen_first(
    model: TextSAM, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any) -> None:
        raise AssertionError("a photo was encoded")

    monkeypatch.setattr(photo_lists, "encode_photos", never)
    files[3].write_text("no image")
    with pytest.raises(ImageError, match="image 3"):
        model.segment(files, text="dog")
    with pytest.raises(ImageError, match=r"image 4 .*there is no file"):
        model.segment([*files[:3], files[4], files[0].with_name("x.png")], text="dog")


def test_a_generator_says_what_to_type(model: TextSAM, files: list[Path]) -> None:
    for typed in ((path for path in files), iter(files), map(str, files), set(files)):
        with pytest.raises(PromptError, match=r"segment\(list\(photos\)"):
            model.segment(typed, text="dog")  # type: ignore[call-overload]
    with files[0].open("rb") as file:  # a file has an iterator, too
        assert model.segment(file, text="dog").size == SIZES[0]


def test_pairs_ask_each_photo_something_else(
    model: TextSAM, files: list[Path], batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encodings: list[int] = []
    real = encoded.encode_photos
    monkeypatch.setattr(
        photo_lists, "encode_photos", lambda p, x: encodings.append(len(x)) or real(p, x)
    )
    pairs = [
        (files[0], "dog"),
        (files[1], ["dog", "cat"]),
        (files[0], {"boxes": [[1, 1, 9, 9]]}),
        (files[2], {"points": [(5, 5)], "multimask": True}),
    ]
    found = model.segment_pairs(pairs)
    assert sum(encodings) == 3  # one photo occurs twice
    wanted = [
        model.segment(files[0], "dog"),
        model.segment(files[1], ["dog", "cat"]),
        model.segment(files[0], boxes=[[1, 1, 9, 9]]),
        model.segment(files[2], points=[(5, 5)], multimask=True),
    ]
    for one, other in zip(found, wanted, strict=True):
        assert one.labels == other.labels and len(one) == len(other)
        assert one.presence.keys() == other.presence.keys()
    zipped = textsam.segment_pairs(zip(files, ["dog"] * 5, strict=True), model=model)
    assert len(zipped) == 5
    for wrong in (files, "ab", [("a.jpg", "dog", 3)]):
        with pytest.raises(PromptError, match="wanted"):
            model.segment_pairs(wrong)
    with pytest.raises(PromptError, match="segment_pairs"):
        model.segment(files[:2], [["dog"], ["cat"]])  # type: ignore[call-overload]


def _all_ways(model: TextSAM, photo: NDArray[np.uint8]) -> list[Any]:
    view = model.open(photo)
    found = [view.segment("dog"), view.segment(boxes=[[1, 2, 30, 30], [40, 10, 80, 40]])]
    found += [view.segment(points=[(20, 20)]), view.click(30, 30), view.everything()]
    embedder = Embedder(model)
    vectors = embedder.masks(photo, found[1])
    return [*found, {"text": embedder.text("dog"), **vectors.vectors}]


@pytest.mark.parametrize("around", ["float64", "autocast"])
def test_the_callers_precision_changes_nothing(
    model: TextSAM, photo: NDArray[np.uint8], around: str
) -> None:
    wanted = _all_ways(model, photo)
    usual = torch.get_default_dtype()
    try:
        if around == "float64":
            torch.set_default_dtype(torch.float64)
            found = _all_ways(model, photo)
            assert torch.get_default_dtype() == torch.float64
        else:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found = _all_ways(model, photo)
                assert torch.is_autocast_enabled("cpu")
    finally:
        torch.set_default_dtype(usual)
    for got, other in zip(found[:-1], wanted[:-1], strict=True):
        assert got.rles == other.rles
    for name, vectors in wanted[-1].items():
        assert found[-1][name].dtype == np.float32
        np.testing.assert_allclose(found[-1][name], vectors, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_way_works_in_half_precision(
    model: TextSAM, photo: NDArray[np.uint8], dtype: torch.dtype
) -> None:
    assert model.to(dtype) is model
    assert next(model.sam.image_encoder.parameters()).dtype == dtype
    found = _all_ways(model, photo)
    assert all(vectors.dtype == np.float32 for vectors in found[-1].values())


def test_precision_and_device_as_torch_spells_them(model: TextSAM) -> None:
    encoder = model.sam.image_encoder
    for method, dtype in (("half", "float16"), ("bfloat16", "bfloat16"), ("float", "float32")):
        assert getattr(model, method)() is model
        assert next(encoder.parameters()).dtype == getattr(torch, dtype)
    assert model.cpu().eval() is model and model.device.type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(WeightsError, match="cannot use device"):
            model.cuda()
    for keyword, ours in (("torch_dtype", "dtype"), ("device_map", "device")):
        with pytest.raises(UnknownKeywordError, match=f"Type: {ours}="):
            TextSAM.from_pretrained("tiny", **{keyword: "auto"})


def test_in_float32_gives_back_what_it_found() -> None:
    @in_float32
    def fails() -> None:
        assert torch.get_default_dtype() == torch.float32
        raise KeyError

    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(KeyError):
            fails()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


class _Api:
    """What is asked of the hub."""

    def __init__(self, calls: list[tuple[str, dict[str, Any]]], error: Exception | None) -> None:
        self._calls, self._error = calls, error

    def __call__(self, token: str | None = None) -> _Api:
        self._calls.append(("token", {"token": token}))
        return self

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        self._calls.append(("create_repo", {"repo_id": repo_id, **options}))
        if self._error is not None:
            raise self._error
        return type("Url", (), {"repo_id": f"me/{repo_id}" if "/" not in repo_id else repo_id})

    def upload_folder(self, *, folder_path: str, **options: Any) -> Any:
        folder = Path(folder_path)
        options["files"] = {path.name for path in folder.iterdir()}
        options["card"] = (folder / "README.md").read_text("utf-8")
        options["model"] = TextSAM.from_pretrained(folder)
        self._calls.append(("upload_folder", options))
        return type("Commit", (), {"commit_url": "https://hub/commit/1"})


def test_push_to_hub(
    model: TextSAM, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    calls: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(huggingface_hub, "HfApi", _Api(calls, None))
    assert model.push_to_hub("wheels", private=True, token="t", commit_message="First")
    (_, opened), (_, created), (_, uploaded) = calls
    assert opened == {"token": "t"}
    assert created == {"repo_id": "wheels", "private": True, "exist_ok": True}
    assert uploaded["repo_id"] == "me/wheels" and uploaded["commit_message"] == "First"
    assert 'TextSAM.from_pretrained("me/wheels")' in uploaded["card"]
    assert uploaded["card"].startswith("---\nlibrary_name: textsam\n")
    assert uploaded["model"].segment(photo, "dog") == model.segment(photo, "dog")


def test_push_to_hub_says_why_not(model: TextSAM, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    with pytest.raises(WeightsError, match="owner/name"):
        model.push_to_hub("a/b/c")
    for error, message in (
        (errors.OfflineModeIsEnabled("off"), "HF_HUB_OFFLINE=1"),
        (ConnectionError("no route"), "could not be published .*no route"),
    ):
        monkeypatch.setattr(huggingface_hub, "HfApi", _Api([], error))
        with pytest.raises(WeightsError, match=message):
            model.push_to_hub("me/wheels")
    assert "box=" in publishing.model_card(TextSAM(model.sam).parts, "me/wheels")
