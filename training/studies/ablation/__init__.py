"""Small cores and text pathways that differ in one setting; `python -m training.studies.ablation`.

`variants` what is compared · `variant_training` how it is trained · `outcomes` scores, one variant
after the other · `outcome_report` one table and one picture.
"""
