"""Zero-shot tasks of the paper (arXiv 2304.02643, Section 7), each a function of a photo."""
