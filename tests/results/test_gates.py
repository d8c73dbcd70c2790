import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textsam.results.gates import advice, phrase_hint, sentence, sweep
from textsam.values.judge import GATES, Candidate, Levels, PhraseAnswer, closed_gate
from textsam.values.rle import encode_mask

RLE = encode_mask(np.ones((4, 6), bool))
LEVELS = Levels(presence=0.6, score=0.5, quality=0.2, place=0.3)


def mask(score=0.9, gate=None, reason="", **values):
    if gate in ("duplicate", "overlap", "exclusion", "background"):  # whatever the levels are
        values["ruled_out"] = (gate, reason)
    return Candidate(rle=RLE, score=score, gate=gate, reason=reason, **values)


def answer(*candidates, phrase="cat", presence=0.9, **values):
    values = {"strategy": "auto", "levels": LEVELS, "searched": bool(candidates), **values}
    return PhraseAnswer(phrase=phrase, presence=presence, candidates=candidates, **values)


def refused(presence=0.237, **values):
    reason = f"presence {presence:.2f} < 0.60"
    return answer(presence=presence, gate="presence", reason=reason, **values)


# The gate ----------------------------------------------------------------------------------------


def test_nothing_closed_where_a_mask_is_left():
    one = answer(mask(), mask(0.2, "score"))
    assert closed_gate(one) == (None, "")
    assert advice(one) == {}


def test_the_strategy_says_what_closed():
    assert closed_gate(refused()) == ("presence", "presence 0.24 < 0.60")
    assert closed_gate(answer(gate="map", reason="flat")) == ("map", "flat")


def test_the_gate_of_the_best_mask_where_the_strategy_does_not_say():
    one = answer(mask(0.2, "score", "low"), mask(0.4, "quality", "bad"))
    assert closed_gate(one) == ("quality", "bad")
    assert closed_gate(answer(mask(math.nan, "overlap", "a"), mask(0.1, "score", "b")))[0] == (
        "score"
    )


def test_a_duplicate_never_decides():
    """It lost to a mask, so what dropped that one is the reason."""
    masks = mask(0.45, "duplicate", "covered"), mask(0.4, "score", "score 0.40 < 0.50")
    one = answer(*masks, gate="duplicate", reason="covered")
    assert closed_gate(one) == ("score", "score 0.40 < 0.50")
    assert closed_gate(answer(mask(0.4, "duplicate", "covered"), gate="duplicate"))[0] == (
        "duplicate"
    )


def test_an_answer_without_anything_found_no_place():
    assert closed_gate(answer())[0] == "map"


# What to type ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (refused(0.237), {"threshold": 0.23}),
        (refused(0.3), {"threshold": 0.3}),
        (refused(0.0437), {"threshold": 0.043}),
        (refused(0.0094), {}),  # no threshold that anybody would type admits it
        (answer(mask(0.41, "score"), mask(0.3, "score")), {"threshold": 0.41}),
        (answer(mask(0.95, "score"), presence=0.7, levels=Levels(score=0.99)), {"threshold": 0.7}),
        (answer(gate="map", similarity=np.full((2, 3), 0.25, np.float32)), {"threshold": 0.25}),
        (answer(gate="map"), {"strategy": "rank"}),
        (answer(gate="map", strategy="rank"), {}),
        (answer(mask(0.9, "quality", quality=0.001, point=(3.04, 2))), {"points": [(3.0, 2)]}),
        (answer(mask(0.9, "quality", quality=0.125)), {"threshold": 0.12}),
        (answer(mask(0.2, "quality", quality=0.25)), {"threshold": 0.2}),
        (answer(mask(0.4, "score", quality=0.25)), {"threshold": 0.4}),
        (answer(mask(0.4, "score", quality=0.125)), {"threshold": 0.12}),
        (answer(mask(0.9, "quality", quality=0.001)), {}),
        (answer(mask(0.9, "exclusion")), {"exclude": None}),
        (answer(mask(0.9, "background")), {"background": None}),
        (answer(mask(0.9, "overlap")), {"overlap": "allow"}),
    ],
)
def test_advice(given, expected):
    assert advice(given) == expected


