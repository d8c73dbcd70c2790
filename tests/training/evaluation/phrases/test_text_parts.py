"""One click after text, exclusions, semantic maps, cost: on views whose answers are known."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from textsam.results.segmentation import Segmentation
from textsam.values.rle import encode_mask
from training.data import ObjectMask, Sample
from training.evaluation.data_sets import DataSet
from training.evaluation.phrases import phrase_cost as cost
from training.evaluation.phrases.asking import StrategyView
from training.evaluation.phrases.questions import AbsentPhrase, Phrase, Questions, Siblings
from training.evaluation.phrases.text_parts import (
    ClickTally,
    Confusion,
    ExclusionTally,
    MapTally,
    correct_once,
    truth_map,
)

SIZE = (40, 60)
NOTHING = np.zeros(SIZE, dtype=bool)


def _box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _sample(*objects: tuple[str, np.ndarray], void: np.ndarray | None = None) -> Sample:
    return Sample(
        image_id="a",
        source="test",
        encoded=b"",
        size=SIZE,
        exhaustive=True,
        void=None if void is None else encode_mask(void),
        objects=tuple(
            ObjectMask(label=label, kind="thing", rle=encode_mask(mask), ignore=False)
            for label, mask in objects
        ),
    )


def _phrase(label: str, mask: np.ndarray, *, ignored: np.ndarray = NOTHING) -> Phrase:
    return Phrase(
        label=label,
        rles=(encode_mask(mask),),
        single=True,
        truth=mask,
        ignored=ignored,
        wrong=None,
    )


def _result(*masks: np.ndarray) -> Segmentation:
    return Segmentation.from_masks(np.stack(masks) if masks else np.zeros((0, *SIZE), bool))


LEFT, RIGHT = _box(0, 0, 20, 20), _box(30, 0, 50, 20)


class ClickedView:
    """Answers a phrase with given masks, and a click with another."""

    def __init__(self, *found: np.ndarray, clicked: np.ndarray = NOTHING):
        self.found, self.clicked, self.clicks = found, clicked, []

    def segment(self, *, text, strategy):
        return _result(*self.found)

    def click(self, x, y, *, foreground):
        self.clicks.append((x, y, foreground))
        return _result(self.clicked)


def test_the_click_corrects_the_mask_that_was_meant():
    half = _box(0, 0, 20, 10)
    view = ClickedView(RIGHT, half, clicked=LEFT)

    item, mask = correct_once(view, _phrase("cat", LEFT), _sample())

    assert (item["before"], item["after"], item["found"]) == (0.5, 1.0, True)
    ((x, y, foreground),) = view.clicks
    assert foreground and 0 < x < 20 and 10 < y < 20  # in what the nearer mask lacks
    assert (mask == LEFT).all()


def test_what_spills_over_is_clicked_away():
    view = ClickedView(_box(0, 0, 20, 40), clicked=LEFT)

    item, _ = correct_once(view, _phrase("cat", LEFT), _sample())

    assert (item["before"], item["foreground"]) == (0.5, False)
    assert view.clicks[0][1] > 20


def test_a_good_mask_is_left_alone_and_an_empty_answer_is_clicked_on_the_object():
    good = ClickedView(_box(0, 0, 20, 16))
    item, _ = correct_once(good, _phrase("cat", LEFT), _sample())
    assert (item["before"], item["after"], item["foreground"]) == (0.8, 0.8, None)
    assert good.clicks == []

    silent = ClickedView(clicked=LEFT)
    item, _ = correct_once(silent, _phrase("cat", LEFT), _sample())
    assert (item["found"], item["before"], item["after"]) == (False, 0.0, 1.0)
    assert silent.clicks[0][2] and LEFT[int(silent.clicks[0][1]), int(silent.clicks[0][0])]


def test_ignored_pixels_are_no_error_to_click():
    view = ClickedView(_box(0, 0, 60, 20), clicked=LEFT)
    phrase = _phrase("cat", LEFT, ignored=_box(20, 0, 60, 40))

    item, _ = correct_once(view, phrase, _sample())

    assert (item["before"], view.clicks) == (1.0, [])


def test_gains_are_over_the_objects_that_were_clicked():
    def item(before, after, *, found=True, clicked=True):
        item = {"image_id": "a", "found": found, "before": before, "after": after}
        return item | {"foreground": True if clicked else None}

    tally = ClickTally()
    assert tally.figures(seed=0)["gain"] is None
    tally.items = [item(0.9, 0.9, clicked=False), item(0.4, 0.6), item(0.0, 0.8, found=False)]
    means = tally.figures(seed=0)

    assert (means["objects"], means["clicked"], means["found"]) == (3, 2, 1)
    assert means["good"] == pytest.approx(1 / 3)
    assert means["gain"] == pytest.approx(0.5)
    assert means["gain_found"] == pytest.approx(0.2)
    tally = ClickTally()
    many = Phrase(label="cat", rles=(), single=False, truth=LEFT, ignored=NOTHING, wrong=None)
    tally.add_photo(ClickedView(), _sample(), [many])
    assert tally.items == []  # single objects only


class ExcludingView:
    """Finds `found[phrase]`, and takes from it the pixels `gives_up[phrase, excluded]`."""

    size = SIZE

    def __init__(self, found, gives_up):
        self.found, self.gives_up, self.excluded = found, gives_up, []

    def segment(self, *, text, strategy="auto", exclude=None):
        mask = self.found.get(text, NOTHING)
        if exclude is not None:
            self.excluded.append((text, exclude))
            mask = mask & ~self.gives_up.get((text, exclude), NOTHING)
        return _result(*([mask] if mask.any() else []))


def _exclude(view, questions, siblings=None, **sample):
    tally = ExclusionTally(siblings)
    tally.add_photo(StrategyView(view, "auto"), _sample(**sample), questions)
    return tally.figures(seed=0)


def test_exclusion_counts_what_is_removed_and_what_is_lost():
    # "wheel" paints both; without the steering wheel it loses that, and a quarter of its own.
    gives_up = {("wheel", "steering wheel"): RIGHT | _box(0, 0, 5, 20)}
    view = ExcludingView({"wheel": LEFT | RIGHT | _box(0, 30, 20, 40)}, gives_up)
    phrases = (_phrase("wheel", LEFT), _phrase("door", _box(0, 20, 9, 30)))
    phrases += (_phrase("steering wheel", RIGHT),)

    figures = _exclude(view, Questions(phrases=phrases))

    assert view.excluded == [("wheel", "steering wheel")]  # the others paint nothing
    assert (figures["phrases"], figures["spilling"]) == (1, 1)
    assert figures["spilled_removed"] == 1.0
    assert figures["wrong_removed"] == pytest.approx(400 / 600)
    assert figures["right_lost"] == pytest.approx(0.25)


def test_of_an_absent_sibling_every_pixel_is_wrong():
    view = ExcludingView({"tyre": LEFT}, {("tyre", "wheel"): _box(0, 0, 10, 20)})
    absent = (AbsentPhrase(label="tyre", sibling=True), AbsentPhrase(label="dog", sibling=False))

    figures = _exclude(view, Questions(phrases=(_phrase("wheel", LEFT),), absent=absent))

    assert figures["wrong_removed"] == figures["spilled_removed"] == 0.5
    assert figures["right_lost"] is None


def test_where_nothing_spills_the_nearest_in_meaning_is_excluded_all_the_same():
    names = ("wheel", "door", "tyre")
    similarity = np.array([[1, 0.1, 0.8], [0.1, 1, 0.2], [0.8, 0.2, 1]], np.float32)
    phrases = (_phrase("wheel", LEFT), _phrase("door", RIGHT), _phrase("tyre", _box(0, 30, 9, 39)))
    view = ExcludingView({"wheel": LEFT}, {("wheel", "tyre"): _box(0, 0, 2, 20)})

    figures = _exclude(view, Questions(phrases=phrases), Siblings(names, similarity))

    assert view.excluded == [("wheel", "tyre")]
    assert figures["right_lost"] == pytest.approx(0.1)
    assert figures["wrong_removed"] is None


def test_confusion_of_a_map_by_hand():
    confusion = Confusion(["cat", "dog"])
    truth = np.array([[0, 1, 1, 2]])
    painted = np.array([[0, 1, 2, 2]])
    confusion.add(truth, painted, np.ones((1, 4), bool))

    figures = confusion.figures()
    assert figures["labels"] == {"cat": 0.5, "dog": 0.5}
    assert (figures["miou"], figures["nothing"], figures["accuracy"]) == (0.5, 1.0, 0.75)
    confusion.add(truth, truth[:, ::-1], np.zeros((1, 4), bool))  # nothing of it counts
    assert confusion.figures() == figures
    assert Confusion([]).figures()["miou"] is None


def test_maps_are_numbered_by_what_was_asked_and_void_or_shared_pixels_do_not_count():
    cat, dog, void = LEFT, _box(10, 0, 50, 20), _box(0, 30, 60, 40)
    phrases = [_phrase("cat", cat), _phrase("dog", dog)]
    asked = []

    def label_map(names):
        asked.append(list(names))
        labels = np.zeros(SIZE, np.int32)
        labels[dog & ~cat] = 1 + names.index("dog")
        labels[cat] = 1 + names.index("cat")
        labels[void] = 1
        return SimpleNamespace(labels=labels)

    tally = MapTally(["ant", "cat", "dog"])
    tally.add_photo(SimpleNamespace(label_map=label_map), _sample(void=void), phrases)

    assert asked == [["ant", "cat", "dog"], ["cat", "dog"]]
    figures = tally.figures()
    for which in ("all", "present"):
        assert figures[which]["labels"] == {"cat": 1.0, "dog": 1.0}
        assert figures[which]["miou"] == figures[which]["nothing"] == 1.0
    truth, counted = truth_map(_sample(void=void), phrases, {"cat": 2, "dog": 3})
    assert not counted[cat & dog].any() and not counted[void].any()
    assert set(truth[counted].tolist()) == {0, 2, 3}


def _data(count: int, tmp_path: Path) -> DataSet:
    from PIL import Image

    path = tmp_path / "grey.png"
    Image.new("RGB", SIZE[::-1]).save(path)
    photo = _sample(("cat", LEFT), ("dog", RIGHT), ("dog", LEFT))
    samples = tuple(
        Sample(**{**vars(photo), "image_id": str(i), "encoded": path}) for i in range(count)
    )
    return DataSet(name="set", path=path, samples=samples, labels=("cat", "dog"))


def test_seconds_tell_opening_the_first_phrase_and_further_ones_apart(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock[0])

    class Model:
        @contextmanager
        def open(self, image):
            clock[0] += 10
            asked = []

            def segment(*, text, strategy):
                clock[0] += 0.5 if text == "ant" else 1 if asked else 3
                asked.append(text)

            yield SimpleNamespace(segment=segment)

    data = replace(_data(4, tmp_path), labels=("ant", "cat", "dog"))
    seconds = cost.measure_seconds(Model(), data)

    assert (seconds["encode"], seconds["first"], seconds["phrase"]) == (10, 3, 1)
    assert (seconds["absent"], seconds["fresh"], seconds["share"]) == (0.5, 13, 0.1)
    assert (seconds["photos"], seconds["phrases"]) == (3, 6)  # the first photo warms up


def test_memory_asks_one_phrase_and_twenty_different_ones(tmp_path, monkeypatch):
    asked = []

    def peak(function, name, detector, image, phrases):
        asked.append(list(phrases))
        return 100.0 + len(phrases)

    monkeypatch.setattr(cost, "in_fresh_process", peak)
    memory = cost.measure_memory("tiny", _data(2, tmp_path))

    assert [len(phrases) for phrases in asked] == [1, 20]
    assert len(set(asked[1])) == 20
    assert asked[1][:2] == ["cat", "dog"]
    assert memory["ratio"] == pytest.approx(120 / 101)
    assert cost.measure_memory("tiny", _data(0, tmp_path))["one"] is None
