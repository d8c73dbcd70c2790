"""`training.evaluation.text` on models whose figures are known before anything runs."""

from __future__ import annotations

import io
import json
import re
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from textsam.errors import PromptError, WeightsError
from textsam.results.segmentation import Segmentation
from textsam.values.rle import encode_mask
from training.evaluation import command, text
from training.evaluation.data_sets import read_sets
from training.evaluation.text import TextConfig
from training.evaluation.text import measure_set as measure_records

SIZE = (40, 60)
NOTHING = np.zeros(SIZE, dtype=bool)


def _box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


CAT, DOG, DOG_TOO = _box(0, 0, 20, 20), _box(30, 0, 40, 20), _box(45, 0, 55, 20)


def _photo(*objects, exhaustive: bool = True, void: np.ndarray | None = None) -> dict:
    """A row of the schema; objects are (label, mask) or (label, mask, "ignore")."""
    return {
        "source": "test",
        "license": "none",
        "height": SIZE[0],
        "width": SIZE[1],
        "exhaustive": exhaustive,
        "void": None if void is None else encode_mask(void).counts.decode(),
        "objects": [
            {
                "label": label,
                "kind": "thing",
                "rle": encode_mask(mask).counts.decode(),
                "ignore": bool(rest),
            }
            for label, mask, *rest in objects
        ],
    }


def _write(path: Path, photos: list[dict]) -> Path:
    """A file in the schema, whose n-th photo is a plain grey of level n."""
    for index, row in enumerate(photos):
        file = io.BytesIO()
        Image.new("RGB", SIZE[::-1], (index,) * 3).save(file, "PNG")
        row["image"] = {"bytes": file.getvalue(), "path": None}
        row["image_id"] = f"photo {index}"
    pq.write_table(pa.Table.from_pylist(photos), path)
    return path


# The figures that every strategy but "auto", and every part but "union", would only repeat.
ALONE = {"strategies": ("auto",), "parts": ("union",)}
QUICK = ("--strategies", "auto", "--parts", "union")


class FakeModel:
    """Opens a photo by its grey level; `answer(level, phrase, strategy)` gives a list of masks.

    `presence(level, phrase)` gives a probability; without it the model says nothing about presence.
    Its map of a phrase is what strategy "auto" finds, and its clicks are of no avail.
    """

    def __init__(self, answer, presence=None):
        self.answer, self.presence, self.opened, self.asked = answer, presence, [], []

    @contextmanager
    def open(self, image):
        level = int(image[0, 0, 0])
        self.opened.append(level)

        def segment(*, text, strategy="auto", exclude=None, threshold=None):
            asked = (level, text, strategy)
            self.asked.append(asked if threshold is None else (*asked, threshold))
            masks = self.answer(level, text, strategy)
            array = np.stack(masks) if masks else np.zeros((0, *SIZE), bool)
            chance = None if self.presence is None else {text: self.presence(level, text)}
            scores = None if chance is None else [chance[text]] * len(array)
            return Segmentation.from_masks(array, presence=chance, scores=scores)

        def text_map(phrase):
            masks = self.answer(level, phrase, "auto")
            return np.any([NOTHING, *masks], axis=0).astype(np.float32)

        def label_map(phrases):
            labels = np.zeros(SIZE, np.int32)
            for number, phrase in enumerate(phrases, start=1):
                labels[text_map(phrase) > 0] = number
            return SimpleNamespace(labels=labels)

        yield SimpleNamespace(
            size=SIZE,
            segment=segment,
            text_map=text_map,
            label_map=label_map,
            click=lambda x, y, *, foreground: Segmentation(SIZE, []),
        )


PHOTOS = (
    {"cat": [CAT], "dog": [DOG, DOG_TOO]},
    {"bird": [_box(5, 5, 25, 35)]},
    {"cat": [_box(10, 10, 30, 30)], "bird": [_box(40, 10, 50, 30)]},
)


