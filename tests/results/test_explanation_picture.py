import numpy as np
import pytest

from textsam.results.explanation import Explanation
from textsam.results.explanation_picture import explanation_picture, heat_picture, sweep_chart
from textsam.results.gates import SweepStep
from textsam.values.judge import Candidate, Levels, PhraseAnswer
from textsam.values.rle import encode_mask

LEVELS = {"strategy": "auto", "levels": Levels(presence=0.6, score=0.5), "presence": 0.9}


def square(size, x, y, side):
    mask = np.zeros(size, bool)
    mask[y : y + side, x : x + side] = True
    return encode_mask(mask)


def answer(size, *, kept=1, dropped=2, **values):
    side = max(1, min(size) // 4)
    masks = [
        Candidate(
            rle=square(size, side, side, side),
            score=0.9 - 0.01 * number,
            point=(side + 0.5, side + 0.5),
            gate=None if number < kept else "score",
            reason="" if number < kept else "score 0.21 < 0.50",
        )
        for number in range(kept + dropped)
    ]
    return PhraseAnswer(phrase="wheel", candidates=tuple(masks), **{**LEVELS, **values})


def draw(photo, *answers, **options):
    return Explanation(photo.shape[:2], answers, image=photo).picture(**options)


def grey(height, width):
    return np.full((height, width, 3), 128, np.uint8)


# Heat --------------------------------------------------------------------------------------------


def test_heat_is_brightest_where_the_phrase_is():
    similarity = np.zeros((6, 8), np.float32)
    similarity[1, 6] = 1
    heat = np.asarray(heat_picture(grey(60, 80), similarity, (160, 120))).astype(int)
    assert heat.shape == (120, 160, 3)
    y, x = np.unravel_index(heat.sum(-1).argmax(), heat.shape[:2])
    assert (y // 20, x // 20) == (1, 6)
    assert np.ptp(heat[70:, :80]) < np.ptp(heat[20:40])


def test_heat_gets_brighter_with_the_probability():
    levels = np.repeat(np.linspace(0, 1, 9, dtype=np.float32)[None], 3, axis=0)
    heat = np.asarray(heat_picture(np.zeros((30, 90, 3), np.uint8), levels, (90, 30)))
    brightness = heat[15].astype(int).sum(-1)[5::10]
    assert (np.diff(brightness) > 0).all()


def test_heat_of_what_is_no_probability_stays_in_range():
    heat = heat_picture(grey(4, 4), np.array([[-1.0, 2.0]], np.float32), (4, 4))
    assert heat.size == (4, 4)


# Bands -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(60, 80), (400, 90), (20, 900), (3, 3), (1, 1), (700, 1300)])
def test_photos_of_any_shape(size):
    photo = grey(*size)
    before = photo.copy()
    picture = draw(photo, answer(size, similarity=np.full((4, 5), 0.7, np.float32)))
    assert picture.mode == "RGB"
    assert picture.width == 1752
    assert 250 < picture.height < 900
    np.testing.assert_array_equal(photo, before)


def test_a_band_for_each_phrase_and_none_for_more_than_twelve():
    photo, one = grey(60, 80), answer((60, 80))
    names = [f"thing {number}" for number in range(15)]
    answers = [PhraseAnswer(phrase=name, candidates=one.candidates, **LEVELS) for name in names]
    single = draw(photo, answers[0]).height
    assert draw(photo, *answers[:2]).height == pytest.approx(2 * single, abs=40)
    assert draw(photo, *answers).height < 12.5 * single
    assert draw(photo, *answers, phrases=["thing 14"]).height == single
    assert draw(photo, *answers, phrases=names).height > 14.5 * single


@pytest.mark.parametrize(
    "one",
    [
        answer((60, 80), kept=0, dropped=0, gate="presence", reason="presence 0.10 < 0.60"),
        answer((60, 80), kept=0, dropped=30),
        answer((60, 80), kept=20, dropped=0),
        answer((60, 80), presence=float("nan")),
        PhraseAnswer(phrase="колесо " * 60, **LEVELS),
        PhraseAnswer(phrase="x" * 500, gate="map", reason="y" * 300, **LEVELS),
        PhraseAnswer(
            phrase="nothing",
            candidates=(Candidate(rle=encode_mask(np.zeros((60, 80), bool)), gate="score"),),
            **LEVELS,
        ),
    ],
    ids=["refused", "many dropped", "many kept", "unknown", "long", "one long word", "empty mask"],
)
def test_any_answer_can_be_drawn(one):
    assert draw(grey(60, 80), one).width == 1752


def test_the_result_and_the_dropped_are_shown_apart():
    """Panel two changes with what is kept, panel three with what is dropped, and nothing else."""
    photo = grey(420, 420)  # drawn at its own size
    panels = {}
    for name, kept, dropped in (("both", 1, 2), ("kept", 1, 0), ("none", 0, 0)):
        array = np.asarray(draw(photo, answer((420, 420), kept=kept, dropped=dropped)))
        panels[name] = [array[100:420, 18 + 432 * i : 438 + 432 * i] for i in range(4)]
    assert (panels["both"][1] == panels["kept"][1]).all()
    assert (panels["both"][2] != panels["kept"][2]).any()
    assert (panels["kept"][1] != panels["none"][1]).any()
    assert (panels["kept"][2] == panels["none"][2]).all()


def test_what_was_left_out_is_named():
    photo = grey(60, 80)
    one = answer((60, 80))
    steps = [[SweepStep(threshold=0.5, masks=1, phrases=1, exact=True)]]
    plain = explanation_picture(photo, [one], sentences=["a"], sweeps=steps)
    more = explanation_picture(photo, [one], sentences=["a"], sweeps=steps, left_out=["dog"])
    assert more.height > plain.height


def test_a_tiny_mask_on_a_large_photo_is_seen():
    size = (1500, 2000)
    one = PhraseAnswer(
        phrase="dot", candidates=(Candidate(rle=square(size, 990, 700, 2), score=0.9),), **LEVELS
    )
    none = PhraseAnswer(phrase="dot", gate="map", **LEVELS)
    photo = grey(*size)
    seen = np.asarray(draw(photo, one))[100:350, 450:870]
    assert (seen != np.asarray(draw(photo, none))[100:350, 450:870]).any()


# The chart ---------------------------------------------------------------------------------------


def chart(masks, *, exact=True, size=(420, 280), **values):
    steps = [
        SweepStep(threshold=t, masks=count, phrases=1, exact=exact)
        for t, count in zip(np.linspace(0.05, 0.95, len(masks)), masks, strict=True)
    ]
    one = PhraseAnswer(phrase="x", **{**LEVELS, **values})
    return np.asarray(sweep_chart(steps, one, size=size)).astype(int)


def test_the_line_falls_where_masks_are_lost():
    azure = np.array((0x2F, 0x7D, 0xFF))
    array = chart([4, 4, 4, 2, 1, 0, 0])[54:]  # below the legend
    ys, xs = np.nonzero((abs(array - azure) < 12).all(-1))
    left, right = ys[xs < 150].mean(), ys[xs > 340].mean()
    assert left < right - 100  # pixels count from the top


def test_what_is_only_a_lower_bound_looks_so():
    assert (chart([3, 2, 1]) != chart([3, 2, 1], exact=False)).any()


@pytest.mark.parametrize("size", [(420, 280), (120, 120), (10, 10)])
@pytest.mark.parametrize("masks", [[], [0, 0], [1000, 5]])
def test_any_sweep_can_be_drawn(masks, size):
    for presence in (0.0, 0.5, 1.0, float("nan")):
        array = chart(masks, size=size, presence=presence)
        assert array.shape[:2] == (max(120, size[1]), max(120, size[0]))
