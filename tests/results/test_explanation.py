import json
import math
import pickle

import numpy as np
import pytest
from PIL import Image

from textsam.results.explanation import LOW_THRESHOLD, Explanation, blind_phrases
from textsam.results.segmentation import Segmentation
from textsam.values.judge import Candidate, Levels, PhraseAnswer
from textsam.values.rle import encode_mask, rle_from_json

H, W = 30, 40
PHOTO = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)


def box_mask(x0, y0, x1, y1):
    mask = np.zeros((H, W), bool)
    mask[y0:y1, x0:x1] = True
    return encode_mask(mask)


def candidate(score, gate=None, reason="", *, rle=None, **values):
    rle = box_mask(2, 3, 12, 9) if rle is None else rle
    evidence = {"map": 1.5, "peak": 2.25}
    values["ruled_out"] = (gate, reason) if gate == "duplicate" else None
    return Candidate(rle=rle, score=score, gate=gate, reason=reason, evidence=evidence, **values)


LEVELS = {"levels": Levels(presence=0.6, score=0.5), "strategy": "auto"}
WHEEL = PhraseAnswer(
    phrase="wheel",
    presence=0.97,
    evidence={"peak": 3.5},
    similarity=np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4),
    searched=True,
    candidates=(
        candidate(0.9, point=(7, 6)),
        candidate(math.nan, "duplicate", "95% of it is covered by better masks"),
        candidate(0.3, "score", "score 0.30 < 0.50", rle=box_mask(20, 10, 40, 30)),
    ),
    **LEVELS,
)
CAT = PhraseAnswer(
    phrase="cat", presence=0.25, gate="presence", reason="presence 0.25 < 0.60", **LEVELS
)
CAT_OPENED = PhraseAnswer(
    phrase="cat",
    strategy="auto",
    presence=0.25,
    levels=LEVELS["levels"].at(LOW_THRESHOLD),
    candidates=(candidate(0.2), candidate(0.0002, "score", "score 0.00 < 0.00")),
)


@pytest.fixture
def why():
    return Explanation((H, W), [WHEEL, CAT], image=PHOTO)


# The table ---------------------------------------------------------------------------------------


def test_table_has_every_phrase_and_every_mask(why):
    rows = why.table()
    assert [(row.phrase, row.mask, row.gate) for row in rows] == [
        ("wheel", None, None),
        ("wheel", 1, None),
        ("wheel", 2, "duplicate"),
        ("wheel", 3, "score"),
        ("cat", None, "presence"),
    ]
    assert rows[0].score == 0.97
    assert rows[0].evidence == {"peak": 3.5}
    assert rows[3].reason == "score 0.30 < 0.50"
    assert rows[3].box == (20, 10, 40, 30)
    assert rows[3].area == 400
    assert rows[4].reason == "presence 0.25 < 0.60"


def test_gates_and_sentences(why):
    assert why.phrases == ["wheel", "cat"]
    assert why.gate("wheel") is None
    assert why.gate("cat") == "presence"
    assert why.advice("cat") == {"threshold": 0.25}
    assert why.sentence("wheel").startswith("'wheel': 1 mask, presence 0.97")
    assert "0.35 too low" in why.sentence("cat")
    for ask in (why.gate, why.sentence, why.advice, lambda name: why.picture(phrases=[name])):
        with pytest.raises(KeyError, match=r"'dog' was not asked.*wheel"):
            ask("dog")


def test_str_is_a_table_for_people(why):
    lines = str(why).splitlines()
    assert lines[:3] == [why.sentence("wheel"), why.sentence("cat"), ""]
    assert lines[3].split() == ["phrase", "what", "score", "gate", "why", "evidence"]
    assert len(lines) == 4 + len(why.table())
    columns = {
        line.index(word)
        for line, word in zip(lines[3:6], ("gate", "passed", "passed"), strict=True)
    }
    assert len(columns) == 1  # one below the other
    assert "map=1.50 peak=2.25" in lines[5]
    assert repr(why) == "<Explanation 30x40: 'wheel' passed, 'cat' presence>"


def test_str_does_not_flood():
    many = tuple(candidate(0.1, "score", "low") for _ in range(300))
    answer = PhraseAnswer(phrase="x", presence=0.9, candidates=many, **LEVELS)
    why = Explanation((H, W), [answer])
    assert len(why.table()) == 301
    assert len(str(why).splitlines()) < 20


