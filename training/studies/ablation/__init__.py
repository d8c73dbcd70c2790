"""Small cores and text pathways that differ in one setting; `python -m training.studies.ablation`.

`variants` what is compared · `core` `pathway` how a variant is trained · `benchmark` its scores ·
`run` all variants, one after the other · `report` one table and one picture.
"""
