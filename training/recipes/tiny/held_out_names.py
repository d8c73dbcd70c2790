"""Names for an ablation: 60 that a run never trains on, and 60 like them that it does.

A run that leaves `HELD_OUT` out drops every mask of these names from every file, and never asks
for them as absent phrases either; `training.studies.unseen_names` then says what it makes of them.
The text tower may know the words: what is new is how such a thing looks.

How they were drawn (once, on 2026-11-25, `numpy.random.default_rng(3)`; literals, so that neither a
new file nor a new numpy moves them): of `named_objects` 24 names with four photos or more and 24
with one, that are in no other file; of `coco` 12 things with four masks or more that are not in
`voc`. Names that a kept name all but spells out were no candidates: those that share a word with
another name of the data ("sports car", "car"), or whose sentence embedding (all-MiniLM-L6-v2) has a
cosine of 0.75 or more with another's ("airliner", "airplane"). `KEPT` is the second draw from the
same candidates: names as frequent and as odd, so that the gap between the two is the training's.

What is left of a hint: broader names stay ("bird" for "pigeon"), and ImageNet's classifier, from
which the backbone starts, was trained on many of the 1,000 words behind `named_objects`.
"""

from __future__ import annotations

HELD_OUT: tuple[str, ...] = (
    # named_objects, four photos or more
    *("accordion", "beaver", "bonsai", "brain", "dollar bill", "garfield", "gerenuk", "headphone"),
    *("hedgehog", "ibis", "ketch", "lotus", "mandolin", "octopus", "pagoda", "pigeon", "pyramid"),
    *("revolver", "saxophone", "snoopy", "stapler", "starfish", "sunflower", "wheelchair"),
    # named_objects, one photo
    *("basenji", "cairn", "capuchin", "chocolate sauce", "cradle", "cricket", "damselfly"),
    *("envelope", "grille", "Italian greyhound", "malamute", "meerkat", "modem", "mongoose"),
    *("ocarina", "paintbrush", "patio", "pick", "plow", "power drill", "pug", "quill", "thatch"),
    "Weimaraner",
    # coco
    *("bed", "broccoli", "carrot", "frisbee", "kite", "knife", "microwave", "orange"),
    *("parking meter", "refrigerator", "suitcase", "toothbrush"),
)

KEPT: tuple[str, ...] = (
    # named_objects, four photos or more
    *("ant", "buddha", "chandelier", "crayfish", "dalmatian", "dolphin", "emu", "ewer"),
    *("grand piano", "hawksbill", "helicopter", "inline skate", "kangaroo", "llama", "mayfly"),
    *("menorah", "metronome", "platypus", "rhino", "rooster", "scorpion", "stegosaurus"),
    *("strawberry", "wrench"),
    # named_objects, one photo
    *("bagel", "bannister", "bucket", "centipede", "clumber", "gasmask", "groenendael"),
    *("notebook", "oil filter", "orangutan", "ox", "packet", "partridge", "Pembroke"),
    *("pickelhaube", "projector", "sandbar", "schipperke", "stingray", "stupa", "syringe"),
    *("tench", "thimble", "wool"),
    # coco
    *("backpack", "banana", "cake", "donut", "laptop", "pizza", "sink", "stop sign"),
    *("surfboard", "umbrella", "vase", "zebra"),
)

# Names of files that came after the draw and share a word with one of the 60: left out with it.
_LATER = ("carrot plant", "mandarin orange")
_FOLDED = frozenset(name.casefold() for name in (*HELD_OUT, *_LATER))


def is_held_out(label: str) -> bool:
    """Whether a label is one of the 60 or names the same thing, whatever its case."""
    return label.strip().casefold() in _FOLDED
