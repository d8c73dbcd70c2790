"""How fast a training step is; `python -m training.studies.throughput`."""
