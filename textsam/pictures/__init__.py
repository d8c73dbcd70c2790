"""Pictures of masks: overlays, label tags, contact sheets."""
