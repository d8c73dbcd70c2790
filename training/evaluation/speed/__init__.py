"""How fast textsam is, beside its peers: `python -m training.evaluation.speed` (docs/speed.md)."""
