"""What training costs: FLOPs, memory, GPU-hours, dollars; `python -m training.studies.costs`."""
