"""Where the rows of an index are stored and searched: one protocol, several engines."""