def test_a_phrase_asked_in_several_ways_is_there_if_one_finds_it():
    far = PhraseAnswer(phrase="cat", presence=0.7, gate="map", reason="flat", **LEVELS)
    assert Explanation((H, W), [CAT, far]).gate("cat") == "map"
    assert Explanation((H, W), [far, CAT]).gate("cat") == "map"
    assert "the map gate" in Explanation((H, W), [CAT, far]).sentence("cat")
    found = PhraseAnswer(phrase="cat", presence=0.8, candidates=(candidate(0.9),), **LEVELS)
    both = Explanation((H, W), [CAT, found])
    assert both.gate("cat") is None
    assert both.sentence("cat").startswith("'cat': 1 mask, presence 0.80")


# Behind closed gates -----------------------------------------------------------------------------


def test_blind_phrases_are_those_that_nobody_looked_for():
    dropped = PhraseAnswer(
        phrase="dog", presence=0.9, gate="score", candidates=(candidate(0.1, "score"),), **LEVELS
    )
    assert blind_phrases([WHEEL, CAT, dropped, CAT]) == ["cat"]


def test_opened_answers_show_what_lies_behind_the_gate(why):
    more = Explanation((H, W), [WHEEL, CAT], image=PHOTO, opened=[CAT_OPENED])
    assert more.gate("cat") == "presence"
    rows = [row for row in more.table() if row.phrase == "cat"]
    assert [(row.mask, row.gate) for row in rows] == [
        (None, "presence"),
        (1, "presence"),
        (2, "score"),
    ]
    assert rows[1].reason == "behind it; type threshold=0.2"
    assert more.advice("cat") == {"threshold": 0.2}  # and not 0.25, which no mask would reach
    assert why.advice("cat") == {"threshold": 0.25}
    assert more.answers[0] is WHEEL


def test_opened_answers_make_the_sweep_whole(why):
    more = Explanation((H, W), [WHEEL, CAT], opened=[CAT_OPENED])
    at = [0.15, 0.24, 0.55, 0.95]
    assert [(s.masks, s.phrases) for s in more.sweep(at)] == [(3, 2), (2, 1), (1, 1), (0, 0)]
    assert [(s.masks, s.exact) for s in why.sweep(at)] == [
        (2, False),
        (2, False),
        (1, True),
        (0, True),
    ]
    assert [s.threshold for s in why.sweep()][:4] == [0.01, 0.02, 0.05, 0.1]


# Files -------------------------------------------------------------------------------------------


def test_save(why, tmp_path):
    for name, form in (("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.webp", "WEBP")):
        with Image.open(why.save(tmp_path / name)) as picture:
            assert picture.format == form
            assert picture.width > 1000
    data = json.loads(why.save(tmp_path / "a.json").read_text())
    assert data == why.to_dict()
    assert (data["format"], data["size"]) == ("textsam.explanation", [H, W])
    wheel, cat = data["phrases"]
    assert [mask["gate"] for mask in wheel["masks"]] == [None, "duplicate", "score"]
    assert wheel["masks"][1]["score"] is None
    assert rle_from_json(wheel["masks"][2]["rle"]) == WHEEL.candidates[2].rle
    assert np.shape(wheel["similarity"]) == (3, 4)
    assert (cat["gate"], cat["advice"], cat["similarity"]) == (
        "presence",
        {"threshold": 0.25},
        None,
    )
    for name in ("a.txt", "a"):
        with pytest.raises(ValueError, match=r"wanted \.json or a picture"):
            why.save(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="mkdir -p"):
        why.save(tmp_path / "no" / "a.json")


def test_wrong_arguments_raise():
    with pytest.raises(ValueError, match="nothing to explain"):
        Explanation((H, W), [])
    with pytest.raises(ValueError, match="not the photo"):
        Explanation((H, W), [CAT], image=PHOTO[1:])
    with pytest.raises(ValueError, match=r'explain\(image="photo.jpg"\)'):
        Explanation((H, W), [CAT]).picture()


# Of a result -------------------------------------------------------------------------------------


def test_a_result_explains_itself(tmp_path):
    result = Segmentation(
        (H, W),
        [WHEEL.candidates[0].rle],
        labels=["wheel"],
        presence={"wheel": 0.97, "cat": 0.25},
        image=PHOTO,
        answers=[WHEEL, CAT],
    )
    for same in (result, result[:0], result["cat"], pickle.loads(pickle.dumps(result))):
        assert str(same.explain()) == str(result.explain())
    assert result.explain().image is result.image
    bare = Segmentation((H, W), [], answers=[CAT])
    assert bare.explain(image=PHOTO).picture().height > 200
    for mute in (
        Segmentation((H, W), []),
        Segmentation.load(result.save(tmp_path / "a.json"), image=PHOTO),
    ):
        with pytest.raises(ValueError, match=r"clicks or a box, or it was read from a file"):
            mute.explain()