def _file(folder: Path, *, exhaustive: bool = True) -> Path:
    photos = [
        _photo(*((k, m) for k, masks in p.items() for m in masks), exhaustive=exhaustive)
        for p in PHOTOS
    ]
    return _write(folder / "animals.parquet", photos)


def _perfect(level: int, phrase: str, strategy: str) -> list[np.ndarray]:
    return list(PHOTOS[level].get(phrase, []))


def measure_set(model, data, *, config: TextConfig) -> dict:
    """The figures as they are in the JSON."""
    return json.loads(command.json_text(measure_records(model, data, config=config)))


def _measure(path: Path, answer, **settings) -> dict:
    data = read_sets([path])[0]
    return measure_set(FakeModel(answer), data, config=TextConfig(**(ALONE | settings)))


def test_a_perfect_model_finds_what_is_there_and_nothing_else(tmp_path):
    result = _measure(_file(tmp_path), _perfect)

    means = result["means"]
    assert means["phrases"] == 5
    assert means["union"] == 1.0
    assert means["union_wrong"] == 0.0
    assert means["present_answered"] == means["absent_empty"] == 1.0
    whole = [CAT.mean(), (DOG | DOG_TOO).mean(), 600 / 2400, 400 / 2400, 200 / 2400]
    assert means["whole"] == pytest.approx(np.mean(whole))
    single = result["single"]["exhaustive"]
    assert single["objects"] == 4  # not the two dogs
    assert single["top"] == single["best"] == single["union"] == 1.0
    assert single["top_wrong"] == 0.0
    assert result["single"]["not exhaustive"]["objects"] == 0


def test_a_model_that_ignores_the_phrase_scores_the_same_with_a_wrong_one(tmp_path):
    def deaf(level, phrase, strategy):
        masks = [mask for masks in PHOTOS[level].values() for mask in masks]
        return masks if strategy == "auto" else masks[:1]

    for exhaustive in (True, False):
        result = _measure(_file(tmp_path, exhaustive=exhaustive), deaf)

        assert result["items"]
        for item in result["items"]:
            assert item["union"] == item["union_wrong"] > 0
            assert item["top"] == item["top_wrong"]
        for means in (result["means"], *result["single"].values()):
            assert means["union"] == means["union_wrong"]
            assert means.get("top") == means.get("top_wrong")
        assert result["means"]["absent_empty"] == (0.0 if exhaustive else None)


def test_a_model_that_never_answers_scores_nothing_but_its_silence(tmp_path):
    result = _measure(_file(tmp_path), lambda *_: [])

    assert result["means"]["union"] == result["means"]["union_wrong"] == 0.0
    assert result["means"]["present_answered"] == 0.0
    assert result["means"]["absent_empty"] == 1.0
    single = result["single"]["exhaustive"]
    assert single["top"] == single["best"] == single["top_wrong"] == 0.0


def test_an_empty_mask_is_no_answer(tmp_path):
    result = _measure(_file(tmp_path), lambda *_: [NOTHING])

    assert result["means"]["present_answered"] == 0.0
    assert result["means"]["absent_empty"] == 1.0


def test_painting_everything_is_the_baseline(tmp_path):
    result = _measure(_file(tmp_path), lambda *_: [~NOTHING])

    means = result["means"]
    assert means["union"] == means["union_wrong"] == means["whole"]
    single = result["single"]["exhaustive"]
    assert single["top"] == single["best"] == single["whole"]


def test_the_wrong_phrase_is_compared_with_the_right_truth(tmp_path):
    # Every phrase but "cat" finds the cat: right for "cat" only when it is the WRONG phrase.
    def contrary(level, phrase, strategy):
        return [] if phrase == "cat" else [CAT]

    path = _write(tmp_path / "two.parquet", [_photo(("cat", CAT)), _photo(("dog", DOG))])
    items = _measure(path, contrary)["items"]

    cat, dog = items
    assert (cat["label"], cat["wrong"]) == ("cat", "dog")
    assert (cat["union"], cat["union_wrong"]) == (0.0, 1.0)
    assert (cat["top"], cat["top_wrong"]) == (0.0, 1.0)
    assert (dog["wrong"], dog["union"], dog["union_wrong"]) == ("cat", 0.0, 0.0)