def test_advice_is_exact_where_the_phrase_was_asked_again():
    low = {"levels": LEVELS.at(0.05)}
    closed = refused(0.3)
    assert advice(closed, opened=answer(mask(0.2), presence=0.3, **low)) == {"threshold": 0.2}
    assert advice(closed, opened=answer(mask(0.8), presence=0.3, **low)) == {"threshold": 0.3}
    # Another gate would close behind the first: no threshold helps.
    assert advice(closed, opened=answer(mask(0.2, quality=0.001), presence=0.3, **low)) == {}
    flat = answer(gate="map", presence=0.7)
    assert advice(flat, opened=answer(gate="map", presence=0.7, **low)) == {"strategy": "rank"}


@given(st.floats(0, 1), st.lists(st.floats(0, 1), max_size=4))
def test_what_is_advised_admits_a_mask(presence, scores):
    """And a little more admits none."""
    one = answer(
        *(mask(score, "score") for score in scores),
        presence=presence,
        levels=Levels(score=1.01),
    )
    threshold = advice(one).get("threshold")
    if threshold is None:
        assert not scores or min(presence, max(scores)) < 0.01 or presence == max(scores) == 1
    else:
        assert sweep([one], [threshold])[0].masks >= 1
        assert sweep([one], [min(1, threshold + 0.0101)])[0].masks == 0 or threshold == 0.99


# The sentence ------------------------------------------------------------------------------------


def test_sentence_counts_what_is_left_and_what_dropped_the_rest():
    one = answer(mask(), mask(0.1, "score"), mask(0.7, "duplicate"), mask(0.2, "score"))
    expected = "'cat': 1 mask, presence 0.90; dropped: 2 by score, 1 by duplicate"
    assert sentence(one) == expected
    assert sentence(answer(mask(), mask(), presence=math.nan)) == "'cat': 2 masks"


def test_sentence_names_the_gate_the_shortfall_and_what_to_type():
    told = sentence(refused(0.237))
    assert told == (
        "'cat': nothing, the presence gate closed: the phrase is probably not in the picture "
        "(presence 0.24 < 0.60, 0.36 too low); to get past it, type threshold=0.23"
    )
    assert sentence(refused(0.237), command_line=True).endswith("type --threshold 0.23")
    score = answer(mask(0.41, "score", "score 0.41 < 0.50"))
    assert "(score 0.41 < 0.50, 0.09 too low)" in sentence(score)


@pytest.mark.parametrize(
    ("given", "python", "typed"),
    [
        (answer(gate="map"), 'type strategy="rank"', "type --strategy rank"),
        (answer(mask(1, "exclusion")), "leave out exclude", "leave out --exclude"),
        (
            answer(mask(1, "quality", quality=0.001, point=(3, 2.5))),
            "type points=[(3, 2.5)]",
            "type -p 3,2.5",
        ),
        (refused(0.0094), "try other words for it", "try other words for it"),
    ],
)
def test_sentence_in_both_tongues(given, python, typed):
    assert sentence(given).endswith(python)
    assert sentence(given, command_line=True).endswith(typed)


@pytest.mark.parametrize("gate", GATES)
def test_every_gate_has_a_sentence(gate):
    told = sentence(answer(mask(0.4, gate, "0.4 of something")))
    assert f"the {gate} gate closed: {GATES[gate]} (0.4 of something" in told


# The sweep ---------------------------------------------------------------------------------------


def test_sweep_counts_by_presence_and_score():
    answers = [
        answer(mask(0.9), mask(0.4, "score"), mask(0.95, "duplicate"), presence=0.8),
        answer(mask(0.6), phrase="dog", presence=0.7),
    ]
    steps = sweep(answers, [0.3, 0.5, 0.65, 0.75, 0.85])
    assert [step.masks for step in steps] == [3, 2, 1, 1, 0]
    assert [step.phrases for step in steps] == [2, 2, 1, 1, 0]
    assert all(step.exact for step in steps)


