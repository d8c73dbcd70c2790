"""Measuring: `points` (clicks, boxes), `text` (phrases, presence), `names` (never trained on)."""
