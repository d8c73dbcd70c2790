"""Words for the labels: synonyms, kinds, what may cover what, and the phrases that come of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.recipes.tiny import lexicon as lexicon_module
from training.recipes.tiny import vocabulary as vocabulary_module
from training.recipes.tiny.lexicon import Lexicon
from training.recipes.tiny.vocabulary import PhraseList, imagenet_names, phrase_list
from training.recipes.tiny.wordnet import Nouns, adjectives, plural

INDEX = """\
  1 This line belongs to the licence
automobile n 1 1 @ 1 1 00000002
car n 2 1 @ 2 1 00000002 00000003
motor_vehicle n 1 1 @ 1 1 00000001
vehicle n 1 1 @ 1 0 00000000
aardvark n 1 1 @ 1 0 00000004
"""
DATA = """\
  1 This line belongs to the licence
00000000 06 n 01 vehicle 0 000 | a conveyance
00000001 06 n 01 motor_vehicle 0 001 @ 00000000 n 0000 | with a motor
00000002 06 n 02 car 0 automobile 0 001 @ 00000001 n 0000 | with four wheels
00000003 06 n 01 car 1 001 @ 00000000 n 0000 | of a train
00000004 05 n 01 aardvark 0 000 | an animal
"""


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    (tmp_path / "index.noun").write_text(INDEX)
    (tmp_path / "data.noun").write_text(DATA)
    (tmp_path / "index.adj").write_text("shiny a 1 0 1 0 00000009\n")
    return tmp_path


@pytest.fixture
def lexicon(wordnet: Path, monkeypatch: pytest.MonkeyPatch) -> Lexicon:
    """Of a few labels, with a small WordNet."""
    small = Nouns(wordnet)
    for module in (lexicon_module, vocabulary_module):
        monkeypatch.setattr(module, "nouns", lambda: small)
    monkeypatch.setattr(vocabulary_module, "adjectives", lambda: adjectives(wordnet))
    return Lexicon(
        {"car", "wheel", "dog", "person", "shoes", "boots", "hat", "sky", "purse", "bag"}
    )


def test_nouns_have_synonyms_and_kinds_of_their_first_sense(wordnet: Path) -> None:
    nouns = Nouns(wordnet)
    assert nouns.synonyms("car") == ["automobile"]
    assert nouns.hypernyms("car") == {"motor vehicle", "vehicle"}
    assert nouns.synonyms("unicorn") == [] and nouns.hypernyms("unicorn") == set()
    assert "aardvark" in nouns.lemmas() and nouns.common == {"automobile", "car", "motor vehicle"}
    assert not Nouns(wordnet / "nowhere")


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        *(("dog", "dogs"), ("bus", "buses"), ("cherry", "cherries"), ("toy", "toys")),
        *(("tooth", "teeth"), ("wine glass", "wine glasses"), ("computer mouse", "computer mice")),
    ],
)
def test_plurals(noun: str, expected: str) -> None:
    assert plural(noun) == expected


def test_labels_have_kinds_and_kinds_have_labels(lexicon: Lexicon) -> None:
    assert lexicon.kinds_of("car") == {"vehicle", "motor vehicle"}
    assert lexicon.kinds_of("boots") == {"footwear", "shoes"}
    assert lexicon.members["vehicle"] == {"car"}
    assert lexicon.members["shoes"] == {"shoes", "boots"}
    assert {"vehicle", "car"} <= set(lexicon.names)
    assert lexicon.kinds_of("unicorn") == frozenset()


def test_names_that_may_cover_each_other_are_related(lexicon: Lexicon) -> None:
    assert {"car", "vehicle", "motor vehicle"} <= lexicon.related("car")
    assert "car" in lexicon.related("vehicle")
    assert "bag" in lexicon.related("purse") and "purse" in lexicon.related("bag")
    assert lexicon.related("dog") & {"car", "sky", "person"} == set()
    # Parts lie on wholes, not the other way round.
    assert "car" in lexicon.hosts("wheel") and "wheel" not in lexicon.hosts("car")
    assert "person" in lexicon.hosts("hat") and "dog" not in lexicon.hosts("hat")


def test_no_way_to_say_a_thing_is_weaker_than_another(lexicon: Lexicon) -> None:
    phrases = phrase_list(lexicon, seed=0, described=50)
    meaning = dict(zip(phrases.phrases, phrases.meanings, strict=True))
    for phrase in ("tire", "tires", "the wheel", "two tyres", "a photo of a wheel"):
        assert meaning[phrase] == "wheel"
    assert meaning["automobile"] == meaning["cars"] == "car"
    assert meaning["people"] == meaning["a man"] == "person"
    assert meaning["vehicle"] == "vehicle"  # a kind is more than any of its labels
    assert meaning["red car"] == "red car"


def test_phrases_are_distinct_reproducible_and_hold_every_name(lexicon: Lexicon) -> None:
    phrases = phrase_list(lexicon, seed=0, described=50)
    assert len(phrases.phrases) == len(set(phrases.phrases)) == len(phrases.copies)
    assert {*lexicon.names, "school bus", "aardvark"} <= set(phrases.phrases)
    copies = dict(zip(phrases.phrases, phrases.copies, strict=True))
    assert copies["car"] > copies["automobile"] > copies["aardvark"] == 1
    assert phrases == phrase_list(lexicon, seed=0, described=50)
    assert isinstance(phrases, PhraseList) and len(imagenet_names()) == 1000
