"""Names that were never trained on; `python -m training.studies.unseen_names`."""
