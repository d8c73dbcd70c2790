"""Measuring: `python -m training.evaluation.points` and `python -m training.evaluation.text`."""
