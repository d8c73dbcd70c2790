from __future__ import annotations

import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from textsam.values.rle import encode_mask
from training.calibration import choose_photos, open_sets


def _samples(sample, boxes, count=30):
    labels = ["cat", "dog", "bird"]
    return [sample(k, {labels[k % 3]: [boxes(k, 0, k + 10, 20)]}) for k in range(count)]


def test_a_draw_is_seeded_and_of_the_size_wanted(sample, boxes):
    source = _samples(sample, boxes)

    one = choose_photos(source, name="pets", photos=5, seed=1)
    names = [item.image_id for item in one.samples]

    assert len(set(names)) == 5
    assert one.labels == ("bird", "cat", "dog")
    assert names == [s.image_id for s in choose_photos(source, name="", photos=5, seed=1).samples]
    assert names != [s.image_id for s in choose_photos(source, name="", photos=5, seed=2).samples]
    assert len(choose_photos(source, name="", photos=99, seed=0).samples) == 30


def test_the_draw_is_from_all_of_the_file(sample, boxes):
    source = _samples(sample, boxes)
    drawn = {
        s.image_id
        for seed in range(20)
        for s in choose_photos(source, name="", photos=4, seed=seed).samples
    }

    assert len(drawn) > 20


def test_only_complete_labels_say_what_is_absent(sample, boxes):
    incomplete = sample(0, {"cat": [boxes(0, 0, 10, 10)]}, exhaustive=False)
    federated = sample(1, {"dog": [boxes(0, 0, 10, 10)]}, exhaustive=False, absent=("bird", "cow"))
    empty = sample(2, {"": [boxes(0, 0, 10, 10)], " ": [boxes(20, 0, 30, 10)]})

    chosen = choose_photos([incomplete, federated, empty], name="x", photos=3, seed=0)

    assert {s.image_id for s in chosen.samples} == {"photo 1", "photo 2"}
    assert all(s.exhaustive for s in chosen.samples)
    assert chosen.labels == ("cat", "dog")  # also of photos that are not asked
    assert not next(s for s in chosen.samples if s.image_id == "photo 2").objects
    by_name = {s.image_id: s for s in chosen.samples}
    assert chosen.vocabulary(by_name["photo 1"]) == ("bird", "cow")
    assert chosen.vocabulary(by_name["photo 2"]) == ("cat", "dog")


def test_sources_of_no_use_say_why(sample, boxes):
    incomplete = [sample(0, {"cat": [boxes(0, 0, 10, 10)]}, exhaustive=False)]
    nameless = [sample(0, {"object": [boxes(0, 0, 10, 10)], "": [boxes(20, 0, 30, 10)]})]

    with pytest.raises(ValueError, match=r"pets: none of the 1 .*exhaustive=true"):
        choose_photos(incomplete, name="pets", photos=3, seed=0)
    with pytest.raises(ValueError, match=r"pets: none of the 1 .* name"):
        choose_photos(nameless, name="pets", photos=3, seed=0)


class _Stream:
    """Rows one after the other; every fifth is broken."""

    def __init__(self, samples):
        self.samples = samples
        self.read = 0

    def rows(self, *, seed, epoch):
        return iter(range(len(self.samples)))

    def sample(self, row):
        self.read += 1
        if row % 5 == 0:
            raise ValueError("broken")
        return self.samples[row]

    def __iter__(self):
        raise AssertionError("rows are read")


class _Broken(list):
    def __getitem__(self, index):
        if index % 5 == 0:
            raise OSError("broken")
        return super().__getitem__(index)


def test_broken_rows_are_passed_over(sample, boxes):
    samples = _samples(sample, boxes)
    stream = _Stream(samples)

    assert len(choose_photos(_Broken(samples), name="", photos=30, seed=0).samples) == 24
    assert len(choose_photos(stream, name="", photos=4, seed=0).samples) == 4


def test_a_stream_without_an_end_is_left_in_time(sample, boxes):
    [one] = _samples(sample, boxes, 1)
    stream = _Stream([one] * 1000)

    choose_photos(stream, name="", photos=2, seed=0)

    assert stream.read <= 60


def test_sources_are_opened_as_the_trainer_does(tmp_path, sample, boxes):
    rows = [
        {
            "image": {"bytes": s.encoded, "path": None},
            "image_id": s.image_id,
            "height": s.size[0],
            "width": s.size[1],
            "exhaustive": True,
            "void": None,
            "objects": [
                {
                    "label": o.label,
                    "kind": o.kind,
                    "rle": encode_mask(boxes(0, 0, 9, 9)).counts.decode(),
                    "ignore": False,
                }
                for o in s.objects
            ],
        }
        for s in _samples(sample, boxes, 6)
    ]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / folder / "pets.parquet")
    one, other = f"{tmp_path}/a/pets.parquet", f"parquet:{tmp_path}/b/pets.parquet"

    sets = open_sets([one, other], photos=3, seed=0)

    assert [item.name for item in sets] == ["pets", other]
    assert [len(item.samples) for item in sets] == [3, 3]
    pickle.dumps(sets)
    with pytest.raises(ValueError, match="given twice"):
        open_sets([one, other, f"parquet:{one}"], photos=3, seed=0)
    with pytest.raises(ValueError, match="is not there"):
        open_sets([str(tmp_path / "no.parquet")], photos=3, seed=0)
