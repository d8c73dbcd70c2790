"""The table of models is consistent with itself, with the names it resolves and with the docs."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from textsam.weights.hub import hub_id
from textsam.weights.model_table import MODELS, find_entry, find_repository, nearest_name

SHARED = ("tiny", "mobile_sam.pt")


def test_every_name_means_one_model() -> None:
    names = [name.lower() for entry in MODELS for name in (entry.name, *entry.aliases)]
    assert not [name for name, count in Counter(names).items() if count > 1]
    for entry in MODELS:
        for name in (entry.name, *entry.aliases, entry.name.upper(), entry.name.replace("-", "_")):
            assert find_entry(name) is entry
        for part in entry.repositories:
            assert find_repository(part.id) == find_repository(part.short) == part
            assert part.id in SHARED or part.id.count("/") == 1


def test_a_hub_id_means_the_core_alone() -> None:
    for entry in MODELS:
        found = find_entry(entry.core.id)
        assert found is not None
        assert found.repositories == (entry.core,)


def test_names_become_hub_ids() -> None:
    assert hub_id("sam2.1-base-plus") == "facebook/sam2.1-hiera-base-plus"
    assert hub_id("SAM_HQ_base") == "syscv-community/sam-hq-vit-base"
    assert hub_id("grounding-dino-tiny") == "IDEA-Research/grounding-dino-tiny"
    assert hub_id("somebody/else") == "somebody/else"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("sam2.1-smal", "sam2.1-small"),
        ("grounded_same", "grounded-sam"),
        ("facebook/sam-vit-bas", "facebook/sam-vit-base"),
        ("mobilsam", "mobilesam"),
        ("vit_b", "vit-b"),
        ("Tiny", "tiny"),
        ("SAM2", "sam2"),
        ("sam_vit_b", "sam-vit-b"),
        ("SAM2.1-small", "sam2.1-small"),
        ("sam_vit_b_01ec64.pth", "sam-vit-b"),
        ("sam2_hiera_large.pt", "sam2-hiera-large"),
        ("zebra", None),
    ],
)
def test_the_nearest_name(typed: str, meant: str | None) -> None:
    assert nearest_name(typed) == meant


def test_sizes_and_asks() -> None:
    for entry in MODELS:
        assert entry.asks[-4:] == ("points", "boxes", "mask", "automatic")
        if entry.detector is not None or entry.map_source is not None:
            assert entry.asks[0] == "text"
            assert entry.parameters == pytest.approx(
                sum(part.parameters or 0 for part in entry.repositories), abs=0.1
            )
        assert entry.to_dict()["load_line"] == entry.load_line
        assert entry.gated == (entry.name == "sam3")


def test_tiny_segments_where_transformers_cannot_be_imported(repo: Path) -> None:
    """open_clip imports it where it is there; nothing of ours needs it."""
    code = """
import sys
sys.modules["transformers"] = None  # importing it raises ImportError
from textsam import TextSAM
assert len(TextSAM.from_pretrained("tiny").segment("examples/bus.jpg", text="wheel"))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
