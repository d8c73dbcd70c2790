"""CLIP: embeddings of phrases and of masked crops, and their way into the decoder."""
