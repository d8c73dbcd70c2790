"""From a photo and prompts to a `Segmentation`."""
