"""What a collection's vectors are good for beside search: duplicates, label errors, clusters.

Every function takes arrays, (N, D) vectors of one space and what is known of their rows, and gives
row numbers back, so it works on the rows of an index, of a Parquet file or of `Embedder.masks`
alike. All are exact and go through the rows in blocks, so memory grows with N and not with its
square.
"""
