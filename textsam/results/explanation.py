"""Why a result is what it is: for each phrase the masks that were considered and what dropped them.

why = view.segment(text=["wheel", "cat"]).explain()
str(why)  # a sentence a phrase, and a table
why.gate("cat")  # "presence"
why.save("why.png")  # the map of the phrase, kept and dropped masks, a sweep of the threshold
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textsam.pictures.draw import PICTURE_SUFFIXES, encode_picture
from textsam.results.explanation_picture import explanation_picture
from textsam.results.gates import SweepStep, advice, sentence, sweep, to_options
from textsam.results.storage import dump_json
from textsam.values.candidates import GATES, Candidate, Gate, PhraseAnswer
from textsam.values.files import write_atomically
from textsam.values.images import check_photo
from textsam.values.judge import closed_gate
from textsam.values.rle import rle_area, rle_box, rle_to_json

__all__ = ["LOW_THRESHOLD", "Explanation", "ExplanationRow", "blind_phrases", "explain_fully"]

# Asked with it, hardly any phrase is refused before masks were looked for: calibrated presence of
# phrases that are not there is mostly 0.01 to 0.1.
LOW_THRESHOLD = 0.001

_FORMAT = "textsam.explanation"
_VERSION = 1

_SWEEP = (0.01, 0.02, *(step / 20 for step in range(1, 20)))
_FINE_SWEEP = tuple(step / 100 for step in range(1, 100))  # of the chart

# What `str` shows of a phrase; `rank` considers hundreds of masks. `table` has them all.
_MOST_ROWS = 12
_MOST_BANDS = 12  # of a picture, each about 700 pixels high


@dataclass(frozen=True, kw_only=True)
class ExplanationRow:
    """A line of the table: a phrase as a whole, or one mask that was considered for it.

    Attributes:
        phrase: What was asked.
        mask: Number of the mask, from 1, best score first; the picture shows the same. None for the
            phrase as a whole.
        gate: What closed; None if it is in the result.
        score: Probability: of the phrase its presence, of a mask that the phrase describes it. NaN
            if unknown.
        evidence: The raw numbers behind it.
        reason: The gate's numbers in words; empty if none closed.
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
        """Phrase, what the row is about, score, gate, reason, evidence, as tables show them."""
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

    Attributes:
        size: (H, W) of the photo.
        answers: What became of each phrase. Where the gate of presence closed before masks were
            looked for, and `opened` has them, they are here, each dropped by that gate.
        image: (H, W, 3) uint8 RGB, or None.
    """

    def __init__(
        self,
        size: tuple[int, int],
        answers: Iterable[PhraseAnswer],
        *,
        image: NDArray[np.uint8] | None = None,
        opened: Iterable[PhraseAnswer] = (),
    ) -> None:
        """Explain answers.

        Args:
            size: (H, W), original pixels.
            answers: What came out.
            image: (H, W, 3) uint8 RGB, for pictures; not copied.
            opened: Phrases of `blind_phrases` asked again with `LOW_THRESHOLD`, to tell what lies
                behind their closed gates; without them only what was considered is told.

        Raises:
            ValueError: No answers, or a photo of another size.
        """
        given = tuple(answers)
        if not given:
            raise ValueError(
                "there is nothing to explain: no phrase was asked, or the result was read from a "
                'file, which does not hold its reasons. Type: view.segment(text="wheel").explain()'
            )
        if image is not None:
            check_photo(image, size)
        self.size = size
        self.image = image
        self._opened = {answer.phrase: answer for answer in opened}
        self.answers = tuple(_merged(answer, self._opened.get(answer.phrase)) for answer in given)

    @property
    def phrases(self) -> list[str]:
        """What was asked, in order, each once."""
        return list(dict.fromkeys(answer.phrase for answer in self.answers))

    def gate(self, phrase: str) -> Gate | None:
        """The gate that left nothing of a phrase; None if something is left.

        Raises:
            KeyError: It was not asked.
        """
        closed: list[Gate] = []
        for answer in self._about(phrase):
            gate, _ = closed_gate(answer)
            if gate is None:
                return None
            closed.append(gate)
        # Asked in several ways (of tiles, say), the way that came farthest counts.
        return max(closed, key=list(GATES).index)

    def sentence(self, phrase: str, *, command_line: bool = False) -> str:
        """What is left of a phrase; or which gate closed, by how much, and what to type.

        Args:
            phrase: One that was asked.
            command_line: Whether to name options of `textsam segment` in place of Python's.

        Raises:
            KeyError: It was not asked.
        """
        gate = self.gate(phrase)
        decisive = next(a for a in self._about(phrase) if closed_gate(a)[0] == gate)
        return sentence(decisive, opened=self._opened.get(phrase), command_line=command_line)

    def advice(self, phrase: str) -> dict[str, Any]:
        """Keywords of `segment` that get past the closed gate, as `{"threshold": 0.3}`.

        None as a value means to leave the option out. Empty if nothing closed, or nothing helps.

        Raises:
            KeyError: It was not asked.
        """
        gate = self.gate(phrase)
        decisive = next(a for a in self._about(phrase) if closed_gate(a)[0] == gate)
        return advice(decisive, opened=self._opened.get(phrase))

    def table(self) -> list[ExplanationRow]:
        """A row for each phrase, then one for each mask that was considered for it."""
        rows: list[ExplanationRow] = []
        for answer in self.answers:
            rows.append(_phrase_row(answer))
            rows += [_mask_row(answer, n, c) for n, c in enumerate(answer.candidates, start=1)]
        return rows

    def sweep(self, thresholds: Sequence[float] = _SWEEP) -> tuple[SweepStep, ...]:
        """How many masks and phrases `segment(threshold=...)` would leave, counted, not asked.

        Args:
            thresholds: Probabilities; 0.01, 0.02, 0.05, 0.10, ... 0.95 by default.

        Raises:
            ValueError: A threshold that is no probability.
        """
        return sweep([self._widest(answer) for answer in self.answers], thresholds)

    def picture(self, *, phrases: Sequence[str] | None = None) -> Image.Image:
        """Draw the reasons: a band a phrase.

        A band holds the map of the phrase over the photo with the points that were asked; the masks
        of the result; the dropped ones, coloured by gate; the number of masks left at each
        threshold; and the best dropped masks one by one, with the reason.

        Args:
            phrases: Which to draw; by default all, or the first twelve.

        Returns:
            RGB picture, about 1,800 pixels wide.

        Raises:
            ValueError: The photo is not known.
            KeyError: A phrase that was not asked.
        """
        if self.image is None:
            raise ValueError(
                "these reasons do not know their photo; give it: "
                'result.explain(image="photo.jpg").picture()'
            )
        chosen = self.phrases[:_MOST_BANDS] if phrases is None else list(phrases)
        answers = [answer for phrase in chosen for answer in self._about(phrase)]
        return explanation_picture(
            self.image,
            answers,
            sentences=[self.sentence(answer.phrase) for answer in answers],
            sweeps=[sweep([self._widest(answer)], _FINE_SWEEP) for answer in answers],
            left_out=[] if phrases is not None else self.phrases[_MOST_BANDS:],
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
        return "\n".join([*map(self.sentence, self.phrases), "", *text])

    def short_table(self) -> list[ExplanationRow]:
        """As `table`, with at most twelve masks of a phrase."""
        return [row for row in self.table() if row.mask is None or row.mask <= _MOST_ROWS]

    def _about(self, phrase: str) -> list[PhraseAnswer]:
        found = [answer for answer in self.answers if answer.phrase == phrase]
        if not found:
            raise KeyError(f"{phrase!r} was not asked; there are {self.phrases}")
        return found

    def _widest(self, answer: PhraseAnswer) -> PhraseAnswer:
        return self._opened.get(answer.phrase, answer)

    def _phrase_to_dict(self, answer: PhraseAnswer) -> dict[str, Any]:
        gate, reason = closed_gate(answer)
        similarity = answer.similarity
        return {
            "phrase": answer.phrase,
            "strategy": answer.strategy,
            "presence": _number(answer.presence),
            "evidence": {key: _number(value) for key, value in answer.evidence.items()},
            "min_presence": answer.levels.min_presence,
            "min_score": answer.levels.min_score,
            "gate": gate,
            "reason": reason,
            "sentence": self.sentence(answer.phrase),
            "advice": self.advice(answer.phrase),
            "masks": [_mask_to_dict(n, c) for n, c in enumerate(answer.candidates, start=1)],
            # Of a photo's map three decimals are more than anybody sees.
            "similarity": None if similarity is None else _rounded(similarity),
        }


class Answered(Protocol):
    """What is explained: a `Segmentation`."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the photo."""

    @property
    def answers(self) -> tuple[PhraseAnswer, ...]:
        """What became of each phrase."""