def test_sweep_drops_rough_masks_from_the_models_own_level_on():
    """A mask that only a low threshold let pass: its quality is too low later."""
    one = answer(mask(0.8, quality=0.1), levels=LEVELS.at(0.01))
    steps = sweep([one], [0.05, 0.1, 0.15, 0.7, 0.85])
    assert [step.masks for step in steps] == [1, 1, 0, 0, 0]
    assert [step.masks for step in sweep([answer(mask(0.8, quality=0.3))], [0.7, 0.9])] == [1, 0]


def test_sweep_is_exact_where_the_same_places_would_be_searched():
    """The model's own level of places is 0.3; a lower threshold searches fainter ones."""
    usual, faint = answer(mask(0.9)), answer(mask(0.9), levels=LEVELS.at(0.15))
    thresholds = [0.05, 0.15, 0.2, 0.3, 0.6, 0.95]
    exact = [[step.exact for step in sweep([one], thresholds)] for one in (usual, faint)]
    assert exact[0] == [False, False, False, True, True, True]
    assert exact[1] == [False, True, False, False, False, True]


def test_sweep_does_not_know_what_nobody_looked_for():
    closed = refused(0.3)
    assert [step.exact for step in sweep([closed], [0.2, 0.31])] == [False, True]


def test_sweep_knows_which_masks_an_answer_has_forgotten():
    ranked = answer(mask(0.2, "score"), strategy="rank", levels=Levels(score=0.5), forgotten=0.15)
    assert [step.exact for step in sweep([ranked], [0.1, 0.16, 0.9])] == [False, True, True]


def test_sweep_of_a_dependent_answer_and_of_a_strategy_without_gates():
    joined = answer(mask(0.9), dependent=True, levels=LEVELS.at(0.4))
    assert [step.exact for step in sweep([joined], [0.3, 0.4, 0.5, 0.95])] == [
        *(False, True, False, True)
    ]
    prompted = answer(mask(0.2), presence=0.1, strategy="prompt", levels=Levels(fixed=True))
    assert [(step.masks, step.exact) for step in sweep([prompted], [0.01, 0.9])] == [(1, True)] * 2


@given(st.lists(st.tuples(st.floats(0, 1), st.lists(st.floats(0, 1), max_size=3)), max_size=3))
def test_sweep_never_rises(answers):
    made = [answer(*map(mask, scores), presence=presence) for presence, scores in answers]
    counts = [step.masks for step in sweep(made, np.linspace(0, 1, 11))]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == sum(len(scores) for _, scores in answers)


def test_unknown_numbers_pass_as_they_do_where_they_are_asked():
    one = answer(mask(math.nan), presence=math.nan)
    assert sweep([one], [0.99])[0].masks == 1


@pytest.mark.parametrize("threshold", [-0.1, 1.5, math.nan])
def test_sweep_takes_probabilities(threshold):
    with pytest.raises(ValueError, match="wanted a number from 0 to 1"):
        sweep([answer()], [threshold])


@pytest.mark.parametrize(
    ("phrase", "typed", "python"),
    [
        ("dog, cat", '-t "dog" -t "cat"', 'text=["dog", "cat"]'),
        ("dog and cat", '-t "dog" -t "cat"', 'text=["dog", "cat"]'),
        ("dog/cat", '-t "dog" -t "cat"', 'text=["dog", "cat"]'),
        ("no dog", '--exclude "dog"', 'exclude="dog"'),
        ("not a dog", '--exclude "dog"', 'exclude="dog"'),
        (
            "car without wheels",
            '-t "car" --exclude "wheels"',
            'text="car", exclude="wheels"',
        ),
        ("left wheel", "the boxes of the result", "mask.box"),
        ("wheel next to the door", "the boxes of the result", "mask.box"),
    ],
)
def test_phrases_that_say_more_than_a_name(phrase, typed, python):
    assert typed in phrase_hint(phrase, command_line=True)
    assert python in phrase_hint(phrase)
    told = sentence(replace(refused(0.2), phrase=phrase))
    assert told.endswith(f"Note: {phrase_hint(phrase)}")


@pytest.mark.parametrize(
    "phrase", ["dog", "steering wheel", "note", "nose", "leftovers", "hand", "band-aid", "organ"]
)
def test_names_have_no_note(phrase):
    assert phrase_hint(phrase) == ""
