"""Why a result is what it is: the masks considered for each phrase, and what dropped them.

why = view.segment(text=["wheel", "cat"]).explain()
str(why)  # a sentence for each phrase, and a table
why.gate("cat")  # "presence"
why.save("why.png")  # the phrase's map, kept and dropped masks, a sweep of the threshold
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.pictures.draw import PICTURE_SUFFIXES, encode_picture
from textsam.results.explanation_picture import explanation_picture
from textsam.results.gates import SweepStep, advice, sentence, sweep, to_options
from textsam.results.storage import dump_json
from textsam.values.files import write_atomically
from textsam.values.judge import GATES, Candidate, Gate, PhraseAnswer, closed_gate
from textsam.values.photo import Photo, as_photo
from textsam.values.rle import rle_area, rle_box, rle_to_json

# At this threshold hardly any phrase is dropped before masks are looked for: the presence of
# phrases that are not in the picture is mostly 0.01 to 0.1.
LOW_THRESHOLD = 0.001

_FORMAT = "textsam.explanation"
_VERSION = 1

_SWEEP = (0.01, 0.02, *(step / 20 for step in range(1, 20)))
_FINE_SWEEP = tuple(step / 100 for step in range(1, 100))  # for the chart

# Masks of a phrase in `str`: `rank` considers hundreds of them. `table` has all that are kept.
_MAX_ROWS = 12
_MAX_BANDS = 12  # of a picture, each about 700 pixels high


@dataclass(frozen=True)
class ExplanationRow:
    """A row of the table: a phrase as a whole, or one mask that was considered for it.

    Attributes:
        phrase: The phrase.
        mask: Number of the mask, from 1, best score first, as in the picture. None for the phrase
            as a whole.
        gate: What dropped it; None if it is in the result.
        score: Presence of the phrase, or probability that the phrase describes the mask; NaN if
            unknown.
        evidence: The raw numbers behind `score`.
        reason: The gate's numbers in words; empty if it was not dropped.
        box: (4,) half-open x0, y0, x1, y1, original pixels; None for a phrase.
        area: Pixels; 0 for a phrase.
    """

    phrase: str
    mask: int | None
    gate: Gate | None
    score: float
    evidence: Mapping[str, float]
    reason: str
    box: tuple[int, int, int, int] | None = None
    area: int = 0

    def cells(self) -> tuple[str, str, str, str, str, str]:
        """Phrase, kind of row, score, gate, reason and evidence as text for a table."""
        return (
            self.phrase,
            "in the picture" if self.mask is None else f"mask {self.mask}",
            "-" if math.isnan(self.score) else f"{self.score:.2f}",
            self.gate or "passed",
            self.reason,
            " ".join(f"{key}={value:.2f}" for key, value in self.evidence.items()),
        )


class Explanation:
    """Why a result is what it is; made by `Segmentation.explain` and `ImageView.explain`.

    All methods raise a `KeyError` for a phrase that was not asked for.

    Attributes:
        size: (H, W) of the photo.
        answers: What became of each phrase. Masks of a phrase that was dropped before masks were
            looked for are those of `opened`, each dropped by the phrase's gate.
        photo: The photo, for the picture; None if it is not known.
    """

    def __init__(
        self,
        size: tuple[int, int],
        answers: Iterable[PhraseAnswer],
        *,
        image: NDArray[np.uint8] | Photo | None = None,
        opened: Iterable[PhraseAnswer] = (),
    ) -> None:
        """Explain the answers of a result.

        `opened` are answers of `blind_phrases` at `LOW_THRESHOLD`: the masks that these phrases
        would have had. The image is not copied.

        Raises:
            ValueError: No answers, or a photo of another size.
        """
        answers = tuple(answers)
        if not answers:
            raise ValueError(
                "there is nothing to explain: no phrase was asked, or the result was read from a "
                'file, which does not hold its reasons. Type: view.segment(text="wheel").explain()'
            )
        self.size = size
        self.photo = as_photo(image, size)
        self._opened = {answer.phrase: answer for answer in opened}
        self.answers = tuple(_merged(answer, self._opened.get(answer.phrase)) for answer in answers)

    @property
    def image(self) -> NDArray[np.uint8] | None:
        """(H, W, 3) uint8 RGB, read-only; None if the photo is not known."""
        return None if self.photo is None else self.photo.pixels()

    @property
    def phrases(self) -> list[str]:
        """The phrases in order, each once."""
        return list(dict.fromkeys(answer.phrase for answer in self.answers))

    def gate(self, phrase: str) -> Gate | None:
        """The gate that dropped a phrase or its best mask; None if a mask is in the result."""
        closed: list[Gate] = []
        for answer in self._about(phrase):
            gate, _ = closed_gate(answer)
            if gate is None:
                return None
            closed.append(gate)
        # A phrase may have several answers, e.g. of tiles: the one that passed most gates counts.
        return max(closed, key=list(GATES).index)

    def sentence(self, phrase: str, *, command_line: bool = False) -> str:
        """One sentence: the phrase's masks, or why it has none and which option helps.

        Args:
            phrase: A phrase of the result.
            command_line: Whether to name options of `textsam segment` instead of Python's keywords.
        """
        return sentence(
            self._decisive(phrase), opened=self._opened.get(phrase), command_line=command_line
        )

    def advice(self, phrase: str) -> dict[str, Any]:
        """Keywords of `segment` with which the phrase gets a mask, e.g. `{"threshold": 0.3}`.

        None as a value means to leave the option out. Empty if the phrase has a mask, or if no
        option helps.
        """
        return advice(self._decisive(phrase), opened=self._opened.get(phrase))

    def table(self) -> list[ExplanationRow]:
        """A row for each phrase, then one for each mask that was considered for it."""
        rows: list[ExplanationRow] = []
        for answer in self.answers:
            gate, reason = closed_gate(answer)
            presence, evidence = answer.presence, answer.evidence
            rows.append(ExplanationRow(answer.phrase, None, gate, presence, evidence, reason))
            for number, item in enumerate(answer.candidates, start=1):
                numbers = (number, item.gate, item.score, item.evidence, item.reason)
                x0, y0, x1, y1 = (int(side) for side in rle_box(item.rle))
                place = ((x0, y0, x1, y1), rle_area(item.rle))
                rows.append(ExplanationRow(answer.phrase, *numbers, *place))
        return rows

    def sweep(self, thresholds: Sequence[float] = _SWEEP) -> tuple[SweepStep, ...]:
        """How many masks and phrases `segment(threshold=...)` would leave; no model runs.

        Args:
            thresholds: Probabilities; 0.01, 0.02, 0.05, 0.10, ... 0.95 by default.

        Raises:
            ValueError: A threshold is outside 0 to 1.
        """
        return sweep([self._widest(answer) for answer in self.answers], thresholds)

    def picture(self, *, phrases: Sequence[str] | None = None) -> Image.Image:
        """Draw the reasons, a band of panels for each phrase.

        A band shows the phrase's map over the photo with the point prompts; the masks of the
        result; the dropped masks, coloured by gate; the number of masks left at each threshold; and
        the best dropped masks one by one, with the reason.

        Args:
            phrases: Which to draw; by default the first twelve.

        Returns:
            RGB picture, about 1,800 pixels wide.

        Raises:
            ValueError: The photo is not known.
        """
        if self.photo is None:
            raise ValueError(
                "these reasons do not know their photo; give it: "
                'result.explain(image="photo.jpg").picture()'
            )
        chosen = self.phrases[:_MAX_BANDS] if phrases is None else list(phrases)
        answers = [answer for phrase in chosen for answer in self._about(phrase)]
        return explanation_picture(
            self.photo.pixels(),
            answers,
            sentences=[self.sentence(answer.phrase) for answer in answers],
            sweeps=[sweep([self._widest(answer)], _FINE_SWEEP) for answer in answers],
            left_out=[] if phrases is not None else self.phrases[_MAX_BANDS:],
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that `save` writes; unknown numbers are null, boxes are half-open."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "size": list(self.size),
            "phrases": [self._phrase_to_dict(answer) for answer in self.answers],
            "sweep": [
                {"threshold": s.threshold, "masks": s.masks, "phrases": s.phrases, "exact": s.exact}
                for s in self.sweep()
            ],
        }

    def save(self, path: str | Path) -> Path:
        """Write the reasons; the file is complete or not there at all.

        Args:
            path: `.png` `.jpg` `.jpeg` `.webp`: the picture; `.json`: everything but the photo.

        Raises:
            ValueError: Another suffix, or a picture where the photo is not known.
            OSError: The file cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix == ".json":
            return write_atomically(path, dump_json(self.to_dict()))
        if suffix not in PICTURE_SUFFIXES:
            raise ValueError(
                f"cannot save reasons as {path.name!r}; wanted .json or a picture: "
                f"{', '.join(PICTURE_SUFFIXES)}"
            )
        return write_atomically(path, encode_picture(self.picture(), suffix))

    def __repr__(self) -> str:
        """Size and the gate of each phrase."""
        parts = [f"{phrase!r} {self.gate(phrase) or 'passed'}" for phrase in self.phrases]
        return f"<Explanation {self.size[0]}x{self.size[1]}: {', '.join(parts)}>"

    def __str__(self) -> str:
        """A sentence for each phrase, and the table; of many masks the best ones."""
        head = ("phrase", "what", "score", "gate", "why", "evidence")
        lines = [head, *(row.cells() for row in self.short_table())]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        # Where "auto" means another strategy than usual, and why.
        chosen = {
            f'strategy "auto" is "{answer.strategy}" here: {answer.chosen}'
            for answer in self.answers
            if answer.chosen and answer.strategy != "auto"
        }
        return "\n".join([*map(self.sentence, self.phrases), *sorted(chosen), "", *text])

    def short_table(self) -> list[ExplanationRow]:
        """As `table`, with at most twelve masks of a phrase."""
        return [row for row in self.table() if row.mask is None or row.mask <= _MAX_ROWS]

    def _about(self, phrase: str) -> list[PhraseAnswer]:
        answers = [answer for answer in self.answers if answer.phrase == phrase]
        if not answers:
            raise KeyError(f"{phrase!r} was not asked for; there are {self.phrases}")
        return answers

    def _decisive(self, phrase: str) -> PhraseAnswer:
        gate = self.gate(phrase)
        return next(answer for answer in self._about(phrase) if closed_gate(answer)[0] == gate)

    def _widest(self, answer: PhraseAnswer) -> PhraseAnswer:
        return self._opened.get(answer.phrase, answer)

    def _phrase_to_dict(self, answer: PhraseAnswer) -> dict[str, Any]:
        gate, reason = closed_gate(answer)
        similarity = answer.similarity
        return {
            "phrase": answer.phrase,
            "strategy": answer.strategy,
            "chosen": answer.chosen,
            "presence": _number(answer.presence),
            "evidence": {key: _number(value) for key, value in answer.evidence.items()},
            "min_presence": answer.levels.min_presence,
            "min_score": answer.levels.min_score,
            "own_levels": answer.levels.own,
            "gate": gate,
            "reason": reason,
            "sentence": self.sentence(answer.phrase),
            "advice": self.advice(answer.phrase),
            "masks": [_mask_to_dict(n, c) for n, c in enumerate(answer.candidates, start=1)],
            # Three decimals: the map is only drawn, and full precision would triple the file.
            "similarity": None
            if similarity is None
            else np.round(similarity.astype(float), 3).tolist(),
        }


