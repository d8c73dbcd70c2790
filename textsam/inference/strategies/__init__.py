"""From a phrase, or an example, to masks."""
