"""Pasted objects: what they hide, and what is left of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from training.data import Sample, View, ViewConfig, make_view
from training.data.phrases.pasting import NamedView, ObjectPaster, PasteConfig, paste_object

NAMES = ("dog", "cat")


def _flat(
    sample: Sample, value: int, masks: list[tuple[int, int, int, int]], side: int
) -> NamedView:
    planes = torch.zeros(len(masks), side, side, dtype=torch.bool)
    for plane, (x0, y0, x1, y1) in zip(planes, masks, strict=True):
        plane[y0:y1, x0:x1] = True
    return NamedView(
        source="voc",
        sample=sample,
        view=View(
            pixels=torch.full((3, side, side), value, dtype=torch.uint8),
            masks=planes,
            void=torch.zeros(side, side, dtype=torch.bool),
            objects=tuple(range(len(masks))),
            flipped=False,
        ),
        labels=tuple(NAMES[i] for i in range(len(masks))),
        keys=tuple(("voc", "photo", i) for i in range(len(masks))),
    )


def test_a_pasted_object_takes_its_pixels_from_what_is_below(
    sources: dict[str, list[Sample]],
) -> None:
    sample = sources["voc"][0]
    below = _flat(sample, 10, [(0, 0, 60, 30), (0, 31, 60, 60)], 64)
    key = ("named_objects", "other", 1)
    donor = replace(_flat(sample, 200, [(4, 4, 28, 28)], 32), labels=("wheel",), keys=(key,))
    pasted = paste_object(below, donor, np.random.default_rng(0))
    new = pasted.view.masks[-1]
    assert pasted.labels[-1] == "wheel" and pasted.keys[-1] == key
    assert int(new.sum()) == 24 * 24
    assert (pasted.view.pixels[:, new] == 200).all() and (pasted.view.pixels[:, ~new] == 10).all()
    assert not (pasted.view.masks[:-1] & new).any()
    assert below.view.pixels.max() == 10  # the view below is left as it was


def test_a_mask_that_is_nearly_hidden_becomes_void(sources: dict[str, list[Sample]]) -> None:
    below = _flat(sources["voc"][0], 10, [(20, 20, 26, 26), (0, 0, 64, 64)], 64)
    donor = _flat(sources["voc"][0], 200, [(0, 0, 63, 63)], 63)
    pasted = paste_object(below, donor, np.random.default_rng(0))
    assert pasted.labels == ("dog",)  # the donor's; both below are as good as gone
    rest = below.view.masks[1] & ~pasted.view.masks[-1]
    assert torch.equal(pasted.view.void, rest)  # all that is left of the large mask
    assert not pasted.counted[rest].any()


def test_objects_come_from_the_donors_and_not_onto_every_source(
    sources: dict[str, list[Sample]],
) -> None:
    config = PasteConfig(
        probability=1.0, donors={"named_objects": 1.0, "absent": 1.0}, never_on=("plain",)
    )
    paste = ObjectPaster(sources, config=config, image_size=64)
    view = ViewConfig(image_size=64, min_area=4, jitter=0.0)
    sample, rng = sources["voc"][0], np.random.default_rng(0)
    shown = make_view(sample, rng, config=view)
    assert shown is not None
    item = NamedView.of("voc", sample, shown)
    pasted = [paste(item, rng) for _ in range(10)]
    guests = {other.keys[-1][0] for other in pasted if other.view.objects[-1] == -1}
    assert guests == {"named_objects"}
    left = replace(item, source="plain")
    assert paste(left, rng) is left