def explain_fully(
    answers: Sequence[PhraseAnswer],
    ask_again: Callable[[Mapping[str, Any]], Iterable[PhraseAnswer]],
    *,
    image: NDArray[np.uint8] | Photo,
) -> Explanation:
    """Explain answers; phrases dropped before masks were looked for are segmented once more.

    `ask_again` segments with these keywords in place of the result's own.
    """
    blind = blind_phrases(answers)
    opened = ask_again({"text": blind, "threshold": LOW_THRESHOLD}) if blind else ()
    photo = image if isinstance(image, Photo) else Photo(image)
    return Explanation(photo.size, answers, image=photo, opened=opened)


def blind_phrases(answers: Iterable[PhraseAnswer]) -> list[str]:
    """Phrases that were dropped before masks were looked for, each once."""
    phrases = [answer.phrase for answer in answers if answer.gate and not answer.candidates]
    return list(dict.fromkeys(phrases))


def _merged(answer: PhraseAnswer, opened: PhraseAnswer | None) -> PhraseAnswer:
    """An answer with the masks that it would have had at a low threshold."""
    if answer.candidates or answer.gate is None or opened is None:
        return answer
    gate = answer.gate
    options = to_options(advice(answer, opened=opened), command_line=False)
    behind = f"behind it; {options}" if options else "behind it"
    candidates = tuple(
        replace(item, gate=gate, reason=behind) if item.gate is None else item
        for item in opened.candidates
    )
    return replace(answer, candidates=candidates)


def _mask_to_dict(number: int, item: Candidate) -> dict[str, Any]:
    return {
        "mask": number,
        "gate": item.gate,
        "reason": item.reason,
        "score": _number(item.score),
        "iou": _number(item.iou),
        "stability": _number(item.stability),
        "evidence": {key: _number(value) for key, value in item.evidence.items()},
        "point": None if item.point is None else [float(side) for side in item.point],
        "box": [int(side) for side in rle_box(item.rle)],
        "area": int(rle_area(item.rle)),
        "rle": rle_to_json(item.rle),
    }


def _number(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return float(value) if math.isfinite(value) else None
