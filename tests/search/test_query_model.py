"""The model of an index: loaded when a query needs it, by its name, a folder, or from the index."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from textsam.errors import PromptError, WeightsError
from textsam.inference.model import TextSAM
from textsam.search import Embedder, MaskIndex, MaskRow, VectorSpace
from textsam.search.records import MaskVectors
from textsam.values.rle import encode_mask

Photo = NDArray[np.uint8]
MASK = np.zeros((50, 90), np.bool_)
MASK[10:30, 20:60] = True


def index_of(embedder: Embedder, photo: Photo) -> MaskIndex:
    index = MaskIndex.open("memory://")
    row = MaskRow(dataset="one", image="a", rle=encode_mask(MASK))
    index.add([row], embedder.masks(photo, MASK))
    return index


def reopened(index: MaskIndex, model: Any = None) -> MaskIndex:
    """The same rows, with another model."""
    return MaskIndex(index.engine, model=model)


@pytest.fixture(scope="module")
def named(model: TextSAM, tmp_path_factory: pytest.TempPathFactory) -> TextSAM:
    """A model that is called as the folder that it is in."""
    folder = tmp_path_factory.mktemp("named")
    clip = copy.copy(model.clip)
    assert clip is not None
    clip.name = str(folder / "clip")
    TextSAM(model.sam, clip=clip, pathway=model.pathway, name=str(folder)).save_pretrained(folder)
    return TextSAM.from_pretrained(folder)


def test_tiny_is_loaded_for_the_index_that_it_made(tmp_path: Path, photo: Photo) -> None:
    embedder = Embedder("tiny", latents="photo")
    with MaskIndex.open(tmp_path / "masks.lance") as index:
        row = MaskRow(dataset="one", image="a", rle=encode_mask(MASK))
        index.add([row], embedder.masks(photo, MASK))
    index = MaskIndex.open(tmp_path / "masks.lance")
    [found] = index.search("wheel")
    vectors = embedder.masks(photo, MASK)["clip"]
    assert found.cosine == pytest.approx(float(vectors[0] @ embedder.text("wheel")), abs=1e-5)
    assert index.search(image=photo, mask=MASK, space="sam")[0].cosine == pytest.approx(1, abs=1e-4)
    assert index.embedder.spaces == index.spaces


@pytest.mark.parametrize("latents", ["photo", "crops"])
@pytest.mark.parametrize("spaces", [None, ["clip"], ["sam"]])
def test_the_stored_name_is_enough(named: TextSAM, photo: Photo, latents: Any, spaces: Any) -> None:
    """Of SAM and CLIP, and in whatever way the rows were embedded; a CLIP alone by its folder."""
    index = reopened(index_of(Embedder(named, latents=latents, spaces=spaces), photo))
    for space in index.spaces:
        best = index.search(image=photo, mask=MASK, space=space)[0]
        assert best.cosine == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", ["name", "path", "model", "embedder"])
def test_every_way_to_name_a_model(named: TextSAM, photo: Photo, kind: str) -> None:
    embedder = Embedder(named, latents="photo")
    models = {"name": named.name, "path": Path(named.name), "model": named, "embedder": embedder}
    index = reopened(index_of(embedder, photo), models[kind])
    assert index.search(image=photo, mask=MASK)[0].cosine == pytest.approx(1, abs=1e-5)
    assert Embedder(named.name, latents="photo").spaces == embedder.spaces


def test_a_bare_sam_searches_looks(model: TextSAM, photo: Photo) -> None:
    """It needs no CLIP for the space that it has, and is refused for the other."""
    same = TextSAM(model.sam, name=model.name)
    index = reopened(index_of(Embedder(model, latents="photo"), photo), same)
    found = index.search(image=photo, mask=MASK, space="sam")
    assert found[0].cosine == pytest.approx(1, abs=1e-5)
    with pytest.raises(WeightsError, match="no CLIP"):
        index.search("wheel")
    with pytest.raises(ValueError, match="differ in model"):
        reopened(index, TextSAM(model.sam, name="another")).search(image=photo, space="sam")


def test_a_model_that_cannot_be_had(named: TextSAM, photo: Photo) -> None:
    """What is stored, and what to type."""
    embedder = Embedder(named)
    space = VectorSpace(name="sam", width=32, model="some/model", preprocessing="a")
    rows = [MaskRow(dataset="one", image="a", rle=encode_mask(MASK))]
    vectors = {"sam": embedder.masks(photo, MASK)["sam"]}
    index = MaskIndex.open("memory://")
    index.add(rows, MaskVectors(spaces={"sam": space}, vectors=vectors))
    says = r"made with SAM 'some/model', which cannot be loaded.*MaskIndex\.open\('memory://', mod"
    with pytest.raises(WeightsError, match=says):
        index.search(image=photo, space="sam")
    with pytest.raises(PromptError, match=r'no rows that name a model.*model="tiny"'):
        _ = MaskIndex.open("memory://").embedder


def test_other_weights_under_the_stored_name(named: TextSAM, photo: Photo) -> None:
    index = index_of(Embedder(named, expand=2.0), photo)
    with pytest.raises(WeightsError, match=r"other weights or options.*MaskIndex\.open\("):
        index.search(image=photo, mask=MASK)


def test_threads_load_it_once(
    named: TextSAM, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = reopened(index_of(Embedder(named), photo), named.name)
    loads = []
    load = TextSAM.from_pretrained
    monkeypatch.setattr(
        TextSAM, "from_pretrained", lambda *names, **options: loads.append(names) or load(*names)
    )
    threads = [threading.Thread(target=index.search, args=("wheel",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1


def test_importing_loads_nothing_heavy() -> None:
    """`textsam.search` alone is light; its index is without torch until a model is needed."""
    code = (
        "import sys, textsam.search\n"
        "assert not {'numpy', 'torch', 'pyarrow', 'lancedb'} & set(sys.modules)\n"
        "from textsam.search import MaskIndex\n"
        "import textsam.search.ray_job\n"
        "assert not {'torch', 'lancedb', 'pyarrow', 'ray'} & set(sys.modules)\n"
        "for name in textsam.search.__all__: assert name in dir(textsam.search); "
        "getattr(textsam.search, name)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