def test_the_top_mask_is_the_first_and_the_best_may_be_another(tmp_path):
    def readings(level, phrase, strategy):
        return [_box(0, 0, 10, 20), CAT, NOTHING] if strategy == "prompt" else [CAT]

    path = _write(tmp_path / "cat.parquet", [_photo(("cat", CAT))])
    (item,) = _measure(path, readings)["items"]

    assert (item["top"], item["best"], item["union"]) == (0.5, 1.0, 1.0)
    assert item["wrong"] is item["union_wrong"] is item["top_wrong"] is None  # no other label


def test_the_union_is_of_all_objects_and_all_masks(tmp_path):
    path = _write(tmp_path / "dogs.parquet", [_photo(("dog", DOG), ("dog", DOG_TOO))])

    whole = _measure(path, lambda *_: [DOG_TOO, DOG])["items"]
    half = _measure(path, lambda *_: [DOG])["items"]

    assert [item["union"] for item in whole] == [1.0]
    assert [item["union"] for item in half] == [0.5]
    assert whole[0]["instances"] == 2
    assert not whole[0]["single"]
    assert whole[0]["top"] is None


def test_void_and_ignored_pixels_count_neither_for_nor_against(tmp_path):
    void, crowd = _box(10, 0, 30, 10), _box(10, 10, 60, 40)
    photo = _photo(("cat", CAT), ("person", crowd, "ignore"), void=void)
    path = _write(tmp_path / "cat.parquet", [photo, _photo(("dog", DOG))])

    for answer in (CAT, CAT & ~void & ~crowd, CAT | void | crowd):
        item = _measure(path, lambda *_, answer=answer: [answer])["items"][0]
        assert item["union"] == item["top"] == 1.0
    assert item["whole"] == pytest.approx((CAT & ~void & ~crowd).sum() / (~void & ~crowd).sum())


def test_a_label_that_is_only_ignored_is_neither_present_nor_absent(tmp_path):
    crowd = _box(30, 20, 60, 40)
    photos = [
        _photo(("cat", CAT), ("person", crowd, "ignore")),
        _photo(("person", CAT), ("person", crowd, "ignore")),
    ]
    path = _write(tmp_path / "crowds.parquet", photos)

    first, second = _measure(path, lambda *_: [CAT])["items"]

    assert (first["label"], first["wrong"]) == ("cat", None)
    assert (second["label"], second["single"]) == ("person", False)  # a crowd is more than one


def test_phrases_that_are_wholly_void_are_left_out(tmp_path):
    path = _write(tmp_path / "cat.parquet", [_photo(("cat", CAT), ("dog", DOG), void=CAT)])

    result = _measure(path, lambda *_: [DOG])

    assert [item["label"] for item in result["items"]] == ["dog"]
    assert result["skipped"]["phrases wholly void"] == 1


def test_photos_that_are_not_exhaustive_count_for_single_objects_only(tmp_path):
    result = _measure(_file(tmp_path, exhaustive=False), _perfect)

    assert result["means"]["phrases"] == 0
    assert result["means"]["union"] is result["means"]["absent_empty"] is None
    single = result["single"]["not exhaustive"]
    assert single["objects"] == 4
    assert single["top"] == single["union"] == 1.0
    assert result["single"]["exhaustive"]["objects"] == 0
    assert result["skipped"]["phrases not single"] == 1


