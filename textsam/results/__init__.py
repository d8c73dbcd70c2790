"""`Segmentation` and what it is saved as, converted to and explained by."""
