"""What is asked about photos besides points and boxes: names, phrases, pasted objects.

`concepts` embeddings to ask with · `pasting` objects of other photos put into a view · `names`
which names a view shows and lacks · `phrase_batch` all of it for one batch, made by the loader's
workers.
"""
