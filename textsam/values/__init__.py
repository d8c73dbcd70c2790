"""Values: pixels, frames, masks as RLE, prompts, settings. No network."""
