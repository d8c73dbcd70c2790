"""Settings of the stages of `tiny`: sources, shares, rates and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from ...data import LoaderConfig, Sample, ViewConfig, load_samples
from ...data.phrases.names import NameConfig, NameRules
from ...data.phrases.pasting import PasteConfig
from ...data.phrases.phrase_batch import PhraseConfig
from ...data.plan import is_kept_out
from ...engine import EngineConfig
from ...losses import LossConfig
from ...objectives.joint import JointObjectiveConfig
from ...objectives.name_maps import NameLossConfig
from ...objectives.sam_objective import BackboneConfig
from ...prompting import PromptConfig
from ..sources import DataMix
from .held_out_names import is_held_out
from .lexicon import LABELS, Lexicon

StageName = Literal[
    "clip", "dense", "points", "full", "joint", "final", "wide", "words", "broad", "export"
]

# Files of the training data; every stage trains on some of them.
FILES = (
    *("voc", "named_objects", "clothing", "coco_person", "car_parts", "coco", "coco_panoptic"),
    *("animals", "coco_stuff", "facades", "faces", "nuclei", "objects", "people", "rail_parts"),
    "voc2007_instances",
)
# Share of the photos drawn from each file of the training data; small and part masks are
# over-sampled, since a core trained on whole things alone takes the salient thing, not the clicked
# one.
SOURCES = {
    "voc": 0.26,
    "named_objects": 0.16,
    "clothing": 0.11,
    "coco_person": 0.06,
    "car_parts": 0.16,
    "coco": 0.15,
    "coco_panoptic": 0.10,
}
# More whole things, or the first reading of a click is too often a part.
_WHOLE_SOURCES = {
    "voc": 0.28,
    "named_objects": 0.22,
    "clothing": 0.07,
    "coco_person": 0.08,
    "car_parts": 0.12,
    "coco": 0.14,
    "coco_panoptic": 0.09,
}
# COCO's more than its size, for its 80 names.
_NAMED_SOURCES = {
    "voc": 0.27,
    "named_objects": 0.20,
    "clothing": 0.08,
    "coco_person": 0.06,
    "car_parts": 0.13,
    "coco": 0.18,
    "coco_panoptic": 0.08,
}
# The long last stage sees COCO's few photos less often, and whole things more often.
_LONG_SOURCES = {
    "voc": 0.29,
    "named_objects": 0.22,
    "clothing": 0.08,
    "coco_person": 0.07,
    "car_parts": 0.13,
    "coco": 0.15,
    "coco_panoptic": 0.06,
}

# All files. Those of one kind of thing (nuclei, street fronts) a little: enough for their names.
_BROAD_SOURCES = {
    "voc": 0.20,
    "named_objects": 0.15,
    "clothing": 0.07,
    "coco_person": 0.03,
    "car_parts": 0.08,
    "coco": 0.11,
    "coco_panoptic": 0.09,
    "animals": 0.06,
    "coco_stuff": 0.02,
    "facades": 0.05,
    "faces": 0.04,
    "nuclei": 0.01,
    "objects": 0.04,
    "people": 0.025,
    "rail_parts": 0.01,
    "voc2007_instances": 0.015,
}

_CARS = frozenset({"car", "bus", "truck", "train", "motorcycle", "bicycle"})
_STREET = frozenset(
    {"road", "pavement", "ground", "sky", "tree", "vegetation", "building", "person"}
)
RULES = NameRules(
    complete=frozenset({"named_objects"}),  # photos of one thing
    own_only=frozenset({"coco_person"}),  # everything but people is without annotation there
    partial=frozenset({"coco_person", "people", "animals", "facades", "objects", "faces"}),
    bare=frozenset({"nuclei", "rail_parts"}),
    common=frozenset({"clothing", "faces", "coco_panoptic", "coco_stuff", "facades", "people"}),
    things=frozenset({"voc", "coco", "car_parts", "named_objects", "animals"}),
    common_names=frozenset(
        {"leaf", "stem", "root", "dish", "plate", "field", "building", "sky", "road", "river"}
        | {"crack", "face", "bottle", "mug"}
    ),
    unannotated={
        "car_parts": _CARS | _STREET,  # each shows a car, whole and without annotation
        "facades": _CARS
        | {"person", "bench", "traffic light", "potted plant", "umbrella", "chair"},
        "people": _CARS
        | {"chair", "bottle", "bench", "backpack", "handbag", "traffic light", "tv"},
        "objects": frozenset({"person", "dining table", "car", "spoon", "fork", "knife", "chair"}),
        "clothing": frozenset({"cell phone", "handbag", "car", "chair", "umbrella", "bicycle"}),
        "faces": frozenset({"tie"}),
        "animals": frozenset({"person", "couch", "chair", "bed", "potted plant"}),
        "rail_parts": frozenset({"wheel", "headlight", "rear window", "window"}),
    },
    # Clothes have the colour that people mean; the pixels of a face are of no one colour.
    colourless=frozenset(
        {"person", "skin", "face", "head", "eye", "eyebrow", "nose", "mouth", "lips", "neck", "ear"}
        | {"cell nucleus", "crack", "accessories", "light", "mirror", "window"}
    ),
    distinct=frozenset(
        {"animal", "vehicle", "bird", "fish", "insect", "reptile", "snake", "monkey", "ship"}
        | {"musical instrument", "weapon", "aircraft", "fruit", "pet", "bear", "boat"}
    ),
)
_PASTE = PasteConfig(
    probability=0.35,
    donors={"named_objects": 0.6, "coco": 0.25, "voc": 0.15},
    never_on=("coco_person", "clothing"),
)

# Smallest masks that are prompted, in pixels of a 384 px frame; other frames take the same share.
_MIN_AREA = 40
DENSE_PHRASES = PhraseConfig(
    max_masks=0, names=NameConfig(max_present=4, max_absent=4, rules=RULES)
)
DENSE_LOSS = NameLossConfig(peak=0.0)
CORE_BACKBONE = BackboneConfig(rate=1 / 8, frozen_stages=3, train_depthwise=False)


_BROAD_NAMES = NameConfig(
    max_present=6,
    max_absent=6,
    max_inside=4,
    image_share=0.35,
    kind_share=0.25,
    colour_share=0.15,
    rules=RULES,
)
# `words`: the dense head alone on the frozen core, several times as many photos as `broad` in the
# same time.
WORDS_PHRASES = PhraseConfig(max_masks=0, names=_BROAD_NAMES, paste=_PASTE)


def dense_loader(*, seed: int, workers: int) -> LoaderConfig:
    """Views of `dense`: all masks of a photo, since the union of a name needs them."""
    view = ViewConfig(max_masks=80, min_area=1, max_share=1.0, jitter=0.5, scale=(0.6, 1.6))
    return LoaderConfig(photos_per_step=8, workers=workers, seed=seed, view=view)


def points_loader(*, seed: int, workers: int, image_size: int) -> LoaderConfig:
    """Views of `points`."""
    view = ViewConfig(image_size=image_size, min_area=_scaled(_MIN_AREA, image_size))
    return LoaderConfig(photos_per_step=8, workers=workers, seed=seed, view=view)


@dataclass(frozen=True, kw_only=True)
class JointStage:
    """A stage that trains masks and names together."""

    after: tuple[StageName, ...]  # the stages whose results it starts from, in this order
    image_size: int  # side of the model's frame, pixels
    seed: int  # added to the recipe's
    images: int = 8  # photos in a step
    shares: Mapping[str, float]  # of the sources
    peak_rate: float  # learning rate of the decoder, the prompt encoder and the neck
    warmup: int  # steps in which the rates rise
    tail: float  # share of the steps in which they fall
    ema_decay: float | None = None  # of the averaged weights, which are then the stage's result
    view: ViewConfig  # how a photo is shown
    phrases: PhraseConfig  # what is asked about it
    objective: JointObjectiveConfig  # prompts and losses


def _view(image_size: int, *, focus: float, colour: float = 0.0) -> ViewConfig:
    """All masks of a photo, down to a tenth of the area that is prompted."""
    return ViewConfig(
        image_size=image_size,
        max_masks=80,
        min_area=_scaled(_MIN_AREA // 10, image_size),
        max_share=1.0,
        focus=focus,
        colour=colour,
    )


def _phrases(image_size: int, *, phrase_share: float, point_share: float) -> PhraseConfig:
    return PhraseConfig(
        min_area=_scaled(_MIN_AREA, image_size),
        max_share=0.9,
        phrase_share=phrase_share,
        point_share=point_share,
        names=NameConfig(rules=RULES),
        paste=_PASTE,
    )


def _prompts(**others: float) -> PromptConfig:
    """Four rounds of up to four new points each, or none, instead of eleven rounds of one."""
    return PromptConfig(max_new_points=(1, 2, 4), central=0.5, **others)  # type: ignore[arg-type]


def _scaled(area: int, image_size: int) -> int:
    """The area that is the same share of a frame as `area` is of one of 384 px."""
    return max(1, int(area * (image_size / 384) ** 2))


JOINT_STAGES: dict[StageName, JointStage] = {
    # The core nearer to its full size, a third of the photos asked by phrase. The dense head still
    # reads CLIP's trunk, and was trained before.
    "full": JointStage(
        after=("points", "dense"),
        image_size=320,
        seed=1,
        shares=_WHOLE_SOURCES,
        peak_rate=8e-4,
        warmup=50,
        tail=0.5,
        view=ViewConfig(image_size=320),
        phrases=PhraseConfig(max_masks=None, phrase_share=0.3, names=None),
        objective=JointObjectiveConfig(
            prompts=PromptConfig(points=2, silent_among=0, silent_last=0),
            train_dense=False,
            backbone=CORE_BACKBONE,
        ),
    ),
    # Masks and names in one backbone: the dense head now reads the core's own maps.
    "joint": JointStage(
        after=("full",),
        image_size=384,
        seed=2,
        shares=_NAMED_SOURCES,
        peak_rate=5e-4,
        warmup=100,
        tail=0.6,
        view=_view(384, focus=0.3),
        phrases=_phrases(384, phrase_share=0.35, point_share=0.4),
        objective=JointObjectiveConfig(prompts=_prompts(), pathway_rate=2.0),
    ),
    # On at the size of use, with more exact boxes than the paper's: see `training/RUNS.md`, 3.
    "final": JointStage(
        after=("joint",),
        image_size=512,
        seed=3,
        images=6,
        shares=_NAMED_SOURCES,
        peak_rate=3e-4,
        warmup=60,
        tail=0.75,
        view=_view(512, focus=0.35),
        phrases=_phrases(512, phrase_share=0.35, point_share=0.5),
        objective=JointObjectiveConfig(
            prompts=_prompts(box_noise=0.05, box_noise_limit=10 / 1024), pathway_rate=2.0
        ),
    ),
    # On with all of the backbone but its stem and norms, many photos a step and changed colours:
    # see `training/RUNS.md`, 4.
    "wide": JointStage(
        after=("final",),
        image_size=512,
        seed=5,
        images=32,
        shares=_LONG_SOURCES,
        peak_rate=6e-4,
        warmup=100,
        tail=0.9,
        ema_decay=0.995,
        view=_view(512, focus=0.35, colour=0.3),
        phrases=_phrases(512, phrase_share=0.4, point_share=0.5),
        objective=JointObjectiveConfig(
            prompts=_prompts(box_noise=0.05, box_noise_limit=10 / 1024),
            backbone=BackboneConfig(rate=0.2, frozen_stages=0),
            pathway_rate=2.0,
        ),
    ),
    # On with all files, kinds and colours, for as long as there is time: see `training/RUNS.md`, 6.
    "broad": JointStage(
        after=("wide", "words"),
        image_size=512,
        seed=6,
        images=8,
        shares=_BROAD_SOURCES,
        # With 3e-4 and eight photos a step, masks got worse than those that it started from.
        peak_rate=1e-4,
        warmup=50,
        tail=0.4,
        ema_decay=0.998,
        view=_view(512, focus=0.35, colour=0.2),
        phrases=replace(
            _phrases(512, phrase_share=0.4, point_share=0.5), kind_share=0.15, names=_BROAD_NAMES
        ),
        objective=JointObjectiveConfig(
            prompts=_prompts(box_noise=0.05, box_noise_limit=10 / 1024),
            loss=LossConfig(boundary=2.0),
            backbone=BackboneConfig(
                rate=0.3, frozen_stages=2, train_depthwise=False, added_rate=3.0
            ),
            pathway_rate=4.0,
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class TinySettings:
    """Options of a training of `tiny`, and what its stages share."""

    data: Path = Path("../shared/data/train")  # folder of the training Parquet files
    runs: Path = Path("runs/tiny")  # takes a folder for each stage
    # Those to go through, in their order; all of them by default
    stages: tuple[StageName, ...] = get_args(StageName)
    seed: int = 0  # of every stage
    text_epochs: float = 2.0  # passes over the phrases that the text tower learns
    head_steps: int = 3000  # length of the training of CLIP's image head
    dense_steps: int = 650  # length of the stage, as the others'
    points_steps: int = 2000  # at 256 px
    full_steps: int = 1200  # at 320 px
    joint_steps: int = 2000  # at 384 px
    final_steps: int = 1500  # at 512 px
    wide_steps: int = 2670  # of 32 photos each: 0.2 s on an H200, 20 s on a CPU core
    words_steps: int = 2000  # of 8 photos each: 2 to 3 s on a CPU core
    broad_steps: int = 3000  # likewise: 6 to 10 s
    # Photos in a step of the stages from `full` on; each has its own number by default
    images: int | None = None
    # Model that `broad` starts from, e.g. `tiny`, in place of the stages before it; `clip` then
    # computes embeddings with the CLIP of that model
    init_from: str | None = None
    workers: int = 0  # processes that make batches, for each training process
    # Leave the 60 names of `held_out_names` out of everything, for
    # `training.studies.unseen_names`
    hold_out_names: bool = False
    precision: Literal["no", "bf16"] = "no"  # "bf16" computes the forward pass of every stage in it
    cpu: bool = False  # stay on the CPU even where there is a GPU
    seconds: float = float("inf")  # stop each stage after so long, with a checkpoint
    threads: int = 2  # of torch in each process

    def samples(self) -> dict[str, list[Sample]]:
        """All training photos by file, without those names that are held out."""
        return _read_samples(self.data, self.hold_out_names)

    def lexicon(self) -> Lexicon:
        """Words for the labels of all training photos."""
        rows = self.samples().values()
        return Lexicon({item.label for row in rows for sample in row for item in sample.objects})

    def mix(self, shares: Mapping[str, float], *, kept_out: bool = False) -> DataMix:
        """The training photos; with `kept_out` without those that `export` calibrates on."""
        samples = {
            name: [s for row, s in enumerate(rows) if not (kept_out and is_kept_out(row))]
            for name, rows in self.samples().items()
        }
        return DataMix(sources={name: samples[name] for name in shares}, shares=shares)

    def kept_out(self) -> dict[str, list[Sample]]:
        """The photos that `wide` does not see and `export` chooses and calibrates on."""
        return {
            name: [s for row, s in enumerate(rows) if is_kept_out(row)]
            for name, rows in self.samples().items()
        }

    def steps_of(self, name: StageName) -> int:
        """Length of a stage."""
        return int(getattr(self, f"{name}_steps"))

    def engine(self, **others: Any) -> EngineConfig:
        """Warm-up, plateau and linear decay by default; a checkpoint every 100 steps."""
        fields: dict[str, Any] = {
            "seed": self.seed,
            "schedule": "linear",
            "weight_decay": 0.05,
            "precision": self.precision,
            "cpu": self.cpu,
            "checkpoint_every": 100,
            "seconds": self.seconds,
            "timeout": 24 * 3600.0,  # while the first process computes embeddings, the others wait
        }
        return EngineConfig(**{**fields, **others})


@cache
def _read_samples(data: Path, hold_out_names: bool) -> dict[str, list[Sample]]:
    samples = {
        name: [_with_labels(sample) for sample in load_samples([data / f"{name}.parquet"])]
        for name in FILES
    }
    if not hold_out_names:
        return samples
    return {
        name: [kept for sample in rows if (kept := _without_names(sample)).objects]
        for name, rows in samples.items()
    }


def _with_labels(sample: Sample) -> Sample:
    """The photo with the labels that training uses."""
    if not any(o.label in LABELS for o in sample.objects):
        return sample
    objects = [replace(o, label=LABELS.get(o.label, o.label)) for o in sample.objects]
    return replace(sample, objects=tuple(objects))


def _without_names(sample: Sample) -> Sample:
    """The photo without its objects of held-out names."""
    return replace(sample, objects=tuple(o for o in sample.objects if not is_held_out(o.label)))
