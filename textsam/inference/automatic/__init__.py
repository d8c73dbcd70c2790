"""Masks of everything in a photo, without a prompt."""
