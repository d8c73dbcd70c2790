"""Batches with phrases: functions of the seed alone, whoever makes them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from training.data import LoaderConfig, Sample, ViewConfig, ViewLoader
from training.data.phrases.concepts import ConceptBank
from training.data.phrases.names import NameConfig, NameRules
from training.data.phrases.pasting import PasteConfig
from training.data.phrases.phrase_batch import PhraseBatch, PhraseConfig, PhraseDraw

VIEW = ViewConfig(image_size=64, max_masks=80, min_area=4, max_share=1.0, focus=0.3)
CONFIG = PhraseConfig(
    max_masks=2,
    min_area=8,
    phrase_share=0.6,
    names=NameConfig(max_present=2, max_absent=3),
    paste=PasteConfig(probability=0.5, donors={"named_objects": 1.0}),
)


def loader_of(
    sources: dict[str, list[Sample]],
    bank: ConceptBank,
    *,
    config: PhraseConfig = CONFIG,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
) -> ViewLoader:
    return ViewLoader(
        sources,
        config=LoaderConfig(photos_per_step=4, view=VIEW, workers=workers, seed=3),
        rank=rank,
        world=world,
        finish=PhraseDraw(bank, sources, config=config, image_size=64),
    )


def _same(one: PhraseBatch, other: PhraseBatch) -> bool:
    assert one.names is not None and other.names is not None
    pairs = [(one.queries, other.queries), (one.spoken, other.spoken)]
    pairs += [(one.clicked, other.clicked), (one.views.masks, other.views.masks)]
    pairs += list(zip(one.views.pixels, other.views.pixels, strict=True))
    pairs += [(value, vars(other.names)[name]) for name, value in vars(one.names).items()]
    return all(torch.equal(a, b) for a, b in pairs)


def test_worker_processes_make_the_batches_that_one_process_makes(
    sources: dict[str, list[Sample]], bank: ConceptBank
) -> None:
    own = loader_of(sources, bank).batches(0, 5)
    from_two = loader_of(sources, bank, workers=1).batches(2, 5)
    assert all(_same(a, b) for a, b in zip(list(own)[2:], from_two, strict=True))


def test_two_ranks_share_the_photos_of_one(
    sources: dict[str, list[Sample]], bank: ConceptBank
) -> None:
    parts = [loader_of(sources, bank, rank=rank, world=2).batches(0, 3) for rank in range(2)]
    for whole, *ranks in zip(loader_of(sources, bank).batches(0, 3), *parts, strict=True):
        counts = {kind: sum(part.weight[kind] for part in ranks) for kind in whole.weight}
        assert counts == whole.weight
        for rank, part in enumerate(ranks):
            assert part.views.labels == whole.views.labels[rank::2]
            mine = (whole.views.image_index % 2) == rank
            assert torch.equal(part.queries, whole.queries[mine])
            assert torch.equal(part.spoken, whole.spoken[mine])
            asked = (whole.names.photos % 2) == rank
            assert torch.equal(part.names.queries, whole.names.queries[asked])
            assert torch.equal(part.names.targets, whole.names.targets[asked])


def test_phrases_ask_for_named_masks_and_names_for_what_is_there(
    sources: dict[str, list[Sample]], bank: ConceptBank
) -> None:
    spoken = clicked = pasted = 0
    for batch in loader_of(sources, bank).batches(0, 20):
        assert batch.names is not None
        labels = [label for names in batch.views.labels for label in names]
        assert len(labels) == len(batch.spoken) == len(batch.views.masks)
        assert all(len(names) <= 2 for names in batch.views.labels)
        assert torch.equal(batch.queries.norm(dim=-1) > 0.5, batch.spoken)
        assert not (batch.clicked & ~batch.spoken).any()
        for number, item in enumerate(batch.views.views):
            asked = batch.names.photos == number
            shown = batch.names.targets[asked].flatten(1).sum(1) > 0
            assert torch.equal(shown, batch.names.present[asked])
            pasted += -1 in item.objects
        spoken, clicked = spoken + int(batch.spoken.sum()), clicked + int(batch.clicked.sum())
    assert spoken > clicked > 10 and pasted > 2


def test_a_share_of_zero_asks_nothing(sources: dict[str, list[Sample]], bank: ConceptBank) -> None:
    plain = PhraseConfig(max_masks=None, names=None)
    batch = next(loader_of(sources, bank, config=plain).batches(0, 1))
    assert batch.names is None and not batch.spoken.any() and list(batch.weight) == ["masks"]


def test_a_batch_moves_with_all_its_tensors(
    sources: dict[str, list[Sample]], bank: ConceptBank
) -> None:
    moved = next(loader_of(sources, bank).batches(0, 1)).to("meta")
    assert moved.names is not None
    tensors = [moved.queries, moved.spoken, moved.clicked, moved.views.masks, *moved.views.pixels]
    tensors += vars(moved.names).values()
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_embeddings_belong_to_their_object(
    sources: dict[str, list[Sample]], bank: ConceptBank
) -> None:
    sample = sources["voc"][1]
    rng = np.random.default_rng(0)
    own = bank.crop_of_object(("voc", sample.image_id, 0), rng)
    assert own is not None
    assert bank.crop_of_object(("voc", sample.image_id, 9), rng) is None
    rows = bank._crops_of_label[sample.objects[0].label]
    assert any(torch.equal(own, bank.image[row]) for row in rows)
    with pytest.raises(KeyError):
        bank.text_of("unicorn")


def test_what_a_checkpoint_remembers_has_sets_in_order(
    sources: dict[str, list[Sample]], bank: ConceptBank
) -> None:
    """Two processes go through a set in different orders, and must be able to resume each other."""
    rules = NameRules(partial=frozenset("hgfedcba"), unannotated={"voc": frozenset("zyx")})
    config = replace(CONFIG, names=NameConfig(rules=rules))
    text = str(PhraseDraw(bank, sources, config=config, image_size=64))
    read = json.loads(text.removeprefix("PhraseDraw(").removesuffix(")"))["names"]["rules"]
    assert read["partial"] == list("abcdefgh")
    assert read["unannotated"] == {"voc": ["x", "y", "z"]}