def test_wrong_phrases_are_absent_seeded_and_do_not_depend_on_the_limit(tmp_path):
    path = _file(tmp_path)
    all_items = _measure(path, _perfect, seed=3)["items"]
    again = _measure(path, _perfect, seed=3)["items"]
    limited = measure_set(
        FakeModel(_perfect), read_sets([path], limit=1)[0], config=TextConfig(**ALONE, seed=3)
    )["items"]

    for item in all_items:
        assert item["wrong"] not in PHOTOS[int(item["image_id"][-1])]
    assert again == all_items
    assert limited == [item for item in all_items if item["image_id"] == "photo 0"]
    drawn = {
        tuple(item["wrong"] for item in _measure(path, _perfect, seed=seed)["items"])
        for seed in range(8)
    }
    assert len(drawn) > 1


def test_each_photo_is_opened_once_and_prompt_is_asked_for_single_objects(tmp_path):
    data = read_sets([_file(tmp_path)])[0]
    model = FakeModel(_perfect)
    measure_set(model, data, config=TextConfig(**ALONE))
    without = FakeModel(_perfect)
    result = measure_set(without, data, config=TextConfig(**ALONE, prompt=False))

    assert model.opened == [0, 1, 2]
    assert (0, "dog", "auto") in model.asked
    assert (0, "dog", "prompt") not in model.asked
    assert (0, "cat", "prompt") in model.asked
    assert {strategy for *_, strategy in without.asked} == {"auto"}
    assert result["single"]["exhaustive"]["top"] is None


def _knowing(level: int, phrase: str) -> float:
    return 0.9 if phrase in PHOTOS[level] else 0.1


def _presence(path: Path, presence, **settings) -> dict:
    data = read_sets([path])[0]
    return measure_set(FakeModel(_perfect, presence), data, config=TextConfig(**(ALONE | settings)))


def test_presence_compares_what_is_there_with_every_label_that_is_not(tmp_path):
    result = _presence(_file(tmp_path), _knowing)

    presence = result["presence"]
    assert (presence["auroc"], presence["auroc_phrase"]) == (1.0, 1.0)
    assert (presence["present"], presence["absent"]) == (5, 4)
    asked = {(i["image_id"], i["label"]): i["present"] for i in result["presence_items"]}
    assert asked == {
        (f"photo {level}", label): label in PHOTOS[level]
        for level in range(3)
        for label in ("bird", "cat", "dog")
    }
    assert _presence(_file(tmp_path), lambda *_: 0.4)["presence"]["auroc"] == 0.5


def test_one_pair_in_the_wrong_order_costs_its_share(tmp_path):
    def unsure(level, phrase):  # the dog is missed: it scores below the 4 labels that are absent
        return 0.05 if phrase == "dog" and level == 0 else _knowing(level, phrase)

    presence = _presence(_file(tmp_path), unsure)["presence"]

    assert presence["auroc"] == pytest.approx(16 / 20)
    assert presence["labels"] == {"bird": 1.0, "cat": 1.0, "dog": 0.0}


def test_presence_is_of_exhaustive_photos_and_of_labels_with_a_truth(tmp_path):
    assert _presence(_file(tmp_path, exhaustive=False), _knowing)["presence_items"] == []

    crowd = _box(30, 20, 60, 40)
    path = _write(
        tmp_path / "crowd.parquet",
        [
            _photo(("cat", CAT), ("person", crowd, "ignore")),  # person: neither there nor absent
            _photo(("person", CAT)),
            _photo(exhaustive=True),  # a photo of nothing, which lacks everything
        ],
    )
    result = _presence(path, lambda level, phrase: 0.5)

    assert [(i["image_id"], i["label"], i["present"]) for i in result["presence_items"]] == [
        *(("photo 0", "cat", True), ("photo 1", "person", True), ("photo 1", "cat", False)),
        *(("photo 2", "cat", False), ("photo 2", "person", False)),
    ]


