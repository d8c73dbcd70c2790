"""The models that have a name: what each can be asked, its licence, its size, what it consists of.

One table serves `TextSAM.from_pretrained("sam2.1-small")`, `textsam models`, `textsam doctor` and
docs/models.md. A model is a core (a SAM) and, where it takes phrases, a detector or a map source
beside it. Hub ids are those in the documentation of transformers. Parameters were counted on the
networks that transformers builds from the published sizes, 4 bytes each in files of float32.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any, Literal

__all__ = ["MODELS", "ModelEntry", "Repository", "find_entry", "find_repository", "nearest_name"]

Ask = Literal["text", "points", "boxes", "mask", "automatic"]
_CLICKS: tuple[Ask, ...] = ("points", "boxes", "mask", "automatic")


@dataclass(frozen=True, kw_only=True)
class Repository:
    """Published weights.

    Attributes:
        id: Hub id, or the name of the file where the authors publish a file only.
        parameters: Millions; None if unknown.
        license: Of the weights.
        gated: Whether its owners must be asked for access.
        page: Where a file is downloaded by hand; None for repositories of the hub.
    """

    id: str
    parameters: float | None
    license: str = "Apache-2.0"
    gated: bool = False
    page: str | None = None

    @property
    def short(self) -> str:
        """The id without its owner, in lower case: also a name for it."""
        return _plain(self.id.rpartition("/")[2])


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model with a name.

    Attributes:
        name: What `from_pretrained` and `--model` take.
        core: The SAM that decodes masks.
        detector: What finds boxes for phrases, or None.
        map_source: What makes a map of a phrase, or None.
        takes_text: Whether the core itself takes phrases.
        aliases: Other names; the core's hub id is one too if there is nothing else in the model.
        shipped: Whether it lies inside the package.
    """

    name: str
    core: Repository
    detector: Repository | None = None
    map_source: Repository | None = None
    takes_text: bool = False
    aliases: tuple[str, ...] = ()
    shipped: bool = False

    @property
    def repositories(self) -> tuple[Repository, ...]:
        """All parts, the core first."""
        parts = (self.core, self.detector, self.map_source)
        return tuple(part for part in parts if part is not None)

    @property
    def asks(self) -> tuple[Ask, ...]:
        """What it can be asked."""
        has_text = self.takes_text or len(self.repositories) > 1
        return ("text", *_CLICKS) if has_text else _CLICKS

    @property
    def license(self) -> str:
        """The licences of all parts."""
        return " + ".join(dict.fromkeys(part.license for part in self.repositories))

    @property
    def gated(self) -> bool:
        """Whether access to a part must be asked for."""
        return any(part.gated for part in self.repositories)

    @property
    def parameters(self) -> float | None:
        """Millions, over all parts; None if one is unknown."""
        counts = [part.parameters for part in self.repositories]
        known = [count for count in counts if count is not None]
        return round(sum(known), 1) if len(known) == len(counts) else None

    @property
    def megabytes(self) -> int | None:
        """Size of the files, 10^6 bytes; None if unknown."""
        if self.shipped:
            return 48  # the most that the package allows its model, which is float16
        return None if self.parameters is None else round(4 * self.parameters)

    @property
    def memory_megabytes(self) -> int | None:
        """Memory of the weights in float32, 10^6 bytes: 4 bytes each; a photo comes on top."""
        return None if self.megabytes is None else self.megabytes * (2 if self.shipped else 1)

    @property
    def load_line(self) -> str:
        """The Python that loads it."""
        name = self.core.id if self.core.page is not None else self.name
        return f'TextSAM.from_pretrained("{name}")'

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values, those that are computed included."""
        return {
            **asdict(self),
            "asks": list(self.asks),
            "license": self.license,
            "gated": self.gated,
            "parameters": self.parameters,
            "megabytes": self.megabytes,
            "memory_megabytes": self.memory_megabytes,
            "load_line": self.load_line,
        }


_SHORT_21 = ("sam2.1-", "sam2-", "sam2.1-hiera-", "sam2-hiera-")
_SAM_B = Repository(id="facebook/sam-vit-base", parameters=93.7)
_SAM21_B = Repository(id="facebook/sam2.1-hiera-base-plus", parameters=80.9)
_DINO_T = Repository(id="IDEA-Research/grounding-dino-tiny", parameters=172.3)
_DINO_B = Repository(id="IDEA-Research/grounding-dino-base", parameters=232.3)
_MM_DINO = Repository(
    id="openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_v3det", parameters=172.3
)
_OWL = Repository(id="google/owlv2-base-patch16-ensemble", parameters=155.0)
_OMDET = Repository(id="omlab/omdet-turbo-swin-tiny-hf", parameters=115.4)
_CLIPSEG = Repository(id="CIDAS/clipseg-rd64-refined", parameters=150.7)

MODELS: tuple[ModelEntry, ...] = (
    ModelEntry(
        name="tiny",
        core=Repository(id="tiny", parameters=None),
        takes_text=True,
        shipped=True,
    ),
    ModelEntry(
        name="sam-vit-base", core=_SAM_B, aliases=("sam", "sam-base", "sam-b", "vit-b", "sam-vit-b")
    ),
    ModelEntry(
        name="sam-vit-large",
        core=Repository(id="facebook/sam-vit-large", parameters=312.3),
        aliases=("sam-large", "sam-l", "vit-l", "sam-vit-l"),
    ),
    ModelEntry(
        name="sam-vit-huge",
        core=Repository(id="facebook/sam-vit-huge", parameters=641.1),
        aliases=("sam-huge", "sam-h", "vit-h", "sam-vit-h"),
    ),
    ModelEntry(
        name="mobile-sam",
        # The authors publish a file in their repository and none on the hub.
        core=Repository(
            id="mobile_sam.pt",
            parameters=9.8,
            page="https://github.com/ChaoningZhang/MobileSAM/tree/master/weights",
        ),
        aliases=("mobilesam", "vit-t"),
    ),
    *(
        ModelEntry(
            name=f"sam-hq-{size}",
            core=Repository(id=f"syscv-community/sam-hq-vit-{size}", parameters=parameters),
            aliases=(f"sam-hq-{size[0]}",),
        )
        for size, parameters in (("base", 94.8), ("large", 313.7), ("huge", 642.7))
    ),
    *(
        ModelEntry(
            name=f"sam2.1-{size}",
            core=Repository(id=f"facebook/sam2.1-hiera-{size}", parameters=parameters),
            # And as other projects shorten them: "sam2.1_l", "sam2_hiera_l".
            aliases=(
                f"sam2-{size}",
                f"sam2-hiera-{size}",
                *(f"{p}{size[0]}" for p in _SHORT_21),
                *aliases,
            ),
        )
        for size, parameters, aliases in (
            ("tiny", 39.0, ()),
            ("small", 46.1, ()),
            ("base-plus", _SAM21_B.parameters, ("sam2.1", "sam2", "sam2.1-base")),
            ("large", 224.4, ()),
        )
    ),
    ModelEntry(
        name="edgetam",
        core=Repository(id="yonigozlan/EdgeTAM-hf", parameters=13.0),
        aliases=("edge-tam",),
    ),
    ModelEntry(
        name="sam3",
        core=Repository(id="facebook/sam3", parameters=840.4, license="SAM License", gated=True),
        takes_text=True,
        aliases=("sam-3",),
    ),
    ModelEntry(name="grounded-sam", core=_SAM_B, detector=_DINO_T, aliases=("groundedsam",)),
    ModelEntry(name="grounded-sam-base", core=_SAM_B, detector=_DINO_B),
    ModelEntry(name="grounded-sam2", core=_SAM21_B, detector=_DINO_T, aliases=("grounded-sam2.1",)),
    ModelEntry(
        name="mm-grounded-sam", core=_SAM_B, detector=_MM_DINO, aliases=("mm-grounding-dino-sam",)
    ),
    ModelEntry(name="owlv2-sam", core=_SAM_B, detector=_OWL, aliases=("owl-sam",)),
    ModelEntry(name="omdet-sam", core=_SAM_B, detector=_OMDET, aliases=("omdet-turbo-sam",)),
    ModelEntry(name="clipseg-sam", core=_SAM_B, map_source=_CLIPSEG),
)


def find_entry(name: str) -> ModelEntry | None:
    """The model of a name, alias or hub id; `_` is `-` and capitals do not count."""
    for entry in MODELS:
        names = (entry.name, *entry.aliases)
        # The hub id of a core that several models share means the core alone.
        own = (entry.core.id, entry.core.short) if len(entry.repositories) == 1 else ()
        if _plain(name) in map(_plain, (*names, *own)):
            return entry
    return None


def find_repository(name: str) -> Repository | None:
    """The published weights of a hub id or its part after the owner: `"grounding-dino-tiny"`."""
    plain = _plain(name)
    known = _repositories()
    return next((part for part in known if plain in (_plain(part.id), part.short)), None)


def nearest_name(name: str) -> str | None:
    """The name, alias or hub id that was probably meant, or None if none is alike."""
    known = [known for entry in MODELS for known in (entry.name, *entry.aliases)]
    known += [part.id for part in _repositories()]
    plain = {_plain(each): each for each in known}
    # Files of the releases: "sam_vit_h_4b8939.pth", "sam2.1_l.pt".
    stem = re.sub(r"(-[0-9a-f]{6})?\.(pth?|bin|safetensors)$", "", _plain(name))
    near = get_close_matches(stem, plain, n=1)
    return plain[near[0]] if near else None


def _repositories() -> Iterable[Repository]:
    return dict.fromkeys(part for entry in MODELS for part in entry.repositories)


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
