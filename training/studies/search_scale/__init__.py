"""An index of a million masks; `python -m training.studies.search_scale`."""