def explain_fully(
    result: Answered,
    ask_again: Callable[[Mapping[str, Any]], Answered],
    *,
    image: NDArray[np.uint8],
) -> Explanation:
    """Explain a result, and ask again where a gate closed before masks were looked for.

    Args:
        result: What came out.
        ask_again: Called, if there are such phrases, with the keywords of `segment` that change.
        image: (H, W, 3) uint8 RGB, the photo.
    """
    opened: tuple[PhraseAnswer, ...] = ()
    if blind := blind_phrases(result.answers):
        opened = ask_again({"text": blind, "threshold": LOW_THRESHOLD}).answers
    return Explanation(result.size, result.answers, image=image, opened=opened)


def blind_phrases(answers: Iterable[PhraseAnswer]) -> list[str]:
    """Phrases on which a gate closed before any mask was looked for, each once."""
    found = [answer.phrase for answer in answers if answer.gate and not answer.candidates]
    return list(dict.fromkeys(found))


def _merged(answer: PhraseAnswer, opened: PhraseAnswer | None) -> PhraseAnswer:
    """An answer, with the masks behind the gate that closed before masks were looked for."""
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


def _phrase_row(answer: PhraseAnswer) -> ExplanationRow:
    gate, reason = closed_gate(answer)
    return ExplanationRow(
        phrase=answer.phrase,
        mask=None,
        gate=gate,
        score=answer.presence,
        evidence=dict(answer.evidence),
        reason=reason,
    )


def _mask_row(answer: PhraseAnswer, number: int, item: Candidate) -> ExplanationRow:
    x0, y0, x1, y1 = (int(side) for side in rle_box(item.rle))
    return ExplanationRow(
        phrase=answer.phrase,
        mask=number,
        gate=item.gate,
        score=item.score,
        evidence=dict(item.evidence),
        reason=item.reason,
        box=(x0, y0, x1, y1),
        area=rle_area(item.rle),
    )


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


def _rounded(similarity: NDArray[np.float32]) -> list[list[float]]:
    rounded: list[list[float]] = np.round(similarity.astype(np.float64), 3).tolist()
    return rounded


def _number(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return float(value) if math.isfinite(value) else None
