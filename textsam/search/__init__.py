"""Masks that are found again: their embeddings, and an index over many photos."""
