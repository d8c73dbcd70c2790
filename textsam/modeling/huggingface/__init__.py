"""Adapters around networks of `transformers`, which is imported when one of them is loaded."""
