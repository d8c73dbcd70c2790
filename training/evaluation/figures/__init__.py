"""Means with intervals, AP and AR, presence, retrieval; charts and picture sheets."""