def test_each_phrase_is_asked_once_and_presence_can_be_left_out(tmp_path):
    data = read_sets([_file(tmp_path)])[0]
    model = FakeModel(_perfect, _knowing)
    measure_set(model, data, config=TextConfig(**ALONE, prompt=False))
    assert len(model.asked) == len(set(model.asked)) == 9

    without = FakeModel(_perfect, _knowing)
    result = measure_set(without, data, config=TextConfig(**ALONE, prompt=False, absent=0))
    assert result["presence"]["auroc"] is None
    assert all(item["present"] for item in result["presence_items"])
    assert result["means"]["union"] == 1.0


def test_a_model_that_says_no_presence_has_no_figure(tmp_path):
    result = _presence(_file(tmp_path), None)

    assert result["presence"]["auroc"] is None
    assert {item["score"] for item in result["presence_items"]} == {None}


@pytest.fixture
def loaded(monkeypatch):
    model = FakeModel(_perfect, _knowing)
    monkeypatch.setattr(command, "load_model", lambda name: model)
    return model


def _rows(printed: str, *names: str) -> list[list[str]]:
    """Cells of the table rows that start with one of the names."""
    lines = [line.strip() for line in printed.splitlines()]
    cells = [re.split(r" {2,}", line) for line in lines]
    return [row for row in cells if row[0] in names and len(row) > 1]


def test_the_command_prints_both_tables_and_writes_json(tmp_path, loaded, capsys):
    report = tmp_path / "report.json"

    assert text.main([str(_file(tmp_path)), "--json", str(report), *QUICK]) == 0

    union, single = _rows(capsys.readouterr().out, "animals")
    assert union[:4] == ["animals", "3", "5", "1.000"]
    assert union[4] == "0.000"
    assert union[-3:-1] == ["1.000", "1.000"]  # AUROC, over all pairs and by phrase
    assert single[:4] == ["animals", "exhaustive", "4", "1.000"]
    data = json.loads(report.read_text())
    assert data["settings"]["model"] == "tiny"
    assert data["settings"]["seed"] == 0
    assert data["sets"][0]["means"]["union"] == 1.0
    assert data["sets"][0]["presence"]["auroc"] == 1.0
    assert len(data["sets"][0]["items"]) == 5
    assert data["versions"]["torch"]


def test_the_command_draws_a_sheet(tmp_path, loaded, capsys):
    sheet = tmp_path / "sheet.png"

    assert text.main([str(_file(tmp_path)), "--sheet", str(sheet), *QUICK]) == 0
    with Image.open(sheet) as picture:
        assert picture.width > 5 * 300  # five phrases in a row

    assert text.main([str(_file(tmp_path)), "--sheet", str(tmp_path / "no" / "sheet.png")]) == 2
    assert "--sheet" in capsys.readouterr().err


def test_every_strategy_has_a_row_and_every_part_a_table(tmp_path, loaded, capsys, monkeypatch):
    monkeypatch.setattr(text, "measure_memory", lambda *_: {"one": 100, "many": 120, "ratio": 1.2})
    report = tmp_path / "report.json"
    strategies = ("auto", "prompt", "components")

    assert (
        text.main([str(_file(tmp_path)), "--json", str(report), "--strategies", *strategies]) == 0
    )

    printed = capsys.readouterr().out
    rows = _rows(printed, *(f"animals, {name}" for name in strategies))
    assert [row[0] for row in rows] == [f"animals, {name}" for name in strategies]
    # Recall, that of touching objects, precision; the fake's "prompt" finds one dog of two.
    figures = [["1.000", "-", "1.000"], ["0.833", "-", "1.000"], ["1.000", "-", "1.000"]]
    assert [row[1:4] for row in rows] == figures
    for title in ("One click", "Exclusion", "Semantic maps", "Cost of a phrase"):
        assert title in printed
    (measured,) = json.loads(report.read_text())["sets"]
    auto = measured["strategies"]["auto"]
    assert auto["ap"]["ap50"] == auto["verdicts"]["f1"] == measured["map"]["all"]["miou"] == 1.0
    assert auto["masks"]["ece"] == pytest.approx(0.1)  # says 0.9 and is always right
    assert auto["verdicts"]["ece"] == pytest.approx(0.1)
    assert measured["cost"]["memory"]["ratio"] == 1.2
    assert measured["exclude"]["right_lost"] == 0.0


