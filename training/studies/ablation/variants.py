"""What is compared: groups of variants that differ in one thing from a reference.

The paper's Figure 13 has three panels. Its shares of data (0.1M, 1M and all 11M images of SA-1B:
1%, 9%, 100%) and its image encoders (ViT-B, L, H) have a counterpart here. Its first panel, the
stages of the data engine, has none: we have one set of masks. Ours are the mix of first prompts, of
which the paper gives one (half points, half boxes, Appendix A), and what the text pathway is
trained on: image embeddings alone (Section 7.5), or names of the masks as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from typing import Any, Literal

Group = Literal["data", "encoder", "prompts", "seed", "pathway"]


@dataclass(frozen=True, kw_only=True)
class CoreSettings:
    """A SAM core, trained on points and boxes from an ImageNet backbone."""

    seed: int = 0  # of the weights, the photos and the prompts. Not of the choice of photos.
    data_share: float = 1.0  # share of the photos; a smaller one is a part of every larger one
    # Key of `pretrained.STAGE_DEPTHS`, or a `timm` model with random weights.
    backbone: str = "lite0"
    # Whether the backbone's late stages learn, as in `recipes.tiny`; else none does.
    tuned: bool = True
    box_probability: float = 0.5  # that the first prompt is a box and not a point
    steps: int = 200  # length of the run
    image_size: int = 128  # side of the frame, pixels
    width: int = 64  # of the decoder and the neck
    photos_per_step: int = 8
    masks: int = 3  # most masks of a photo
    rounds: int = 2  # decoder calls for a mask; every one after the first adds a point
    # Peak learning rate of everything but the backbone; high, since the run is so short.
    rate: float = 2e-3
    # Share of it that the backbone learns at; `recipes.tiny` has 1e-4 of 8e-4.
    backbone_rate: float = 0.125


@dataclass(frozen=True, kw_only=True)
class PathwaySettings:
    """A text pathway, trained between a frozen core and its frozen CLIP."""

    seed: int = 0  # of the weights and of the photos' order
    # Probability that a mask is asked by the text of its name; by the CLIP embedding of its crop
    # otherwise, which is all that the paper does.
    label_share: float = 0.0
    centring: bool = False  # subtract each modality's own mean
    # Standard deviation of the noise on image embeddings, as a share of their length.
    noise: float = 0.0
    core: str = "tiny"  # model with a CLIP, as `TextSAM.from_pretrained` takes it
    photos: int = 300  # how many are used; both towers see them once, beforehand
    variants: int = 2  # crops of each mask
    steps: int = 150  # length of the run
    image_size: int = 256  # side of the frame, pixels
    photos_per_step: int = 8
    masks: int = 3  # most masks of a photo
    rate: float = 1e-3  # peak learning rate


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the table.

    Two variants with equal settings are one run: the reference of a group is trained once.
    """

    group: str
    name: str  # what is special about it
    settings: CoreSettings | PathwaySettings  # all that its weights depend on, but for the data
    is_reference: bool = False  # whether the others of its group are compared with it

    @property
    def kind(self) -> str:
        """`"core"` or `"pathway"`."""
        return "core" if isinstance(self.settings, CoreSettings) else "pathway"

    def key(self, others: Mapping[str, Any]) -> str:
        """12 hexadecimal digits that change with the settings or with the data."""
        content = {"kind": self.kind, "settings": asdict(self.settings), "others": others}
        return blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=6).hexdigest()


def ablation_variants(*, core: CoreSettings, pathway: PathwaySettings) -> Sequence[Variant]:
    """All variants, by group; the first of each is its reference."""
    # Group -> name of the variant -> what it changes of the reference.
    changes: dict[Group, dict[str, dict[str, Any]]] = {
        "data": {
            "100%": {},
            "25%": {"data_share": 0.25},
            "5%": {"data_share": 0.05},
            "1%": {"data_share": 0.01},
        },
        "encoder": {
            "lite0, late stages tuned": {},
            "lite0, frozen": {"tuned": False},
            "lite2, late stages tuned": {"backbone": "lite2"},
        },
        "prompts": {
            "half points, half boxes": {},
            "points only": {"box_probability": 0.0},
            "boxes only": {"box_probability": 1.0},
        },
        "seed": {"seed 0": {}, "seed 1": {"seed": core.seed + 1}},
        "pathway": {
            "images only (the paper)": {},
            "images only, centred": {"centring": True},
            "images only, noise 0.3": {"noise": 0.3},
            "half images, half names": {"label_share": 0.5},
            "names only": {"label_share": 1.0},
            "images only, seed 1": {"seed": pathway.seed + 1},
        },
    }
    return [
        Variant(
            group=group,
            name=name,
            settings=replace(pathway if group == "pathway" else core, **change),
            is_reference=not change,
        )
        for group, names in changes.items()
        for name, change in names.items()
    ]
