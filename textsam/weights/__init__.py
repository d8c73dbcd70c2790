"""Checkpoints: other projects' formats, and our own."""
