"""Big photos, one tile at a time."""
