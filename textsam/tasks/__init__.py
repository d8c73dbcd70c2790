"""Zero-shot tasks of the paper (Section 7), from the same prompts: `edges`."""
