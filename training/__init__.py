"""Training and evaluation; it imports `textsam`, never the reverse."""
