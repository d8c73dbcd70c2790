"""`training.evaluation.search` with vectors whose ranking is known before anything runs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from textsam.values.rle import encode_mask
from training.evaluation import search
from training.evaluation.data_sets import read_sets
from training.evaluation.search import (
    MaskVectorTable,
    SearchConfig,
    chance_of,
    embed_sets,
    measure_task,
    precision,
    queries_of,
    ranked,
)

AXES = np.eye(4, dtype=np.float32)


def embedded(rows: list[tuple[str, str, str, int]]) -> MaskVectorTable:
    """Rows of (set, photo, label, axis that its vector points along)."""
    sets, photos, labels, axes = zip(*rows, strict=True)
    return MaskVectorTable(
        sets=np.array(sets),
        photos=np.array(photos),
        labels=np.array(labels),
        vectors={"good": AXES[list(axes)]},
        texts={"good": {"cat": AXES[0], "dog": AXES[1]}},
    )


TWO_SETS = embedded(
    [
        *(("a", f"a{k}", "cat", 0) for k in range(3)),
        *(("a", f"a{k}", "dog", 1) for k in range(3)),
        ("b", "b0", "cat", 0),
        ("b", "b1", "dog", 2),
        ("b", "b1", "fish", 3),
    ]
)


def test_precision_counts_the_first_ten_or_as_many_as_are_right() -> None:
    falling = np.linspace(1, 0, 40, dtype=np.float32)
    right = np.zeros(40, bool)
    right[[0, 1, 4, 20, 30]] = True
    assert precision(falling, right) == pytest.approx(3 / 5)  # of the first 5
    right[25:35] = True
    assert precision(falling, right) == pytest.approx(3 / 10)
    assert precision(-falling, right) == pytest.approx(5 / 10)


def test_a_mask_does_not_find_its_own_photo() -> None:
    for query in queries_of(TWO_SETS, "mask", "a"):
        assert query.row is not None and len(query.gallery) == 4
        assert TWO_SETS.photos[query.row] not in TWO_SETS.photos[query.gallery]
    assert queries_of(TWO_SETS, "mask", "b") == []  # nothing there has a second one


def test_other_sets_are_other_sets_and_unanswerable_queries_are_left_out() -> None:
    asked = queries_of(TWO_SETS, "mask, other sets", "b")
    assert [query.label for query in asked] == ["cat", "dog"]
    assert all((TWO_SETS.sets[query.gallery] == "a").all() for query in asked)
    with pytest.raises(ValueError, match="task 'other'"):
        queries_of(TWO_SETS, "other", "a")


def test_every_label_counts_the_same() -> None:
    rows = [("a", f"p{k}", "cat", 0) for k in range(9)]
    rows += [("a", "q0", "dog", 1), ("a", "q1", "dog", 2)]
    data = embedded(rows)
    scores = ranked(data, queries_of(data, "mask", "a"), "good")
    assert {s.object: s.value for s in scores} == {"cat": 1.0, "dog": 0.0}


@pytest.mark.parametrize(
    ("task", "want"),
    [
        ("text", 1.0),
        ("mask", 1.0),
        # b's dog points along an axis of its own, and a's dogs find b's cat first.
        ("mask, other sets", 0.5),
    ],
)
def test_what_points_the_right_way_is_found(task: str, want: float) -> None:
    found = measure_task(TWO_SETS, task, "a", seed=0)
    assert found is not None
    assert found["ways"]["good"].mean == want and found["labels"] == 2


def test_chance_is_what_random_orders_reach() -> None:
    queries = queries_of(TWO_SETS, "mask", "a")
    want = {s.object: s.value for s in chance_of(TWO_SETS, queries)}
    assert want == {"cat": 0.5, "dog": 0.5}
    rng = np.random.default_rng(0)
    right = np.array([True] * 30 + [False] * 90)
    drawn = [precision(rng.random(120).astype(np.float32), right) for _ in range(3000)]
    assert np.mean(drawn) == pytest.approx(0.25, abs=0.01)


def write(path: Path, photos: list[list[str]]) -> Path:
    """Photos whose objects are boxes of 10 x 10, 20 x 10, ... pixels with these labels."""
    rows = []
    for index, labels in enumerate(photos):
        file = io.BytesIO()
        Image.new("RGB", (60, 40), (index,) * 3).save(file, "PNG")
        objects = []
        for place, label in enumerate(labels):
            mask = np.zeros((40, 60), bool)
            mask[:10, : 10 * (place + 1)] = True
            counts = encode_mask(mask).counts.decode()
            objects.append({"label": label, "kind": "thing", "ignore": False, "rle": counts})
        rows.append(
            {"image": {"bytes": file.getvalue(), "path": None}, "image_id": f"photo {index}"}
            | {"source": "test", "license": "none", "height": 40, "width": 60}
            | {"exhaustive": True, "void": None, "objects": objects}
        )
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


class FakeClip:
    def encode_text(self, phrases: list[str]) -> Any:
        import torch

        return torch.from_numpy(AXES[[["cat", "dog", "fish"].index(name) for name in phrases]])


MODEL = SimpleNamespace(parts=SimpleNamespace(require_clip=FakeClip), name="fake")


def by_place(image: np.ndarray, rles: list[Any]) -> np.ndarray:
    """The first mask of a photo along axis 0, the second along axis 1."""
    return AXES[: len(rles)]


def test_sets_are_embedded_photo_by_photo(tmp_path: Path) -> None:
    one = write(tmp_path / "one.parquet", [["cat", "dog"], ["cat", "object"], [""]])
    two = write(tmp_path / "two.parquet", [["cat", "dog"]])
    sets = read_sets([one, two])
    data, seconds = embed_sets(MODEL, sets, config=SearchConfig(), methods={"box CLIP": by_place})
    assert data.labels.tolist() == ["cat", "dog", "cat", "cat", "dog"]  # nameless ones left out
    assert data.photos.tolist()[1:4] == ["one/photo 0", "one/photo 1", "two/photo 0"]
    assert data.vectors["box CLIP"].shape == (5, 4) and set(seconds) == {"box CLIP"}
    assert set(data.texts["box CLIP"]) == {"cat", "dog"}
    config = SearchConfig(masks=2, seed=3)
    few, _ = embed_sets(MODEL, sets, config=config, methods={"box CLIP": by_place})
    again, _ = embed_sets(MODEL, sets, config=config, methods={"box CLIP": by_place})
    assert (few.sets == "one").sum() == 2 == (few.sets == "two").sum()
    assert few.labels.tolist() == again.labels.tolist()


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "load_model", lambda name: MODEL)
    wrong = lambda image, rles: by_place(image, rles)[:, ::-1].copy()  # noqa: E731
    monkeypatch.setattr(
        search, "methods_of", lambda model: {"masked CLIP": by_place, "box CLIP": wrong}
    )


def test_the_command_prints_a_row_per_question_and_writes_json(
    tmp_path: Path, fakes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write(tmp_path / "one.parquet", [["cat", "dog"]] * 3)
    two = write(tmp_path / "two.parquet", [["cat", "dog"]] * 2)
    report = tmp_path / "r.json"
    assert search.main([str(one), str(two), "--json", str(report)]) == 0
    printed = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert "one text 2 2 6 1.000 0.500 0.500 +0.500" in lines
    assert "two mask, other sets 2 4 6 1.000 1.000 0.500 +0.000" in lines
    sets = json.loads(report.read_text())["sets"]
    assert [(row["set"], row["task"]) for row in sets[:3]] == [
        *(("one", "text"), ("two", "text"), ("one", "mask")),
    ]
    assert sets[0]["items"]["masked CLIP"] == {"cat": 1.0, "dog": 1.0}
    assert sets[0]["ways"]["chance"]["mean"] == 0.5


def test_bad_input_is_one_clear_line(
    tmp_path: Path, fakes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    nameless = write(tmp_path / "none.parquet", [["object"]])
    for arguments, message in (
        ([str(tmp_path / "no.parquet")], "there is no file"),
        ([str(nameless)], "no mask of these sets has a name"),
        ([str(nameless), "--json", str(tmp_path / "no" / "r.json")], "--json"),
    ):
        assert search.main(arguments) == 2
        printed = capsys.readouterr()
        assert len(printed.err.splitlines()) == 1 and message in printed.err
