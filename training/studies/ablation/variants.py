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
from typing import Any

# What each group asks, as it stands over its panel of the plot.
GROUPS = {
    "data": "Share of the photos",
    "encoder": "Image encoder",
    "prompts": "First prompt in training",
    "seed": "Nothing but the seed of a core",
    "pathway": "What the text pathway is trained on",
}


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
    photos_per_step: int = 8  # photos of a step
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
    photos_per_step: int = 8  # photos of a step
    masks: int = 3  # most masks of a photo
    rate: float = 1e-3  # peak learning rate


Settings = CoreSettings | PathwaySettings


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the table.

    Two variants with equal settings are one run: the reference of a group is trained once.
    """

    group: str  # key of `GROUPS`
    name: str  # what is special about it
    settings: Settings  # everything that its weights depend on, apart from the data
    is_reference: bool = False  # whether the others of its group are compared with it

    @property
    def kind(self) -> str:
        """The word for it: core or pathway."""
        return "core" if isinstance(self.settings, CoreSettings) else "pathway"

    def key(self, others: Mapping[str, Any]) -> str:
        """12 hexadecimal digits that change with the settings or with the data."""
        content = {"kind": self.kind, "settings": asdict(self.settings), "others": others}
        return blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=6).hexdigest()


def ablation_variants(
    *, core: CoreSettings | None = None, pathway: PathwaySettings | None = None
) -> Sequence[Variant]:
    """All variants, by group."""
    core, pathway = core or CoreSettings(), pathway or PathwaySettings()

    def changed(group: str, name: str, **changes: Any) -> Variant:
        reference = pathway if group == "pathway" else core
        settings = replace(reference, **changes)
        return Variant(
            group=group, name=name, settings=settings, is_reference=settings == reference
        )

    return (
        changed("data", "100%"),
        changed("data", "25%", data_share=0.25),
        changed("data", "5%", data_share=0.05),
        changed("data", "1%", data_share=0.01),
        changed("encoder", "lite0, late stages tuned"),
        changed("encoder", "lite0, frozen", tuned=False),
        changed("encoder", "lite2, late stages tuned", backbone="lite2"),
        changed("prompts", "half points, half boxes"),
        changed("prompts", "points only", box_probability=0.0),
        changed("prompts", "boxes only", box_probability=1.0),
        changed("seed", "seed 0"),
        changed("seed", "seed 1", seed=core.seed + 1),
        changed("pathway", "images only (the paper)"),
        changed("pathway", "images only, centred", centring=True),
        changed("pathway", "images only, noise 0.3", noise=0.3),
        changed("pathway", "half images, half names", label_share=0.5),
        changed("pathway", "names only", label_share=1.0),
        changed("pathway", "images only, seed 1", seed=pathway.seed + 1),
    )
