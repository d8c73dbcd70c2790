"""Edges: sets with boundaries, baselines, matching and scores of the BSDS benchmark."""
