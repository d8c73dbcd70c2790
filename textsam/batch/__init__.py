"""Folders and lists of photos, resumable."""
