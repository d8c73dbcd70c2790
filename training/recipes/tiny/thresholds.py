"""Choose the level of the phrases' map, and the probabilities of `auto` and `like`.

On training photos, never on dev: those that the last stage did not see, since a model is surer of
what it was trained on. `threshold` is the level at which the union of the map agrees best with the
truth; what a phrase's or a mask's evidence is worth is fitted by `training.calibration`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from textsam.inference.model import TextSAM
from textsam.values.calibration import Calibration
from textsam.values.rle import decode_rle, merge_rles
from textsam.values.settings import TextSettings

from ...calibration import CalibrationConfig, calibrate, choose_photos
from ...data import Sample
from ...data.phrases.concepts import ConceptBank
from ...data.phrases.names import NameConfig, NameDraw
from .lexicon import Lexicon
from .stage_settings import RULES

# Files whose photos show no more of their names than is annotated.
CALIBRATED_ON = (
    *("voc", "coco", "car_parts", "clothing", "coco_panoptic", "coco_stuff", "named_objects"),
    *("faces", "facades", "rail_parts", "nuclei", "voc2007_instances"),
)
_MAX_ABSENT = 24  # names drawn as absent from a photo

# Shares of phrases and of masks that the default levels let pass. On photos that the last stage did
# not see (138; recall of phrases, absent ones empty): 97% .964, .682; 93% .925, .834; 91% .915,
# .883. Of the masks 99%: instances .634 recall at .805 precision; 97% .614, .828 (at 93%). One
# example says less than a name: a level that lets 97% of what is there pass would also let 63% of
# what is not. Of its masks 97%: on the kept-out photos of VOC .772 of what is there is answered,
# .903 of what is not left empty, instances .601 / .850; 90%: .683, .955, .548 / .880.
_PASS = {"auto": (0.91, 0.99), "like": (0.85, 0.97), "everything": (0.98, None)}
# Log odds. On photos that the last stage did not see (17 of car parts, 108 of VOC), what spilled on
# the excluded thing and is removed, and what is right and lost: 2 .392, .009; .504, .022. 3 .452,
# .013; .579, .040. 4 .523, .018; .650, .065. The largest that loses at most a twentieth.
_EXCLUSION_MARGIN = 3.0
_LEVELS = np.arange(0.2, 0.85, 0.05)


def choose_settings(
    model: TextSAM, samples: Mapping[str, Sequence[Sample]], *, photos: int, seed: int
) -> tuple[TextSettings, dict[str, float]]:
    """Measure maps on `photos` photos of each exhaustive file.

    Args:
        model: With a dense text head; its other settings stay.
        samples: Training files.
        photos: How many of each file.
        seed: Decides which.

    Returns:
        The settings, and what they were chosen by: mean IoU of the union at `threshold`.

    Raises:
        ValueError: No photo is exhaustive.
    """
    rng = np.random.default_rng(seed)
    overlaps: list[NDArray[np.float64]] = []
    for rows in samples.values():
        usable = [s for s in rows if s.exhaustive and s.objects]
        for index in rng.permutation(len(usable))[:photos]:
            sample = usable[index]
            view = model.open(sample.encoded)
            for phrase in sorted({o.label for o in sample.objects}):
                overlaps.append(_overlaps(view.text_map(phrase), sample, phrase))
    if not overlaps:
        raise ValueError(f"none of the photos of {sorted(samples)} is exhaustive and has an object")
    mean = np.mean(overlaps, axis=0)
    level = round(float(_LEVELS[mean.argmax()]), 2)
    settings = replace(model.text_settings, threshold=level, exclusion_margin=_EXCLUSION_MARGIN)
    return settings, {"union_iou": float(mean.max())}


def choose_calibration(
    model: TextSAM,
    samples: Mapping[str, Sequence[Sample]],
    *,
    words: Lexicon,
    photos: int,
    seed: int,
) -> Calibration:
    """Fit the curves of `auto`, `like` and `everything`.

    A photo is asked for names that it lacks by the rules of training: not for another word for what
    it shows, nor for what may be there without annotation.

    Args:
        model: With the settings that it will be used with.
        samples: Training files; those of `CALIBRATED_ON` are asked.
        words: Synonyms and kinds of their labels.
        photos: Most photos of a file.
        seed: Decides photos, absent phrases and folds.

    Raises:
        ValueError: The photos do not show enough.
    """
    rng = np.random.default_rng(seed)
    bank = ConceptBank(
        *(torch.zeros(0, 1), torch.zeros(0, 1)), labels=[], keys=[], names=words.labels
    )
    draw = NameDraw(
        bank, samples, config=NameConfig(max_absent=_MAX_ABSENT, rules=RULES), words=words
    )
    sets = []
    for name in CALIBRATED_ON:
        rows = [
            replace(s, exhaustive=False, absent=tuple(draw.absent_names(name, s, (), rng)))
            for s in samples.get(name, ())
        ]
        if any(sample.absent for sample in rows):  # others are not asked
            sets.append(choose_photos(rows, name=name, photos=photos, seed=seed))
    calibration = Calibration()
    for strategy, (recall, keep) in _PASS.items():
        config = CalibrationConfig(photos=photos, recall=recall, keep=keep, seed=seed)
        calibration = calibrate(model, sets, strategies=[strategy], config=config, kept=calibration)
    return calibration


def _overlaps(probability: NDArray[np.float32], sample: Sample, phrase: str) -> NDArray[np.float64]:
    """IoU of the map with the union of the phrase's objects, at every level."""
    counted = ~sample.void_mask()
    rles = [o.rle for o in sample.objects if o.label == phrase]
    truth = decode_rle(merge_rles(rles, sample.size)) & counted
    values = []
    for level in _LEVELS:
        mask = (probability >= level) & counted
        values.append((mask & truth).sum() / max(1, (mask | truth).sum()))
    return np.array(values)
