"""Duplicates, label errors and clusters of a collection's masks, and pictures of them.

Every function takes arrays, vectors (N, D) of one space and what is known of the rows, and returns
row numbers; so it works on rows of an index, of a Parquet file or of `Embedder.masks` alike. All
are exact.
"""
