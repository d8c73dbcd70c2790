"""Public segmentation sets in the folders in which they are distributed; `listed` is shared."""
