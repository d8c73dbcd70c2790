r"""Ablations as in the paper (arXiv 2304.02643, Section 7.6 and Figure 13), sized for one CPU core.

    python -m training.studies.ablation --data ../shared/data/train --measure dev/grabcut.parquet \
        dev/coco_mval.parquet --ask dev/voc_val.parquet --out runs/ablation

`variants` what is compared · `core` `pathway` how a variant is trained · `measure` its scores ·
`run` all variants, one after the other · `report` `plot` one table and one picture of them, with
the intervals of `training.evaluation.bootstrap`.
"""

from __future__ import annotations

from .variants import CoreSettings, PathwaySettings, Variant, ablation_variants

__all__ = ["CoreSettings", "PathwaySettings", "Variant", "ablation_variants"]
