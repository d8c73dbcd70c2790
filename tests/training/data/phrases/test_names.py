"""Names that a photo is asked for: there, certainly not, or not inside its masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from textsam.values.rle import encode_mask
from training.data import ObjectMask, Sample
from training.data.phrases.concepts import ConceptBank
from training.data.phrases.names import NameConfig, NameDraw, NameRules
from training.data.phrases.pasting import NamedView
from training.data.views import View
from training.recipes.tiny.lexicon import Lexicon
from training.recipes.tiny.stage_settings import JOINT_STAGES

SIDE = 64
COLOURED = ("red car", "blue car", "green car")


def photo(*labels: str, exhaustive: bool = True) -> Sample:
    """Masks side by side, from the left to the middle; nothing is annotated on the right."""
    objects = []
    for index, label in enumerate(labels):
        mask = np.zeros((SIDE, SIDE), bool)
        width = SIDE // 2 // len(labels)
        mask[:, index * width : (index + 1) * width] = True
        objects.append(ObjectMask(label=label, kind="thing", rle=encode_mask(mask), ignore=False))
    return Sample(
        image_id=labels[0],
        source="",
        encoded=b"",
        size=(SIDE, SIDE),
        exhaustive=exhaustive,
        void=None,
        objects=tuple(objects),
    )


def shown(source: str, sample: Sample) -> NamedView:
    """The whole photo, grey but for red masks."""
    width = SIDE // 2 // len(sample.objects)
    masks = torch.zeros(len(sample.objects), SIDE, SIDE, dtype=torch.bool)
    for index, mask in enumerate(masks):
        mask[:, index * width : (index + 1) * width] = True
    pixels = torch.full((3, SIDE, SIDE), 128, dtype=torch.uint8)
    pixels[0][masks.any(0)], pixels[1:, masks.any(0)] = 220, 10
    view = View(
        pixels=pixels,
        masks=masks,
        void=torch.zeros(SIDE, SIDE, dtype=torch.bool),
        objects=tuple(range(len(masks))),
        flipped=False,
    )
    return NamedView.of(source, sample, view)


def drawing(samples: Mapping[str, list[Sample]], **changes: Any) -> tuple[NameDraw, Lexicon]:
    labels = {o.label for rows in samples.values() for s in rows for o in s.objects}
    lexicon = Lexicon(labels)
    names = [*lexicon.names, *COLOURED]
    bank = ConceptBank(
        torch.randn(len(names), 4), torch.zeros(0, 4), labels=[], keys=[], names=names
    )
    return NameDraw(bank, samples, config=NameConfig(**changes), words=lexicon), lexicon


def broad_rules() -> NameRules:
    names = JOINT_STAGES["broad"].phrases.names
    assert names is not None
    return names.rules


def test_absent_names_are_never_names_that_may_be_there() -> None:
    """By the rules of `tiny`'s sources."""
    samples = {
        "voc": [photo("car", "person"), photo("dog"), photo("cat")],
        "car_parts": [photo("wheel", "hood")],
        "clothing": [photo("hat", "skirt")],
        "coco_person": [photo("person", exhaustive=False)],
        "coco_panoptic": [photo("sky", "grass")],
        "animals": [photo("horse", exhaustive=False)],
    }
    draw, _ = drawing(samples, rules=broad_rules())
    rng = np.random.default_rng(0)

    def absent(source: str, row: int = 0) -> set[str]:
        sample = samples[source][row]
        return {name for _ in range(300) for name in draw.absent_names(source, sample, (), rng)}

    street, dog = absent("voc"), absent("voc", 1)
    assert {"dog", "cat", "horse"} <= street and "vehicle" not in street
    assert not {"wheel", "hood", "hat", "sky"} & street  # a car may have wheels, a person a hat
    assert {"car", "person", "wheel", "hood", "horse", "vehicle"} <= dog
    assert not {"sky", "grass", "hat", "skirt"} & dog  # any photo may show them
    assert not {"car", "vehicle"} & absent("car_parts") and "dog" in absent("car_parts")
    assert absent("coco_person") == set()
    assert "dog" in absent("animals") and "animal" not in absent("animals")


def test_a_kind_is_asked_with_the_masks_of_all_its_labels() -> None:
    samples = {"voc": [photo("car", "bus", "dog")]}
    draw, _ = drawing(samples, kind_share=1.0, image_share=0.0, max_present=3, partial_weight=0.25)
    item = shown("voc", samples["voc"][0])
    questions = {q.name: q for q in draw._present(item, np.random.default_rng(0))}
    vehicle = questions["vehicle"]
    assert torch.equal(vehicle.union, item.view.masks[:2].any(0))
    # Other vehicles may be where nothing is annotated, but not on the dog.
    assert set(vehicle.weight[:, SIDE // 2 :].flatten().tolist()) == {0.25}
    assert set(vehicle.weight[:, : 3 * (SIDE // 6)].flatten().tolist()) == {1.0}


@pytest.mark.parametrize("seed", range(6))
def test_a_colour_is_there_or_lacking(seed: int) -> None:
    samples = {"voc": [photo("car")]}
    draw, _ = drawing(samples, colour_share=1.0, image_share=0.0)
    item = shown("voc", samples["voc"][0])
    (question,) = draw._present(item, np.random.default_rng(seed))
    assert question.name in (*COLOURED, "car")  # "car" where the drawn colour has no embedding
    assert question.present == (question.name in ("red car", "car"))
    assert question.union.any() == question.present


def test_common_names_are_asked_inside_the_masks_of_other_things() -> None:
    samples = {"voc": [photo("dog", "person")], "clothing": [photo("hat")]}
    rules = NameRules(common=frozenset({"clothing"}), things=frozenset({"voc"}))
    draw, lexicon = drawing(samples, max_inside=9, rules=rules)
    item = shown("voc", samples["voc"][0])
    questions = {q.name: q for q in draw._inside(item, np.random.default_rng(0))}
    assert "person" in lexicon.hosts("hat")
    hat, animal = questions["hat"], questions["animal"]
    assert torch.equal(hat.weight.bool(), item.view.masks[0])  # not inside the person
    assert torch.equal(animal.weight.bool(), item.view.masks[1])
    assert not any(q.present or q.union.any() for q in questions.values())


def test_a_view_of_nothing_known_asks_nothing() -> None:
    samples = {"coco_person": [photo("person", exhaustive=False)]}
    draw, _ = drawing(samples, rules=broad_rules())
    draw.bank.index.clear()
    questions = draw(shown("coco_person", samples["coco_person"][0]), np.random.default_rng(0))
    assert len(questions.present) == len(questions.queries) == 0
    assert questions.targets.shape == questions.weights.shape == (0, SIDE // 8, SIDE // 8)