def test_a_strategy_that_the_model_lacks_is_a_note(tmp_path, monkeypatch, capsys):
    def answer(level, phrase, strategy):
        if strategy == "rank":
            raise PromptError("this model has no CLIP to rank by")
        return _perfect(level, phrase, strategy)

    model = FakeModel(answer, _knowing)
    monkeypatch.setattr(command, "load_model", lambda name: model)

    assert text.main([str(_file(tmp_path)), "--strategies", "auto", "rank", "--parts"]) == 0

    printed = capsys.readouterr().out
    assert [row[0] for row in _rows(printed, "animals, auto", "animals, rank")] == ["animals, auto"]
    assert "animals, rank: this model has no CLIP to rank by" in printed
    assert sum(strategy == "rank" for _, _, strategy in model.asked) == 1  # asked no more


def test_ap_may_ask_with_the_levels_down(tmp_path):
    data = read_sets([_file(tmp_path)])[0]
    model = FakeModel(_perfect, _knowing)
    config = TextConfig(strategies=("auto",), parts=(), ap_threshold=0.05)

    measure_set(model, data, config=config)

    usual = {asked for asked in model.asked if len(asked) == 3}
    assert {asked for asked in model.asked if len(asked) == 4} == {(*a, 0.05) for a in usual}
    assert len(usual) == 9


def test_absent_phrases_are_drawn_and_the_rest_only_ranked(tmp_path):
    data = read_sets([_file(tmp_path)])[0]
    config = TextConfig(strategies=("auto",), parts=(), absent=1)

    drawn = measure_set(FakeModel(_perfect, _knowing), data, config=config)

    verdicts = drawn["strategies"]["auto"]["verdicts"]
    assert (verdicts["present"], verdicts["absent"]) == (5, 3)
    assert drawn["presence"]["absent"] == 4  # AUROC: all labels


def test_a_set_without_names_says_so(tmp_path, loaded, capsys):
    path = _write(tmp_path / "grabcut.parquet", [_photo(("object", CAT), exhaustive=False)])
    report = tmp_path / "report.json"

    assert text.main([str(path), "--json", str(report)]) == 0

    printed = capsys.readouterr().out
    ((name, photos, phrases, *figures),) = _rows(printed, "grabcut (no names)")
    assert (name, photos, phrases) == ("grabcut (no names)", "1", "0")
    assert set(figures) == {"-"}
    assert "left out 1 objects without a name" in printed
    assert loaded.opened == []
    assert json.loads(report.read_text())["sets"][0]["means"]["union"] is None


def test_bad_input_is_one_clear_line_and_exit_code_2(tmp_path, loaded, capsys):
    edges = tmp_path / "bsds500_val.parquet"
    pq.write_table(pa.table({"image": [b""], "image_id": ["a"], "boundaries": [b""]}), edges)

    for path, message in ((tmp_path / "no.parquet", "there is no file"), (edges, "no column")):
        assert text.main([str(path)]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert len(printed.err.splitlines()) == 1
        assert message in printed.err
        assert str(path) in printed.err


def test_a_model_that_takes_no_phrases_is_one_clear_line(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise WeightsError("this model has no text pathway")

    monkeypatch.setattr(command, "load_model", lambda name: FakeModel(refuse))

    assert text.main([str(_file(tmp_path))]) == 2
    assert "no text pathway" in capsys.readouterr().err


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as stopped:
        text.main(["--help"])

    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for word in (
        *("--model", "--json", "--limit", "--seed", "--no-prompt", "--absent", "--sheet"),
        *("--ap-threshold", "wrong"),
    ):
        assert word in shown
