"""Data sets of other tools: one module per family writes and reads them."""
