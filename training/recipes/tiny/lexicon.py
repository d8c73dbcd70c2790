"""Words for the labels of the training data: synonyms, kinds, and which names may cover each other.

WordNet gives most of them. The tables below add what it lacks (the names of parts, of clothes and
of surfaces) and what its first senses get wrong (the hood of a car is no hoodlum).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .wordnet import nouns, plural


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split(", "))


# Spellings that differ between files -> the one that training uses.
LABELS: Mapping[str, str] = {
    "cellphone": "cell phone",
    "playingfield": "playing field",
    "water lilly": "water lily",
    "floor wood": "wood floor",
    "wall tile": "tile wall",
    "wall brick": "brick wall",
    "wall stone": "stone wall",
    "wall wood": "wood wall",
    "binocular": "binoculars",
    "car wheel": "wheel",
    "plane": "carpenter's plane",
    "monitor": "computer monitor",
}

# Other words for a label; WordNet's come in addition, except where a label is in `_OTHER_SENSE`.
_SYNONYMS: Mapping[str, str] = {
    "person": "people, human, human being, man, woman, boy, girl, child, kid, adult, guy, lady, "
    "pedestrian, men, women, children, somebody, figure, passer-by",
    "wheel": "tire, tyre, car wheel, rim, wheel of a car",
    "car door": "door of a car, vehicle door",
    "taillight": "tail light, back light, brake light",
    "headlight": "head light, headlamp, front light",
    "hood": "bonnet, car hood, engine hood",
    "bumper": "fender, car bumper",
    "mirror": "side mirror, wing mirror, rearview mirror, looking glass",
    "windshield": "windscreen, front window, front windshield",
    "rear window": "back window, rear windshield",
    "trunk": "car trunk, trunk lid",
    "tailgate": "tail gate, tail board",
    "couch": "sofa, settee",
    "tv": "television, tv set, tv monitor, television set, monitor, screen, display",
    "cell phone": "mobile phone, cellphone, smartphone, phone, mobile, telephone",
    "motorcycle": "motorbike, moped",
    "bicycle": "bike, cycle, pushbike",
    "potted plant": "houseplant, pot plant, flowerpot",
    "dining table": "kitchen table",
    "airplane": "aeroplane, plane, jet, aircraft",
    "truck": "lorry, pickup, pickup truck",
    "train": "railway train, tram, locomotive",
    "bus": "coach, autobus",
    "donut": "doughnut",
    "remote": "remote control",
    "hair drier": "hair dryer",
    "mouse": "computer mouse",
    "pavement": "sidewalk, footpath, walkway",
    "road": "street, roadway, lane, asphalt, route",
    "vegetation": "greenery, bushes, foliage, shrubs, plants",
    "building": "house front, facade, edifice, skyscraper",
    "grass": "lawn, meadow, turf, grassland",
    "tree": "trees, woods, forest",
    "sea": "ocean, water",
    "sky": "clear sky, blue sky, heavens",
    "cloud": "clouds",
    "sand": "beach, sandy ground",
    "dirt": "soil, bare ground, earth, mud",
    "snow": "snowy ground",
    "shop": "store, storefront, shop window",
    "balcony railing": "railing, balcony",
    "fence": "fencing, railings",
    "rug": "mat, carpet",
    "curtain": "curtains, drapes",
    "light": "lamp, lights",
    "clothing": "clothes, garment, outfit, apparel",
    "hair": "hairs, hairdo, haircut",
    "face": "human face, facial",
    "mouth": "mouths",
    "lips": "lip",
    "eyeglasses": "spectacles, glasses, eyeglass",
    "sunglasses": "shades, dark glasses",
    "pants": "trousers, slacks",
    "jeans": "denim pants, blue jeans",
    "sneakers": "trainers, sports shoes, running shoes",
    "skin": "bare skin",
    "t-shirt": "tee shirt, tee",
    "coat": "overcoat",
    "sweater": "pullover",
    "head": "heads, animal head",
    "cell nucleus": "nucleus, nuclei, cell, cells",
    "mandarin orange": "mandarin, tangerine, clementine",
    "helmet": "hard hat, safety helmet",
    "safety vest": "high-visibility vest, reflective vest, hi-vis vest",
    "earmuffs": "ear defenders, ear protectors",
    "goggles": "safety glasses",
    "bogie": "undercarriage, train wheels",
    "ice cream": "icecream",
    "plate": "plates",
    "dish": "meal, dish of food",
    "weed": "weeds",
    "crack": "cracks, crack in a wall",
}
# Labels whose first sense in WordNet is another thing.
_OTHER_SENSE = _words(
    "hood, trunk, bumper, mouse, crane, remote, shoes, head, mirror, light, top, wedges, "
    "pick, tick, hat, wheel, sink, bass, ring, tie, flats, heels, pumps, shorts, tights, "
    "face, crack, field, person, net, shop, cape, vest, boxer, counter, jumper, suit, "
    "plastic, barrow, house, mask, bee, cup, bow, drake, cock, jay, joystick, ram, grass, "
    "rice, angora, lhasa, titi, bighorn, beacon"
)
# A kind -> labels that belong to it, beside those of WordNet.
_KINDS: Mapping[str, str] = {
    "vehicle": "car, truck, bus, train, motorcycle, bicycle, boat, airplane",
    "animal": "dog, cat, horse, cow, sheep, bird, fish, goat, swan, elephant, bear, zebra, giraffe",
    "pet": "dog, cat",
    "furniture": "chair, couch, dining table, table, bed, bench, desk, cabinet, shelf",
    "food": "pizza, sandwich, hot dog, donut, cake, banana, apple, orange, broccoli, carrot, dish, "
    "salad, rice, tofu, tempeh, ice cream, mandarin orange, chilli chicken, tandoori chicken, "
    "gulab jamun, fried tofu, fried tempeh, fried catfish, fried mackerel, food, bagel",
    "fruit": "banana, apple, orange, mandarin orange, strawberry, pineapple, lemon, fruit",
    "vegetable": "broccoli, carrot, cucumber, cabbage, cauliflower, mushroom",
    "plant": "potted plant, tree, vegetation, grass, flower, weed, carrot plant, bonsai, sunflower",
    "clothing": "coat, pants, blouse, dress, shirt, jeans, skirt, blazer, stockings, suit, "
    "sweater, jacket, t-shirt, vest, leggings, shorts, sweatshirt, top, cape, romper, jumper, "
    "cardigan, bodysuit, tights, hoodie, clothing, safety vest, socks",
    "footwear": "shoes, boots, sandals, sneakers, heels, loafers, pumps, flats, wedges",
    "shoes": "shoes, sneakers, heels, loafers, pumps, flats, boots, sandals, wedges",
    "bag": "bag, purse, handbag, backpack, suitcase, wallet",
    "glasses": "glasses, eyeglasses, sunglasses, goggles",
    "hat": "hat, helmet, cowboy hat, bonnet, sombrero",
    "jewelry": "necklace, ring, earrings, earring, bracelet",
    "earring": "earring, earrings",
    "container": "bottle, cup, bowl, wine glass, vase, mug, bucket, barrel",
    "cup": "cup, mug",
    "ball": "sports ball",
    "cutlery": "fork, knife, spoon",
    "tableware": "plate, dish, bowl, cup, mug, wine glass, fork, knife, spoon",
    "appliance": "microwave, oven, toaster, refrigerator",
    "electronics": "tv, laptop, cell phone, keyboard, remote, mouse",
    "computer": "laptop, notebook, desktop computer",
    "door": "door, car door",
    "window": "window, rear window, windshield",
    "light": "light, headlight, taillight, lamp, traffic light",
    "table": "dining table, table, desk",
    "seat": "chair, couch, bench",
    "mirror": "mirror",
    "floor": "floor, wood floor, tile floor",
    "wall": "wall, brick wall, stone wall, tile wall, wood wall, concrete wall",
    "ground": "road, pavement, grass, dirt, sand, floor, snow, ground, playing field, gravel, "
    "field",
    "water": "sea, river, water",
    "building": "building, house, shop",
    "head": "head, cougar face, crocodile head, flamingo head",
    "mouth": "mouth, lips",
    "fence": "fence, balcony railing",
    "orange": "orange, mandarin orange",
    "vegetation": "vegetation, tree, grass",
    "field": "field, grass",
}
# Kinds of WordNet that people ask for.
_EVERYDAY = _words(
    "animal, bird, dog, cat, fish, insect, reptile, snake, lizard, monkey, bear, wolf, "
    "rodent, beetle, turtle, spider, shark, vehicle, ship, boat, aircraft, furniture, food, "
    "fruit, vegetable, plant, flower, tree, tool, musical instrument, stringed instrument, "
    "wind instrument, drum, weapon, ball, toy, clothing, garment, hat, footwear, bag, box, "
    "bottle, computer, telephone, clock, timepiece, machine, building, bridge, chair, table, "
    "lamp, sports equipment, kitchen utensil, appliance, fungus, parrot, truck, car, bus, "
    "motor vehicle, crustacean, butterfly, duck"
)
# Names that mean nearly the same or lie on each other: none is called absent where another is.
_ALIKE = (
    "purse, handbag, bag, backpack, wallet, suitcase, accessories",
    "cup, mug, wine glass, bowl, glass, coffee mug",
    "dish, bowl, plate, food, rice, salad, gulab jamun, soup bowl, tofu, tempeh, fried tofu, "
    "fried tempeh, chilli chicken, tandoori chicken, fried catfish, fried mackerel, ice cream",
    "head, face, person, skin, neck, hair, ear, eye, nose, mouth, lips, eyebrow, clothing, legs",
    "jacket, coat, blazer, suit, cardigan, sweater, jumper, hoodie, sweatshirt, cape, vest, top",
    "top, blouse, shirt, t-shirt, sweatshirt, jumper, vest, bodysuit, sweater",
    "pants, jeans, leggings, tights, stockings, shorts, romper, suit",
    "dress, skirt, romper, top, blouse",
    "shoes, boots, sandals, sneakers, heels, loafers, pumps, flats, wedges, socks",
    "glasses, sunglasses, eyeglasses, goggles",
    "earring, earrings, accessories, necklace, bracelet, ring, watch, belt, scarf, gloves, hat",
    "hat, helmet, earmuffs",
    "pavement, road, ground, dirt, floor, sand, gravel, concrete wall, playing field, grass, "
    "tile floor, wood floor, carpet, rug, snow, field, platform, railroad, mud, stone, plastic",
    "dining table, table, desk, counter, furniture, cabinet, shelf, wood, cupboard, door, stuff",
    "tree, vegetation, grass, plant, flower, potted plant, bush, leaf, weed, carrot plant, stem, "
    "root, field, bonsai, mountain, branch",
    "building, house, shop, wall, roof, window, door, balcony railing, bridge, tent, "
    "concrete wall, brick wall, stone wall, tile wall, wood wall, metal, wood, ceiling, fence, "
    "cage",
    "sea, river, water, sky, cloud, fog, snow, mountain",
    "mandarin orange, orange, fruit, apple, food",
    "light, lamp, headlight, taillight, traffic light, spotlight, candle",
    "window, rear window, windshield, mirror, door, car door, tailgate, trunk",
    "rug, carpet, blanket, curtain, towel, cloth, clothing, bed, pillow, mat, textile",
    "car, truck, bus, minivan, cab, jeep, limousine, ambulance, convertible, pickup, vehicle",
    "cell phone, remote, telephone, ipod",
    "tv, laptop, monitor, screen, desktop computer, notebook, keyboard",
    "cow, ox, water buffalo, bison",
    "train, bogie, locomotive, electric locomotive, streetcar, passenger car",
    "paper, cardboard, book, envelope, packet, banner",
)


# Parts -> wholes on which they may be without annotation; kinds stand for all of their labels.
_PARTS: Mapping[str, str] = {
    "wheel, mirror, car door, headlight, bumper, taillight, hood, windshield, rear window, trunk, "
    "tailgate, door, window, bogie, light, metal, grille, seat, steering wheel": "vehicle, car, "
    "truck, bus, train, motorcycle, bicycle, airplane, boat, wheelchair, cab, minivan, pickup, "
    "motor vehicle",
    "head, face, ear, eye, nose, mouth, neck, hair, skin, eyebrow, lips, legs, cougar face, "
    "flamingo head, crocodile head": "animal, person, toy, teddy bear, buddha, garfield, snoopy",
    "clothing, footwear, bag, glasses, hat, jewelry, accessories, belt, scarf, gloves, watch, tie, "
    "shoes, skin, hair, sunglasses, eyeglasses, earring, necklace, helmet, goggles, earmuffs, "
    "safety vest, ring, wallet, person": "person, head, face, skin, neck, hair, ear, clothing, "
    "jacket, coat, dress, shirt, suit, pants, skirt, horse, bicycle, motorcycle, boat",
    "window, door, wall, balcony railing, roof, shop, crack, light, brick wall, stone wall, fence, "
    "tile wall, wood wall, concrete wall, curtain, glasses, mirror, metal, wood": "building, "
    "house, shop, wall, window, door, boat, bus, tv, laptop",
    "leaf, stem, root, flower, vegetation, tree, grass, fruit, dirt": "plant, tree, vegetation, "
    "potted plant, vase, field, carrot plant, weed, animal, bird",
    "dish, plate, food, bowl, cup, fruit, vegetable, rice, tofu, paper, cardboard, plastic, metal, "
    "wood, clothing, cloth, towel, blanket": "dining table, table, desk, plate, dish, bowl, "
    "sandwich, pizza, cake, container, furniture, bed, couch, chair, bag, box",
}


class Lexicon:
    """Words for the labels of a data set.

    Attributes:
        labels: All of them, sorted.
        synonyms: Label -> other words for it.
        kinds: Label -> words for kinds that it belongs to; some are labels themselves.
        members: Kind -> its labels.
    """

    def __init__(self, labels: Iterable[str]) -> None:
        self.labels = sorted(set(labels))
        known = {label.lower(): label for label in self.labels}
        self.synonyms = {label: self._synonyms(label, known) for label in self.labels}
        self.kinds: dict[str, frozenset[str]] = {}
        self.members: dict[str, set[str]] = {}
        for label in self.labels:
            kinds = {kind for kind, names in _KINDS.items() if label in names.split(", ")}
            if label.lower() not in _OTHER_SENSE:
                kinds |= nouns().hypernyms(label.lower()) & _EVERYDAY
            # "car" is a motor vehicle and so on, whatever the file calls it.
            kinds |= {above for kind in list(kinds) for above in _above(kind)}
            self.kinds[label] = frozenset(known.get(kind, kind) for kind in kinds) - {label}
            for kind in self.kinds[label]:
                self.members.setdefault(kind, set()).add(label)
        for kind in self.members:
            if kind in known:
                self.members[kind].add(kind)
        self._alike: dict[str, set[str]] = {}
        for group in _ALIKE:
            names = set(group.split(", "))
            for name in names:
                self._alike.setdefault(name, set()).update(names)
        self._related: dict[str, set[str]] = {}
        self._hosts: dict[str, set[str]] = {}
        for parts, wholes in _PARTS.items():
            on = {
                label
                for whole in wholes.split(", ")
                for label in (whole, *self.members.get(whole, ()))
            }
            for part in parts.split(", "):
                for name in (part, *self.kinds.get(part, ()), *self.members.get(part, ())):
                    self._hosts.setdefault(name, set()).update(on - {name})

    @property
    def names(self) -> list[str]:
        """Labels and kinds."""
        return sorted({*self.labels, *self.members})

    def related(self, name: str) -> set[str]:
        """Names that may be true of what another name is true of, itself included."""
        if name in self._related:
            return self._related[name]
        related = {name, *self.kinds.get(name, ()), *self.members.get(name, ())}
        related |= self._alike.get(name, set())
        # A bus is not absent as a "motor vehicle", nor a "truck" as a "vehicle".
        related |= {kind for label in self.members.get(name, ()) for kind in self.kinds[label]}
        self._related[name] = related
        return related

    def kinds_of(self, label: str) -> frozenset[str]:
        """Words for kinds that a label belongs to."""
        return self.kinds.get(label, frozenset())

    def hosts(self, name: str) -> set[str]:
        """Labels on which a name may lie without annotation."""
        return self._hosts.get(name, set())

    @staticmethod
    def _synonyms(label: str, known: Mapping[str, str]) -> tuple[str, ...]:
        words = [word for word in _SYNONYMS.get(label, "").split(", ") if word]
        if label.lower() not in _OTHER_SENSE:
            words += nouns().synonyms(label.lower())
        if label != label.lower():
            words.append(label.lower())
        words = [
            word for word in dict.fromkeys(words) if word not in known or word == label.lower()
        ]
        singular = _singular(label)
        if singular is not None and singular not in known:
            words.append(singular)
        return tuple(word for word in words if word != label)


def _above(kind: str) -> set[str]:
    return {above for above, names in _KINDS.items() if kind in names.split(", ")}


def _singular(label: str) -> str | None:
    """The word that a label is the regular plural of, if it is one."""
    if label.endswith("glasses"):
        return None  # a glass is something else
    for end in ("es", "s"):
        if label.endswith(end) and plural(label.removesuffix(end)) == label:
            return label.removesuffix(end)
    return None
