"""Small cores and text pathways that differ in one setting; `python -m training.studies.ablation`.

`variants` what is compared · `core_variant` `pathway_variant` how they are trained · `benchmark`
their scores · `run_variants` one after the other · `report` one table and one picture.
"""
