"""Where the rows of an index lie, and how the nearest are found: one protocol, several engines."""
