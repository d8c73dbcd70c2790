"""`--data`: sources with shares."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from training.recipes.sources import open_mix, read_share


@pytest.mark.parametrize(
    ("text", "line", "share"),
    [
        ("voc.parquet", "voc.parquet", None),
        ("voc.parquet?share=0.3", "voc.parquet", 0.3),
        ("coco:a.json@b?exhaustive=true&share=2", "coco:a.json@b?exhaustive=true", 2.0),
        ("coco:a.json@b?share=2&exhaustive=true", "coco:a.json@b?exhaustive=true", 2.0),
        ("hf:o/s?masks=share", "hf:o/s?masks=share", None),
        ("hf:o/share=3", "hf:o/share=3", None),
    ],
)
def test_a_share_is_one_more_option(text: str, line: str, share: float | None) -> None:
    assert read_share(text) == (line, share)


@pytest.mark.parametrize("share", ["0", "-1", "nan", "inf", "half", ""])
def test_a_share_is_a_positive_number(share: str) -> None:
    with pytest.raises(ValueError, match="wanted a positive number"):
        read_share(f"parquet:a?share={share}")


def test_sources_get_their_shares_and_lengths(coco_data: Callable[..., str]) -> None:
    line = coco_data(3)
    alone = open_mix([line])
    assert alone.shares is None and alone.kinds == ("coco",)
    assert alone.describe() == "sources {'instances': 3}"
    mix = open_mix([f"{line}&share=0.7", f"{line}&name=again&share=0.1"])
    assert mix.shares == {"instances": 0.7, "again": 0.1}


def test_mixes_that_cannot_be_meant_are_refused(coco_data: Callable[..., str]) -> None:
    line = coco_data(2)
    with pytest.raises(ValueError, match="two sources are called 'instances'"):
        open_mix([line, line])
    with pytest.raises(ValueError, match="has no share, but others have"):
        open_mix([f"{line}&share=1", f"{line}&name=b"])
    with pytest.raises(ValueError, match="no data"):
        open_mix([])
    # The last line is read before the first source is opened.
    with pytest.raises(ValueError, match="wanted two paths"):
        open_mix(["coco:gone.json@gone", "coco:a.json"])
