"""What a training costs: FLOPs, memory, GPU-hours and dollars; `python -m training.costs`."""
