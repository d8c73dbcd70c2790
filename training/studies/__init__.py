"""Studies: experiments around training and search, each with its result beside it."""
