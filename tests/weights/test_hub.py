"""Downloads from a hub on this machine: what is asked for, what goes wrong, and what is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants

from tests.weights.loopback_hub import LoopbackHub
from textsam import TextSAM
from textsam.errors import WeightsError
from textsam.modeling.config import SamConfig, ViTConfig
from textsam.modeling.sam import Sam
from textsam.weights.convert import write_huggingface
from textsam.weights.hub import fetch

NAME = "someone/small-sam"
PHOTO = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)


def small_sam(folder: Path, seed: int) -> dict[str, bytes]:
    """The files of a random SAM as transformers saves it, and of what else repositories hold."""
    torch.manual_seed(seed)
    vit = ViTConfig(width=32, depth=2, heads=2, global_attention_indexes=(1,), window_size=2)
    sam = Sam(SamConfig(encoder=vit, image_size=64, embed_dim=32, decoder_heads=8))
    write_huggingface(folder, sam.config, sam.state_dict())
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return files | {"modeling_sam.py": b"raise SystemExit", "pytorch_model.bin": b"a pickle"}


def test_a_model_is_downloaded_once_at_the_revision_wanted(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    commits = [hub.add(NAME, small_sam(tmp_path / str(seed), seed)) for seed in (0, 1)]
    box = (5, 5, 40, 30)
    for seed, commit in enumerate(commits):
        local = TextSAM.from_pretrained(tmp_path / str(seed)).open(PHOTO).predict(box=box)
        pinned = TextSAM.from_pretrained(NAME, revision=commit)
        again = TextSAM.from_pretrained(f"{NAME}@{commit}", local_files_only=True)
        for model in (pinned, again):
            np.testing.assert_array_equal(model.open(PHOTO).predict(box=box).logits, local.logits)
    # Both have the same config, which is in the cache already.
    assert sorted(hub.fetched()) == ["config.json", "model.safetensors", "model.safetensors"]
    newest = fetch(NAME)
    assert newest.name == commits[-1]
    assert not list(newest.rglob("*.py")) + list(newest.rglob("*.bin"))


def test_a_download_that_breaks_off_goes_on(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Bytes are kept in chunks of this size, by default larger than this whole model.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 2**16)
    files = small_sam(tmp_path / "sam", 0)
    hub.add(NAME, files)
    hub.broken_once.add("model.safetensors")
    folder = fetch(NAME)
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    ranges = [r for method, path, r in hub.requests if method == "GET" and "model" in path]
    assert ranges[0] is None
    assert ranges[1] is not None  # only the rest was asked for
    start = int(ranges[1].removeprefix("bytes=").rstrip("-"))
    half = len(files["model.safetensors"]) // 2
    assert half - 2**16 < start <= half


def test_the_same_call_goes_on_with_the_rest(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add(NAME, small_sam(tmp_path / "sam", 0))
    hub.out_of_order.add("model.safetensors")
    with pytest.raises(WeightsError, match=r"could not be downloaded .*503.*the same call goes on"):
        TextSAM.from_pretrained(NAME)
    with pytest.raises(WeightsError, match="not all of it, in the local cache"):
        TextSAM.from_pretrained(NAME, local_files_only=True)
    hub.out_of_order.clear()
    hub.requests.clear()
    TextSAM.from_pretrained(NAME)
    assert hub.fetched() == ["model.safetensors"]


def test_a_gated_model_says_where_to_ask_and_what_to_use(hub: LoopbackHub) -> None:
    hub.add("facebook/sam3", {"config.json": b"{}"})
    hub.gated.add("facebook/sam3")
    wanted = r"accept their terms on .*/facebook/sam3, then type: hf auth login.*grounded-sam2"
    with pytest.raises(WeightsError, match=wanted):
        TextSAM.from_pretrained("sam3")


def test_a_model_or_revision_that_is_not_there(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add(NAME, small_sam(tmp_path / "sam", 0))
    with pytest.raises(WeightsError, match=r"not on the hub, or private.*hf auth login"):
        TextSAM.from_pretrained("someone/else")
    with pytest.raises(WeightsError, match="Did you mean 'facebook/sam-vit-huge'"):
        TextSAM.from_pretrained("facebook/sam-vit-hugo")
    with pytest.raises(WeightsError, match=r"has no revision 'v9'.*Leave revision out"):
        TextSAM.from_pretrained(NAME, revision="v9")
    assert not hub.fetched()


def test_without_a_network(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=f"HF_HUB_OFFLINE=1 forbids.*hf download {NAME}"):
        fetch(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")  # nobody listens there
    with pytest.raises(WeightsError, match=r"could not be downloaded .*when the network is back"):
        fetch(NAME)


def test_what_is_not_a_hub_id_is_not_asked_for(hub: LoopbackHub, tmp_path: Path) -> None:
    for name in ("sam2.1-smal", "a/b/c", "/no/where", "./nothing"):
        with pytest.raises(WeightsError, match="no file or folder"):
            fetch(name)
    with pytest.raises(WeightsError, match=r"Did you mean 'sam2\.1-small'"):
        TextSAM.from_pretrained("sam2.1-smal")
    with pytest.raises(WeightsError, match="leave revision out"):
        fetch(tmp_path, revision="main")
    assert fetch(tmp_path) == tmp_path
    with pytest.raises(WeightsError, match=r"download mobile_sam\.pt from https"):
        TextSAM.from_pretrained("mobile-sam")
    assert not hub.requests
