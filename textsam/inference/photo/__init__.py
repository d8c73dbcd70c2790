"""One encoded photo and what a model says about it."""
